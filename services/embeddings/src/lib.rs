//! The embeddings service: scenes and transcripts in, lists and search by meaning out. It also judges batches of a transcript
//! for alerts, by similarity (`similarity`), where their index's model reads no text.
//!
//! It reads observations from the bus, turns their texts into vectors and stores both (`intake`), and answers what the
//! gateway asks about what is stored (`records`). It alone writes the store and reads it.
//!
//! A store holds vectors of one model. Where another one is wanted, or somebody wishes it, a new store is filled beside the one
//! in use, which goes on answering until they change places (`keeping`, `filling`).
//!
//! Architecture invariant: the store can be deleted at any time. The names of the bus's consumers end with the store's
//! identity, so a new store has consumers of its own, which begin with the oldest observation that the bus has kept.

mod deciding;
mod deleting;
mod filling;
mod handover;
mod intake;
mod keeping;
mod known;
mod metrics;
mod model;
mod point;
mod queries;
mod records;
mod serving;
mod side;
mod similarity;
mod storing;

use std::sync::Arc;
use std::time::Duration;

use sightline_bus::{Bus, BusError, ObservationKind};
use sightline_catalog::Catalog;
use sightline_inference::Embedder;
use sightline_service::Shutdown;
use sightline_service::admin::Readiness;
use sightline_service::clock::Clock;
use sightline_service::metrics::Metrics;
use sightline_vectors::{EmbeddingModel, Stores, VectorError};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::interval;

use deciding::Pulses;
use deleting::Deleting;
use keeping::{Keeper, Keeping};
use metrics::EmbeddingsMetrics;
use serving::{Serving, Shared};

pub use metrics::register_metrics;

/// The parts that readiness waits for, beside the bus.
pub const PARTS: [&str; 2] = [MODEL, STORE];
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
    /// Turns texts into vectors: the model that is wanted.
    pub embedder: Arc<dyn Embedder>,
    /// Where it comes from. A store remembers it, for the loader of a time when another model is wanted.
    pub source: String,
    /// Loads the model of a store whose vectors another one made.
    pub loader: Loader,
    /// Where vectors are kept.
    pub stores: Arc<dyn Stores>,
}

/// Loads a model again, from where its store says that it came; none if it is gone. It may block.
pub type Loader = Arc<dyn Fn(&EmbeddingModel) -> Option<Arc<dyn Embedder>> + Send + Sync>;

/// Why the service can't go on.
#[derive(Debug, Error)]
pub enum Error {
    /// Its consumers can't be made.
    #[error("observations cannot be taken from the bus")]
    Bus(#[from] BusError),
    /// No store can be opened.
    #[error("the vector store cannot be used")]
    Store(#[from] VectorError),
    /// The listener failed.
    #[error("calls cannot be answered")]
    Listener(#[from] tonic::transport::Error),
}

/// What every part of the service has.
#[derive(Clone)]
struct Parts {
    bus: Bus,
    catalog: Catalog,
    clock: Arc<dyn Clock>,
    metrics: Arc<EmbeddingsMetrics>,
    readiness: Readiness,
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
    let serving = Arc::new(Serving::default());
    let stop = shutdown.child_token();
    let keeping = keeping(config, deps, Arc::clone(&serving), stop.clone());
    let parts = keeping.parts.clone();
    let (stores, wanted) = (Arc::clone(&keeping.stores), keeping.wanted.clone());
    let deleting = Deleting {
        catalog: parts.catalog.clone(),
        stores: Arc::downgrade(&stores),
        wanted: wanted.clone(),
    };
    let (keeper, state) = Keeper::open(keeping).await?;
    parts.readiness.set(STORE, true);
    let mut tasks = JoinSet::new();
    tasks.spawn(keeper.run(state));
    let beating = deciding::beat(stores, wanted, stop.clone());
    tasks.spawn(async move {
        beating.await;
        Ok(())
    });
    let answering = records::serve(parts.clone(), deleting, serving, listener, stop.clone());
    tasks.spawn(async move { Ok(answering.await?) });
    tasks.spawn(watch_the_bus(parts, stop.clone()));
    let mut result = Ok(());
    while let Some(ended) = tasks.join_next().await {
        let ended =
            ended.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()));
        if let Err(error) = ended {
            stop.cancel();
            result = result.and(Err(error));
        }
    }
    result
}

fn keeping(config: Config, deps: Deps, serving: Arc<Serving>, stop: Shutdown) -> Keeping {
    let parts = Parts {
        metrics: Arc::new(EmbeddingsMetrics::register(&deps.metrics)),
        bus: deps.bus,
        catalog: deps.catalog,
        clock: deps.clock,
        readiness: deps.readiness,
    };
    Keeping {
        config,
        parts,
        wanted: EmbeddingModel {
            revision: deps.embedder.revision().to_owned(),
            dimension: deps.embedder.dimension(),
            source: deps.source,
        },
        embedder: deps.embedder,
        stores: deps.stores,
        loader: deps.loader,
        serving,
        changing: Arc::default(),
        pulses: Pulses::default(),
        stop,
    }
}

/// Says whether the bus is there.
async fn watch_the_bus(parts: Parts, shutdown: Shutdown) -> Result<(), Error> {
    let mut look = interval(LOOK);
    loop {
        tokio::select! {
            _ = look.tick() => parts.readiness.set(BUS, parts.bus.is_connected()),
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}
