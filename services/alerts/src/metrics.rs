//! What the alerts service counts and measures.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use sightline_proto::internal::Attempt;
use sightline_service::metrics::{Metrics, Values, latency_buckets};
use sightline_service::trace::TraceContext;

/// What [`crate::attempt::Outcome`] says to the metrics.
const OUTCOMES: [&str; 14] = [
    "delivered",
    "redirect",
    "gone",
    "busy",
    "http_error",
    "refused",
    "unreachable",
    "broken",
    "deadline",
    "sink_failed",
    "unknown_sink",
    "unsigned",
    "disabled",
    "deleted",
];
/// The parts of the way to a receiver.
const STAGES: [&str; 5] = [
    "capture_to_sampled",
    "sampled_to_verdict",
    "verdict_to_decision",
    "decision_to_2xx",
    "capture_to_2xx",
];

/// How an attempt to deliver ended; the label's values are those of [`crate::attempt::Outcome`].
type ByOutcome = Family<[(&'static str, &'static str); 1], Counter>;
/// With a firing that took about so long, and its trace, for whoever wonders why.
type Latency = HistogramWithExemplars<Vec<(&'static str, String)>>;
type ByStage = Family<[(&'static str, &'static str); 1], Latency, fn() -> Latency>;

/// The service's metrics.
#[derive(Clone)]
pub(crate) struct AlertMetrics {
    pub(crate) verdicts: Counter,
    pub(crate) firings: Counter,
    pub(crate) disabled: Counter,
    attempts: ByOutcome,
    decision_to_2xx: Latency,
    last_frame_to_2xx: Latency,
    stages: ByStage,
}

/// Registers all metrics of the role.
pub fn register_metrics(metrics: &Metrics) {
    let _ = AlertMetrics::register(metrics);
}

impl AlertMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let latency = || Latency::new(latency_buckets());
        Self {
            verdicts: metrics.register(
                "sightline_alert_verdicts",
                "Verdicts read, whether or not an alert waits for them.",
                Counter::default(),
            ),
            firings: metrics.register(
                "sightline_alert_firings",
                "Firings opened; one may be counted again after a crash.",
                Counter::default(),
            ),
            disabled: metrics.register(
                "sightline_alert_endpoints_disabled",
                "Endpoints disabled because they answered 410.",
                Counter::default(),
            ),
            attempts: metrics.register_by(
                "sightline_alert_attempts",
                "Attempts to deliver, by outcome.",
                &[("outcome", Values::These(&OUTCOMES))],
                ByOutcome::default(),
            ),
            decision_to_2xx: metrics.register(
                "sightline_alert_decision_to_2xx_seconds",
                "From the decision to the receiver's 2xx, retries included.",
                latency(),
            ),
            last_frame_to_2xx: metrics.register(
                "sightline_alert_last_frame_to_2xx_seconds",
                "From the capture of the deciding window's last frame to the receiver's 2xx, retries included.",
                latency(),
            ),
            stages: metrics.register_by(
                "sightline_alert_stage_seconds",
                "How long delivered firings took, by stage; what is not known of one is left out.",
                &[("stage", Values::These(&STAGES))],
                ByStage::new_with_constructor(|| Latency::new(latency_buckets())),
            ),
        }
    }

    pub(crate) fn attempted(&self, outcome: &'static str) {
        self.attempts.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Measures a delivery, in its span.
    pub(crate) fn delivered(&self, attempt: &Attempt) {
        for (histogram, us) in [
            (&self.decision_to_2xx, attempt.decision_to_2xx_us),
            (&self.last_frame_to_2xx, attempt.last_frame_to_2xx_us),
        ] {
            histogram.observe(seconds(us), Some(exemplar(attempt)), None);
        }
    }

    /// Measures the stages of a firing that was delivered, in the delivery's span.
    pub(crate) fn staged(&self, attempt: &Attempt) {
        for (stage, us) in [
            ("capture_to_sampled", attempt.capture_to_sampled_us),
            ("sampled_to_verdict", attempt.sampled_to_verdict_us),
            ("verdict_to_decision", attempt.verdict_to_decision_us),
            ("decision_to_2xx", attempt.decision_to_2xx_us),
            ("capture_to_2xx", attempt.last_frame_to_2xx_us),
        ] {
            if us > 0 {
                let histogram = self.stages.get_or_create(&[("stage", stage)]);
                histogram.observe(seconds(us), Some(exemplar(attempt)), None);
            }
        }
    }
}

/// The firing, and the trace of this delivery if it has one.
fn exemplar(attempt: &Attempt) -> Vec<(&'static str, String)> {
    let mut labels = vec![("firing_id", attempt.firing_id.clone())];
    let trace = TraceContext::current().exported_id();
    labels.extend(trace.map(|id| ("trace_id", id)));
    labels
}

fn seconds(us: i64) -> f64 {
    us as f64 / 1e6
}
