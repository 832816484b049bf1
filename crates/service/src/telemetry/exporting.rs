//! Traces, log lines and metrics to an OpenTelemetry collector, by OTLP over gRPC.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry::{Context, InstrumentationScope, KeyValue};
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope as Scope;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::resource::v1::Resource as ResourceMessage;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogProcessor, SdkLogRecord, SdkLoggerProvider};
use opentelemetry_sdk::trace::{
    IdGenerator, RandomIdGenerator, Sampler, SdkTracerProvider, Span, SpanData, SpanProcessor,
};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::Status;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::layer::Layer;

use super::sending::{DEADLINE, Outbox, Signal, Taken, run};
use super::{Headers, Part, TelemetryError, measured};
use crate::Shutdown;
use crate::clock::Clock;
use crate::metrics::{Metrics, Values};
use crate::trace;

/// The connection to it.
type Collector = InterceptedService<Channel, Headers>;

/// How often metrics are sent.
const EVERY: Duration = Duration::from_secs(10);
/// How long sending may take at the end of the process.
const LAST: Duration = Duration::from_secs(2);
/// How long connecting to the collector may take.
const CONNECT: Duration = Duration::from_secs(3);
/// How often an idle connection is looked at.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Which code makes telemetry: what libraries say while telemetry is sent would make more of it.
const OWN: &str = "sightline";

/// Where telemetry goes, and what it says of this process.
#[derive(Debug, Clone, PartialEq)]
pub struct Otlp {
    /// The collector, as http://HOST:PORT or https://HOST:PORT.
    pub endpoint: String,
    /// What its requests carry besides.
    pub headers: Headers,
    /// What kind of process this is: `service.name`.
    pub service: String,
    /// The release: `service.version`.
    pub version: &'static str,
    /// Further attributes of everything that it sends.
    pub attributes: Vec<(String, String)>,
    /// Which part of the traces that begin here is kept, 0 to 1. One that began elsewhere is kept where it was kept there.
    pub sampling: f64,
}

/// What was dropped, and why.
#[derive(Debug, Clone, Default)]
pub(super) struct Dropped(Family<[(&'static str, &'static str); 2], Counter>);

impl Dropped {
    /// For want of room in a queue.
    pub(super) fn full(&self, signal: &'static str) -> Counter {
        self.of(signal, "full")
    }

    /// For want of a collector that takes it.
    pub(super) fn refused(&self, signal: &'static str) -> Counter {
        self.of(signal, "refused")
    }

    fn of(&self, signal: &'static str, reason: &'static str) -> Counter {
        let labels = [("signal", signal), ("reason", reason)];
        self.0.get_or_create_owned(&labels)
    }

    fn register(&self, metrics: &Metrics) {
        metrics.register_by(
            "sightline_telemetry_dropped",
            "Spans, log lines and data points that no collector got: queues were full, or it did not take them in time.",
            &[
                ("signal", Values::These(&["traces", "logs", "metrics"])),
                ("reason", Values::These(&["full", "refused"])),
            ],
            self.0.clone(),
        );
    }
}

/// Registers what this counts, for the page of all metrics.
pub fn register_metrics(metrics: &Metrics) {
    Dropped::default().register(metrics);
}

/// What waits until [`export`] begins to send it.
struct Prepared {
    channel: Endpoint,
    headers: Headers,
    resource: Resource,
    dropped: Dropped,
    spans: Receiver<SpanData>,
    lines: Receiver<Line>,
}

/// What runs until [`flush`] ends it.
struct Running {
    stop: Shutdown,
    tasks: JoinSet<()>,
}

static PREPARED: Mutex<Option<Prepared>> = Mutex::new(None);
static RUNNING: Mutex<Option<Running>> = Mutex::new(None);

/// What takes spans and log lines for the collector.
pub(super) fn parts(otlp: &Otlp, filter: EnvFilter) -> Result<[Part; 2], TelemetryError> {
    let (channel, resource) = (endpoint(otlp)?, resource(otlp));
    let dropped = Dropped::default();
    let (span_box, spans) = Outbox::new("traces", &dropped);
    let (line_box, lines) = Outbox::new("logs", &dropped);
    let provider = SdkTracerProvider::builder()
        .with_span_processor(span_box)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(
            otlp.sampling,
        ))))
        .with_resource(Resource::builder_empty().build())
        .build();
    let tracer = provider.tracer(OWN);
    trace::turn_on(tracer.clone());
    let own_spans = filter_fn(|metadata| {
        metadata.is_span() && *metadata.level() <= Level::INFO && metadata.target().starts_with(OWN)
    })
    .with_max_level_hint(LevelFilter::INFO);
    let spanning = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_target(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(own_spans);
    let own_lines = filter_fn(|metadata| metadata.is_event() && metadata.target().starts_with(OWN))
        .with_max_level_hint(LevelFilter::TRACE);
    let logger = SdkLoggerProvider::builder()
        .with_log_processor(line_box)
        .build();
    let logging = OpenTelemetryTracingBridge::new(&logger).with_filter(filter.and(own_lines));
    *lock(&PREPARED) = Some(Prepared {
        channel,
        headers: otlp.headers.clone(),
        resource,
        dropped,
        spans,
        lines,
    });
    Ok([spanning.boxed(), logging.boxed()])
}

fn endpoint(otlp: &Otlp) -> Result<Endpoint, TelemetryError> {
    let failed = TelemetryError::Endpoint;
    let mut endpoint = Endpoint::from_shared(otlp.endpoint.clone()).map_err(failed)?;
    if otlp.endpoint.starts_with("https://") {
        let tls = ClientTlsConfig::new().with_native_roots();
        endpoint = endpoint.tls_config(tls).map_err(failed)?;
    }
    Ok(endpoint
        .connect_timeout(CONNECT)
        .timeout(DEADLINE)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_while_idle(true))
}

fn resource(otlp: &Otlp) -> Resource {
    let instance = RandomIdGenerator::default().new_trace_id().to_string();
    let own = [
        KeyValue::new("service.name", otlp.service.clone()),
        KeyValue::new("service.version", otlp.version),
        KeyValue::new("service.instance.id", instance),
    ];
    let given = otlp.attributes.iter().cloned();
    let given = given.map(|(key, value)| KeyValue::new(key, value));
    // Of two of a name the last one counts.
    Resource::builder_empty()
        .with_attributes(own)
        .with_attributes(given)
        .build()
}

/// Begins to send what `metrics` has, and what spans and log lines there were since [`init`](super::init) and will be. Once a
/// process, inside the runtime. Without a collector it does nothing.
pub fn export(metrics: &Metrics, clock: Arc<dyn Clock>) {
    let Some(prepared) = lock(&PREPARED).take() else {
        return;
    };
    let (dropped, stop) = (prepared.dropped, Shutdown::new());
    dropped.register(metrics);
    let channel = InterceptedService::new(prepared.channel.connect_lazy(), prepared.headers);
    let resource: ResourceAttributesWithSchema = (&prepared.resource).into();
    let message = ResourceMessage {
        attributes: resource.attributes.0.clone(),
        ..ResourceMessage::default()
    };
    let traces = Traces {
        client: TraceServiceClient::new(channel.clone()),
        resource,
    };
    let logs = Logs {
        client: LogsServiceClient::new(channel.clone()),
        resource: message.clone(),
    };
    let measuring = Measuring {
        client: MetricsServiceClient::new(channel),
        resource: message,
        metrics: metrics.clone(),
        started_us: clock.now_us(),
        clock,
        taken: Taken::new("metrics", &dropped),
    };
    let mut tasks = JoinSet::new();
    let taken = |signal| Taken::new(signal, &dropped);
    tasks.spawn(run(traces, prepared.spans, taken("traces"), stop.clone()));
    tasks.spawn(run(logs, prepared.lines, taken("logs"), stop.clone()));
    tasks.spawn(measuring.run(stop.clone()));
    *lock(&RUNNING) = Some(Running { stop, tasks });
}

/// Sends what waits, at the end of the process, for 2 s at most.
pub async fn flush() {
    let running = lock(&RUNNING).take();
    if let Some(Running { stop, tasks }) = running {
        stop.cancel();
        let _ = timeout(LAST, tasks.join_all()).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SpanProcessor for Outbox<SpanData> {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.put(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// A log line, and the code that wrote it.
type Line = (Cow<'static, str>, LogRecord);

impl LogProcessor for Outbox<Line> {
    fn emit(&self, line: &mut SdkLogRecord, _: &InstrumentationScope) {
        let code = line.target().cloned().unwrap_or_default();
        self.put((code, LogRecord::from(&*line)));
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

struct Traces {
    client: TraceServiceClient<Collector>,
    resource: ResourceAttributesWithSchema,
}

impl Signal for Traces {
    type Item = SpanData;

    async fn send(&mut self, spans: Vec<SpanData>) -> Result<i64, Status> {
        let resource_spans = group_spans_by_resource_and_scope(spans, &self.resource);
        let request = ExportTraceServiceRequest { resource_spans };
        let answer = self.client.export(request).await?.into_inner();
        Ok(answer.partial_success.map_or(0, |part| part.rejected_spans))
    }
}

struct Logs {
    client: LogsServiceClient<Collector>,
    resource: ResourceMessage,
}

impl Signal for Logs {
    type Item = Line;

    async fn send(&mut self, lines: Vec<Line>) -> Result<i64, Status> {
        let mut by_code: BTreeMap<Cow<'static, str>, Vec<LogRecord>> = BTreeMap::new();
        for (code, line) in lines {
            by_code.entry(code).or_default().push(line);
        }
        let scopes = by_code.into_iter().map(|(code, log_records)| ScopeLogs {
            scope: Some(scope(&code)),
            log_records,
            ..ScopeLogs::default()
        });
        let resource_logs = vec![ResourceLogs {
            resource: Some(self.resource.clone()),
            scope_logs: scopes.collect(),
            ..ResourceLogs::default()
        }];
        let request = ExportLogsServiceRequest { resource_logs };
        let answer = self.client.export(request).await?.into_inner();
        let rejected =
            |part: opentelemetry_proto::tonic::collector::logs::v1::ExportLogsPartialSuccess| {
                part.rejected_log_records
            };
        Ok(answer.partial_success.map_or(0, rejected))
    }
}

fn scope(name: &str) -> Scope {
    Scope {
        name: name.to_owned(),
        ..Scope::default()
    }
}

/// Sends the metrics, as `/metrics` shows them.
struct Measuring {
    client: MetricsServiceClient<Collector>,
    resource: ResourceMessage,
    metrics: Metrics,
    started_us: i64,
    clock: Arc<dyn Clock>,
    taken: Taken,
}

impl Measuring {
    async fn run(mut self, stop: Shutdown) {
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !stop.is_cancelled() {
            tokio::select! {
                _ = tick.tick() => {}
                () = stop.cancelled() => {}
            }
            self.send().await;
        }
    }

    async fn send(&mut self) {
        let now_us = self.clock.now_us();
        let metrics = measured::otlp(self.metrics.model(), self.started_us, now_us);
        let count = metrics.iter().map(measured::points).sum();
        let resource_metrics = vec![ResourceMetrics {
            resource: Some(self.resource.clone()),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(scope(OWN)),
                metrics,
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }];
        let request = ExportMetricsServiceRequest { resource_metrics };
        let client = &mut self.client;
        let answering = async {
            let answer = client.export(request).await?.into_inner();
            let part = answer.partial_success;
            Ok(part.map_or(0, |part| part.rejected_data_points))
        };
        self.taken.send(count, answering).await;
    }
}
