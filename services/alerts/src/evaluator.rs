//! Evaluating the verdicts of one partition: decisions go out first, then the record of how far it has come is stored, then
//! the bus acknowledges.
//!
//! A crash before the record is stored repeats the same decisions with the same ids: the bus takes them once, and receivers
//! know them by their id. A crash after it repeats verdicts that the record shows to be evaluated. `policy` says which
//! states need not be stored, and its tests crash everywhere.
//!
//! One process at a time evaluates a partition. Should two overlap, the record's compare-and-set lets one of them win; the
//! other reads the winner's record and handles its batch again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use sightline_bus::{
    BatchHandler, BusError, ObservationKind, Outgoing, Received, Refusal, StreamName, Subject,
    Work, work_in_order,
};
use sightline_catalog::{CatalogError, Versioned};
use sightline_proto::internal::{
    AlertRecord, EvaluationRecord, EventRecord, JudgedWindow, Observation, RtStreamRecord,
    observation,
};
use sightline_proto::time::micros;
use sightline_proto::v1::{Alert, Event};
use sightline_service::{Shutdown, chain, failpoint};
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use crate::Shared;
use crate::firing::Firing;
use crate::policy::{self, Decision, Rule};
use crate::watchlist::{Watched, Watchlist};

/// Verdicts handled together.
const BATCH: usize = 256;
/// Alerts whose decisions are published and stored at the same time.
const CONCURRENCY: usize = 32;
/// How long after a crash unacknowledged verdicts are evaluated again.
const ACK_WAIT: Duration = Duration::from_secs(6);
/// How long a batch may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long to hold back when the bus or the catalog did not take something.
const PAUSE: Duration = Duration::from_millis(200);
/// How often to look for windows that have waited too long.
const TICK: Duration = Duration::from_millis(500);
/// How long storing how far each alert has come may take when stopping.
const STOPPING: Duration = Duration::from_secs(3);

/// Evaluates a partition until shutdown.
pub(crate) async fn run(
    shared: Arc<Shared>,
    watchlist: Arc<Watchlist>,
    partition: u32,
    shutdown: Shutdown,
) -> Result<(), BusError> {
    let consumer = Work {
        stream: StreamName::Observations,
        durable: format!("alerts-{partition}"),
        filter: format!("obs.{partition}.{}.*", ObservationKind::Verdict.as_str()),
        concurrency: 1,
        ack_wait: ACK_WAIT,
        deadline: DEADLINE,
        max_deliver: -1,
    };
    let bus = shared.bus.clone();
    let evaluator = Arc::new(Mutex::new(Evaluator::new(shared, watchlist, partition)));
    let handler = InOrder(Arc::clone(&evaluator));
    let ended = tokio::select! {
        ended = work_in_order(&bus, consumer, BATCH, handler, shutdown) => ended,
        () = watch_the_waiting(&evaluator) => Ok(()),
    };
    evaluator.lock().await.store_progress().await;
    ended
}

struct InOrder(Arc<Mutex<Evaluator>>);

#[async_trait]
impl BatchHandler<Observation> for InOrder {
    async fn handle(&mut self, batch: &[Received<Observation>]) -> Result<Vec<Outgoing>, Refusal> {
        // Everything is published before the record is stored, so nothing is left to the loop.
        self.0.lock().await.evaluate(batch).await.map(|()| vec![])
    }
}

/// Policy uses media time. Only when no verdict comes any more (the stream ended, or its workers are down) a missing window
/// is given up by time: after as long as two windows last.
async fn watch_the_waiting(evaluator: &Mutex<Evaluator>) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let mut evaluator = evaluator.lock().await;
        evaluator.forget_deleted();
        evaluator.give_up_overdue().await;
    }
}

/// Why an alert's decisions could not be brought out.
#[derive(Debug, Error)]
enum AdvanceError {
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

/// How far one alert has come, in memory.
#[derive(Clone)]
struct Tracked {
    record: EvaluationRecord,
    /// The catalog's revision of the record; none if there is no record.
    revision: Option<u64>,
    /// The record's `next_window` as it is stored.
    stored_next: u64,
    /// Since when a window has been waiting.
    waiting_since: Option<Instant>,
}

impl Tracked {
    fn stored(found: &Versioned<EvaluationRecord>) -> Self {
        Self {
            record: EvaluationRecord::clone(&found.value),
            revision: Some(found.revision),
            stored_next: found.value.next_window,
            waiting_since: (!found.value.waiting.is_empty()).then(Instant::now),
        }
    }

    /// An alert without a record: what was before its first verdict is not waited for if it began before the alert existed.
    fn new(alert: &Alert, epoch_us: i64, first: &JudgedWindow) -> Self {
        let created_us = alert.create_time.as_ref().map_or(0, micros);
        let before_us = first.start_us - (first.end_us - first.start_us);
        let record = EvaluationRecord {
            epoch_us,
            next_window: if before_us < created_us {
                first.window
            } else {
                0
            },
            ..EvaluationRecord::default()
        };
        Self {
            record,
            revision: None,
            stored_next: 0,
            waiting_since: None,
        }
    }

    /// Whether the first waiting window has waited for as long as two windows last.
    fn overdue(&self) -> bool {
        let (Some(since), Some(first)) = (self.waiting_since, self.record.waiting.first()) else {
            return false;
        };
        let window_us = u64::try_from(first.end_us - first.start_us).unwrap_or(0);
        since.elapsed() >= 2 * Duration::from_micros(window_us)
    }
}

/// One alert's verdicts of a batch, with their epochs.
struct Due {
    alert: Arc<Alert>,
    windows: Vec<(i64, JudgedWindow)>,
}

struct Evaluator {
    shared: Arc<Shared>,
    watchlist: Arc<Watchlist>,
    partition: u32,
    /// By alert id; bounded by the alerts in the catalog.
    tracked: HashMap<String, Tracked>,
}

impl Evaluator {
    fn new(shared: Arc<Shared>, watchlist: Arc<Watchlist>, partition: u32) -> Self {
        let catalog = &shared.catalog;
        let stored = catalog.list::<EvaluationRecord>().into_iter();
        // Windows that wait may have nothing coming after them: they are watched from the start.
        let tracked = stored
            .filter(|(_, found)| !found.value.waiting.is_empty())
            .map(|(alert, found)| (alert, Tracked::stored(&found)))
            .collect();
        Self {
            shared,
            watchlist,
            partition,
            tracked,
        }
    }

    /// Evaluates a batch for every alert that waits for it. After an error the same batch can be evaluated again.
    async fn evaluate(&mut self, batch: &[Received<Observation>]) -> Result<(), Refusal> {
        self.shared.metrics.verdicts.inc_by(batch.len() as u64);
        let due = arrange(&self.watchlist.current(), batch);
        let shared = Arc::clone(&self.shared);
        let mut jobs = Vec::with_capacity(due.len());
        for (id, due) in due {
            let tracked = self.take(&id, &due);
            jobs.push(shared.advance(self.partition, id, tracked, due));
        }
        let done: Vec<_> = stream::iter(jobs)
            .buffer_unordered(CONCURRENCY)
            .collect()
            .await;
        let mut failed = None;
        for (id, tracked, result) in done {
            self.tracked.insert(id, tracked);
            failed = failed.or(result.err());
        }
        match failed {
            None => Ok(()),
            Some(error) => {
                let reason = chain(&error);
                tracing::warn!(reason, partition = self.partition, "evaluating again");
                Err(Refusal::Retry {
                    after: PAUSE,
                    reason,
                })
            }
        }
    }

    /// The state of an alert, taken out so that it is lost, and read again from the catalog, if evaluating is cut off.
    fn take(&mut self, id: &str, due: &Due) -> Tracked {
        if let Some(tracked) = self.tracked.remove(id) {
            return tracked;
        }
        let (epoch_us, first) = &due.windows[0];
        match self.shared.catalog.get::<EvaluationRecord>(id) {
            Some(found) => Tracked::stored(&found),
            None => Tracked::new(&due.alert, *epoch_us, first),
        }
    }

    /// What is stored of them is removed by `forget`.
    fn forget_deleted(&mut self) {
        let catalog = &self.shared.catalog;
        self.tracked
            .retain(|alert, _| catalog.get::<AlertRecord>(alert).is_some());
    }

    async fn give_up_overdue(&mut self) {
        let overdue: Vec<String> = self
            .tracked
            .iter()
            .filter(|(_, tracked)| tracked.overdue())
            .map(|(id, _)| id.clone())
            .collect();
        if overdue.is_empty() {
            return;
        }
        let watched = self.watchlist.current();
        for id in overdue {
            let Some(tracked) = self.tracked.remove(&id) else {
                continue;
            };
            let Some(alert) = find(&watched, &id) else {
                continue;
            };
            if self.shared.catalog.partition_of(&alert.rtstream_id) != self.partition {
                continue;
            }
            let (tracked, result) = self.shared.give_up(self.partition, tracked, alert).await;
            self.tracked.insert(id, tracked);
            if let Err(error) = result {
                tracing::warn!(reason = chain(&error), "a waiting window is tried again");
            }
        }
    }

    /// Stores how far each alert has come where the record lags behind, so that after an orderly stop nothing is waited for
    /// that was evaluated. Without it, the same firings come, some a window later.
    async fn store_progress(&mut self) {
        let mut jobs = Vec::new();
        for (id, mut tracked) in self.tracked.drain() {
            if tracked.record.next_window != tracked.stored_next {
                let shared = Arc::clone(&self.shared);
                jobs.push(async move { shared.store(&id, &mut tracked).await.is_ok() });
            }
        }
        let storing = stream::iter(jobs).buffer_unordered(CONCURRENCY).count();
        if timeout(STOPPING, storing).await.is_err() {
            tracing::debug!(partition = self.partition, "progress is not stored in time");
        }
    }
}

impl Shared {
    /// Brings an alert forward by its verdicts. After an error the state is the one before, or the catalog's if that is
    /// another one.
    async fn advance(
        &self,
        partition: u32,
        id: String,
        tracked: Tracked,
        due: Due,
    ) -> (String, Tracked, Result<(), AdvanceError>) {
        let rule = self.rule(&due.alert);
        let mut next = tracked.clone();
        let mut decisions = policy::settle(&mut next.record, rule);
        for (epoch_us, judged) in due.windows {
            decisions.extend(policy::apply(&mut next.record, epoch_us, judged, rule));
        }
        let alert = &due.alert;
        match self
            .bring_out(partition, alert, &tracked, &mut next, &decisions)
            .await
        {
            Ok(()) => (id, next, Ok(())),
            Err(error) => {
                let tracked = self.after_failure(&id, tracked, &error).await;
                (id, tracked, Err(error))
            }
        }
    }

    /// Takes the windows that an alert waits for as unknown. That is stored before anything is decided by it: the decision
    /// is by time, and would not come out the same once more.
    async fn give_up(
        &self,
        partition: u32,
        mut tracked: Tracked,
        alert: &Alert,
    ) -> (Tracked, Result<(), AdvanceError>) {
        let before = tracked.clone();
        policy::give_up(&mut tracked.record);
        if let Err(error) = self.store(&alert.id, &mut tracked).await {
            let tracked = self.after_failure(&alert.id, before, &error).await;
            return (tracked, Err(error));
        }
        let mut next = tracked.clone();
        let decisions = policy::settle(&mut next.record, self.rule(alert));
        match self
            .bring_out(partition, alert, &tracked, &mut next, &decisions)
            .await
        {
            Ok(()) => (next, Ok(())),
            Err(error) => (tracked, Err(error)),
        }
    }

    fn rule(&self, alert: &Alert) -> Rule {
        Rule::of(alert, self.clock.now_us())
    }

    /// Publishes the decisions, then stores the state that they led to.
    async fn bring_out(
        &self,
        partition: u32,
        alert: &Alert,
        before: &Tracked,
        next: &mut Tracked,
        decisions: &[Decision],
    ) -> Result<(), AdvanceError> {
        for decision in decisions {
            self.publish(partition, alert, decision).await?;
        }
        if policy::must_store(&before.record, &next.record, decisions) {
            self.store(&alert.id, next).await?;
            failpoint::hit("alerts.after_state");
        }
        next.waiting_since = match next.record.waiting.first() {
            None => None,
            same if same == before.record.waiting.first() => before.waiting_since,
            Some(_) => Some(Instant::now()),
        };
        Ok(())
    }

    async fn publish(
        &self,
        partition: u32,
        alert: &Alert,
        decision: &Decision,
    ) -> Result<(), BusError> {
        let event = self.event(&alert.event_id);
        let record = self.catalog.get::<AlertRecord>(&alert.id);
        let stream = self.catalog.get::<RtStreamRecord>(&alert.rtstream_id);
        let stream = stream
            .as_ref()
            .and_then(|record| record.value.rtstream.as_ref());
        let firing = Firing {
            decision,
            alert,
            event: &event,
            collection_id: stream.map_or("", |stream| &stream.collection_id),
            tenant: record.as_ref().map_or("", |record| &record.value.tenant),
            links: stream
                .filter(|stream| stream.store)
                .map(|_| &self.config.links),
        };
        let observation = firing.observation();
        let subject = Subject::Observation {
            partition,
            kind: ObservationKind::Firing,
            rtstream: alert.rtstream_id.clone(),
        };
        failpoint::hit("alerts.before_firing");
        self.bus
            .publish(&subject, &observation.id, &observation)
            .await?;
        failpoint::hit("alerts.after_firing");
        if decision.opens() {
            if !alert.callback_url.is_empty() {
                self.deliver(&firing).await?;
            }
            self.metrics.firings.inc();
            tracing::info!(alert = alert.id, firing = firing.id(), "alert fired");
        }
        Ok(())
    }

    async fn deliver(&self, firing: &Firing<'_>) -> Result<(), BusError> {
        let delivery = firing.delivery();
        let endpoint = delivery.endpoint_id.clone();
        let subject = Subject::Deliver { endpoint };
        self.bus
            .publish(&subject, &delivery.firing_id, &delivery)
            .await?;
        failpoint::hit("alerts.after_delivery");
        Ok(())
    }

    /// An event that was deleted beneath its alert goes by its id.
    fn event(&self, id: &str) -> Event {
        let record = self.catalog.get::<EventRecord>(id);
        let event = record.and_then(|record| record.value.event.clone());
        event.unwrap_or_else(|| Event {
            id: id.to_owned(),
            prompt: id.to_owned(),
            label: id.to_owned(),
            ..Event::default()
        })
    }

    async fn store(&self, id: &str, tracked: &mut Tracked) -> Result<(), AdvanceError> {
        let revision = match tracked.revision {
            Some(revision) => self.catalog.update(id, &tracked.record, revision).await?,
            None => self.catalog.create(id, &tracked.record).await?,
        };
        tracked.revision = Some(revision);
        tracked.stored_next = tracked.record.next_window;
        Ok(())
    }

    /// A record that is not at the expected revision is the one to go on from: a write of ours whose confirmation got lost,
    /// or another process's.
    async fn after_failure(&self, id: &str, before: Tracked, error: &AdvanceError) -> Tracked {
        let AdvanceError::Catalog(CatalogError::Conflict { .. } | CatalogError::Exists { .. }) =
            error
        else {
            return before;
        };
        match self.catalog.fetch::<EvaluationRecord>(id).await {
            Ok(Some(found)) => Tracked::stored(&found),
            _ => before,
        }
    }
}

/// The verdicts of a batch by the alerts that wait for them, in the order of the batch.
fn arrange(watched: &Watched, batch: &[Received<Observation>]) -> BTreeMap<String, Due> {
    let mut due: BTreeMap<String, Due> = BTreeMap::new();
    for received in batch {
        let observed = &received.message;
        let Some(observation::Body::Verdict(verdict)) = &observed.body else {
            continue;
        };
        let key = (verdict.index_id.clone(), verdict.event_id.clone());
        let judged = JudgedWindow {
            window: verdict.window,
            start_us: observed.start_us,
            end_us: observed.end_us,
            probability: verdict.probability,
            captured_us: verdict.captured_us,
            by_similarity: verdict.by_similarity,
            sampled_us: verdict.sampled_us,
            judged_us: verdict.judged_us,
        };
        for alert in watched.get(&key).into_iter().flatten() {
            due.entry(alert.id.clone())
                .or_insert_with(|| Due {
                    alert: Arc::clone(alert),
                    windows: Vec::new(),
                })
                .windows
                .push((observed.epoch_us, judged));
        }
    }
    due
}

fn find<'a>(watched: &'a Watched, id: &str) -> Option<&'a Arc<Alert>> {
    watched.values().flatten().find(|alert| alert.id == id)
}
