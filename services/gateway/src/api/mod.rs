//! What the API does, whatever the skin: each function takes a request's message and returns a result or an `ApiError`.
//!
//! The gRPC skin and any later one only translate. The core validates, reads and writes the catalog, asks the embeddings
//! service, and follows the bus; it holds no media pipeline, no model and no vector store.

mod callback;
mod changes;
mod collections;
mod convert;
mod events;
mod exports;
mod firings;
mod indexes;
mod linking;
mod paging;
mod recordings;
mod records;
mod runs;
mod streams;
mod violations;
pub(crate) mod watch;

use std::sync::Arc;

use prost::Message;
use sha2::{Digest, Sha256};
use sightline_bus::{Bus, BusError};
use sightline_catalog::seal::SealKey;
use sightline_catalog::{Catalog, CatalogError, Entry, Versioned};
use sightline_proto::ids::{self, Kind};
use sightline_proto::internal::RequestRecord;
use sightline_proto::reasons::{ApiError, Reason};
use sightline_recordings::{Library, StoreError};
use sightline_service::clock::Clock;
use sightline_service::{Shutdown, chain, failpoint};
use uuid::Uuid;

pub(crate) use self::linking::Linker;
pub(crate) use self::recordings::MAX_CLIP_US;
pub(crate) use self::records::Records;
use self::violations::{refused, shown};
use self::watch::Hub;
use crate::Config;
use crate::metrics::GatewayMetrics;

/// Everything that a call may need.
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) bus: Bus,
    pub(crate) catalog: Catalog,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: GatewayMetrics,
    pub(crate) seal: SealKey,
    pub(crate) library: Library,
    pub(crate) linker: Linker,
    pub(crate) records: Records,
    pub(crate) hub: Arc<Hub>,
    pub(crate) shutdown: Shutdown,
}

impl Core {
    /// The object with this id, named by `field` of the request.
    async fn find<T: Entry>(
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
    async fn create_once<T: Entry>(
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

fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::RtStream => "stream",
        Kind::Index => "index",
        Kind::Event => "event",
        Kind::Alert => "alert",
        Kind::Collection => "collection",
        Kind::Export => "export",
    }
}

/// Whether this platform could have given out the id: only such ids become keys.
pub(crate) fn well_formed(kind: Kind, id: &str) -> bool {
    id.strip_prefix(kind.prefix())
        .is_some_and(|uuid| uuid.len() == 36 && Uuid::try_parse(uuid).is_ok())
}

fn conflict() -> ApiError {
    let message = "somebody else changed this at the same time; try again";
    ApiError::new(Reason::Conflict, message)
}

/// Logs the cause and tells the caller what it means for him.
fn catalog_failed(error: CatalogError) -> ApiError {
    match error {
        CatalogError::Conflict { .. } => conflict(),
        error => {
            tracing::warn!(error = chain(&error), "the catalog failed a call");
            let message = "the catalog does not answer; try again shortly";
            ApiError::new(Reason::Unavailable, message)
        }
    }
}

/// Logs the cause and tells the caller what it means for him.
fn bus_failed(error: BusError) -> ApiError {
    tracing::warn!(error = chain(&error), "the bus failed a call");
    ApiError::new(
        Reason::Unavailable,
        "the bus does not answer; try again shortly",
    )
}

/// Logs the cause and tells the caller what it means for him.
fn store_failed(error: StoreError) -> ApiError {
    tracing::warn!(error = chain(&error), "the object store failed a call");
    let message = "the object store, which holds recordings, does not answer; try again shortly";
    ApiError::new(Reason::Unavailable, message)
}
