//! The embeddings service: scenes and transcripts in, lists and search by meaning out. It also judges batches of a transcript
//! for alerts, by similarity (`similarity`), where their index's model reads no text.
//!
//! It reads observations from the bus, turns their texts into vectors and stores both (`intake`), and answers what the
//! gateway asks about what is stored (`records`). It alone writes the store and reads it.
//!
//! Architecture invariant: the store can be deleted at any time. The names of the bus's consumers end with the store's
//! identity, so a new store has consumers of its own, which begin with the oldest observation that the bus has kept.

mod intake;
mod known;
mod metrics;
mod model;
mod point;
mod queries;
mod records;
mod similarity;

use std::sync::Arc;
use std::time::Duration;

use sightline_bus::{Bus, BusError, ObservationKind, StreamName};
use sightline_catalog::Catalog;
use sightline_inference::Embedder;
use sightline_service::Shutdown;
use sightline_service::admin::Readiness;
use sightline_service::clock::Clock;
use sightline_service::metrics::Metrics;
use sightline_vectors::VectorStore;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::RwLock;
use tokio::task::JoinSet;
use tokio::time::interval;

use metrics::EmbeddingsMetrics;
use model::Model;
use queries::Queries;

/// The parts that readiness waits for.
const BUS: &str = "bus";
const MODEL: &str = "model";
const STORE: &str = "store";

/// What is stored.
const KINDS: [ObservationKind; 3] = [
    ObservationKind::Scene,
    ObservationKind::Transcript,
    ObservationKind::AudioScene,
];
/// How often to look whether the bus is there.
const LOOK: Duration = Duration::from_secs(1);
/// How often to look for consumers of stores that are gone.
const TIDY: Duration = Duration::from_secs(60);

/// How the service behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// How many observations are embedded and stored together at most. More are cheaper each; fewer are there sooner.
    pub batch: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { batch: 64 }
    }
}

/// What the service needs.
pub struct Deps {
    /// The bus.
    pub bus: Bus,
    /// The catalog: what is deleted there is not stored.
    pub catalog: Catalog,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Where its metrics go.
    pub metrics: Metrics,
    /// Ready while bus, model and store are there.
    pub readiness: Readiness,
    /// Turns texts into vectors.
    pub embedder: Arc<dyn Embedder>,
    /// Keeps them; it must have been opened for this embedder's vectors.
    pub store: Arc<dyn VectorStore>,
}

/// Why the service can't go on.
#[derive(Debug, Error)]
pub enum Error {
    /// Its consumers can't be made.
    #[error("observations cannot be taken from the bus")]
    Bus(#[from] BusError),
    /// The listener failed.
    #[error("calls cannot be answered")]
    Listener(#[from] tonic::transport::Error),
}

/// What the parts of the service share.
struct Shared {
    config: Config,
    bus: Bus,
    catalog: Catalog,
    clock: Arc<dyn Clock>,
    metrics: EmbeddingsMetrics,
    readiness: Readiness,
    model: Model,
    queries: Queries,
    store: Arc<dyn VectorStore>,
    /// Held for reading from looking whether something exists until it is stored, for writing while it is deleted.
    storing: RwLock<()>,
}

/// Stores observations and answers calls on `listener` until shutdown; what is under way is finished.
///
/// # Errors
/// When a consumer can't be made or the listener fails; everything else has been stopped then.
pub async fn serve(
    config: Config,
    deps: Deps,
    listener: TcpListener,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let shared = Arc::new(Shared {
        config,
        metrics: EmbeddingsMetrics::register(&deps.metrics),
        bus: deps.bus,
        catalog: deps.catalog,
        clock: deps.clock,
        readiness: deps.readiness,
        model: Model::new(deps.embedder),
        queries: Queries::default(),
        store: deps.store,
        storing: RwLock::new(()),
    });
    shared.readiness.set(MODEL, true);
    shared.readiness.set(STORE, true);
    let stop = shutdown.child_token();
    let mut parts = JoinSet::new();
    for kind in KINDS {
        let intake = intake::run(Arc::clone(&shared), kind, stop.clone());
        parts.spawn(async move { Ok(intake.await?) });
    }
    let answering = records::serve(Arc::clone(&shared), listener, stop.clone());
    parts.spawn(async move { Ok(answering.await?) });
    parts.spawn(shared.watch_the_bus(stop.clone()));
    let mut result = Ok(());
    while let Some(ended) = parts.join_next().await {
        let ended =
            ended.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()));
        if let Err(error) = ended {
            stop.cancel();
            result = result.and(Err(error));
        }
    }
    result
}

impl Shared {
    /// Says whether the bus is there, and removes the consumers of stores that are gone.
    async fn watch_the_bus(self: Arc<Self>, shutdown: Shutdown) -> Result<(), Error> {
        let (mut look, mut tidy) = (interval(LOOK), interval(TIDY));
        loop {
            tokio::select! {
                _ = look.tick() => self.readiness.set(BUS, self.bus.is_connected()),
                _ = tidy.tick() => self.forget_other_stores().await,
                () = shutdown.cancelled() => return Ok(()),
            }
        }
    }

    async fn forget_other_stores(&self) {
        let own = KINDS.map(|kind| intake::durable(kind, self.store.identity()));
        let removing =
            self.bus
                .remove_idle_consumers(StreamName::Observations, intake::DURABLE_PREFIX, &own);
        match removing.await {
            Ok(removed) if removed.is_empty() => {}
            Ok(removed) => {
                tracing::info!(?removed, "consumers of stores that are gone are removed");
            }
            Err(error) => tracing::debug!(%error, "consumers are looked through later"),
        }
    }
}
