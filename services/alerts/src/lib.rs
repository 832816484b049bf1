//! The alerts service: verdicts in, firings and webhooks out.
//!
//! It evaluates the verdicts on OBSERVATIONS by each alert's policy, in the order of their windows (`evaluator`, `policy`),
//! publishes what fires as observations and as deliveries, and posts the deliveries, signed (`webhook`), to their receivers
//! until they are taken or given up (`dispatcher`); samples, and firings once more, when it is asked to (`asked`). No firing is
//! lost and none invented, whatever is killed when; a webhook may come more than once, always with the same id.

mod asked;
mod attempt;
mod dispatcher;
mod evaluator;
mod firing;
mod forget;
mod metrics;
mod policy;
mod schedule;
mod watchlist;
mod webhook;

use std::sync::Arc;

use sightline_bus::{Bus, BusError};
use sightline_catalog::Catalog;
use sightline_catalog::seal::SealKey;
use sightline_egress::Egress;
use sightline_recordings::links::Links;
use sightline_service::Shutdown;
use sightline_service::clock::Clock;
use sightline_service::metrics::Metrics;
use thiserror::Error;
use tokio::task::JoinSet;

use metrics::AlertMetrics;
use watchlist::Watchlist;

pub use schedule::Schedule;

/// How the service behaves. An alert's threshold is part of the alert.
#[derive(Debug, Clone)]
pub struct Config {
    /// When failed deliveries are tried again.
    pub schedule: Schedule,
    /// Makes the links to recordings that webhooks carry.
    pub links: Links,
}

impl Config {
    /// With the usual schedule.
    pub fn new(links: Links) -> Self {
        Self {
            schedule: Schedule::default(),
            links,
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
            evaluator::run(shared, watchlist, partition, stop)
                .await
                .map_err(|source| Error::Partition { partition, source })
        });
    }
    let dispatching = dispatcher::run(Arc::clone(&shared), stop.clone());
    let answering = asked::run(Arc::clone(&shared), stop.clone());
    let forgetting = forget::run(shared, stop.clone());
    parts.spawn(async move {
        tokio::join!(dispatching, answering, forgetting);
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
