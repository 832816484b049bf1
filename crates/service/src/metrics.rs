//! The metrics of one process, in the text format that Prometheus scrapes.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::prometheus_protobuf::{self, prometheus_data_model};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::{Metric, Registry};

/// Where a process registers its metrics. Clones share one registry.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Mutex<Registered>>);

#[derive(Default)]
struct Registered {
    registry: Registry,
    by_name: HashMap<String, Box<dyn Any + Send>>,
    described: Vec<Described>,
}

/// A metric as docs/metrics.md has it.
#[derive(Debug, Clone)]
pub struct Described {
    /// As it was registered: counters lack their `_total`.
    pub name: String,
    /// "counter", "gauge" or "histogram".
    pub kind: String,
    /// What it says.
    pub help: String,
    /// What it is told apart by.
    pub labels: Labels,
}

/// The labels of a metric, each with what it may say.
pub type Labels = &'static [(&'static str, Values)];

/// What a label may say: never something that a user or a stream makes up, because each value is a series of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// One of these.
    These(&'static [&'static str]),
    /// One of a set that is said in words.
    Of(&'static str),
}

impl Metrics {
    /// Registers a metric without labels and returns it: keep a clone of the metric and count on it. Names are
    /// `sightline_<what>_<unit>`; counters get `_total` appended. A second of the same name and kind is the first one: a process
    /// that runs a role twice, for two models, counts both together.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        self.register_by(name, help, &[], metric)
    }

    /// Registers a metric with labels.
    pub fn register_by<M: Metric + Clone>(
        &self,
        name: &str,
        help: &str,
        labels: Labels,
        metric: M,
    ) -> M {
        let mut registered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = registered.by_name.get(name);
        if let Some(first) = first.and_then(|first| first.downcast_ref::<M>()) {
            return first.clone();
        }
        registered.described.push(Described {
            name: name.to_owned(),
            kind: metric.metric_type().as_str().to_owned(),
            help: help.to_owned(),
            labels,
        });
        registered.registry.register(name, help, metric.clone());
        let kept: Box<dyn Any + Send> = Box::new(metric.clone());
        registered.by_name.insert(name.to_owned(), kept);
        metric
    }

    /// What is registered, in that order.
    pub fn described(&self) -> Vec<Described> {
        let registered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        registered.described.clone()
    }

    /// All metrics, to be sent in another format than that of [`Self::encode`].
    pub(crate) fn model(&self) -> Vec<prometheus_data_model::MetricFamily> {
        let registered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Only kinds of metrics that nobody has here make it fail.
        prometheus_protobuf::encode(&registered.registry).unwrap_or_default()
    }

    /// All metrics as text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        let registered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        encode(&mut text, &registered.registry).expect("writing to a String cannot fail");
        text
    }
}

/// Buckets for latencies from 1 ms to 60 s, in seconds.
pub fn latency_buckets() -> impl Iterator<Item = f64> {
    [
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    ]
    .into_iter()
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn what_is_counted_is_shown() {
        let metrics = Metrics::default();
        let counter = metrics.register("sightline_things", "Things.", Counter::<u64>::default());
        counter.inc();
        let again = metrics.register("sightline_things", "Things.", Counter::<u64>::default());
        again.inc();
        assert_eq!(metrics.described().len(), 1);
        let text = metrics.encode();
        assert!(text.contains("sightline_things_total 2"), "{text}");
        assert_eq!(text.matches("# HELP").count(), 1, "{text}");
    }
}
