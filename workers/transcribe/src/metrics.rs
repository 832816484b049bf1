//! What the worker counts and measures.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use sightline_service::metrics::{Metrics, Values, latency_buckets};

/// What became of an utterance.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome {
    /// It was transcribed, be it to nothing.
    Transcribed,
    /// A worker that has lost its lease cut it.
    Stale,
    /// Transcription was stopped at once.
    Dropped,
    /// The model can't be had, and it waits.
    Held,
    /// It could not be transcribed.
    Failed,
}

/// What became of an utterance that was not over.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Interim {
    /// A line was told.
    Told,
    /// There was nothing to tell.
    Nothing,
    /// Utterances that are over come first, or the last one that was not is still under way.
    Busy,
    /// It could not be transcribed or told.
    Failed,
}

/// The worker's metrics.
pub(crate) struct TranscribeMetrics {
    utterances: Family<[(&'static str, &'static str); 1], Counter>,
    interim: Family<[(&'static str, &'static str); 1], Counter>,
    pub(crate) segments: Counter,
    pub(crate) scenes: Counter,
    pub(crate) audio_seconds: Counter<f64, std::sync::atomic::AtomicU64>,
    pub(crate) seconds: Histogram,
    delay: Histogram,
}

/// Registers all metrics of the role.
pub fn register_metrics(metrics: &Metrics) {
    let _ = TranscribeMetrics::register(metrics);
}

impl TranscribeMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let latency = || Histogram::new(latency_buckets());
        Self {
            utterances: metrics.register_by(
                "sightline_transcribe_utterances",
                "Utterances taken from the bus, by what became of them; held: the model could not be had, and they wait.",
                &[("outcome", Values::These(&["transcribed", "stale", "dropped", "held", "failed"]))],
                Family::default(),
            ),
            interim: metrics.register_by(
                "sightline_transcribe_interim",
                "Utterances that were not over, by what became of them.",
                &[("outcome", Values::These(&["told", "nothing", "busy", "failed"]))],
                Family::default(),
            ),
            segments: metrics.register(
                "sightline_transcribe_segments",
                "Transcript segments made.",
                Counter::default(),
            ),
            scenes: metrics.register(
                "sightline_transcribe_audio_scenes",
                "Batches of transcripts published for audio indexes.",
                Counter::default(),
            ),
            audio_seconds: metrics.register(
                "sightline_transcribe_audio_seconds",
                "Length of the audio transcribed.",
                Counter::default(),
            ),
            seconds: metrics.register(
                "sightline_transcribe_seconds",
                "Time that transcribing one utterance took.",
                latency(),
            ),
            delay: metrics.register(
                "sightline_transcribe_delay_seconds",
                "From the end of an utterance, on the stream's time, until its segments are made.",
                latency(),
            ),
        }
    }

    pub(crate) fn ended(&self, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Transcribed => "transcribed",
            Outcome::Stale => "stale",
            Outcome::Dropped => "dropped",
            Outcome::Held => "held",
            Outcome::Failed => "failed",
        };
        self.utterances.get_or_create(&[("outcome", outcome)]).inc();
    }

    pub(crate) fn told(&self, outcome: Interim) {
        let outcome = match outcome {
            Interim::Told => "told",
            Interim::Nothing => "nothing",
            Interim::Busy => "busy",
            Interim::Failed => "failed",
        };
        self.interim.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Counts the time from the end of an utterance until `now_us`; a file that is played fast is ahead of the clock.
    pub(crate) fn delayed(&self, end_us: i64, now_us: i64) {
        let delay_us = now_us.saturating_sub(end_us).max(0);
        self.delay.observe(delay_us as f64 / 1e6);
    }
}
