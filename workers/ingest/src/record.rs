//! A stream's RunRecord: the fence of the lease, and how far the stream has come.

use std::sync::Arc;

use sightline_bus::{ObservationKind, Subject};
use sightline_catalog::CatalogError;
use sightline_proto::ids;
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{
    AudioChunk, GapBody, Observation, RtStreamRecord, RunRecord, StatusBody,
};
use sightline_proto::v1::rt_stream::{RecordingState, State};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::Shared;
use crate::presence::Vitals;

/// How often progress is stored at most, other than utterances: what is repeated after a crash has the same ids.
const STORE_EVERY: std::time::Duration = std::time::Duration::from_secs(1);

/// Why a run can't go on as it is.
#[derive(Debug, Error)]
pub(crate) enum RecordError {
    /// Another worker runs the stream.
    #[error("another worker has taken the stream over")]
    Fenced,
    /// The catalog does not answer.
    #[error("how far the stream has come cannot be stored")]
    Catalog(#[from] CatalogError),
    /// The bus does not answer.
    #[error("what happened to the stream cannot be published")]
    Bus(#[from] sightline_bus::BusError),
}

/// The record of a run that this worker holds.
pub(crate) struct RunState {
    shared: Arc<Shared>,
    rtstream_id: String,
    pub(crate) collection_id: String,
    pub(crate) run: RunRecord,
    revision: u64,
    stored: Instant,
    /// Makes the ids of status observations distinct.
    changes: u64,
    counted: Option<State>,
    /// What is known of the run for telling its health.
    pub(crate) vitals: watch::Sender<Vitals>,
}

impl RunState {
    /// Takes the stream: writes this worker and the next generation into its record. `None` if this start of the stream is
    /// over already; that is told once more, in case who noted it died of it.
    pub(crate) async fn claim(
        shared: &Arc<Shared>,
        rtstream_id: &str,
        stream: &RtStreamRecord,
    ) -> Result<Option<Self>, RecordError> {
        let found = shared.catalog.fetch::<RunRecord>(rtstream_id).await?;
        let before = found.as_ref().map(|found| RunRecord::clone(&found.value));
        let mut state = Self {
            shared: Arc::clone(shared),
            rtstream_id: rtstream_id.to_owned(),
            collection_id: stream
                .rtstream
                .as_ref()
                .map_or_else(String::new, |s| s.collection_id.clone()),
            run: before.clone().unwrap_or_default(),
            revision: 0,
            stored: Instant::now(),
            changes: 0,
            counted: None,
            vitals: watch::Sender::default(),
        };
        let same_start = state.run.start_count == stream.start_count;
        if same_start && is_over(&state.run) {
            state.tell_end_again().await?;
            return Ok(None);
        }
        if !same_start {
            state.run = RunRecord::default();
        }
        state.skip_heard().await?;
        let run = &mut state.run;
        run.taken_over_us = run.audio_done_us;
        run.generation = before.map_or(0, |run| run.generation) + 1;
        run.holder.clone_from(&shared.config.worker);
        run.start_count = stream.start_count;
        run.state = State::Connecting.into();
        let catalog = &shared.catalog;
        let written = match found {
            Some(found) => catalog.update(rtstream_id, run, found.revision).await,
            None => catalog.create(rtstream_id, run).await,
        };
        state.revision = written.map_err(fenced)?;
        state.count(Some(State::Connecting));
        state.show_vitals();
        Ok(Some(state))
    }

    /// Removes the record of a stream that is gone, whoever holds it: that one finds itself fenced.
    pub(crate) async fn forget(shared: &Shared, rtstream_id: &str) -> Result<(), RecordError> {
        let catalog = &shared.catalog;
        if let Some(found) = catalog.fetch::<RunRecord>(rtstream_id).await? {
            let removed = catalog.delete::<RunRecord>(rtstream_id, found.revision);
            removed.await.map_err(fenced)?;
        }
        Ok(())
    }

    /// A crash may have come between an utterance and the note that it is out; cut a second time it might start a sample
    /// later, under another id. So the bus is asked for the last one that it took. What an older holder publishes after that is
    /// refused, and heard again.
    async fn skip_heard(&mut self) -> Result<(), RecordError> {
        let (bus, id) = (&self.shared.bus, &self.rtstream_id);
        let waiting = Subject::Audio {
            engine: self.shared.config.engine.clone(),
            rtstream: id.clone(),
        };
        let heard = self.observed(ObservationKind::Transcript);
        let waiting = bus.newest::<AudioChunk>(&waiting).await?;
        let heard = bus.newest::<Observation>(&heard).await?;
        let waiting = waiting
            .filter(|chunk| chunk.epoch_us == self.run.epoch_us)
            .map(|chunk| end_of(&chunk));
        let heard = heard
            .filter(|heard| heard.epoch_us == self.run.epoch_us)
            .map(|heard| heard.end_us);
        let latest = waiting.max(heard).unwrap_or(0);
        self.run.audio_done_us = self.run.audio_done_us.max(latest);
        Ok(())
    }

    /// Stores the record now.
    pub(crate) async fn store(&mut self) -> Result<(), RecordError> {
        let catalog = &self.shared.catalog;
        let stored = catalog
            .update(&self.rtstream_id, &self.run, self.revision)
            .await;
        self.revision = match stored {
            Ok(revision) => revision,
            Err(CatalogError::Conflict { .. }) => {
                // Either another worker's, or this one's own whose confirmation got lost.
                let found = catalog.fetch::<RunRecord>(&self.rtstream_id).await?;
                let own = found.filter(|found| {
                    found.value.generation == self.run.generation
                        && found.value.holder == self.run.holder
                });
                let revision = own.ok_or(RecordError::Fenced)?.revision;
                catalog
                    .update(&self.rtstream_id, &self.run, revision)
                    .await
                    .map_err(fenced)?
            }
            Err(error) => return Err(error.into()),
        };
        self.stored = Instant::now();
        Ok(())
    }

    /// Stores the record if that was not done lately.
    pub(crate) async fn store_now_and_then(&mut self) -> Result<(), RecordError> {
        if self.stored.elapsed() < STORE_EVERY {
            return Ok(());
        }
        self.store().await
    }

    /// The stream is in another state: stored and then told.
    pub(crate) async fn set(
        &mut self,
        state: State,
        detail: &str,
        attempt: u32,
    ) -> Result<(), RecordError> {
        self.run.state = state.into();
        detail.clone_into(&mut self.run.detail);
        self.run.attempt = attempt;
        self.store().await?;
        self.count(Some(state));
        self.show_vitals();
        tracing::info!(
            rtstream = self.rtstream_id,
            ?state,
            detail,
            attempt,
            "stream changed its state"
        );
        self.tell(detail.to_owned()).await
    }

    /// Tells the stream's state, with this detail.
    async fn tell(&mut self, detail: String) -> Result<(), RecordError> {
        self.changes += 1;
        let now = self.shared.clock.now_us();
        let id = if is_over(&self.run) {
            self.end_id()
        } else {
            let which = format!("{}.{}", self.run.generation, self.changes);
            self.observation_id(ObservationKind::Status, now, &which)
        };
        let body = StatusBody {
            state: self.run.state,
            detail,
            attempt: self.run.attempt,
        };
        self.observe(ObservationKind::Status, id, now, now, Body::Status(body))
            .await
    }

    /// Tells how this start ended, unless that was the last thing told.
    async fn tell_end_again(&mut self) -> Result<(), RecordError> {
        let last = self.observed(ObservationKind::Status);
        let last = self.shared.bus.newest::<Observation>(&last).await?;
        if last.is_some_and(|last| last.id == self.end_id()) {
            return Ok(());
        }
        self.tell(self.run.detail.clone()).await
    }

    /// A start ends once: whoever tells it again does so with this id.
    fn end_id(&self) -> String {
        let which = format!("end.{}", self.run.start_count);
        self.observation_id(ObservationKind::Status, 0, &which)
    }

    /// What recording is doing.
    pub(crate) fn recording_state(&self) -> RecordingState {
        RecordingState::try_from(self.run.recording_state).unwrap_or_default()
    }

    /// Recording is in another state: stored, and told unless it only begins or ends with the stream. The same once more
    /// changes nothing.
    pub(crate) async fn set_recording(
        &mut self,
        state: RecordingState,
        detail: &str,
    ) -> Result<(), RecordError> {
        if self.recording_state() == state && self.run.recording_detail == detail {
            return Ok(());
        }
        self.run.recording_state = state.into();
        detail.clone_into(&mut self.run.recording_detail);
        self.store().await?;
        let told = match state {
            RecordingState::Active if detail.is_empty() => "recording".to_owned(),
            RecordingState::Active => format!("recording without sound: {detail}"),
            RecordingState::Failing => format!("recording is failing: {detail}"),
            RecordingState::Unsupported => format!("recording is not possible: {detail}"),
            _ => return Ok(()),
        };
        tracing::info!(
            rtstream = self.rtstream_id,
            ?state,
            detail,
            "recording changed its state"
        );
        self.tell(told).await
    }

    /// The stream ends, and its recording with it; that it was impossible stays to be seen.
    pub(crate) fn end_recording(&mut self) {
        use RecordingState::{Stopped, Unspecified, Unsupported};
        if !matches!(self.recording_state(), Unspecified | Unsupported) {
            self.run.recording_state = Stopped.into();
            self.run.recording_detail.clear();
        }
    }

    /// Media between these times never came, or is lost. Told again, it is the same observation.
    pub(crate) async fn gap(
        &self,
        what: &str,
        reason: &str,
        from_us: i64,
        to_us: i64,
    ) -> Result<(), RecordError> {
        let body = GapBody {
            what: what.to_owned(),
            reason: reason.to_owned(),
        };
        let id = self.observation_id(ObservationKind::Gap, from_us, what);
        self.observe(ObservationKind::Gap, id, from_us, to_us, Body::Gap(body))
            .await
    }

    fn observation_id(&self, kind: ObservationKind, start_us: i64, answers: &str) -> String {
        let (id, epoch_us) = (&self.rtstream_id, self.run.epoch_us);
        ids::observation_id(kind.as_str(), id, epoch_us, start_us, answers, 0, "")
    }

    async fn observe(
        &self,
        kind: ObservationKind,
        id: String,
        start_us: i64,
        end_us: i64,
        body: Body,
    ) -> Result<(), RecordError> {
        let observation = Observation {
            id: id.clone(),
            rtstream_id: self.rtstream_id.clone(),
            collection_id: self.collection_id.clone(),
            epoch_us: self.run.epoch_us,
            start_us,
            end_us,
            model_revision: String::new(),
            body: Some(body),
        };
        self.shared
            .bus
            .publish(&self.observed(kind), &id, &observation)
            .await?;
        Ok(())
    }

    fn observed(&self, kind: ObservationKind) -> Subject {
        Subject::Observation {
            partition: self.shared.catalog.partition_of(&self.rtstream_id),
            kind,
            rtstream: self.rtstream_id.clone(),
        }
    }

    fn show_vitals(&self) {
        self.vitals.send_modify(|vitals| {
            vitals.epoch_us = self.run.epoch_us;
            vitals.down = self.run.state != i32::from(State::Active);
        });
    }

    fn count(&mut self, state: Option<State>) {
        self.shared.metrics.moved(self.counted, state);
        self.counted = state;
    }
}

impl Drop for RunState {
    fn drop(&mut self) {
        self.count(None);
    }
}

/// The stream time at which an utterance ends.
pub(crate) fn end_of(chunk: &AudioChunk) -> i64 {
    const BYTES_A_SECOND: i64 = 32_000;
    chunk.start_us + chunk.pcm.len() as i64 * 1_000_000 / BYTES_A_SECOND
}

fn is_over(run: &RunRecord) -> bool {
    matches!(
        State::try_from(run.state),
        Ok(State::Ended | State::Failed | State::Stopped)
    )
}

fn fenced(error: CatalogError) -> RecordError {
    match error {
        CatalogError::Conflict { .. } | CatalogError::Exists { .. } => RecordError::Fenced,
        error => error.into(),
    }
}
