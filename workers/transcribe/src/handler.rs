//! Handles one utterance.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sightline_bus::{ObservationKind, Outgoing, Received, Refusal, Subject};
use sightline_inference::whisper::SAMPLE_RATE;
use sightline_inference::{InferenceError, SpokenSegment};
use sightline_proto::internal::{AudioChunk, RtStreamRecord, RunRecord};
use sightline_service::chain;
use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};

use crate::metrics::{Outcome, TranscribeMetrics};
use crate::observations::{Span, transcripts};
use crate::{Config, Deps};

/// How long to wait before an utterance is tried again after a fault that may pass.
const PAUSE: Duration = Duration::from_secs(2);
/// Bytes of a 16 bit sample.
const SAMPLE_BYTES: usize = 2;

/// Handles utterances.
pub(crate) struct Handler {
    config: Config,
    deps: Deps,
    metrics: TranscribeMetrics,
    /// Bounds the threads that transcribe, those that nobody waits for any more included.
    busy: Arc<Semaphore>,
}

impl Handler {
    pub(crate) fn new(config: Config, deps: Deps, metrics: TranscribeMetrics) -> Self {
        Self {
            metrics,
            busy: Arc::new(Semaphore::new(config.concurrency.max(1))),
            config,
            deps,
        }
    }

    /// Whether a worker cut the utterance after it had lost its lease: the next one cuts it again, perhaps a sample later.
    fn is_stale(&self, chunk: &AudioChunk) -> bool {
        let run = self.deps.catalog.get::<RunRecord>(&chunk.rtstream_id);
        run.is_some_and(|run| {
            let run = &run.value;
            chunk.generation < run.generation
                && chunk.epoch_us == run.epoch_us
                && chunk.start_us >= run.taken_over_us
        })
    }

    /// Whether transcription was stopped at once since this was heard.
    fn is_dropped(&self, chunk: &AudioChunk) -> bool {
        let stream = self.deps.catalog.get::<RtStreamRecord>(&chunk.rtstream_id);
        stream.is_some_and(|s| (1..=s.value.dropped_session).contains(&chunk.session))
    }

    async fn transcribe(&self, chunk: &AudioChunk) -> Result<Vec<Outgoing>, Refusal> {
        let samples = samples(chunk)?;
        let length_us = samples.len() as i64 * 1_000_000 / SAMPLE_RATE as i64;
        let span = Span {
            start_us: chunk.start_us,
            end_us: chunk.start_us.saturating_add(length_us),
        };
        let started = Instant::now();
        let segments = self.listen(samples).await?;
        self.metrics
            .seconds
            .observe(started.elapsed().as_secs_f64());
        self.metrics.audio_seconds.inc_by(length_us as f64 / 1e6);
        self.metrics.delayed(span.end_us, self.deps.clock.now_us());
        self.metrics.segments.inc_by(segments.len() as u64);
        Ok(self.outgoing(chunk, span, &segments))
    }

    async fn listen(&self, samples: Vec<f32>) -> Result<Vec<SpokenSegment>, Refusal> {
        let permit = Arc::clone(&self.busy).acquire_owned().await;
        let permit = permit.map_err(|closed| retry(closed.to_string()))?;
        let transcriber = Arc::clone(&self.deps.transcriber);
        let listening = spawn_blocking(move || {
            let _held = permit;
            transcriber.transcribe(&samples)
        });
        listening.await.map_err(panicked)?.map_err(refusal)
    }

    fn outgoing(
        &self,
        chunk: &AudioChunk,
        span: Span,
        segments: &[SpokenSegment],
    ) -> Vec<Outgoing> {
        let subject = Subject::Observation {
            partition: self.deps.catalog.partition_of(&chunk.rtstream_id),
            kind: ObservationKind::Transcript,
            rtstream: chunk.rtstream_id.clone(),
        };
        let revision = self.deps.transcriber.revision();
        transcripts(chunk, span, &self.config.engine, revision, segments)
            .into_iter()
            .map(|t| Outgoing::new(subject.clone(), t.id.clone(), &t))
            .collect()
    }
}

#[async_trait]
impl sightline_bus::Handler<AudioChunk> for Handler {
    async fn handle(&self, received: &Received<AudioChunk>) -> Result<Vec<Outgoing>, Refusal> {
        let chunk = &received.message;
        if self.is_stale(chunk) {
            tracing::debug!(
                rtstream = chunk.rtstream_id,
                start_us = chunk.start_us,
                generation = chunk.generation,
                "utterance of an older lease is left out"
            );
            self.metrics.ended(Outcome::Stale);
            return Ok(Vec::new());
        }
        if self.is_dropped(chunk) {
            self.metrics.ended(Outcome::Dropped);
            return Ok(Vec::new());
        }
        let transcribed = self.transcribe(chunk).await;
        if self.is_dropped(chunk) {
            self.metrics.ended(Outcome::Dropped);
            return Ok(Vec::new());
        }
        self.metrics.ended(match transcribed {
            Ok(_) => Outcome::Transcribed,
            Err(_) => Outcome::Failed,
        });
        transcribed
    }
}

/// The samples as the model takes them, in -1..1.
fn samples(chunk: &AudioChunk) -> Result<Vec<f32>, Refusal> {
    let (samples, rest) = chunk.pcm.as_chunks::<SAMPLE_BYTES>();
    if !rest.is_empty() {
        let reason = format!("{} bytes are not 16 bit samples", chunk.pcm.len());
        return Err(Refusal::Reject { reason });
    }
    let samples = samples.iter().map(|&sample| i16::from_le_bytes(sample));
    Ok(samples.map(|sample| f32::from(sample) / 32768.0).collect())
}

fn retry(reason: String) -> Refusal {
    Refusal::Retry {
        after: PAUSE,
        reason,
    }
}

/// What is wrong with the utterance itself stays wrong.
fn refusal(error: InferenceError) -> Refusal {
    let reason = chain(&error);
    match error {
        InferenceError::InvalidInput(_) => Refusal::Reject { reason },
        _ => retry(reason),
    }
}

fn panicked(error: JoinError) -> Refusal {
    retry(format!("the model failed: {error}"))
}
