//! The caption worker: windows of frames in, verdicts on events and descriptions out.
//!
//! A window is encoded once. Every question that an enabled alert asks about it is judged first and the verdicts are
//! published at once, because a webhook waits for them; only then is it described for each index that shares its sampling.

mod asked;
mod handler;
mod look;
mod metrics;
mod numbers;
mod observations;
mod plan;

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
use tokio::sync::Semaphore;

use asked::Judging;
use handler::Handler;

/// The worker's name among the parts that readiness waits for.
const PART: &str = "caption";
/// After how long without a heartbeat a window goes to another worker: soon enough that it is not yet superseded.
const ACK_WAIT: Duration = Duration::from_secs(5);
/// How long one window may take. A window on the bus expires after as long.
const DEADLINE: Duration = Duration::from_secs(60);
/// A window is handed out once more after a crash, and never again.
const MAX_DELIVER: i64 = 2;

/// How the worker behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// The model's name, as indexes give it: letters, digits, hyphens and underscores.
    pub model: String,
    /// How many windows are looked at side by side.
    pub concurrency: usize,
    /// Most tokens of a description.
    pub max_new_tokens: usize,
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
}

/// Takes windows until shutdown; those under way are finished.
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
    let looking = Arc::new(Semaphore::new(config.concurrency.max(1)));
    // It ends with the worker, also where that can't go on.
    let stop = shutdown.child_token();
    let judging = Judging {
        bus: bus.clone(),
        model: config.model.clone(),
        describer: Arc::clone(&deps.describer),
        looking: Arc::clone(&looking),
    };
    let handler = Handler::new(config, deps, looking);
    readiness.set(PART, true);
    let working = async {
        let worked = sightline_bus::work(&bus, work, handler, shutdown).await;
        stop.cancel();
        worked
    };
    let (worked, ()) = tokio::join!(working, asked::run(judging, stop.clone()));
    readiness.set(PART, false);
    Ok(worked?)
}
