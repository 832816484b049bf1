//! The alerts service: verdicts in, firings and webhooks out.
//!
//! It evaluates the verdicts on OBSERVATIONS by each alert's policy, in the order of their windows (`evaluator`, `policy`),
//! publishes what fires as observations and as deliveries (`firing`, `told`), at once or when it is explained (`enricher`), and
//! posts the deliveries, signed (`webhook`), or hands them to other receivers (`sinks`) until they are taken or given up
//! (`dispatcher`); samples, and firings once more, when it is asked to (`asked`). No firing is lost and none invented, whatever
//! is killed when; a message may come more than once, always with the same id.

mod advance;
mod asked;
mod attempt;
mod delivering;
mod dispatcher;
mod enricher;
mod evaluator;
mod firing;
mod forget;
mod health;
mod metrics;
mod scenes;
mod schedule;
mod sinks;
mod telling;
mod told;
mod watchlist;
mod webhook;

use std::sync::Arc;

use sightline_bus::{Bus, BusError};
use sightline_catalog::Catalog;
use sightline_catalog::seal::SealKey;
use sightline_egress::Egress;
use sightline_policy as policy;
use sightline_recordings::links::Links;
use sightline_service::Shutdown;
use sightline_service::clock::Clock;
use sightline_service::metrics::Metrics;
use thiserror::Error;
use tokio::task::JoinSet;

use metrics::AlertMetrics;
use watchlist::Watchlist;

pub use metrics::register_metrics;
pub use schedule::Schedule;
pub use sinks::{Sink, SinkError};

/// How the service behaves. An alert's threshold is part of the alert.
#[derive(Debug, Clone)]
pub struct Config {
    /// When failed deliveries are tried again.
    pub schedule: Schedule,
    /// Makes the links to recordings that webhooks carry.
    pub links: Links,
    /// The receivers beside webhooks, by whose names alerts know them.
    pub sinks: Vec<Sink>,
}

impl Config {
    /// With the usual schedule, and no sinks.
    pub fn new(links: Links) -> Self {
        Self {
            schedule: Schedule::default(),
            links,
            sinks: Vec::new(),
        }
    }
}

/// What the service needs.
pub struct Deps {
    /// The bus.
    pub bus: Bus,
    /// The catalog.
    pub catalog: Catalog,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Where its metrics go.
    pub metrics: Metrics,
    /// Posts the webhooks.
    pub egress: Egress,
    /// Opens the secrets that sign them.
    pub seal: SealKey,
}

/// Why the service can't go on.
#[derive(Debug, Error)]
pub enum Error {
    /// A partition can't be evaluated.
    #[error("partition {partition} cannot be evaluated")]
    Partition {
        /// The partition.
        partition: u32,
        /// Why.
        source: BusError,
    },
}

/// What the parts of the service share.
struct Shared {
    config: Config,
    bus: Bus,
    catalog: Catalog,
    clock: Arc<dyn Clock>,
    metrics: AlertMetrics,
    egress: Egress,
    seal: SealKey,
}

/// Evaluates and delivers until shutdown; finishes what is under way and stores how far it has come.
///
/// # Errors
/// When a partition can't be evaluated; everything else has been stopped then.
pub async fn serve(config: Config, deps: Deps, shutdown: Shutdown) -> Result<(), Error> {
    let shared = Arc::new(Shared {
        config,
        metrics: AlertMetrics::register(&deps.metrics),
        bus: deps.bus,
        catalog: deps.catalog,
        clock: deps.clock,
        egress: deps.egress,
        seal: deps.seal,
    });
    let watchlist = Arc::new(Watchlist::new(shared.catalog.clone()));
    let stop = shutdown.child_token();
    let mut parts = JoinSet::new();
    for partition in 0..shared.catalog.partitions() {
        let (shared, watchlist) = (Arc::clone(&shared), Arc::clone(&watchlist));
        let stop = stop.clone();
        parts.spawn(async move {
            Box::pin(evaluator::run(shared, watchlist, partition, stop))
                .await
                .map_err(|source| Error::Partition { partition, source })
        });
    }
    let dispatching = dispatcher::run(Arc::clone(&shared), stop.clone());
    let explaining = enricher::run(Arc::clone(&shared), stop.clone());
    let answering = asked::run(Arc::clone(&shared), stop.clone());
    let forgetting = forget::run(shared, stop.clone());
    parts.spawn(async move {
        tokio::join!(dispatching, explaining, answering, forgetting);
        Ok(())
    });
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
