//! Evaluating the verdicts of one partition: decisions go out first, then the record of how far it has come is stored, then
//! the bus acknowledges.
//!
//! A crash before the record is stored repeats the same decisions with the same ids: the bus takes them once, and receivers
//! know them by their id. A crash after it repeats verdicts that the record shows to be evaluated. `policy` says which
//! states need not be stored, and its tests crash everywhere.
//!
//! One process at a time evaluates a partition. Should two overlap, the record's compare-and-set lets one of them win; the
//! other reads the winner's record and handles its batch again. What another process left open or waiting is watched too: it
//! may be gone, and no verdict come any more.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::{StreamExt, stream};
use sightline_bus::{
    BatchHandler, BusError, ObservationKind, Outgoing, Received, Refusal, StreamName, Work,
    work_in_order,
};
use sightline_proto::internal::{
    AlertRecord, EvaluationRecord, JudgedWindow, Observation, observation,
};
use sightline_proto::v1::Alert;
use sightline_proto::v1::alert::State;
use sightline_service::{Shutdown, chain};
use tokio::sync::{Mutex, watch};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::advance::{Judged, Tracked, close, drop_all, give_up};
use crate::watchlist::{Watched, Watchlist, key};
use crate::{Shared, forget};

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
/// How often to look for windows that have waited too long, and for firings that are over.
const TICK: Duration = Duration::from_millis(500);
/// How often to look for what another process left.
const LOOK: Duration = Duration::from_secs(3);
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
        () = watch_the_time(&evaluator) => Ok(()),
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
/// is given up by time, after as long as two windows last, and then the firing is closed.
async fn watch_the_time(evaluator: &Mutex<Evaluator>) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = tick.tick() => {
                let mut evaluator = evaluator.lock().await;
                evaluator.forget_deleted().await;
                evaluator.advance_by_time().await;
            }
            _ = look.tick() => evaluator.lock().await.adopt(),
        }
    }
}

/// One alert's verdicts of a batch.
struct Due {
    alert: Arc<Alert>,
    windows: Vec<Judged>,
}

struct Evaluator {
    shared: Arc<Shared>,
    watchlist: Arc<Watchlist>,
    partition: u32,
    /// By alert id; bounded by the alerts in the catalog.
    tracked: HashMap<String, Tracked>,
    changes: watch::Receiver<u64>,
}

impl Evaluator {
    fn new(shared: Arc<Shared>, watchlist: Arc<Watchlist>, partition: u32) -> Self {
        let mut changes = shared.catalog.changes();
        // What is there already is to be adopted.
        changes.mark_changed();
        Self {
            shared,
            watchlist,
            partition,
            tracked: HashMap::new(),
            changes,
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
            jobs.push(shared.advance(self.partition, id, tracked, due.windows));
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
        let alert = Arc::clone(&due.alert);
        let Judged {
            epoch_us,
            window: first,
            ..
        } = &due.windows[0];
        let found = self.shared.catalog.get::<EvaluationRecord>(id);
        match (self.tracked.remove(id), found) {
            (Some(mut own), found) if !found.as_ref().is_some_and(|found| own.is_before(found)) => {
                own.alert = alert;
                own
            }
            (_, Some(found)) => Tracked::stored(alert, &found),
            (_, None) => Tracked::new(alert, *epoch_us, first),
        }
    }

    /// Takes over what is open or waits and was stored by another process: nothing may come after it.
    fn adopt(&mut self) {
        if !self.changes.has_changed().unwrap_or(false) {
            return;
        }
        self.changes.mark_unchanged();
        let catalog = &self.shared.catalog;
        for (id, found) in catalog.list::<EvaluationRecord>() {
            let own = self.tracked.get(&id);
            let known = own.is_some_and(|own| !own.is_before(&found));
            let idle = found.value.open.is_none() && found.value.waiting.is_empty();
            if known || idle {
                continue;
            }
            let alert = catalog.get::<AlertRecord>(&id);
            let Some(alert) = alert.and_then(|record| record.value.alert.clone()) else {
                continue;
            };
            if catalog.partition_of(&alert.rtstream_id) == self.partition {
                let tracked = Tracked::stored(Arc::new(alert), &found);
                self.tracked.insert(id, tracked);
            }
        }
    }

    /// What is stored of them is removed by `forget`.
    async fn forget_deleted(&mut self) {
        let catalog = &self.shared.catalog;
        let gone = |id: &&String| catalog.get::<AlertRecord>(id).is_none();
        let gone: Vec<String> = self.tracked.keys().filter(gone).cloned().collect();
        for id in gone {
            let Ok(None) = forget::known(&self.shared.catalog, &id).await else {
                continue;
            };
            let Some(tracked) = self.tracked.get(&id) else {
                continue;
            };
            match self.shared.close_deleted(self.partition, tracked).await {
                Ok(()) => drop(self.tracked.remove(&id)),
                Err(error) => tracing::warn!(
                    alert = id,
                    reason = chain(&error),
                    "the firing of a deleted alert is closed later"
                ),
            }
        }
    }

    /// Gives up what waits too long and closes what is over.
    async fn advance_by_time(&mut self) {
        let pending = self.tracked.iter().filter(|(_, tracked)| tracked.pends());
        let pending: Vec<String> = pending.map(|(id, _)| id.clone()).collect();
        for id in pending {
            let record = self.shared.catalog.get::<AlertRecord>(&id);
            let alert = record.as_ref().and_then(|found| found.value.alert.as_ref());
            let Some(alert) = alert else { continue };
            let Some(tracked) = self.tracked.get_mut(&id) else {
                continue;
            };
            if *tracked.alert != *alert {
                tracked.alert = Arc::new(alert.clone());
            }
            let change = if alert.state() == State::Disabled {
                drop_all
            } else if tracked.overdue() {
                give_up
            } else if self.shared.is_over(tracked) {
                close
            } else {
                continue;
            };
            self.change(&id, change).await;
        }
    }

    async fn change(&mut self, id: &str, change: fn(&mut EvaluationRecord)) {
        let Some(tracked) = self.tracked.remove(id) else {
            return;
        };
        let advanced = self.shared.advance_by_time(self.partition, tracked, change);
        let (tracked, result) = advanced.await;
        self.tracked.insert(id.to_owned(), tracked);
        if let Err(error) = result {
            tracing::warn!(reason = chain(&error), alert = id, "time is told again");
        }
    }

    /// Stores how far each alert has come where the record lags behind, so that after an orderly stop nothing is waited for
    /// that was evaluated. Without it, the same firings come, some a window later.
    async fn store_progress(&mut self) {
        let mut jobs = Vec::new();
        for (_, mut tracked) in self.tracked.drain() {
            if tracked.record.next_window != tracked.stored_next {
                let shared = Arc::clone(&self.shared);
                jobs.push(async move { shared.store(&mut tracked).await.is_ok() });
            }
        }
        let storing = stream::iter(jobs).buffer_unordered(CONCURRENCY).count();
        if timeout(STOPPING, storing).await.is_err() {
            tracing::debug!(partition = self.partition, "progress is not stored in time");
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
        let key = key(&verdict.index_id, &observed.rtstream_id, &verdict.event_id);
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
                .push(Judged {
                    epoch_us: observed.epoch_us,
                    window: judged,
                    trace: received.trace.clone(),
                });
        }
    }
    due
}
