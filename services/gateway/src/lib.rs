//! The gateway: the public API on one port, in gRPC, gRPC-web and VideoDB's REST.
//!
//! Architecture invariant: no media pipeline, no model and no vector store here. The gateway validates, reads and writes
//! the catalog, relays what happens, and asks the embeddings service for what is stored.

mod admission;
mod api;
mod auth;
mod console;
mod gate;
mod grpc;
mod metrics;
mod opening;
mod playback;
mod rest;
mod router;
mod server;
mod tls;
mod websocket;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sightline_bus::{Bus, BusError};
use sightline_catalog::Catalog;
use sightline_catalog::seal::SealKey;
use sightline_egress::Policy;
use sightline_recordings::links::Links;
use sightline_recordings::{Library, Retention};
use sightline_service::Shutdown;
use sightline_service::admin::Readiness;
use sightline_service::clock::Clock;
use sightline_service::metrics::Metrics;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tonic::transport::Channel;

pub use auth::{ACCESS_TOKEN, ApiKeys};
pub use tls::{Tls, TlsError};

use crate::admission::Admission;
use crate::api::watch::Hub;
use crate::api::{Core, Linker, Records, backtest};
use crate::metrics::GatewayMetrics;
use crate::playback::Playback;
use crate::websocket::Sockets;

/// What the gateway is told.
#[derive(Clone)]
pub struct Config {
    /// The keys that may call.
    pub api_keys: ApiKeys,
    /// What encrypts connections; without it they are plain.
    pub tls: Option<Tls>,
    /// Whether keys are taken over plain connections from other machines, which only a proxy that ends TLS makes safe.
    pub allow_plain_keys: bool,
    /// The model of indexes that name none; one of `models`.
    pub default_model: String,
    /// The models that caption workers serve.
    pub models: Vec<DescribingModel>,
    /// The engine that transcribes.
    pub engine: String,
    /// Whether it knows other languages than English, and translates them.
    pub multilingual: bool,
    /// The threshold of alerts that set none, above 0 and at most 1.
    pub default_threshold: f32,
    /// The one directory that file sources may come from; without it file sources are refused.
    pub media_root: Option<PathBuf>,
    /// Where webhooks may go.
    pub egress: Policy,
    /// The further receivers that alerts may name.
    pub sinks: Vec<String>,
    /// What one client may take.
    pub limits: Limits,
    /// Makes and checks the links that play recordings.
    pub links: Links,
    /// What is kept of streams that set nothing else: shown with them.
    pub retention: Retention,
}

/// A model that caption workers serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribingModel {
    /// Its name, as indexes give it.
    pub name: String,
    /// Whether it answers about a text alone: then audio indexes have their prompt applied, and their events judged by it.
    pub reads_text: bool,
}

/// Bounds on what clients take.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Open connections; further clients wait.
    pub connections: usize,
    /// Calls in flight on one connection; further calls wait at the client.
    pub streams_per_connection: u32,
    /// Open WebSockets; further clients are told to come later.
    pub websockets: usize,
    /// Size of one request.
    pub message_bytes: usize,
    /// Time of one call up to the head of its response; a shorter deadline of the caller wins.
    pub deadline: Duration,
    /// Time that calls in flight get to finish at shutdown.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 4096,
            streams_per_connection: 1024,
            websockets: 2048,
            message_bytes: 1 << 20,
            deadline: Duration::from_secs(30),
            drain: Duration::from_secs(10),
        }
    }
}

/// The parts that readiness waits for, beside the bus.
pub const PARTS: [&str; 1] = [api::watch::PART];

/// What the gateway works with.
pub struct Deps {
    /// The bus.
    pub bus: Bus,
    /// The catalog.
    pub catalog: Catalog,
    /// Tells when things are created.
    pub clock: Arc<dyn Clock>,
    /// Where metrics are registered.
    pub metrics: Metrics,
    /// Ready when the gateway follows the bus.
    pub readiness: Readiness,
    /// Seals sources' credentials.
    pub seal: SealKey,
    /// What is recorded.
    pub library: Library,
    /// To the embeddings service's RecordsService; connected when it is first needed, so that it may start later.
    pub records: Channel,
}

/// Registers all metrics of the role.
pub fn register_metrics(metrics: &Metrics) {
    let _ = GatewayMetrics::register(metrics);
    playback::register_metrics(metrics);
}

/// Why the gateway could not start.
#[derive(Debug, Error)]
pub enum GatewayError {
    /// The bus does not answer.
    #[error("the gateway cannot read observations from the bus")]
    Bus(#[source] BusError),
}

/// Serves the public API on `listener` until `shutdown`: then watches end with UNAVAILABLE, calls in flight finish, and
/// what has not finished within `Limits::drain` is cut.
///
/// # Errors
/// When the bus does not answer at the start.
pub async fn serve(
    config: Config,
    deps: Deps,
    listener: TcpListener,
    shutdown: Shutdown,
) -> Result<(), GatewayError> {
    let metrics = GatewayMetrics::register(&deps.metrics);
    let linker = Linker::new(&config.links, &deps.catalog, &deps.clock);
    let catalog = deps.catalog.clone();
    let hub = Hub::new(&deps.bus, catalog, linker.clone(), metrics.clone())
        .await
        .map_err(GatewayError::Bus)?;
    let hub = Arc::new(hub);
    let limits = config.limits.clone();
    let tls = config.tls.clone();
    let acceptor = tls.as_ref().map(Tls::acceptor);
    let bus = deps.bus.clone();
    let admission = Admission::new(
        config.api_keys.clone(),
        config.allow_plain_keys,
        deps.catalog.clone(),
    );
    let open = websocket::Registry::new(deps.catalog.clone(), limits.websockets);
    let core = Arc::new(Core {
        config,
        bus: deps.bus,
        catalog: deps.catalog,
        clock: deps.clock,
        metrics,
        seal: deps.seal,
        library: deps.library,
        linker,
        records: Records::new(deps.records),
        hub: Arc::clone(&hub),
        admission,
        sockets: open,
        backtests: Arc::new(Semaphore::new(backtest::AT_ONCE)),
        shutdown: shutdown.clone(),
    });
    let (routes, health) = grpc::routes(limits.message_bytes);
    let playback = Playback::new(Arc::clone(&core), &deps.metrics).routes();
    let sockets = Sockets::new(Arc::clone(&core));
    let keyless = playback.merge(sockets.routes()).merge(rest::public());
    let router = router::router(&core, routes, keyless, deps.readiness.clone());
    health.set(true).await;
    let stopping = async {
        shutdown.cancelled().await;
        health.set(false).await;
    };
    tokio::join!(
        hub.follow(&bus, &deps.readiness, &shutdown),
        hub.follow_interim(&bus, &shutdown),
        core.keep_asking_for_runs(&shutdown),
        core.keep_deleting(&shutdown),
        core.admission.follow(&shutdown),
        sockets.run(&shutdown),
        server::serve(listener, acceptor, router, &limits, shutdown.clone()),
        async {
            if let Some(tls) = &tls {
                tls.follow(&shutdown).await;
            }
        },
        stopping,
    );
    Ok(())
}
