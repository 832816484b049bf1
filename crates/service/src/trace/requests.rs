//! A span for each request: of a server, under the span of its caller; of a client, whose header the server finds.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::extract::MatchedPath;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response};
use tower::{Layer, Service};
use tracing::field::Empty;
use tracing::{Instrument, Span};

use super::{HEADER, TraceContext, is_on};

/// How the routes end that tonic gives its services.
const GRPC_ROUTE: &str = "/{*rest}";

/// Gives each request a span, of HTTP or of gRPC. A path is named as the server routes it and never as it was asked for: it may
/// hold a secret.
#[derive(Debug, Clone, Copy)]
pub enum TraceRequests {
    /// Of a server.
    Server,
    /// Of a client, of gRPC alone.
    Client,
}

impl<S> Layer<S> for TraceRequests {
    type Service = Traced<S>;

    fn layer(&self, inner: S) -> Traced<S> {
        Traced { inner, side: *self }
    }
}

/// See [`TraceRequests`].
#[derive(Debug, Clone)]
pub struct Traced<S> {
    inner: S,
    side: TraceRequests,
}

impl<S, B, R> Service<Request<B>> for Traced<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if !is_on() {
            return Box::pin(self.inner.call(request));
        }
        let span = match self.side {
            TraceRequests::Server => {
                let header = request.headers().get(HEADER);
                let header = header.and_then(|value| value.to_str().ok());
                TraceContext::of_header(header).above(span(&request, "server"))
            }
            TraceRequests::Client => {
                let span = span(&request, "client");
                let header = span.in_scope(TraceContext::current).header();
                if let Some(Ok(header)) = header.map(HeaderValue::try_from) {
                    request.headers_mut().insert(HEADER, header);
                }
                span
            }
        };
        // A service may do something before its future is polled.
        let answering = span.in_scope(|| self.inner.call(request));
        let answered = async move {
            let answer = answering.await;
            note(&Span::current(), &answer);
            answer
        };
        Box::pin(answered.instrument(span))
    }
}

fn span<B>(request: &Request<B>, kind: &'static str) -> Span {
    let method = request.method().as_str();
    let content = request.headers().get(CONTENT_TYPE);
    // Only what is routed as gRPC is named by its path: anybody can say that he sends it.
    let route = request.extensions().get::<MatchedPath>();
    let is_routed = route.is_none_or(|route| route.as_str().ends_with(GRPC_ROUTE));
    let is_grpc =
        is_routed && content.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    let call = request.uri().path().trim_start_matches('/');
    if is_grpc && let Some((service, procedure)) = call.split_once('/') {
        return tracing::info_span!(
            "rpc",
            otel.name = call,
            otel.kind = kind,
            otel.status_code = Empty,
            rpc.system = "grpc",
            rpc.service = service,
            rpc.method = procedure,
            rpc.grpc.status_code = Empty,
            http.response.status_code = Empty,
        );
    }
    let route = route.map_or("", |route| route.as_str());
    tracing::info_span!(
        "http",
        otel.name = format!("{method} {route}").trim_end(),
        otel.kind = kind,
        otel.status_code = Empty,
        rpc.grpc.status_code = Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
    )
}

fn note<R, E>(span: &Span, answer: &Result<Response<R>, E>) {
    let Ok(answer) = answer else {
        span.record("otel.status_code", "error");
        return;
    };
    let status = answer.status();
    span.record("http.response.status_code", status.as_u16());
    // In the head only where there is no body; what a stream ends with is not waited for.
    let code = answer.headers().get("grpc-status");
    let code = code.and_then(|code| code.to_str().ok()?.parse::<i64>().ok());
    if let Some(code) = code {
        span.record("rpc.grpc.status_code", code);
    }
    if status.is_server_error() || code.is_some_and(|code| code != 0) {
        span.record("otel.status_code", "error");
    }
}
