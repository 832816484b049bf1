//! What the alerts service counts and measures.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use sightline_service::metrics::{Metrics, latency_buckets};

/// How an attempt to deliver ended; the label's values are those of [`crate::attempt::Outcome`].
type ByOutcome = Family<[(&'static str, &'static str); 1], Counter>;

/// The service's metrics.
#[derive(Clone)]
pub(crate) struct AlertMetrics {
    pub(crate) verdicts: Counter,
    pub(crate) firings: Counter,
    pub(crate) disabled: Counter,
    attempts: ByOutcome,
    decision_to_2xx: Histogram,
    last_frame_to_2xx: Histogram,
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
}

fn seconds(us: i64) -> f64 {
    us as f64 / 1e6
}
