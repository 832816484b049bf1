//! The ingest worker: takes leases on streams and runs each in a child process of its own, puts its windows on FRAMES and
//! its utterances on AUDIO, and keeps in the catalog how far it has come.
//!
//! The lease is the un-acked message of RUNS (`sightline_bus::Lease`); its fence is the generation in the stream's
//! RunRecord, written by compare-and-set. What is published is recorded afterwards: a crash in between repeats it with the
//! same ids.

mod backoff;
mod child;
mod exporting;
mod frames;
mod gone;
mod health;
mod holes;
mod interim;
mod metrics;
mod presence;
mod process;
mod publish;
mod reading;
mod record;
mod recording;
mod run;
mod supervise;
#[cfg(test)]
mod tests;
mod thumbnail;
mod upkeep;
mod upload;
mod wanted;
mod wire;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sightline_bus::{Bus, BusError, LeaseConfig, Leases};
use sightline_catalog::Catalog;
use sightline_catalog::seal::SealKey;
use sightline_recordings::{Library, Retention};
use sightline_service::Shutdown;
use sightline_service::admin::Readiness;
use sightline_service::clock::Clock;
use sightline_service::metrics::Metrics;
use thiserror::Error;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

pub use child::run_child;
pub use metrics::register_metrics;

use metrics::IngestMetrics;

/// The parts that readiness waits for, beside the bus.
pub const PARTS: [&str; 1] = [PART];
/// The worker's name among them.
const PART: &str = "ingest";
/// After how long without an extension a lease goes to another worker.
pub(crate) const ACK_WAIT: Duration = Duration::from_secs(6);
/// How long to hold back when no lease can be asked for.
const PAUSE: Duration = Duration::from_millis(500);

/// How the worker behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// The worker's name, unique among all: shown as the holder of its leases.
    pub worker: String,
    /// How many streams it runs at most.
    pub capacity: usize,
    /// The program that reads one stream, with its arguments: it calls [`run_child`].
    pub child: Vec<OsString>,
    /// The one directory that file sources may come from.
    pub media_root: Option<PathBuf>,
    /// How long the longest side of a frame may be, in pixels.
    pub frame_edge: u32,
    /// The engine that transcribes utterances.
    pub engine: String,
    /// How much is kept of a recording whose stream does not say.
    pub retention: Retention,
    /// A directory of this machine for files under way; made if missing.
    pub scratch: PathBuf,
    /// How often one worker of all removes old recordings.
    pub upkeep_every: Duration,
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
    /// Opens the sources' credentials.
    pub seal: SealKey,
    /// Where recordings go.
    pub library: Library,
}

/// Why the worker can't go on.
#[derive(Debug, Error)]
pub enum Error {
    /// There is no program to read streams with.
    #[error("no child program is configured")]
    NoChild,
    /// Leases can't be taken.
    #[error("streams cannot be taken from the bus")]
    Bus(#[from] BusError),
    /// There is no place for files under way.
    #[error("{path} cannot be used for files under way")]
    Scratch {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// What all runs share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) bus: Bus,
    pub(crate) catalog: Catalog,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: IngestMetrics,
    pub(crate) seal: SealKey,
    pub(crate) library: Library,
    /// Which streams' health alerts wait for.
    pub(crate) wishes: watch::Sender<health::Wishes>,
}

/// Runs streams until shutdown; hands them over to other workers then.
///
/// # Errors
/// When leases can't be taken at the start, or there is no place for files under way.
pub async fn serve(config: Config, deps: Deps, shutdown: Shutdown) -> Result<(), Error> {
    if config.child.is_empty() {
        return Err(Error::NoChild);
    }
    let leases = deps.bus.leases(LeaseConfig { ack_wait: ACK_WAIT }).await?;
    let shared = Arc::new(Shared {
        metrics: IngestMetrics::register(&deps.metrics),
        wishes: watch::Sender::new(health::wishes(&deps.catalog)),
        config,
        bus: deps.bus,
        catalog: deps.catalog,
        clock: deps.clock,
        seal: deps.seal,
        library: deps.library,
    });
    exporting::prepare(&shared.config.scratch).await?;
    let mut beside = JoinSet::new();
    beside.spawn(upkeep::run(Arc::clone(&shared), shutdown.clone()));
    beside.spawn(health::follow(Arc::clone(&shared), shutdown.clone()));
    beside.spawn(thumbnail::run(Arc::clone(&shared), shutdown.clone()));
    beside.spawn(frames::run(Arc::clone(&shared), shutdown.clone()));
    beside.spawn(exporting::run(Arc::clone(&shared), shutdown.clone()));
    deps.readiness.set(PART, true);
    take_leases(&shared, leases, &shutdown).await;
    deps.readiness.set(PART, false);
    beside.join_all().await;
    Ok(())
}

/// Takes a lease whenever there is room for one more stream, until shutdown and until every run has ended.
async fn take_leases(shared: &Arc<Shared>, mut leases: Leases, shutdown: &Shutdown) {
    let room = Arc::new(Semaphore::new(shared.config.capacity.max(1)));
    let mut runs = JoinSet::new();
    loop {
        let next = async {
            let place = Arc::clone(&room).acquire_owned().await;
            (place, leases.next().await)
        };
        let (place, lease) = tokio::select! {
            () = shutdown.cancelled() => break,
            next = next => next,
        };
        while runs.try_join_next().is_some() {}
        match lease {
            Ok(lease) => {
                let (shared, shutdown) = (Arc::clone(shared), shutdown.clone());
                runs.spawn(async move {
                    run::run(shared, lease, shutdown).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "no lease can be asked for, waiting");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    runs.join_all().await;
}
