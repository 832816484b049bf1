//! An OpenTelemetry collector on a free port: it takes traces, log lines and metrics by OTLP over gRPC, keeps what came, and does
//! not answer where a test says so.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{
    LogsService, LogsServiceServer,
};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// What its clients have to be told, as `OTEL_EXPORTER_OTLP_HEADERS`.
pub const HEADERS: &str = "authorization=Bearer%20whose%20it%20is";
/// Things of each kind that are kept; a test that makes more has gone wrong.
const KEPT: usize = 100_000;

/// A span as it came.
#[derive(Debug, Clone)]
pub struct Span {
    /// `service.name` of its process.
    pub service: String,
    /// Its name.
    pub name: String,
    /// 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits.
    pub span_id: String,
    /// The same of the span above it; empty at the top.
    pub parent_id: String,
    /// How long it lasted, in nanoseconds.
    pub lasted_ns: u64,
    /// Its attributes.
    pub attributes: BTreeMap<String, String>,
}

/// A log line as it came.
#[derive(Debug, Clone)]
pub struct Line {
    /// `service.name` of its process.
    pub service: String,
    /// What it says.
    pub text: String,
    /// Of the trace in which it was written; empty outside of all.
    pub trace_id: String,
    /// Its fields.
    pub attributes: BTreeMap<String, String>,
}

/// A series of a metric as it came last.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// `service.name` of its process.
    pub service: String,
    /// The metric's name.
    pub name: String,
    /// Its labels.
    pub attributes: BTreeMap<String, String>,
    /// The number; of a histogram, how many were counted.
    pub value: f64,
    /// The traces of its exemplars.
    pub exemplars: Vec<String>,
}

#[derive(Default)]
struct Came {
    spans: Mutex<Vec<Span>>,
    lines: Mutex<Vec<Line>>,
    series: Mutex<Vec<Series>>,
    silent: AtomicBool,
}

/// A running collector; it stops with the test.
pub struct Collector {
    /// Where to send, as `http://127.0.0.1:PORT`.
    pub url: String,
    came: Arc<Came>,
    serving: AbortHandle,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Collector {
    /// Starts one that takes everything of whoever sends [`HEADERS`].
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let came = Arc::new(Came::default());
        let taking = || Taking(Arc::clone(&came));
        let mut server = Server::builder();
        let server = server
            .add_service(TraceServiceServer::with_interceptor(taking(), demand))
            .add_service(LogsServiceServer::with_interceptor(taking(), demand))
            .add_service(MetricsServiceServer::with_interceptor(taking(), demand));
        let serving = server.serve_with_incoming(TcpListenerStream::new(listener));
        let serving = tokio::spawn(serving).abort_handle();
        Ok(Self { url, came, serving })
    }

    /// From now on it takes connections and requests, and answers none.
    pub fn fall_silent(&self) {
        self.came.silent.store(true, Ordering::Relaxed);
    }

    /// The spans that came.
    pub fn spans(&self) -> Vec<Span> {
        lock(&self.came.spans).clone()
    }

    /// The log lines that came.
    pub fn lines(&self) -> Vec<Line> {
        lock(&self.came.lines).clone()
    }

    /// Every series as it came last, by process.
    pub fn series(&self) -> Vec<Series> {
        lock(&self.came.series).clone()
    }
}

/// Lets those in who say who they are.
#[allow(
    clippy::result_large_err,
    reason = "the library's own type of an interceptor"
)]
fn demand(request: Request<()>) -> Result<Request<()>, Status> {
    let told = request.metadata().get("authorization");
    match told.map(|value| value.as_bytes()) {
        Some(b"Bearer whose it is") => Ok(request),
        _ => Err(Status::unauthenticated("whose telemetry is this?")),
    }
}

struct Taking(Arc<Came>);

impl Taking {
    async fn be_silent_if_told(&self) {
        if self.0.silent.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }
}

#[tonic::async_trait]
impl TraceService for Taking {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.be_silent_if_told().await;
        for of_process in request.into_inner().resource_spans {
            let service = service(of_process.resource.as_ref());
            let spans = of_process.scope_spans.into_iter().flat_map(|s| s.spans);
            let spans = spans.map(|span| Span {
                service: service.clone(),
                name: span.name,
                trace_id: hex(&span.trace_id),
                span_id: hex(&span.span_id),
                parent_id: hex(&span.parent_span_id),
                lasted_ns: span
                    .end_time_unix_nano
                    .saturating_sub(span.start_time_unix_nano),
                attributes: pairs(&span.attributes),
            });
            keep(&self.0.spans, spans);
        }
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Taking {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.be_silent_if_told().await;
        for of_process in request.into_inner().resource_logs {
            let service = service(of_process.resource.as_ref());
            let lines = of_process.scope_logs.into_iter();
            let lines = lines.flat_map(|scope| scope.log_records).map(|line| Line {
                service: service.clone(),
                text: line.body.and_then(|b| b.value).map_or(String::new(), text),
                trace_id: hex(&line.trace_id),
                attributes: pairs(&line.attributes),
            });
            keep(&self.0.lines, lines);
        }
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Taking {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.be_silent_if_told().await;
        for of_process in request.into_inner().resource_metrics {
            let service = service(of_process.resource.as_ref());
            let metrics = of_process.scope_metrics.into_iter();
            let new: Vec<Series> = metrics
                .flat_map(|scope| scope.metrics)
                .flat_map(|metric| {
                    let (service, name) = (service.clone(), metric.name);
                    points(metric.data).map(move |(attributes, value, exemplars)| Series {
                        service: service.clone(),
                        name: name.clone(),
                        attributes,
                        value,
                        exemplars,
                    })
                })
                .collect();
            lock(&self.0.series).retain(|series| series.service != service);
            keep(&self.0.series, new.into_iter());
        }
        Ok(Response::new(Default::default()))
    }
}

type Point = (BTreeMap<String, String>, f64, Vec<String>);

fn points(data: Option<Data>) -> impl Iterator<Item = Point> {
    use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
    let (numbers, histograms) = match data {
        Some(Data::Sum(sum)) => (sum.data_points, Vec::new()),
        Some(Data::Gauge(gauge)) => (gauge.data_points, Vec::new()),
        Some(Data::Histogram(histogram)) => (Vec::new(), histogram.data_points),
        _ => (Vec::new(), Vec::new()),
    };
    let numbers = numbers.into_iter().map(|point| {
        let value = match point.value {
            Some(Number::AsDouble(value)) => value,
            Some(Number::AsInt(value)) => value as f64,
            None => f64::NAN,
        };
        (pairs(&point.attributes), value, Vec::new())
    });
    let histograms = histograms.into_iter().map(|point| {
        let traces = point.exemplars.iter().map(|found| hex(&found.trace_id));
        let traces = traces.collect();
        (pairs(&point.attributes), point.count as f64, traces)
    });
    numbers.chain(histograms)
}

fn service(resource: Option<&Resource>) -> String {
    let attributes = resource.map(|resource| pairs(&resource.attributes));
    let name = attributes.and_then(|mut attributes| attributes.remove("service.name"));
    name.unwrap_or_default()
}

fn pairs(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let pairs = attributes.iter().map(|pair| {
        let value = pair.value.clone().and_then(|value| value.value);
        (pair.key.clone(), value.map_or(String::new(), text))
    });
    pairs.collect()
}

fn text(value: Value) -> String {
    match value {
        Value::StringValue(value) => value,
        Value::BoolValue(value) => value.to_string(),
        Value::IntValue(value) => value.to_string(),
        Value::DoubleValue(value) => value.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn keep<T>(kept: &Mutex<Vec<T>>, new: impl Iterator<Item = T>) {
    let mut kept = lock(kept);
    let room = KEPT.saturating_sub(kept.len());
    kept.extend(new.take(room));
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
