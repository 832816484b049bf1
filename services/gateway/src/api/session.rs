//! One caller's view of the core: each call of the API is a method of it.

use std::ops::Deref;
use std::sync::Arc;

use prost::Message;
use sha2::{Digest, Sha256};
use sightline_catalog::{CatalogError, Entry, Versioned};
use sightline_proto::ids::{self, Kind};
use sightline_proto::internal::RequestRecord;
use sightline_proto::reasons::{ApiError, Reason};
use sightline_service::failpoint;
use uuid::Uuid;

use super::violations::{refused, shown};
use super::{Core, catalog_failed, conflict, noun, well_formed};
use crate::auth::Caller;

/// One caller's view of the core. The gate puts it into each request's extensions.
#[derive(Clone)]
pub(crate) struct Session {
    core: Arc<Core>,
    pub(crate) caller: Caller,
}

impl Deref for Session {
    type Target = Core;

    fn deref(&self) -> &Core {
        &self.core
    }
}

impl Session {
    pub(crate) fn new(core: Arc<Core>, caller: Caller) -> Self {
        Self { core, caller }
    }

    /// The session that the gate gave a request.
    pub(crate) fn of(extensions: &http::Extensions) -> Result<Self, ApiError> {
        extensions.get::<Self>().cloned().ok_or_else(|| {
            tracing::error!("a call went round the gate");
            ApiError::new(Reason::Internal, "the call has no caller")
        })
    }

    /// The object with this id, named by `field` of the request.
    pub(super) async fn find<T: Entry>(
        &self,
        kind: Kind,
        field: &'static str,
        id: &str,
    ) -> Result<Versioned<T>, ApiError> {
        if id.is_empty() {
            return Err(refused(
                Reason::InvalidArgument,
                field,
                "required, got nothing",
            ));
        }
        if let Some(found) = self.catalog.get::<T>(id) {
            return Ok(found);
        }
        // Another gateway may have made it a moment ago: the view trails the server.
        if well_formed(kind, id)
            && let Some(found) = self.catalog.fetch::<T>(id).await.map_err(catalog_failed)?
        {
            return Ok(found);
        }
        let message = format!("there is no {} {}", noun(kind), shown(id));
        let allowed = format!("the id of an existing {}", noun(kind));
        Err(ApiError::new(Reason::NotFound, message).field(field, allowed))
    }

    /// Creates an object, once for each request id. `request` is what makes two calls the same, without credentials.
    ///
    /// The request record is written first, with the id that the object will have: whoever dies between the two writes
    /// is finished by the retry.
    pub(super) async fn create_once<T: Entry>(
        &self,
        kind: Kind,
        request_id: Option<Uuid>,
        request: &impl Message,
        build: impl FnOnce(&str) -> T,
    ) -> Result<Arc<T>, ApiError> {
        let id = match request_id {
            None => ids::new_id(kind),
            Some(request_id) => {
                let id = self.claim(kind, request_id, request).await?;
                failpoint::hit("gateway.after_request_record");
                let made = self.catalog.fetch::<T>(&id).await.map_err(catalog_failed)?;
                if let Some(made) = made {
                    return Ok(made.value);
                }
                id
            }
        };
        let record = build(&id);
        match self.catalog.create(&id, &record).await {
            Ok(_) => Ok(Arc::new(record)),
            // The same request id, at the same moment, on another connection.
            Err(CatalogError::Exists { .. }) => {
                let made = self.catalog.fetch::<T>(&id).await.map_err(catalog_failed)?;
                made.map(|made| made.value).ok_or_else(conflict)
            }
            Err(error) => Err(catalog_failed(error)),
        }
    }

    /// The id that belongs to this request id.
    async fn claim(
        &self,
        kind: Kind,
        request_id: Uuid,
        request: &impl Message,
    ) -> Result<String, ApiError> {
        let mut hash = Sha256::new();
        hash.update(kind.prefix());
        hash.update(request.encode_to_vec());
        let request_sha256: Vec<u8> = hash.finalize().to_vec();
        let record = RequestRecord {
            created_id: ids::new_id(kind),
            request_sha256: request_sha256.clone().into(),
        };
        let key = request_id.hyphenated().to_string();
        match self.catalog.create(&key, &record).await {
            Ok(_) => return Ok(record.created_id),
            Err(CatalogError::Exists { .. }) => {}
            Err(error) => return Err(catalog_failed(error)),
        }
        let first = self
            .catalog
            .fetch::<RequestRecord>(&key)
            .await
            .map_err(catalog_failed)?
            .ok_or_else(conflict)?;
        if first.value.request_sha256 == request_sha256 {
            return Ok(first.value.created_id.clone());
        }
        let allowed = "a new UUID for every new request; this one was used for another request";
        Err(refused(Reason::AlreadyExists, "request_id", allowed))
    }
}
