//! What an ingest worker counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use sightline_proto::v1::rt_stream::State;
use sightline_service::metrics::Metrics;

/// The worker's metrics.
#[derive(Clone)]
pub(crate) struct IngestMetrics {
    pub(crate) windows: Counter,
    pub(crate) frames_left_out: Counter,
    pub(crate) utterances: Counter,
    pub(crate) child_failures: Counter,
    streams: Family<ByState, Gauge>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: &'static str,
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
            child_failures: metrics.register(
                "sightline_ingest_child_failures",
                "Ingest children that failed or died.",
                Counter::default(),
            ),
            streams: metrics.register(
                "sightline_ingest_streams",
                "Streams that this worker runs, by state.",
                Family::default(),
            ),
        }
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
