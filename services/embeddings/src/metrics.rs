//! What the service counts and measures.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use sightline_service::metrics::{Metrics, Values, latency_buckets};
use sightline_vectors::Progress;

type Label = [(&'static str, &'static str); 1];

/// The service's metrics.
pub(crate) struct EmbeddingsMetrics {
    records: Family<Label, Counter>,
    left_out: Counter,
    batches: Histogram,
    embed: Family<Label, Histogram>,
    upsert: Histogram,
    calls: Family<Label, Histogram>,
    reindex_done: Gauge,
    reindex_total: Gauge,
}

/// Registers all metrics of the role.
pub fn register_metrics(metrics: &Metrics) {
    let _ = EmbeddingsMetrics::register(metrics);
}

impl EmbeddingsMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let latency: fn() -> Histogram = || Histogram::new(latency_buckets());
        Self {
            records: metrics.register_by(
                "sightline_embeddings_records",
                "Observations stored, by kind; those that came again are counted again.",
                &[("kind", Values::These(&["scene", "transcript", "audio_scene"]))],
                Family::default(),
            ),
            left_out: metrics.register(
                "sightline_embeddings_left_out",
                "Observations that were not stored because their stream or index is deleted.",
                Counter::default(),
            ),
            batches: metrics.register(
                "sightline_embeddings_batch_records",
                "Observations stored together.",
                Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0]),
            ),
            embed: metrics.register_by(
                "sightline_embeddings_embed_seconds",
                "Time that turning texts into vectors took, of a batch or of a query.",
                &[("what", Values::These(&["batch", "query"]))],
                Family::new_with_constructor(latency),
            ),
            upsert: metrics.register(
                "sightline_embeddings_upsert_seconds",
                "Time until the store had made a batch durable.",
                latency(),
            ),
            calls: metrics.register_by(
                "sightline_embeddings_call_seconds",
                "Time that the store took to answer a call, by method.",
                &[("method", Values::These(&["CountWindows", "DeleteRecords", "ListRecords", "SearchRecords"]))],
                Family::new_with_constructor(latency),
            ),
            reindex_done: metrics.register(
                "sightline_embeddings_reindex_done",
                "Records and observations that the store which is being filled anew, or was last, has taken over.",
                Gauge::default(),
            ),
            reindex_total: metrics.register(
                "sightline_embeddings_reindex_total",
                "How many it has to take over, as far as is known yet.",
                Gauge::default(),
            ),
        }
    }

    /// A batch was taken from the bus; so many of it were stored.
    pub(crate) fn took(&self, kind: &'static str, count: usize, stored: usize) {
        self.records
            .get_or_create(&[("kind", kind)])
            .inc_by(stored as u64);
        self.left_out.inc_by((count - stored) as u64);
        self.batches.observe(stored as f64);
    }

    /// Texts of a "batch" or a "query" were embedded.
    pub(crate) fn embedded(&self, what: &'static str, took: Duration) {
        let seconds = self.embed.get_or_create(&[("what", what)]);
        seconds.observe(took.as_secs_f64());
    }

    /// A new store is filled so far.
    pub(crate) fn reindexed(&self, progress: Progress) {
        let gauge = |count| i64::try_from(count).unwrap_or(i64::MAX);
        self.reindex_done.set(gauge(progress.done));
        self.reindex_total.set(gauge(progress.total));
    }

    /// The store made a batch durable.
    pub(crate) fn stored(&self, took: Duration) {
        self.upsert.observe(took.as_secs_f64());
    }

    /// The store answered a call.
    pub(crate) fn answered(&self, method: &'static str, took: Duration) {
        let seconds = self.calls.get_or_create(&[("method", method)]);
        seconds.observe(took.as_secs_f64());
    }
}
