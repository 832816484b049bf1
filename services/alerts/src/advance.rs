//! Bringing one alert forward: by its verdicts, or because time has gone by without any.
//!
//! What verdicts decide is published and then stored: they come again after a crash, and decide the same. What time decides
//! would not come out the same once more, so that it is stored first, and published by what is stored.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sightline_bus::{BusError, ObservationKind, Subject};
use sightline_catalog::{CatalogError, Versioned};
use sightline_proto::internal::{
    AlertRecord, EvaluationRecord, EventRecord, IndexRecord, JudgedWindow, RtStreamRecord,
    RunRecord,
};
use sightline_proto::time::micros;
use sightline_proto::v1::rt_stream::State;
use sightline_proto::v1::{Alert, Event, index};
use sightline_service::failpoint;
use sightline_service::trace::TraceContext;
use thiserror::Error;
use tokio::time::Instant;
use tracing::Instrument;

use crate::Shared;
use crate::firing::Firing;
use crate::health;
use crate::policy::{self, Decision, Rule};

/// For how long at least nothing has to be heard for a firing to be over: what a crash left unacknowledged comes first.
const REDELIVERED: Duration = Duration::from_secs(12);
/// The same where the stream goes on: its verdicts are late.
const LATE: Duration = Duration::from_secs(60);

/// Why an alert's decisions could not be brought out.
#[derive(Debug, Error)]
pub(crate) enum AdvanceError {
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("another process has brought this alert further")]
    Behind,
}

/// How far one alert has come, in memory.
#[derive(Clone)]
pub(crate) struct Tracked {
    /// As it was when a verdict came: once it is deleted nobody else knows.
    pub(crate) alert: Arc<Alert>,
    pub(crate) record: EvaluationRecord,
    /// The catalog's revision of the record; none if there is no record.
    revision: Option<u64>,
    /// The record's `next_window` as it is stored.
    pub(crate) stored_next: u64,
    /// Since when a window has been waiting.
    waiting_since: Option<Instant>,
    /// When the last verdict came.
    heard: Instant,
    /// To which traces the windows belong that came and wait, by epoch and number. They are gone where another process goes on.
    traces: BTreeMap<(i64, u64), TraceContext>,
}

/// A verdict on a window.
pub(crate) struct Judged {
    pub(crate) epoch_us: i64,
    pub(crate) window: JudgedWindow,
    pub(crate) trace: TraceContext,
}

impl Tracked {
    pub(crate) fn stored(alert: Arc<Alert>, found: &Versioned<EvaluationRecord>) -> Self {
        Self {
            alert,
            record: EvaluationRecord::clone(&found.value),
            revision: Some(found.revision),
            stored_next: found.value.next_window,
            waiting_since: (!found.value.waiting.is_empty()).then(Instant::now),
            heard: Instant::now(),
            traces: BTreeMap::new(),
        }
    }

    /// An alert without a record: what was before its first verdict is not waited for if it began before the alert existed.
    pub(crate) fn new(alert: Arc<Alert>, epoch_us: i64, first: &JudgedWindow) -> Self {
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
            alert,
            record,
            revision: None,
            stored_next: 0,
            waiting_since: None,
            heard: Instant::now(),
            traces: BTreeMap::new(),
        }
    }

    /// Whether another process has stored something since.
    pub(crate) fn is_before(&self, found: &Versioned<EvaluationRecord>) -> bool {
        self.revision < Some(found.revision)
    }

    /// Whether something is to be done when time goes by.
    pub(crate) fn pends(&self) -> bool {
        self.record.open.is_some() || !self.record.waiting.is_empty()
    }

    /// Whether the first waiting window has waited for as long as two windows last.
    pub(crate) fn overdue(&self) -> bool {
        let (Some(since), Some(first)) = (self.waiting_since, self.record.waiting.first()) else {
            return false;
        };
        since.elapsed() >= 2 * length(first)
    }

    /// Whether the open firing is over because nothing is heard any more.
    fn silent(&self, rule: &Rule, live: bool) -> bool {
        let Some(open) = self.record.open else {
            return false;
        };
        let window = open.first.as_ref().map_or(Duration::ZERO, length);
        let windows = u32::try_from(rule.silence()).unwrap_or(u32::MAX);
        let least = if live { LATE } else { REDELIVERED };
        self.record.waiting.is_empty()
            && self.heard.elapsed() >= window.saturating_mul(windows).max(least)
    }
}

fn length(window: &JudgedWindow) -> Duration {
    Duration::from_micros(u64::try_from(window.end_us - window.start_us).unwrap_or(0))
}

/// The windows that an alert waits for are unknown.
pub(crate) fn give_up(state: &mut EvaluationRecord) {
    policy::give_up(state);
}

/// The open firing is over.
pub(crate) fn close(state: &mut EvaluationRecord) {
    policy::end(state);
}

/// So it is, and nobody wants to know of what waits.
pub(crate) fn drop_all(state: &mut EvaluationRecord) {
    policy::end(state);
    state.waiting.clear();
}

impl Shared {
    /// Brings an alert forward by its verdicts. After an error the state is the one before, or the
    /// catalog's if that is another one.
    pub(crate) async fn advance(
        &self,
        partition: u32,
        id: String,
        tracked: Tracked,
        windows: Vec<Judged>,
    ) -> (String, Tracked, Result<(), AdvanceError>) {
        let rule = self.rule(&tracked.alert);
        let mut next = tracked.clone();
        next.heard = Instant::now();
        let mut decisions = policy::settle(&mut next.record, &rule);
        for judged in windows {
            let (epoch_us, window) = (judged.epoch_us, judged.window);
            next.traces.insert((epoch_us, window.window), judged.trace);
            decisions.extend(policy::apply(&mut next.record, epoch_us, window, &rule));
        }
        match self
            .bring_out(partition, &tracked, &mut next, &decisions)
            .await
        {
            Ok(()) => (id, next, Ok(())),
            Err(error) => {
                let tracked = self.after_failure(tracked, &error).await;
                (id, tracked, Err(error))
            }
        }
    }

    /// Brings an alert forward by time: the change is stored before anything is decided by it.
    pub(crate) async fn advance_by_time(
        &self,
        partition: u32,
        before: Tracked,
        change: fn(&mut EvaluationRecord),
    ) -> (Tracked, Result<(), AdvanceError>) {
        let mut tracked = before.clone();
        change(&mut tracked.record);
        if let Err(error) = self.store(&mut tracked).await {
            return (self.after_failure(before, &error).await, Err(error));
        }
        failpoint::hit("alerts.after_time");
        let mut next = tracked.clone();
        let decisions = policy::settle(&mut next.record, &self.rule(&tracked.alert));
        match self
            .bring_out(partition, &tracked, &mut next, &decisions)
            .await
        {
            Ok(()) => (next, Ok(())),
            Err(error) => (self.after_failure(tracked, &error).await, Err(error)),
        }
    }

    /// Says that the open firing of an alert that was deleted is over. What is stored of it is removed by `forget`.
    pub(crate) async fn close_deleted(
        &self,
        partition: u32,
        tracked: &Tracked,
    ) -> Result<(), BusError> {
        let mut record = tracked.record.clone();
        drop_all(&mut record);
        for decision in policy::settle(&mut record, &self.rule(&tracked.alert)) {
            self.publish(partition, &tracked.alert, &decision).await?;
        }
        Ok(())
    }

    /// Whether the open firing is over, although no window says so.
    pub(crate) fn is_over(&self, tracked: &Tracked) -> bool {
        let stream = &tracked.alert.rtstream_id;
        let live = || {
            let run = self.catalog.get::<RunRecord>(stream);
            run.is_some_and(|run| run.value.state == i32::from(State::Active))
        };
        let rule = self.rule(&tracked.alert);
        // The catalog is asked only of those that have been silent for a while.
        policy::is_over(&tracked.record)
            || (tracked.silent(&rule, false) && tracked.silent(&rule, live()))
    }

    fn rule(&self, alert: &Alert) -> Rule {
        Rule::of(alert, self.clock.now_us())
    }

    /// Publishes the decisions, then stores the state that they led to.
    async fn bring_out(
        &self,
        partition: u32,
        before: &Tracked,
        next: &mut Tracked,
        decisions: &[Decision],
    ) -> Result<(), AdvanceError> {
        if decisions.iter().any(Decision::opens) {
            self.check_newest(before).await?;
        }
        for decision in decisions {
            let span = deciding(&next.traces, &next.alert, decision);
            let publishing = self.publish(partition, &next.alert, decision);
            publishing.instrument(span).await?;
        }
        if policy::must_store(&before.record, &next.record, decisions) {
            self.store(next).await?;
            failpoint::hit("alerts.after_state");
        }
        let (epoch_us, waiting) = (next.record.epoch_us, &next.record.waiting);
        let waits = |number| waiting.iter().any(|window| window.window == number);
        next.traces
            .retain(|&(epoch, number), _| epoch == epoch_us && waits(number));
        next.waiting_since = match next.record.waiting.first() {
            None => None,
            same if same == before.record.waiting.first() => before.waiting_since,
            Some(_) => Some(Instant::now()),
        };
        Ok(())
    }

    /// A firing that opens by what another process has gone past would be invented; all else is found out when it is stored.
    async fn check_newest(&self, before: &Tracked) -> Result<(), AdvanceError> {
        let id = &before.alert.id;
        match self.catalog.fetch::<EvaluationRecord>(id).await? {
            Some(found) if before.is_before(&found) => Err(AdvanceError::Behind),
            _ => Ok(()),
        }
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
        let index = self.catalog.get::<IndexRecord>(&alert.index_id);
        let index = index
            .as_ref()
            .and_then(|record| record.value.index.as_ref());
        let firing = Firing {
            decision,
            alert,
            is_audio: index.is_some_and(|index| index.kind() == index::Kind::Audio),
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
        if (decision.opens() || decision.closes) && !self.is_muted(alert, decision) {
            self.tell(&firing).await?;
        }
        if decision.opens() {
            self.metrics.firings.inc();
            tracing::info!(alert = alert.id, firing = firing.id(), "alert fired");
        }
        if decision.closes {
            tracing::info!(alert = alert.id, firing = firing.id(), "firing closed");
        }
        Ok(())
    }

    /// Nobody hears of a firing that was decided while its alert was muted, nor of what comes of another one then.
    fn is_muted(&self, alert: &Alert, decision: &Decision) -> bool {
        let muted_us = alert.mute_time.as_ref().map_or(i64::MIN, micros);
        decision.firing.decided_us < muted_us || self.clock.now_us() < muted_us
    }

    /// An event that was deleted beneath its alert goes by its id.
    fn event(&self, id: &str) -> Event {
        let record = self.catalog.get::<EventRecord>(id);
        let event = record.and_then(|record| record.value.event.clone());
        let event = event.or_else(|| health::event(id));
        event.unwrap_or_else(|| Event {
            id: id.to_owned(),
            prompt: id.to_owned(),
            label: id.to_owned(),
            ..Event::default()
        })
    }

    pub(crate) async fn store(&self, tracked: &mut Tracked) -> Result<(), AdvanceError> {
        let id = &tracked.alert.id;
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
    async fn after_failure(&self, before: Tracked, error: &AdvanceError) -> Tracked {
        match error {
            AdvanceError::Behind
            | AdvanceError::Catalog(CatalogError::Conflict { .. } | CatalogError::Exists { .. }) => {
            }
            _ => return before,
        }
        match self
            .catalog
            .fetch::<EvaluationRecord>(&before.alert.id)
            .await
        {
            Ok(Some(found)) => Tracked::stored(before.alert, &found),
            _ => before,
        }
    }
}

/// The span of a decision, under that of the verdict that made it.
fn deciding(
    traces: &BTreeMap<(i64, u64), TraceContext>,
    alert: &Alert,
    decision: &Decision,
) -> tracing::Span {
    let made_by = (decision.epoch_us, decision.window.window);
    let made_by = traces.get(&made_by).cloned().unwrap_or_default();
    made_by.above(tracing::info_span!(
        "decide",
        sightline.rtstream.id = alert.rtstream_id,
        sightline.alert.id = alert.id,
        sightline.index.id = alert.index_id,
        sightline.firing.opens = decision.opens(),
        sightline.firing.closes = decision.closes,
    ))
}
