//! The transcribe worker: utterances in, transcript segments with word times out; and batches of them for audio indexes
//! (`batching`).
//!
//! Ingest cuts speech at pauses; each utterance is transcribed by itself, whatever came before it, so it does not matter
//! which worker takes it and in which order.

mod batching;
mod handler;
mod interim;
mod metrics;
mod observations;

use std::sync::Arc;
use std::time::Duration;

use sightline_bus::{Bus, BusError, StreamName, Work};
use sightline_catalog::Catalog;
use sightline_inference::Transcriber;
use sightline_service::Shutdown;
use sightline_service::admin::Readiness;
use sightline_service::clock::Clock;
use sightline_service::metrics::Metrics;
use thiserror::Error;

use batching::Batcher;
use handler::{Finals, Handler};
use metrics::TranscribeMetrics;

pub use metrics::register_metrics;

/// The parts that readiness waits for, beside the bus.
pub const PARTS: [&str; 1] = [PART];
/// The worker's name among them.
const PART: &str = "transcribe";
/// After how long without a heartbeat an utterance goes to another worker.
const ACK_WAIT: Duration = Duration::from_secs(5);
/// How long an utterance is held in hand before it goes back to the bus.
const DEADLINE: Duration = Duration::from_secs(600);
/// So often, held for so long, an utterance is taken until it expires on the bus. One that kills whoever hears it is given up sooner.
const MAX_DELIVER: i64 = 40;

/// How the worker behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// The engine's name: letters, digits, hyphens and underscores.
    pub engine: String,
    /// How many utterances are transcribed side by side.
    pub concurrency: usize,
}

/// What the worker needs.
pub struct Deps {
    /// The bus.
    pub bus: Bus,
    /// The catalog.
    pub catalog: Catalog,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Where its metrics go.
    pub metrics: Metrics,
    /// Where it says that it takes work.
    pub readiness: Readiness,
    /// The model.
    pub transcriber: Arc<dyn Transcriber>,
}

/// Why the worker can't go on.
#[derive(Debug, Error)]
pub enum Error {
    /// The engine's name can't be part of a subject.
    #[error(
        "{0:?} cannot be the name of an engine: use letters, digits, hyphens and underscores alone"
    )]
    Name(String),
    /// A consumer can't be made.
    #[error("utterances and transcripts cannot be taken from the bus")]
    Bus(#[from] BusError),
}

/// Takes utterances until shutdown; those under way are finished.
///
/// # Errors
/// When the engine's name is none, or a consumer can't be made; everything else has been stopped then.
pub async fn serve(config: Config, deps: Deps, shutdown: Shutdown) -> Result<(), Error> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    if config.engine.is_empty() || !config.engine.bytes().all(plain) {
        return Err(Error::Name(config.engine));
    }
    let work = Work {
        stream: StreamName::Audio,
        durable: format!("transcribe-{}", config.engine),
        filter: format!("audio.{}.*", config.engine),
        concurrency: config.concurrency.max(1),
        ack_wait: ACK_WAIT,
        deadline: DEADLINE,
        max_deliver: MAX_DELIVER,
    };
    let (bus, readiness) = (deps.bus.clone(), deps.readiness.clone());
    let metrics = TranscribeMetrics::register(&deps.metrics);
    let batcher = Batcher {
        bus: bus.clone(),
        catalog: deps.catalog.clone(),
        clock: Arc::clone(&deps.clock),
        scenes: metrics.scenes.clone(),
    };
    let stop = shutdown.child_token();
    let handler = Arc::new(Handler::new(config, deps, metrics, stop.clone()));
    readiness.set(PART, true);
    let finals = Finals(Arc::clone(&handler));
    let (worked, told, batched) = tokio::join!(
        ending(&stop, sightline_bus::work(&bus, work, finals, stop.clone())),
        ending(&stop, interim::run(bus.clone(), handler, stop.clone())),
        ending(&stop, batching::run(batcher, stop.clone())),
    );
    readiness.set(PART, false);
    Ok(worked.and(told).and(batched)?)
}

/// A part whose end is the end of the others.
async fn ending<T>(stop: &Shutdown, part: impl Future<Output = T>) -> T {
    let ended = part.await;
    stop.cancel();
    ended
}
