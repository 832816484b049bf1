//! What waits when nothing more comes: by the clock, a time on the grid is over; the stream has ended; the index was stopped.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sightline_catalog::{CatalogError, Versioned};
use sightline_proto::internal::{BatchingRecord, IndexRecord, RtStreamRecord, RunRecord};
use sightline_proto::v1::rt_stream::{Playback, State};
use sightline_proto::v1::{Index, index};
use sightline_service::{Shutdown, chain};
use tokio::time::{MissedTickBehavior, interval};

use super::cutting::{self, Batching};
use super::{AdvanceError, Batcher};

/// How often to look.
const TICK: Duration = Duration::from_millis(500);
/// A stream that is over may still have speech that is being transcribed: this long after the last of it, what waits is a
/// batch.
const QUIET_US: i64 = 5_000_000;
/// A time on the grid of a live stream is over this long after its end: an utterance ends, is cut and is transcribed
/// meanwhile. What comes later still has a scene of its own.
const GRACE_US: i64 = 10_000_000;

/// Looks after what waits until shutdown.
pub(super) async fn watch(batcher: Arc<Batcher>, shutdown: Shutdown) {
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut changed = Changed::default();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = tick.tick() => {}
        }
        batcher.look(&mut changed).await;
    }
}

/// When each record that waits was last seen to change, whoever wrote it; bounded by the records in the catalog.
#[derive(Default)]
struct Changed(HashMap<String, (u64, i64)>);

impl Changed {
    fn since(&mut self, id: &str, revision: u64, now_us: i64) -> i64 {
        let seen = self.0.entry(id.to_owned()).or_insert((revision, now_us));
        if seen.0 != revision {
            *seen = (revision, now_us);
        }
        seen.1
    }
}

impl Batcher {
    async fn look(&self, changed: &mut Changed) {
        let records = self.catalog.list::<BatchingRecord>();
        let now_us = self.clock.now_us();
        changed
            .0
            .retain(|id, _| records.binary_search_by(|(other, _)| other.cmp(id)).is_ok());
        for (id, found) in records {
            let since_us = changed.since(&id, found.revision, now_us);
            let is_quiet = now_us.saturating_sub(since_us) >= QUIET_US;
            if let Err(error) = self.look_at(&id, &found, is_quiet, now_us).await {
                tracing::warn!(index = id, reason = chain(&error), "batches wait longer");
            }
        }
    }

    async fn look_at(
        &self,
        id: &str,
        found: &Versioned<BatchingRecord>,
        is_quiet: bool,
        now_us: i64,
    ) -> Result<(), AdvanceError> {
        let record = self.catalog.get::<IndexRecord>(id);
        let Some(index) = record.as_ref().and_then(|r| r.value.index.as_ref()) else {
            return self.forget(id, found.revision).await;
        };
        let state = &found.value;
        let batching = Batching::of(index);
        if !state.waiting.is_empty() && self.is_over(index, state, is_quiet) {
            // Decided for what waits now: what another worker has added meanwhile is looked at again.
            let sequence = state.sequence;
            return self
                .advance(index, |state| {
                    if state.sequence == sequence {
                        cutting::drain(state, batching)
                    } else {
                        Vec::new()
                    }
                })
                .await;
        }
        let until_us = now_us.saturating_sub(GRACE_US);
        let by_clock = matches!(batching, Batching::Time(_)) && !self.runs_ahead(index);
        let mut after = BatchingRecord::clone(state);
        let leftover = is_quiet && !state.emitting.is_empty();
        if leftover || by_clock && !cutting::settle(&mut after, batching, until_us).is_empty() {
            return self
                .advance(index, |state| {
                    if by_clock {
                        cutting::settle(state, batching, until_us)
                    } else {
                        Vec::new()
                    }
                })
                .await;
        }
        Ok(())
    }

    /// Whether nothing more comes to what waits.
    fn is_over(&self, index: &Index, state: &BatchingRecord, is_quiet: bool) -> bool {
        if index.state() != index::State::Running {
            return true;
        }
        let stream = self.catalog.get::<RtStreamRecord>(&index.rtstream_id);
        let stream = stream.as_ref().and_then(|s| s.value.rtstream.as_ref());
        let is_heard = stream.is_some_and(|stream| stream.transcribe);
        is_quiet && (!is_heard || self.has_ended(&index.rtstream_id, state.epoch_us))
    }

    fn has_ended(&self, rtstream: &str, epoch_us: i64) -> bool {
        let Some(run) = self.catalog.get::<RunRecord>(rtstream) else {
            return false;
        };
        let ended = [State::Ended, State::Stopped, State::Failed].map(i32::from);
        run.value.epoch_us > epoch_us || ended.contains(&run.value.state)
    }

    /// Whether the stream's time is not the clock's: a file that is played as fast as it can be.
    fn runs_ahead(&self, index: &Index) -> bool {
        let stream = self.catalog.get::<RtStreamRecord>(&index.rtstream_id);
        let stream = stream.as_ref().and_then(|s| s.value.rtstream.as_ref());
        stream.is_some_and(|stream| stream.playback() == Playback::Fast)
    }

    /// Forgets an index that was deleted. The view may not have it yet, so the server is asked.
    async fn forget(&self, id: &str, revision: u64) -> Result<(), AdvanceError> {
        if self.catalog.fetch::<IndexRecord>(id).await?.is_some() {
            return Ok(());
        }
        match self.catalog.delete::<BatchingRecord>(id, revision).await {
            Ok(()) | Err(CatalogError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
