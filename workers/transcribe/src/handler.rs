//! Handles one utterance.
//!
//! While the model can't be had, which a remote one may not be for hours, utterances are held: none is given up for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sightline_bus::{ObservationKind, Outgoing, Received, Refusal, Subject};
use sightline_inference::whisper::SAMPLE_RATE;
use sightline_inference::{InferenceError, Speech, Transcript};
use sightline_proto::internal::{AudioChunk, RtStreamRecord, RunRecord};
use sightline_service::{Shutdown, chain};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{sleep, timeout};

use crate::metrics::{Outcome, TranscribeMetrics};
use crate::observations::{Span, transcripts};
use crate::{Config, Deps};

/// How long to hold back when the model can't be had, doubled with each further try …
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// … up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long utterances under way are waited for at shutdown; the process ends after 30 s. Others are given back.
const DRAIN: Duration = Duration::from_secs(20);
/// How many times in a row the model may fail at an utterance while it listens to silence: for about 15 s.
const MAX_FAULTS: u32 = 5;
/// How long an utterance that is not over is waited for: nobody reads its line after that.
const PATIENCE: Duration = Duration::from_secs(2);
/// Streams that are remembered for having been told of; with more, all are told of again.
const MOST_BEYOND: usize = 10_000;
/// Bytes of a 16 bit sample.
const SAMPLE_BYTES: usize = 2;

/// What the handling of utterances shares, whether they are over or not.
pub(crate) struct Handler {
    config: Config,
    deps: Deps,
    pub(crate) metrics: TranscribeMetrics,
    /// Bounds the threads that transcribe utterances that are over, those that nobody waits for any more included.
    busy: Arc<Semaphore>,
    /// The same for one that is not over.
    telling: Arc<Semaphore>,
    /// Whether the model could not be had when it was last asked.
    away: AtomicBool,
    /// What was asked of a stream's speech and can't be done: that is told once.
    beyond: Mutex<HashMap<String, Speech>>,
    shutdown: Shutdown,
}

/// Handles utterances that are over.
pub(crate) struct Finals(pub(crate) Arc<Handler>);

/// Why an utterance was not heard.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unheard {
    /// The model refused or failed.
    #[error(transparent)]
    Model(#[from] InferenceError),
    /// The thread is gone.
    #[error("the model failed")]
    Panicked(#[from] JoinError),
    /// It is too late for a line.
    #[error("the model took longer than {PATIENCE:?}")]
    Late,
}

impl Handler {
    pub(crate) fn new(
        config: Config,
        deps: Deps,
        metrics: TranscribeMetrics,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            metrics,
            busy: Arc::new(Semaphore::new(config.concurrency.max(1))),
            telling: Arc::new(Semaphore::new(1)),
            away: AtomicBool::new(false),
            beyond: Mutex::default(),
            shutdown,
            config,
            deps,
        }
    }

    pub(crate) fn engine(&self) -> &str {
        &self.config.engine
    }

    pub(crate) fn revision(&self) -> &str {
        self.deps.transcriber.revision()
    }

    /// A thread for an utterance that is not over; none while every other one has what is over, or the last such one is not done.
    pub(crate) fn spare(&self) -> Option<OwnedSemaphorePermit> {
        if self.busy.available_permits() == 0 {
            return None;
        }
        Arc::clone(&self.telling).try_acquire_owned().ok()
    }

    /// Whether a worker cut the utterance after it had lost its lease: the next one cuts it again, perhaps a sample later.
    pub(crate) fn is_stale(&self, chunk: &AudioChunk) -> bool {
        let run = self.deps.catalog.get::<RunRecord>(&chunk.rtstream_id);
        run.is_some_and(|run| {
            let run = &run.value;
            chunk.generation < run.generation
                && chunk.epoch_us == run.epoch_us
                && chunk.start_us >= run.taken_over_us
        })
    }

    /// Whether transcription was stopped at once since this was heard.
    pub(crate) fn is_dropped(&self, chunk: &AudioChunk) -> bool {
        let stream = self.deps.catalog.get::<RtStreamRecord>(&chunk.rtstream_id);
        stream.is_some_and(|s| (1..=s.value.dropped_session).contains(&chunk.session))
    }

    /// What the stream's user said of its speech.
    fn speech(&self, chunk: &AudioChunk) -> Speech {
        let stream = self.deps.catalog.get::<RtStreamRecord>(&chunk.rtstream_id);
        stream.map_or_else(Speech::default, |stream| Speech {
            language: Some(stream.value.language.clone()).filter(|code| !code.is_empty()),
            translate: stream.value.translate,
        })
    }

    /// The samples as the model takes them, in -1..1, and when they were heard.
    pub(crate) fn samples(&self, chunk: &AudioChunk) -> Result<(Span, Vec<f32>), String> {
        let (samples, rest) = chunk.pcm.as_chunks::<SAMPLE_BYTES>();
        if !rest.is_empty() {
            return Err(format!("{} bytes are not 16 bit samples", chunk.pcm.len()));
        }
        let samples = samples.iter().map(|&sample| i16::from_le_bytes(sample));
        let samples: Vec<f32> = samples.map(|sample| f32::from(sample) / 32768.0).collect();
        let length_us = samples.len() as i64 * 1_000_000 / SAMPLE_RATE as i64;
        let span = Span {
            start_us: chunk.start_us,
            end_us: chunk.start_us.saturating_add(length_us),
        };
        Ok((span, samples))
    }

    /// Has the model listen to what is not over, for as long as anybody wants to know.
    pub(crate) async fn hear_soon(
        &self,
        samples: Vec<f32>,
        chunk: &AudioChunk,
        spare: OwnedSemaphorePermit,
    ) -> Result<Transcript, Unheard> {
        let heard = timeout(PATIENCE, self.hear(samples, chunk, spare)).await;
        heard.unwrap_or(Err(Unheard::Late))
    }

    /// Has the model listen, on a thread of its own; `held` goes when that is done, even where nobody waits for it any more. What
    /// it can't do with the stream's speech is left: better what was said than nothing.
    async fn hear(
        &self,
        samples: Vec<f32>,
        chunk: &AudioChunk,
        held: OwnedSemaphorePermit,
    ) -> Result<Transcript, Unheard> {
        let (transcriber, speech) = (Arc::clone(&self.deps.transcriber), self.speech(chunk));
        let asked = speech.clone();
        let listening = spawn_blocking(move || {
            let _held = held;
            match transcriber.transcribe(&samples, &asked) {
                Err(InferenceError::InvalidInput(reason)) if asked != Speech::default() => {
                    let heard = transcriber.transcribe(&samples, &Speech::default());
                    heard.map(|heard| (heard, Some(reason)))
                }
                heard => heard.map(|heard| (heard, None)),
            }
        });
        let (heard, refused) = listening.await??;
        if let Some(reason) = refused {
            self.tell_beyond(chunk, speech, &reason);
        }
        Ok(heard)
    }

    /// Says once that a stream's speech is written down as it is heard.
    fn tell_beyond(&self, chunk: &AudioChunk, speech: Speech, reason: &str) {
        let mut beyond = self.beyond.lock().unwrap_or_else(PoisonError::into_inner);
        if beyond.get(&chunk.rtstream_id) == Some(&speech) {
            return;
        }
        tracing::warn!(
            rtstream = chunk.rtstream_id,
            language = speech.language,
            translate = speech.translate,
            reason,
            "speech is written down as it is heard: start its transcription without this, or give the worker another model"
        );
        if beyond.len() >= MOST_BEYOND {
            beyond.clear();
        }
        beyond.insert(chunk.rtstream_id.clone(), speech);
    }

    /// Tries until the model has listened, or nobody wants to know what was said. What it does not listen to while it listens to
    /// others is given up: the utterances behind it would wait until they expire.
    async fn hold(&self, chunk: &AudioChunk) -> Result<Vec<Outgoing>, Refusal> {
        let (mut pause, mut faults, mut reason) = (FIRST_PAUSE, 0, String::new());
        while !self.is_dropped(chunk) {
            if pause == FIRST_PAUSE || self.listens(chunk).await {
                let error = match self.transcribe(chunk).await? {
                    Ok(transcripts) => return Ok(transcripts),
                    Err(error) => error,
                };
                reason = chain(&error);
                faults += 1;
                if faults == MAX_FAULTS {
                    return Err(Refusal::Reject { reason });
                }
            } else {
                faults = 0;
            }
            if !self.away.swap(true, Ordering::Relaxed) {
                tracing::warn!(reason, "utterances are held until the model listens");
            }
            if pause == FIRST_PAUSE {
                self.metrics.ended(Outcome::Held);
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = self.shutdown.cancelled() => return Err(retry(reason)),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        Ok(Vec::new())
    }

    /// Waits until utterances under way are waited for no longer.
    async fn given_back(&self) {
        self.shutdown.cancelled().await;
        sleep(DRAIN).await;
    }

    /// Whether the model listens at all, to a second of silence.
    async fn listens(&self, chunk: &AudioChunk) -> bool {
        let silence = vec![0.0; SAMPLE_RATE];
        let heard = self.hear(silence, chunk, self.thread().await).await;
        !matches!(heard, Err(Unheard::Model(error)) if !matches!(error, InferenceError::InvalidInput(_)))
    }

    /// A thread for an utterance that is over.
    async fn thread(&self) -> OwnedSemaphorePermit {
        let permit = Arc::clone(&self.busy).acquire_owned().await;
        permit.expect("nobody closes it")
    }

    /// What the model made of it; inside, why it can't be had.
    async fn transcribe(
        &self,
        chunk: &AudioChunk,
    ) -> Result<Result<Vec<Outgoing>, InferenceError>, Refusal> {
        let samples = self.samples(chunk);
        let (span, samples) = samples.map_err(|reason| Refusal::Reject { reason })?;
        let permit = self.thread().await;
        let started = Instant::now();
        let heard = match self.hear(samples, chunk, permit).await {
            Ok(heard) => heard,
            Err(Unheard::Model(InferenceError::InvalidInput(reason))) => {
                return Err(Refusal::Reject { reason });
            }
            Err(Unheard::Model(error)) => return Ok(Err(error)),
            Err(error) => return Err(retry(chain(&error))),
        };
        if self.away.swap(false, Ordering::Relaxed) {
            tracing::info!("the model listens again");
        }
        self.metrics
            .seconds
            .observe(started.elapsed().as_secs_f64());
        let length_us = span.end_us.saturating_sub(span.start_us);
        self.metrics.audio_seconds.inc_by(length_us as f64 / 1e6);
        self.metrics.delayed(span.end_us, self.deps.clock.now_us());
        self.metrics.segments.inc_by(heard.segments.len() as u64);
        Ok(Ok(self.outgoing(chunk, span, &heard)))
    }

    fn outgoing(&self, chunk: &AudioChunk, span: Span, heard: &Transcript) -> Vec<Outgoing> {
        let subject = Subject::Observation {
            partition: self.deps.catalog.partition_of(&chunk.rtstream_id),
            kind: ObservationKind::Transcript,
            rtstream: chunk.rtstream_id.clone(),
        };
        transcripts(chunk, span, self.engine(), self.revision(), heard)
            .into_iter()
            .map(|t| Outgoing::new(subject.clone(), t.id.clone(), &t))
            .collect()
    }
}

#[async_trait]
impl sightline_bus::Handler<AudioChunk> for Finals {
    async fn handle(&self, received: &Received<AudioChunk>) -> Result<Vec<Outgoing>, Refusal> {
        let Self(handler) = self;
        let chunk = &received.message;
        if handler.is_stale(chunk) {
            tracing::debug!(
                rtstream = chunk.rtstream_id,
                start_us = chunk.start_us,
                generation = chunk.generation,
                "utterance of an older lease is left out"
            );
            handler.metrics.ended(Outcome::Stale);
            return Ok(Vec::new());
        }
        if handler.is_dropped(chunk) {
            handler.metrics.ended(Outcome::Dropped);
            return Ok(Vec::new());
        }
        let transcribed = tokio::select! {
            transcribed = handler.hold(chunk) => transcribed,
            () = handler.given_back() => Err(retry("the worker stops".to_owned())),
        };
        if handler.is_dropped(chunk) {
            handler.metrics.ended(Outcome::Dropped);
            return Ok(Vec::new());
        }
        handler.metrics.ended(match transcribed {
            Ok(_) => Outcome::Transcribed,
            Err(_) => Outcome::Failed,
        });
        transcribed
    }
}

fn retry(reason: String) -> Refusal {
    Refusal::Retry {
        after: FIRST_PAUSE,
        reason,
    }
}
