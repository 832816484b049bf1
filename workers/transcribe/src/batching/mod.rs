//! Batches of the transcript for audio indexes.
//!
//! One consumer for each partition takes the transcripts in the order of the bus, one message at a time: the next one is
//! delivered, to whichever worker, once the last is acknowledged. What a message, or the clock, leads to is stored in the
//! index's [`BatchingRecord`] by compare-and-set, the batches that it completes included; then they are published, then
//! the message is acknowledged. So a crash anywhere repeats at most the publishing, under the same ids.
//!
//! Nothing is kept in memory: any number of workers may do this side by side, and the record's revision decides between
//! them.

mod cutting;
mod scene;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use prometheus_client::metrics::counter::Counter;
use sightline_bus::{
    BatchHandler, Bus, BusError, ObservationKind, Outgoing, Received, Refusal, StreamName, Subject,
    Work, work_in_order,
};
use sightline_catalog::{Catalog, CatalogError, Versioned};
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{
    BatchingRecord, IndexRecord, Observation, RtStreamRecord, TranscriptBody, Word,
};
use sightline_proto::time::micros;
use sightline_proto::v1::{Index, index};
use sightline_service::clock::Clock;
use sightline_service::{Shutdown, chain, failpoint};
use thiserror::Error;
use tokio::task::JoinSet;

use cutting::{Batching, Cut, Spoken};

/// How long after a crash its message goes to another worker.
const ACK_WAIT: Duration = Duration::from_secs(6);
/// How long a message may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long to hold back when the bus or the catalog did not take something.
const PAUSE: Duration = Duration::from_millis(200);
/// How often a record is written against other writers before the message is tried again.
const ATTEMPTS: usize = 16;

/// What the parts share.
pub(crate) struct Batcher {
    pub(crate) bus: Bus,
    pub(crate) catalog: Catalog,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) scenes: Counter,
}

/// Why an index could not be brought forward.
#[derive(Debug, Error)]
enum AdvanceError {
    #[error(transparent)]
    Bus(#[from] BusError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error("other workers wrote index {0}'s record each time")]
    Contended(String),
}

/// Batches transcripts until shutdown.
pub(crate) async fn run(batcher: Batcher, shutdown: Shutdown) -> Result<(), BusError> {
    let batcher = Arc::new(batcher);
    let stop = shutdown.child_token();
    let mut parts = JoinSet::new();
    for partition in 0..batcher.catalog.partitions() {
        let consumer = Work {
            stream: StreamName::Observations,
            durable: format!("batching-{partition}"),
            filter: format!("obs.{partition}.{}.*", ObservationKind::Transcript.as_str()),
            concurrency: 1,
            ack_wait: ACK_WAIT,
            deadline: DEADLINE,
            max_deliver: -1,
        };
        let (handler, stop) = (InOrder(Arc::clone(&batcher)), stop.clone());
        let bus = batcher.bus.clone();
        parts.spawn(async move { work_in_order(&bus, consumer, 1, handler, stop).await });
    }
    let watching = waiting::watch(batcher, stop.clone());
    parts.spawn(async move {
        watching.await;
        Ok(())
    });
    let mut result = Ok(());
    while let Some(ended) = parts.join_next().await {
        let ended =
            ended.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()));
        if ended.is_err() {
            stop.cancel();
        }
        result = result.and(ended);
    }
    result
}

struct InOrder(Arc<Batcher>);

#[async_trait]
impl BatchHandler<Observation> for InOrder {
    async fn handle(&mut self, batch: &[Received<Observation>]) -> Result<Vec<Outgoing>, Refusal> {
        for received in batch {
            if let Err(error) = self.0.take(received).await {
                let reason = chain(&error);
                tracing::warn!(reason, "a transcript is batched again");
                return Err(Refusal::Retry {
                    after: PAUSE,
                    reason,
                });
            }
        }
        // Everything is published already: before it is, its record must be stored.
        Ok(Vec::new())
    }
}

impl Batcher {
    /// Takes in a segment for every index that wants it.
    async fn take(&self, received: &Received<Observation>) -> Result<(), AdvanceError> {
        let observed = &received.message;
        let Some(Body::Transcript(transcript)) = &observed.body else {
            return Ok(());
        };
        let spoken = Spoken {
            epoch_us: observed.epoch_us,
            start_us: observed.start_us,
            words: words(observed, transcript),
            sequence: received.sequence,
        };
        for (_, record) in self.catalog.list::<IndexRecord>() {
            let Some(index) = &record.value.index else {
                continue;
            };
            if wants(index, observed) {
                let batching = Batching::of(index);
                self.advance(index, |state| cutting::take(state, batching, &spoken))
                    .await?;
            }
        }
        Ok(())
    }

    /// Changes an index's record and publishes the batches that this completes.
    async fn advance(
        &self,
        index: &Index,
        mut change: impl FnMut(&mut BatchingRecord) -> Vec<Cut>,
    ) -> Result<(), AdvanceError> {
        let mut found = self.catalog.get::<BatchingRecord>(&index.id);
        for _ in 0..ATTEMPTS {
            // What another worker, or this one before a crash, decided on and may not have published.
            let mut state = found
                .as_ref()
                .map_or_else(BatchingRecord::default, |f| f.value.as_ref().clone());
            self.publish(index, &state.emitting).await?;
            state.emitting.clear();
            let before = (state.epoch_us, state.next_batch);
            let mut cuts = change(&mut state);
            if self.is_read(index) {
                cuts = cutting::with_silence(before, Batching::of(index), cuts);
            }
            state.emitting = self.scenes(index, cuts);
            if found.as_ref().is_some_and(|found| *found.value == state)
                || found.is_none() && state == BatchingRecord::default()
            {
                return Ok(());
            }
            failpoint::hit("batching.before_state");
            match self.store(&index.id, &state, found.as_ref()).await {
                Ok(revision) => return self.emit(index, state, revision).await,
                Err(CatalogError::Conflict { .. } | CatalogError::Exists { .. }) => {
                    found = self.catalog.fetch(&index.id).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(AdvanceError::Contended(index.id.clone()))
    }

    /// Publishes what is stored as decided, and stores that this is done.
    async fn emit(
        &self,
        index: &Index,
        mut state: BatchingRecord,
        revision: u64,
    ) -> Result<(), AdvanceError> {
        if state.emitting.is_empty() {
            return Ok(());
        }
        failpoint::hit("batching.after_state");
        self.publish(index, &state.emitting).await?;
        failpoint::hit("batching.after_publish");
        self.scenes.inc_by(state.emitting.len() as u64);
        state.emitting.clear();
        match self.catalog.update(&index.id, &state, revision).await {
            // Whoever wrote it meanwhile has published the same first.
            Ok(_) | Err(CatalogError::Conflict { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// To the model that reads them, or where the index's model reads nothing, out as they are.
    async fn publish(&self, index: &Index, scenes: &[Observation]) -> Result<(), BusError> {
        let is_read = self.is_read(index);
        for scene in scenes {
            let subject = if is_read {
                Subject::Text {
                    model: index.model.clone(),
                    index: index.id.clone(),
                }
            } else {
                Subject::Observation {
                    partition: self.catalog.partition_of(&scene.rtstream_id),
                    kind: ObservationKind::AudioScene,
                    rtstream: scene.rtstream_id.clone(),
                }
            };
            self.bus.publish(&subject, &scene.id, scene).await?;
        }
        Ok(())
    }

    fn is_read(&self, index: &Index) -> bool {
        let record = self.catalog.get::<IndexRecord>(&index.id);
        record.is_some_and(|record| record.value.reads_text)
    }

    async fn store(
        &self,
        id: &str,
        state: &BatchingRecord,
        found: Option<&Versioned<BatchingRecord>>,
    ) -> Result<u64, CatalogError> {
        match found {
            Some(found) => self.catalog.update(id, state, found.revision).await,
            None => self.catalog.create(id, state).await,
        }
    }

    fn scenes(&self, index: &Index, cuts: Vec<Cut>) -> Vec<Observation> {
        let stream = self.catalog.get::<RtStreamRecord>(&index.rtstream_id);
        let stream = stream.as_ref().and_then(|s| s.value.rtstream.as_ref());
        let collection_id = stream.map_or("", |stream| &stream.collection_id);
        cuts.into_iter()
            .map(|cut| scene::scene(index, collection_id, cut))
            .collect()
    }
}

/// Whether a segment is for an index: it runs, and was created before the segment began.
fn wants(index: &Index, observed: &Observation) -> bool {
    index.kind() == index::Kind::Audio
        && index.state() == index::State::Running
        && index.rtstream_id == observed.rtstream_id
        && index.create_time.as_ref().map_or(0, micros) <= observed.start_us
}

/// A segment's words. An engine that gives none has said them evenly over the segment.
fn words(observed: &Observation, transcript: &TranscriptBody) -> Vec<Word> {
    if !transcript.words.is_empty() {
        return transcript.words.clone();
    }
    let said: Vec<&str> = transcript.text.split_whitespace().collect();
    let length_us = observed.end_us.saturating_sub(observed.start_us).max(0);
    let each_us = length_us / said.len().max(1) as i64;
    let starts = (0..).map(|n| observed.start_us + n * each_us);
    said.iter()
        .zip(starts)
        .map(|(word, start_us)| Word {
            text: (*word).to_owned(),
            start_us,
            end_us: start_us + each_us,
            probability: 0.0,
        })
        .collect()
}
