//! What the worker counts and measures.

use std::time::Instant;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use sightline_inference::vlm::engine::{OnStep, Step};
use sightline_service::metrics::{Metrics, Values, latency_buckets};

type Label = [(&'static str, &'static str); 1];

/// A part of the way of a window.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stage {
    /// From the capture of the last frame until the window is here.
    Wait,
    /// From handing the window over to the model until all its questions are judged, its turn included.
    Judge,
    /// From the capture of the last frame until the verdicts are on the bus.
    Verdict,
    /// From then on, or from handing it over where nothing is asked, until it is described for all prompts.
    Describe,
}

/// What became of a window.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome {
    /// It was described.
    Described,
    /// Nobody asks about it any more.
    Unwanted,
    /// It got too old, or newer ones of its stream came, before it was described.
    Expired,
    /// It could not be looked at.
    Failed,
}

/// The worker's metrics; clones share them.
#[derive(Clone)]
pub(crate) struct CaptionMetrics {
    windows: Family<Label, Counter>,
    missing: Family<Label, Counter>,
    pub(crate) verdicts: Counter,
    pub(crate) scenes: Counter,
    pub(crate) scenes_reused: Counter,
    pub(crate) prompts_refused: Counter,
    batches: Family<Label, Counter>,
    stages: Family<Label, Histogram, fn() -> Histogram>,
}

impl CaptionMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(latency_buckets());
        Self {
            windows: metrics.register_by(
                "sightline_caption_windows",
                "Windows taken from the bus, by what became of them.",
                &[("outcome", Values::These(&["described", "unwanted", "expired", "failed"]))],
                Family::default(),
            ),
            missing: metrics.register_by(
                "sightline_caption_windows_missing",
                "Windows between two that this process got which never came, by reason. Those that another process took \
                 count too: where several share a model, an index's own count of missing windows tells.",
                &[("reason", Values::These(&["superseded"]))],
                Family::default(),
            ),
            verdicts: metrics.register(
                "sightline_caption_verdicts",
                "Verdicts published.",
                Counter::default(),
            ),
            scenes: metrics.register(
                "sightline_caption_scenes",
                "Scenes made.",
                Counter::default(),
            ),
            scenes_reused: metrics.register(
                "sightline_caption_scenes_reused",
                "Scenes whose text was taken over from an earlier window with almost the same pictures.",
                Counter::default(),
            ),
            prompts_refused: metrics.register(
                "sightline_caption_prompts_refused",
                "Prompts that the model could not take on a window, for example because they are too long.",
                Counter::default(),
            ),
            batches: metrics.register_by(
                "sightline_caption_batches",
                "Batches of transcripts taken from the bus, by what became of them; held: the model could not be had, and they wait.",
                &[("outcome", Values::These(&["answered", "failed", "held", "unwanted"]))],
                Family::default(),
            ),
            stages: metrics.register_by(
                "sightline_caption_stage_seconds",
                "Time that each stage took for one window; wait and verdict count from the capture of its last frame.",
                &[("stage", Values::These(&["wait", "judge", "verdict", "describe"]))],
                Family::new_with_constructor(histogram),
            ),
        }
    }

    pub(crate) fn ended(&self, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Described => "described",
            Outcome::Unwanted => "unwanted",
            Outcome::Expired => "expired",
            Outcome::Failed => "failed",
        };
        self.windows.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// A batch of a transcript.
    pub(crate) fn batch(&self, outcome: &'static str) {
        self.batches.get_or_create(&[("outcome", outcome)]).inc();
    }

    pub(crate) fn superseded(&self, windows: u64) {
        self.missing
            .get_or_create(&[("reason", "superseded")])
            .inc_by(windows);
    }

    /// Counts the time since `started`, and returns now.
    pub(crate) fn took(&self, stage: Stage, started: Instant) -> Instant {
        let now = Instant::now();
        self.observe(stage, (now - started).as_secs_f64());
        now
    }

    /// Counts the time from one wall time to another.
    pub(crate) fn lasted(&self, stage: Stage, from_us: i64, to_us: i64) {
        self.observe(stage, to_us.saturating_sub(from_us).max(0) as f64 / 1e6);
    }

    fn observe(&self, stage: Stage, seconds: f64) {
        let stage = match stage {
            Stage::Wait => "wait",
            Stage::Judge => "judge",
            Stage::Verdict => "verdict",
            Stage::Describe => "describe",
        };
        self.stages
            .get_or_create(&[("stage", stage)])
            .observe(seconds);
    }
}

/// Registers all metrics of the role.
pub fn register_metrics(metrics: &Metrics) {
    let _ = CaptionMetrics::register(metrics);
    let _ = count_steps(metrics);
}

/// Counts what a local model's engine does.
pub fn count_steps(metrics: &Metrics) -> OnStep {
    let steps: Family<Label, Counter> = metrics.register_by(
        "sightline_model_steps",
        "Runs of a graph of the local vision-language model, by what they did.",
        &[(
            "step",
            Values::These(&["encode", "prefill", "judge", "begin", "decode", "failed"]),
        )],
        Family::default(),
    );
    let decoded: Counter = metrics.register(
        "sightline_model_decoded_tokens",
        "Tokens decoded by the local vision-language model; over its decoding steps, how many answers share one.",
        Counter::default(),
    );
    Box::new(move |step| {
        let name = match step {
            Step::Encode => "encode",
            Step::Prefill => "prefill",
            Step::Judge => "judge",
            Step::Begin => "begin",
            Step::Decode { sequences } => {
                decoded.inc_by(sequences as u64);
                "decode"
            }
            Step::Failed => "failed",
        };
        steps.get_or_create(&[("step", name)]).inc();
    })
}
