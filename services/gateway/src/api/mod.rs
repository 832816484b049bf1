//! What the API does, whatever the skin: each function takes a request's message and returns a result or an `ApiError`.
//!
//! The gRPC skin and any later one only translate. The core validates, reads and writes the catalog, asks the embeddings
//! service, and follows the bus; it holds no media pipeline, no model and no vector store.

mod alert_checks;
mod alerts;
pub(crate) mod backtest;
mod callback;
mod changes;
mod collections;
mod convert;
mod deletion;
mod endpoints;
mod events;
mod exports;
mod firings;
mod indexes;
mod keys;
mod languages;
mod latency;
mod linking;
mod paging;
mod ranking;
mod recordings;
mod records;
mod runs;
mod sampling;
mod scenes;
mod search;
mod session;
mod state;
mod streams;
mod system;
mod tenancy;
mod transcription;
mod understandings;
mod violations;
pub(crate) mod watch;

use std::sync::Arc;

use sightline_bus::{Bus, BusError};
use sightline_catalog::seal::SealKey;
use sightline_catalog::{Catalog, CatalogError};
use sightline_proto::ids::Kind;
use sightline_proto::reasons::{ApiError, Reason};
use sightline_recordings::{Library, StoreError};
use sightline_service::clock::Clock;
use sightline_service::{Shutdown, chain};
use tokio::sync::Semaphore;
use uuid::Uuid;

pub(crate) use self::linking::Linker;
pub(crate) use self::recordings::MAX_CLIP_US;
pub(crate) use self::records::Records;
pub(crate) use self::session::Session;
pub(crate) use self::violations::shown;
use self::watch::Hub;
use crate::Config;
use crate::admission::Admission;
use crate::metrics::GatewayMetrics;
use crate::websocket::Registry;

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
    pub(crate) admission: Admission,
    pub(crate) sockets: Registry,
    /// Room for backtests.
    pub(crate) backtests: Arc<Semaphore>,
    pub(crate) shutdown: Shutdown,
}

fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::RtStream => "stream",
        Kind::Index => "index",
        Kind::Event => "event",
        Kind::Alert => "alert",
        Kind::Collection => "collection",
        Kind::Export => "export",
        Kind::Key => "key",
        Kind::Endpoint => "endpoint",
        Kind::Connection => "connection",
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
        // It was changed, or deleted, since it was looked up.
        CatalogError::Conflict { .. } | CatalogError::Missing { .. } => conflict(),
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
