//! What the gateway counts: calls by skin, method and code, their time to the response's head, and watchers.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use sightline_service::metrics::{Metrics, Values, latency_buckets};
use tokio::time::Instant;
use tonic::Code;

/// How a call came.
const SKINS: Values = Values::These(&["grpc", "rest"]);
/// What it asked for.
const METHODS: Values = Values::Of(
    "a gRPC method of the API; of REST the HTTP method and the route; `unknown` for all that there is not",
);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    skin: &'static str,
    method: String,
    code: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    skin: &'static str,
    method: String,
}

/// The gateway's metrics; clones share them.
#[derive(Clone)]
pub(crate) struct GatewayMetrics(Arc<Families>);

struct Families {
    calls: Family<Call, Counter>,
    seconds: Family<Method, Histogram>,
    watchers: Gauge,
    lagged: Counter,
}

impl GatewayMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(latency_buckets());
        let seconds = Family::new_with_constructor(histogram);
        Self(Arc::new(Families {
            calls: metrics.register_by(
                "sightline_gateway_calls",
                "Calls by skin, method or route, and gRPC code or HTTP status.",
                &[
                    ("skin", SKINS),
                    ("method", METHODS),
                    (
                        "code",
                        Values::Of("the code's name as gRPC writes it; of REST the HTTP status, or CANCELLED"),
                    ),
                ],
                Family::default(),
            ),
            seconds: metrics.register_by(
                "sightline_gateway_call_seconds",
                "Time from a call's arrival to the head of its response.",
                &[("skin", SKINS), ("method", METHODS)],
                seconds,
            ),
            watchers: metrics.register(
                "sightline_gateway_watchers",
                "Watch streams that are open.",
                Gauge::default(),
            ),
            lagged: metrics.register(
                "sightline_gateway_watch_dropped_messages",
                "Messages that slow watchers did not take in time.",
                Counter::default(),
            ),
        }))
    }

    /// Starts timing one call. `method` is one of a bounded set.
    pub(crate) fn start(&self, skin: &'static str, method: String) -> CallTimer {
        CallTimer {
            metrics: self.clone(),
            method: Method { skin, method },
            started: Instant::now(),
            code: None,
        }
    }

    pub(crate) fn watcher_came(&self) -> WatcherGuard {
        self.0.watchers.inc();
        WatcherGuard(self.0.watchers.clone())
    }

    pub(crate) fn dropped(&self, count: u64) {
        self.0.lagged.inc_by(count);
    }
}

/// One call; a call that is dropped unfinished was cancelled by its caller.
pub(crate) struct CallTimer {
    metrics: GatewayMetrics,
    method: Method,
    started: Instant,
    code: Option<String>,
}

impl CallTimer {
    /// `code` is one of a bounded set.
    pub(crate) fn finish(mut self, code: String) {
        self.code = Some(code);
    }
}

impl Drop for CallTimer {
    fn drop(&mut self) {
        let families = &self.metrics.0;
        let seconds = self.started.elapsed().as_secs_f64();
        families
            .seconds
            .get_or_create(&self.method)
            .observe(seconds);
        let cancelled = || name_of(Code::Cancelled).to_owned();
        let call = Call {
            skin: self.method.skin,
            method: self.method.method.clone(),
            code: self.code.take().unwrap_or_else(cancelled),
        };
        families.calls.get_or_create(&call).inc();
    }
}

/// Counts one watcher as open while it lives.
pub(crate) struct WatcherGuard(Gauge);

impl Drop for WatcherGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The code's name as gRPC writes it.
pub(crate) fn name_of(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
