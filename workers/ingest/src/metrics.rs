//! What an ingest worker counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use sightline_proto::v1::rt_stream::State;
use sightline_service::metrics::{Metrics, Values, latency_buckets};

/// The worker's metrics.
#[derive(Clone)]
pub(crate) struct IngestMetrics {
    pub(crate) windows: Counter,
    pub(crate) frames_left_out: Counter,
    pub(crate) utterances: Counter,
    pub(crate) interim: Counter,
    pub(crate) child_failures: Counter,
    segments: Counter,
    segment_bytes: Counter,
    upload_seconds: Histogram,
    pub(crate) upkeep_rounds: Counter,
    pub(crate) segments_expired: Counter,
    lost: Family<ByReason, Counter>,
    streams: Family<ByState, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

/// Registers all metrics of the role.
pub fn register_metrics(metrics: &Metrics) {
    let _ = IngestMetrics::register(metrics);
}

impl IngestMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        Self {
            windows: metrics.register(
                "sightline_ingest_windows",
                "Windows published.",
                Counter::default(),
            ),
            frames_left_out: metrics.register(
                "sightline_ingest_frames_left_out",
                "Sampled frames that were left out because their window was too large for the bus.",
                Counter::default(),
            ),
            utterances: metrics.register(
                "sightline_ingest_utterances",
                "Utterances published.",
                Counter::default(),
            ),
            interim: metrics.register(
                "sightline_ingest_interim",
                "Utterances that were not over and were given to be transcribed, because somebody reads along.",
                Counter::default(),
            ),
            child_failures: metrics.register(
                "sightline_ingest_child_failures",
                "Ingest children that failed or died.",
                Counter::default(),
            ),
            segments: metrics.register(
                "sightline_ingest_segments",
                "Segments of recordings stored.",
                Counter::default(),
            ),
            segment_bytes: metrics.register(
                "sightline_ingest_segment_bytes",
                "Bytes of the segments stored.",
                Counter::default(),
            ),
            upload_seconds: metrics.register(
                "sightline_ingest_upload_seconds",
                "How long storing a segment took.",
                Histogram::new(latency_buckets()),
            ),
            upkeep_rounds: metrics.register(
                "sightline_ingest_upkeep_rounds",
                "Rounds in which this worker removed old recordings.",
                Counter::default(),
            ),
            segments_expired: metrics.register(
                "sightline_ingest_segments_expired",
                "Segments that were removed because they were too old or too much.",
                Counter::default(),
            ),
            lost: metrics.register_by(
                "sightline_ingest_segments_lost",
                "Segments that were not stored, by reason.",
                &[("reason", Values::These(&["queue_full", "refused", "stopped"]))],
                Family::default(),
            ),
            streams: metrics.register_by(
                "sightline_ingest_streams",
                "Streams that this worker runs, by state.",
                &[("state", Values::These(&["unspecified", "connecting", "active", "reconnecting", "stopped", "failed", "ended"]))],
                Family::default(),
            ),
        }
    }

    /// A segment is stored; how large it is, and how long that took.
    pub(crate) fn stored(&self, bytes: u64, seconds: f64) {
        self.segments.inc();
        self.segment_bytes.inc_by(bytes);
        self.upload_seconds.observe(seconds);
    }

    /// A segment is not stored, and never will be.
    pub(crate) fn lost(&self, reason: &'static str) {
        self.lost.get_or_create(&ByReason { reason }).inc();
    }

    /// A stream left one state for another; `None` before its run and after it.
    pub(crate) fn moved(&self, from: Option<State>, to: Option<State>) {
        if let Some(from) = from {
            self.streams.get_or_create(&by(from)).dec();
        }
        if let Some(to) = to {
            self.streams.get_or_create(&by(to)).inc();
        }
    }
}

fn by(state: State) -> ByState {
    let state = match state {
        State::Unspecified => "unspecified",
        State::Connecting => "connecting",
        State::Active => "active",
        State::Reconnecting => "reconnecting",
        State::Stopped => "stopped",
        State::Failed => "failed",
        State::Ended => "ended",
    };
    ByState { state }
}
