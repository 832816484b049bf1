//! The metrics of one process, in the text format that Prometheus scrapes.

use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::{Metric, Registry};

/// Where a process registers its metrics. Clones share one registry.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Mutex<Registered>>);

#[derive(Default)]
struct Registered {
    registry: Registry,
    by_name: HashMap<String, Box<dyn Any + Send>>,
}

impl Metrics {
    /// Registers a metric and returns it: keep a clone of the metric and count on it. Names are `sightline_<what>_<unit>`;
    /// counters get `_total` appended. A second of the same name and kind is the first one: a process that runs a role twice,
    /// for two models, counts both together.
    pub fn register<M: Metric + Clone>(&self, name: &str, help: &str, metric: M) -> M {
        let mut registered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = registered.by_name.get(name);
        if let Some(first) = first.and_then(|first| first.downcast_ref::<M>()) {
            return first.clone();
        }
        registered.registry.register(name, help, metric.clone());
        let kept: Box<dyn Any + Send> = Box::new(metric.clone());
        registered.by_name.insert(name.to_owned(), kept);
        metric
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
        let text = metrics.encode();
        assert!(text.contains("sightline_things_total 2"), "{text}");
        assert_eq!(text.matches("# HELP").count(), 1, "{text}");
    }
}
