//! Delivering firings: one durable consumer for each endpoint and each sink, so that a receiver that hangs or is down delays no
//! other.
//!
//! A reconciler follows the catalog: every URL that an alert, enabled or not, posts to has its worker, and so has every other
//! for which something is stored: alerts that post elsewhere now have deliveries there, and those of deleted alerts are given up.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use sightline_bus::{Bus, BusError, StreamName, Subject, Work, work};
use sightline_catalog::Catalog;
use sightline_proto::ids;
use sightline_proto::internal::{AlertRecord, Delivery};
use sightline_service::Shutdown;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::Shared;
use crate::delivering::Delivering;
use crate::told::queue_of_sink;

/// Deliveries to one endpoint at the same time.
const CONCURRENCY: usize = 8;
/// How long handling a delivery may take: the attempt's own deadline of 10 s, and storing what came of it.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long after a crash its delivery is tried again.
const ACK_WAIT: Duration = Duration::from_secs(6);
/// How long changes of the catalog are gathered before they are looked at.
const GATHER: Duration = Duration::from_millis(100);

/// How often is looked for what is stored for endpoints that no alert posts to.
const LOOK: Duration = Duration::from_secs(10);

/// Runs a worker for each endpoint until shutdown, and finishes the attempts under way.
pub(crate) async fn run(shared: Arc<Shared>, shutdown: Shutdown) {
    let mut changes = shared.catalog.changes_of::<AlertRecord>();
    let mut running: HashMap<String, Shutdown> = HashMap::new();
    let mut workers: JoinSet<(String, Result<(), BusError>)> = JoinSet::new();
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stored = None;
    loop {
        changes.mark_unchanged();
        let mut wanted = posted_to(&shared.catalog);
        wanted.extend(
            shared
                .config
                .sinks
                .iter()
                .map(|sink| queue_of_sink(sink.name())),
        );
        if let Some(stored) = stored.take() {
            wanted.extend(stored);
            running.retain(|endpoint, stop| {
                let keep = wanted.contains(endpoint);
                if !keep {
                    stop.cancel();
                }
                keep
            });
        }
        for endpoint in wanted {
            running.entry(endpoint).or_insert_with_key(|endpoint| {
                let stop = shutdown.child_token();
                workers.spawn(serve(Arc::clone(&shared), endpoint.clone(), stop.clone()));
                stop
            });
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            changed = changes.changed() => if changed.is_err() { break },
            _ = look.tick() => stored = endpoints_with_deliveries(&shared.bus).await,
            Some(Ok((endpoint, ended))) = workers.join_next() => {
                if let Err(error) = ended {
                    tracing::warn!(%error, endpoint, "deliveries are interrupted, starting again");
                    running.remove(&endpoint);
                }
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(GATHER) => {}
        }
    }
    workers.join_all().await;
}

fn posted_to(catalog: &Catalog) -> HashSet<String> {
    let alerts = catalog.list::<AlertRecord>().into_iter();
    let receivers: HashSet<(String, String)> = alerts
        .filter_map(|(_, record)| {
            let url = record.value.alert.as_ref()?.callback_url.clone();
            Some((record.value.tenant.clone(), url))
        })
        .filter(|(_, url)| !url.is_empty())
        .collect();
    let ids = receivers
        .iter()
        .map(|(tenant, url)| ids::endpoint_id(tenant, url));
    ids.collect()
}

/// None when the bus does not say.
async fn endpoints_with_deliveries(bus: &Bus) -> Option<Vec<String>> {
    let subjects = bus.subjects(StreamName::Deliveries, "deliver.*").await;
    let subjects = subjects.inspect_err(|error| {
        tracing::debug!(%error, "what is still to be delivered is looked for later");
    });
    let endpoint = |subject: String| Some(subject.strip_prefix("deliver.")?.to_owned());
    Some(subjects.ok()?.into_iter().filter_map(endpoint).collect())
}

async fn serve(
    shared: Arc<Shared>,
    endpoint: String,
    stop: Shutdown,
) -> (String, Result<(), BusError>) {
    let subject = Subject::Deliver {
        endpoint: endpoint.clone(),
    };
    let consumer = Work {
        stream: StreamName::Deliveries,
        durable: format!("deliver-{endpoint}"),
        filter: subject.to_string(),
        concurrency: CONCURRENCY,
        ack_wait: ACK_WAIT,
        deadline: DEADLINE,
        // The schedule decides when to give up.
        max_deliver: -1,
    };
    let bus = shared.bus.clone();
    let ended = work::<Delivery, _>(&bus, consumer, Delivering { shared }, stop).await;
    (endpoint, ended)
}
