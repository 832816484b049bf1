//! The caption worker: windows of frames in, verdicts on events and descriptions out.
//!
//! A window goes to the model once, with all that is asked about it. Every question that an enabled alert asks is judged
//! first and the verdicts are published at once, because a webhook waits for them; the descriptions for the indexes that
//! share its sampling follow. The model takes turns between streams and answers many windows together.

mod asked;
mod asking;
mod handler;
mod metrics;
mod numbers;
mod observations;
mod plan;
mod publishing;
mod reuse;
mod texts;

use std::sync::Arc;
use std::time::Duration;

use sightline_bus::{Bus, BusError, StreamName, Work};
use sightline_catalog::Catalog;
use sightline_inference::Describer;
use sightline_service::Shutdown;
use sightline_service::admin::Readiness;
use sightline_service::clock::Clock;
use sightline_service::metrics::Metrics;
use thiserror::Error;

use asking::Asking;
use handler::Handler;
use metrics::CaptionMetrics;
use texts::Reader;

pub use metrics::{count_steps, register_metrics};

/// How many windows to have under way with a model that batches: 8 are decoded together, others are judged meanwhile. More
/// would take from the bus what only waits here: there newer windows take its place, and other workers get it.
pub const UNDER_WAY: usize = 16;

/// The parts that readiness waits for, beside the bus.
pub const PARTS: [&str; 1] = [PART];
/// The worker's name among them.
const PART: &str = "caption";
/// After how long without a heartbeat a window goes to another worker: soon enough that it is not yet superseded.
const ACK_WAIT: Duration = Duration::from_secs(5);
/// How old a window may get, from the capture of its last frame: nobody wants to hear about it after that. One on the bus
/// expires after as long.
const BUDGET: Duration = Duration::from_secs(60);
/// How long one window may take: longer than its budget, so that the model is who ends it.
const DEADLINE: Duration = Duration::from_secs(70);
/// A window is handed out once more after a crash, and never again.
const MAX_DELIVER: i64 = 2;

/// How the worker behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// The model's name, as indexes give it: letters, digits, hyphens and underscores.
    pub model: String,
    /// How many windows are under way side by side, see [`UNDER_WAY`].
    pub concurrency: usize,
    /// Most tokens of a description, of indexes that say nothing else.
    pub max_new_tokens: usize,
}

/// What the worker needs.
pub struct Deps {
    /// The bus.
    pub bus: Bus,
    /// The catalog.
    pub catalog: Catalog,
    /// The wall clock, the same as the model's.
    pub clock: Arc<dyn Clock>,
    /// Where its metrics go.
    pub metrics: Metrics,
    /// Where it says that it takes work.
    pub readiness: Readiness,
    /// The model.
    pub describer: Arc<dyn Describer>,
}

/// Why the worker can't go on.
#[derive(Debug, Error)]
pub enum Error {
    /// The model's name can't be part of a subject.
    #[error(
        "{0:?} cannot be the name of a model: use letters, digits, hyphens and underscores alone"
    )]
    Name(String),
    /// Its consumer can't be made.
    #[error("windows cannot be taken from the bus")]
    Bus(#[from] BusError),
    /// The model stopped by itself.
    #[error("the model {0} has stopped: the log says why; start the worker again")]
    Model(String),
}

/// Takes windows until shutdown; those under way are finished, or given back after a while.
///
/// # Errors
/// When the model's name is none, or the consumer can't be made.
pub async fn serve(config: Config, deps: Deps, shutdown: Shutdown) -> Result<(), Error> {
    let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    if config.model.is_empty() || !config.model.bytes().all(plain) {
        return Err(Error::Name(config.model));
    }
    let work = Work {
        stream: StreamName::Frames,
        durable: format!("caption-{}", config.model),
        filter: format!("frames.{}.*.*", config.model),
        concurrency: config.concurrency.max(1),
        ack_wait: ACK_WAIT,
        deadline: DEADLINE,
        max_deliver: MAX_DELIVER,
    };
    let (bus, readiness) = (deps.bus.clone(), deps.readiness.clone());
    let metrics = CaptionMetrics::register(&deps.metrics);
    let gone = Shutdown::new();
    let asking = Asking::new(&deps, metrics.clone(), gone.clone());
    // It ends with the worker, also where that can't go on.
    let stop = shutdown.child_token();
    let judging = asked::run(&bus, &config.model, asking.clone(), stop.clone());
    let reader = Reader::new(
        &config,
        &deps,
        asking.clone(),
        metrics.clone(),
        stop.clone(),
    );
    let reading = async {
        let read = texts::run(reader).await;
        stop.cancel();
        read
    };
    let handler = Handler::new(config.clone(), deps, asking, metrics, stop.clone());
    readiness.set(PART, true);
    let working = async {
        let worked = sightline_bus::work_side_by_side(&bus, work, handler, stop.clone()).await;
        stop.cancel();
        worked
    };
    let watching = async {
        tokio::select! {
            () = gone.cancelled() => stop.cancel(),
            () = stop.cancelled() => {}
        }
    };
    let (worked, read, (), ()) = tokio::join!(working, reading, judging, watching);
    readiness.set(PART, false);
    worked.and(read)?;
    if gone.is_cancelled() && !shutdown.is_cancelled() {
        return Err(Error::Model(config.model));
    }
    Ok(())
}
