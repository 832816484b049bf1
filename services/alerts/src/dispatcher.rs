//! Delivering firings: one durable consumer for each endpoint, so that a receiver that hangs or is down delays no other.
//!
//! A reconciler follows the catalog: every URL that an alert, enabled or not, posts to has its worker, and so has every other
//! for which something is stored: alerts that post elsewhere now have deliveries there, and those of deleted alerts are given up.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use sightline_bus::{
    Bus, BusError, Handler, Outgoing, Received, Refusal, StreamName, Subject, Work, work,
};
use sightline_catalog::Catalog;
use sightline_proto::ids;
use sightline_proto::internal::{AlertRecord, Attempt, Delivery};
use sightline_service::{Shutdown, chain, failpoint};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::attempt::{Outcome, Then};
use crate::{Config, Shared, forget};

/// Deliveries to one endpoint at the same time.
const CONCURRENCY: usize = 4;
/// How long handling a delivery may take: the attempt's own deadline of 10 s, and storing what came of it.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long after a crash its delivery is tried again.
const ACK_WAIT: Duration = Duration::from_secs(6);
/// How long changes of the catalog are gathered before they are looked at.
const GATHER: Duration = Duration::from_millis(100);

/// How often is looked for what is stored for endpoints that no alert posts to.
const LOOK: Duration = Duration::from_secs(10);
/// How long to hold back when it is not known whether an alert was deleted.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs a worker for each endpoint until shutdown, and finishes the attempts under way.
pub(crate) async fn run(shared: Arc<Shared>, shutdown: Shutdown) {
    let mut changes = shared.catalog.changes();
    let mut running: HashMap<String, Shutdown> = HashMap::new();
    let mut workers: JoinSet<(String, Result<(), BusError>)> = JoinSet::new();
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stored = None;
    loop {
        changes.mark_unchanged();
        let mut wanted = endpoints(&shared.catalog);
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

fn endpoints(catalog: &Catalog) -> HashSet<String> {
    let alerts = catalog.list::<AlertRecord>().into_iter();
    let urls: HashSet<String> = alerts
        .filter_map(|(_, record)| Some(record.value.alert.as_ref()?.callback_url.clone()))
        .filter(|url| !url.is_empty())
        .collect();
    urls.iter().map(|url| ids::endpoint_id(url)).collect()
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
    let ended = work::<Delivery, _>(&bus, consumer, Dispatcher { shared }, stop).await;
    (endpoint, ended)
}

struct Dispatcher {
    shared: Arc<Shared>,
}

#[async_trait]
impl Handler<Delivery> for Dispatcher {
    async fn handle(&self, received: &Received<Delivery>) -> Result<Vec<Outgoing>, Refusal> {
        let delivery = &received.message;
        let outcome = match forget::is_known(&self.shared.catalog, &delivery.alert_id).await {
            Ok(true) => self.post(delivery).await,
            Ok(false) => Outcome::deleted(),
            Err(error) => {
                return Err(Refusal::Retry {
                    after: PAUSE,
                    reason: chain(&error),
                });
            }
        };
        let attempt = self.record(received, &outcome);
        let subject = Subject::Attempt {
            endpoint: delivery.endpoint_id.clone(),
        };
        let id = format!("{}-{}", delivery.firing_id, received.deliveries);
        let refusal = match outcome.then {
            Then::Done | Then::Drop => return Ok(vec![Outgoing::new(subject, id, &attempt)]),
            Then::GiveUp => Refusal::Reject {
                reason: attempt.error.clone(),
            },
            Then::Retry { asked } => {
                again_or_give_up(&self.shared.config, received, asked, &attempt.error)
            }
        };
        if let Err(error) = self.shared.bus.publish(&subject, &id, &attempt).await {
            // Only the log of attempts lacks it: the delivery itself goes on.
            tracing::warn!(%error, firing = delivery.firing_id, "attempt is not logged");
        }
        Err(refusal)
    }
}

impl Dispatcher {
    async fn post(&self, delivery: &Delivery) -> Outcome {
        failpoint::hit("alerts.before_post");
        let headers = headers(delivery, self.shared.clock.now_us());
        let posting = self
            .shared
            .egress
            .post(&delivery.url, headers, delivery.body.clone());
        let outcome = Outcome::of(&posting.await);
        failpoint::hit("alerts.after_post");
        outcome
    }

    /// Counts and measures an attempt that has just ended.
    fn record(&self, received: &Received<Delivery>, outcome: &Outcome) -> Attempt {
        let delivery = &received.message;
        let ended_us = self.shared.clock.now_us();
        let mut attempt = Attempt {
            firing_id: delivery.firing_id.clone(),
            alert_id: delivery.alert_id.clone(),
            attempt: u32::try_from(received.deliveries).unwrap_or(u32::MAX),
            status_code: u32::from(outcome.status),
            error: outcome.error.clone(),
            ended_us,
            ..Attempt::default()
        };
        self.shared.metrics.attempted(outcome.label);
        if outcome.then == Then::Done {
            attempt.decision_to_2xx_us = ended_us - delivery.decided_us;
            attempt.last_frame_to_2xx_us = ended_us - delivery.captured_us;
            self.shared
                .metrics
                .delivered(attempt.decision_to_2xx_us, attempt.last_frame_to_2xx_us);
        }
        tracing::info!(
            firing = attempt.firing_id,
            alert = attempt.alert_id,
            attempt = attempt.attempt,
            outcome = outcome.label,
            error = attempt.error,
            "delivery was attempted"
        );
        attempt
    }
}

fn again_or_give_up(
    config: &Config,
    received: &Received<Delivery>,
    asked: Option<Duration>,
    error: &str,
) -> Refusal {
    let attempts = received.deliveries;
    let firing = &received.message.firing_id;
    match config.schedule.after(attempts, firing, asked) {
        Some(after) => Refusal::Retry {
            after,
            reason: error.to_owned(),
        },
        None => Refusal::Reject {
            reason: format!("given up after {attempts} attempts: {error}"),
        },
    }
}

/// Standard Webhooks 1.0 without the signature, which needs a secret for each endpoint.
fn headers(delivery: &Delivery, now_us: i64) -> HeaderMap {
    const AGENT: &str = concat!("sightline/", env!("CARGO_PKG_VERSION"));
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    let timestamp = HeaderName::from_static("webhook-timestamp");
    headers.insert(timestamp, HeaderValue::from(now_us.div_euclid(1_000_000)));
    if let Ok(id) = HeaderValue::from_str(&delivery.firing_id) {
        headers.insert(HeaderName::from_static("webhook-id"), id);
    }
    headers
}
