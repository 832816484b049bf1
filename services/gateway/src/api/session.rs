//! One caller's view of the core: each call of the API is a method of it.

use std::ops::Deref;
use std::sync::Arc;

use prost::Message;
use sha2::{Digest, Sha256};
use sightline_catalog::{CatalogError, Versioned};
use sightline_proto::ids::{self, Kind};
use sightline_proto::internal::RequestRecord;
use sightline_proto::reasons::{ApiError, Reason};
use sightline_service::failpoint;
use uuid::Uuid;

use super::paging::Pages;
use super::tenancy::Owned;
use super::violations::{refused, shown};
use super::{Core, catalog_failed, conflict, noun, well_formed};
use crate::auth::{Caller, DEFAULT_TENANT};

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

    /// The object of the caller's tenant with this id, named by `field` of the request. Another tenant's is not told from one
    /// that does not exist.
    pub(super) async fn find<T: Owned>(
        &self,
        field: &'static str,
        id: &str,
    ) -> Result<Versioned<T>, ApiError> {
        if id.is_empty() {
            let allowed = "required, got nothing";
            return Err(refused(Reason::InvalidArgument, field, allowed));
        }
        let tenant = self.caller.tenant.as_ref();
        if let Some(found) = self.catalog.get::<T>(id)
            && found.value.is_of(tenant)
        {
            return Ok(found);
        }
        // Another gateway may have made it a moment ago: the view trails the server.
        if well_formed(T::ID, id)
            && let Some(found) = self.catalog.fetch::<T>(id).await.map_err(catalog_failed)?
            && found.value.is_of(tenant)
        {
            return Ok(found);
        }
        let message = format!("there is no {} {}", noun(T::ID), shown(id));
        let allowed = format!("the id of an existing {}", noun(T::ID));
        Err(ApiError::new(Reason::NotFound, message).field(field, allowed))
    }

    /// Every object of a kind that is the caller's tenant's, in order of their ids.
    pub(super) fn all<T: Owned>(&self) -> impl DoubleEndedIterator<Item = Arc<T>> {
        let tenant = Arc::clone(&self.caller.tenant);
        let all = self.catalog.list::<T>().into_iter();
        all.map(|(_, record)| record.value)
            .filter(move |record| record.is_of(&tenant))
    }

    /// A list of the caller's with its parameters: the request with its page size and page token cleared.
    pub(super) fn pages(&self, method: &str, parameters: &impl Message) -> Pages {
        Pages::of(&self.caller.tenant, method, parameters)
    }

    /// Creates an object, once for each request id. `request` is what makes two calls the same, without credentials.
    ///
    /// The request record is written first, with the id that the object will have: whoever dies between the two writes
    /// is finished by the retry.
    pub(super) async fn create_once<T: Owned>(
        &self,
        request_id: Option<Uuid>,
        request: &impl Message,
        build: impl FnOnce(&str) -> T,
    ) -> Result<Arc<T>, ApiError> {
        let id = match request_id {
            None => ids::new_id(T::ID),
            Some(request_id) => {
                let id = self.claim(T::ID, request_id, request).await?;
                failpoint::hit("gateway.after_request_record");
                if let Some(made) = self.made(&id).await? {
                    return Ok(made);
                }
                id
            }
        };
        let record = build(&id);
        match self.catalog.create(&id, &record).await {
            Ok(_) => Ok(Arc::new(record)),
            // The same request id, at the same moment, on another connection.
            Err(CatalogError::Exists { .. }) => self.made(&id).await?.ok_or_else(conflict),
            Err(error) => Err(catalog_failed(error)),
        }
    }

    /// What an earlier call with the same request id made. A late retry brings back nothing that was deleted since.
    async fn made<T: Owned>(&self, id: &str) -> Result<Option<Arc<T>>, ApiError> {
        if let Some(made) = self.catalog.fetch::<T>(id).await.map_err(catalog_failed)? {
            return Ok(Some(made.value));
        }
        let deleted = self.catalog.is_deleted::<T>(id).await;
        if deleted.map_err(catalog_failed)? {
            let allowed = "a new UUID for every new request; what this one made was deleted";
            return Err(refused(Reason::AlreadyExists, "request_id", allowed));
        }
        Ok(None)
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
        let key = self.request_key(request_id);
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

    /// Every tenant has request ids of its own. Records of the default one are called as before there were tenants.
    fn request_key(&self, request_id: Uuid) -> String {
        let request_id = request_id.hyphenated();
        match self.caller.tenant.as_ref() {
            DEFAULT_TENANT => request_id.to_string(),
            tenant => format!("{tenant}_{request_id}"),
        }
    }
}
