//! The routes of the public port and what surrounds each call: key, deadline, metrics, gRPC-web, CORS.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use prost::Message;
use sightline_proto::FILE_DESCRIPTOR_SET;
use sightline_proto::reasons::{ApiError, Reason};
use sightline_service::admin::Readiness;
use tonic::service::Routes;
use tonic::{Code, Status};
use tonic_web::GrpcWebLayer;

use crate::api::{Core, Session};
use crate::metrics::GatewayMetrics;

/// Health checks carry no key: load balancers have none.
const HEALTH: &str = "/grpc.health.v1.Health/";
const REFLECTION: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// What every gRPC call passes through.
pub(crate) struct Gate {
    core: Arc<Core>,
    deadline: Duration,
    metrics: GatewayMetrics,
    methods: HashSet<String>,
}

impl Gate {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self {
            deadline: core.config.limits.deadline,
            metrics: core.metrics.clone(),
            core,
            methods: known_methods(),
        }
    }

    /// The call's name in metrics; what does not exist shares one, so that callers can't grow the metrics.
    fn method<'a>(&self, path: &'a str) -> &'a str {
        let known = self.methods.contains(path);
        if known {
            path.trim_start_matches('/')
        } else {
            "unknown"
        }
    }
}

/// All routes: the gRPC services, `further` ones (what plays recordings, the REST skin), and the two pages for people and probes.
pub(crate) fn router(
    services: Routes,
    gate: Gate,
    readiness: Readiness,
    further: Router,
) -> Router {
    let grpc = services
        .into_axum_router()
        .layer(from_fn_with_state(Arc::new(gate), pass))
        .layer(GrpcWebLayer::new())
        .layer(from_fn(cors));
    let probe = move || async move { health(&readiness) };
    Router::new()
        .route("/", get(about))
        .route("/healthz", get(probe))
        .merge(grpc.reset_fallback())
        .merge(further)
        .fallback(no_such_path)
}

/// Checks the key, bounds the time, counts.
async fn pass(State(gate): State<Arc<Gate>>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let timer = gate.metrics.start(gate.method(&path));
    let public = path.starts_with(HEALTH);
    let admitted = if public {
        Ok(())
    } else {
        let caller = gate.core.config.api_keys.check(request.headers());
        caller.map(|caller| {
            let session = Session::new(Arc::clone(&gate.core), caller);
            request.extensions_mut().insert(session);
        })
    };
    let response = match admitted {
        Err(error) => refuse(error),
        Ok(()) => {
            let deadline =
                deadline(request.headers()).map_or(gate.deadline, |asked| asked.min(gate.deadline));
            match tokio::time::timeout(deadline, next.run(request)).await {
                Ok(response) => response,
                Err(_) => refuse(ApiError::new(
                    Reason::DeadlineExceeded,
                    format!("the call took longer than its deadline of {deadline:?}"),
                )),
            }
        }
    };
    timer.finish(code_of(&response));
    response
}

fn refuse(error: ApiError) -> Response {
    Status::from(error).into_http::<Body>()
}

/// The status in the head of the response; a call that got as far as streaming counts as OK.
fn code_of(response: &Response) -> Code {
    response
        .headers()
        .get("grpc-status")
        .map_or(Code::Ok, |value| Code::from_bytes(value.as_bytes()))
}

/// The deadline that the caller set, from `grpc-timeout` ("at most 8 digits" and a unit; gRPC over HTTP/2).
fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// Lets web pages of any origin call: keys travel in metadata and never in cookies, so an origin proves nothing.
async fn cors(request: Request, next: Next) -> Response {
    const HEADERS: [(HeaderName, &str); 3] = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "POST, OPTIONS"),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "authorization, content-type, grpc-timeout, x-access-token, x-grpc-web, x-user-agent",
        ),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ];
    let preflight = request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if preflight {
        let mut response = StatusCode::NO_CONTENT.into_response();
        for (name, value) in HEADERS {
            let value = HeaderValue::from_static(value);
            response.headers_mut().insert(name, value);
        }
        response
    } else {
        next.run(request).await
    };
    let headers = response.headers_mut();
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        HeaderValue::from_static("*"),
    );
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("grpc-status, grpc-message, grpc-status-details-bin"),
    );
    response
}

async fn about() -> String {
    format!(
        "Sightline {version}\n\n\
         Live video in; captions, transcripts, scored search and alerts out.\n\n\
         This port speaks gRPC and gRPC-web, package sightline.v1 (reflection is on):\n\
         grpcurl -plaintext -H 'x-access-token: KEY' HOST:PORT list\n\n\
         /watch, /embed, /manifests and /exports play recordings to whoever has a link.\n\
         /healthz says whether this gateway can work.\n",
        version = env!("CARGO_PKG_VERSION")
    )
}

fn health(readiness: &Readiness) -> (StatusCode, String) {
    let missing = readiness.missing();
    if missing.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        let text = format!("waiting for: {}\n", missing.join(", "));
        (StatusCode::SERVICE_UNAVAILABLE, text)
    }
}

async fn no_such_path(request: Request) -> Response {
    let grpc = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"));
    if grpc {
        let message = "there is no such service here; reflection lists what there is";
        return Status::unimplemented(message).into_http::<Body>();
    }
    let text = "there is nothing here; / says what this server is\n";
    (StatusCode::NOT_FOUND, text).into_response()
}

fn known_methods() -> HashSet<String> {
    let set = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET)
        .expect("the build wrote this descriptor set");
    let mut methods: HashSet<String> = REFLECTION.iter().map(|&path| path.to_owned()).collect();
    methods.insert(format!("{HEALTH}Check"));
    methods.insert(format!("{HEALTH}Watch"));
    for file in &set.file {
        for service in &file.service {
            let service_name = format!("/{}.{}", file.package(), service.name());
            let paths = service
                .method
                .iter()
                .map(|method| format!("{service_name}/{}", method.name()));
            methods.extend(paths);
        }
    }
    methods
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_timeouts_are_read_as_the_protocol_writes_them() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("250m", Some(Duration::from_millis(250))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("7u", Some(Duration::from_micros(7))),
            ("100000000S", None),
            ("S", None),
            ("", None),
            ("5", None),
            ("-5S", None),
            ("5x", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_static(text));
            assert_eq!(deadline(&headers), expected, "{text:?}");
        }
    }

    #[test]
    fn every_public_method_is_known_to_metrics() {
        let methods = known_methods();
        for path in [
            "/sightline.v1.RtStreamService/ConnectRtStream",
            "/sightline.v1.WatchService/Watch",
            "/grpc.health.v1.Health/Check",
        ] {
            assert!(methods.contains(path), "{path}");
        }
    }
}
