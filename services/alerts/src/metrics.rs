//! What the alerts service counts and measures.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use sightline_proto::internal::Attempt;
use sightline_service::metrics::{Metrics, latency_buckets};

/// How an attempt to deliver ended; the label's values are those of [`crate::attempt::Outcome`].
type ByOutcome = Family<[(&'static str, &'static str); 1], Counter>;
/// With a firing that took about so long, for whoever wonders why.
type Stage = HistogramWithExemplars<[(&'static str, String); 1]>;
type ByStage = Family<[(&'static str, &'static str); 1], Stage, fn() -> Stage>;

/// The service's metrics.
#[derive(Clone)]
pub(crate) struct AlertMetrics {
    pub(crate) verdicts: Counter,
    pub(crate) firings: Counter,
    pub(crate) disabled: Counter,
    attempts: ByOutcome,
    decision_to_2xx: Histogram,
    last_frame_to_2xx: Histogram,
    stages: ByStage,
}

impl AlertMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let latency = || Histogram::new(latency_buckets());
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
            attempts: metrics.register(
                "sightline_alert_attempts",
                "Attempts to deliver, by outcome.",
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
            stages: metrics.register(
                "sightline_alert_stage_seconds",
                "How long delivered firings took, by stage; what is not known of one is left out.",
                ByStage::new_with_constructor(|| Stage::new(latency_buckets())),
            ),
        }
    }

    pub(crate) fn attempted(&self, outcome: &'static str) {
        self.attempts.get_or_create(&[("outcome", outcome)]).inc();
    }

    pub(crate) fn delivered(&self, decision_to_2xx_us: i64, last_frame_to_2xx_us: i64) {
        self.decision_to_2xx.observe(seconds(decision_to_2xx_us));
        self.last_frame_to_2xx
            .observe(seconds(last_frame_to_2xx_us));
    }

    /// Measures the stages of a firing that was delivered.
    pub(crate) fn staged(&self, attempt: &Attempt) {
        for (stage, us) in [
            ("capture_to_sampled", attempt.capture_to_sampled_us),
            ("sampled_to_verdict", attempt.sampled_to_verdict_us),
            ("verdict_to_decision", attempt.verdict_to_decision_us),
            ("decision_to_2xx", attempt.decision_to_2xx_us),
            ("capture_to_2xx", attempt.last_frame_to_2xx_us),
        ] {
            if us > 0 {
                let firing = [("firing_id", attempt.firing_id.clone())];
                let histogram = self.stages.get_or_create(&[("stage", stage)]);
                histogram.observe(seconds(us), Some(firing), None);
            }
        }
    }
}

fn seconds(us: i64) -> f64 {
    us as f64 / 1e6
}
