//! What every call of the API passes through, in every skin: admission, deadline, metrics.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, Method};
use prost::Message;
use sightline_proto::FILE_DESCRIPTOR_SET;
use sightline_proto::reasons::{ApiError, Reason};
use tonic::{Code, Status};

use crate::api::{Core, Session};
use crate::metrics;
use crate::rest;
use crate::server::Peer;

/// Health checks carry no key: load balancers have none.
const HEALTH: &str = "/grpc.health.v1.Health/";
const REFLECTION: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];
/// The name in metrics of all calls that do not exist, so that callers can't grow the metrics.
const UNKNOWN: &str = "unknown";

/// The gate of one skin.
pub(crate) struct Gate {
    core: Arc<Core>,
    skin: Skin,
}

/// How a skin names its calls, and writes refusals.
enum Skin {
    /// gRPC and gRPC-web, with the methods that there are.
    Grpc(HashSet<String>),
    Rest,
}

impl Gate {
    pub(crate) fn grpc(core: Arc<Core>) -> Arc<Self> {
        let skin = Skin::Grpc(known_methods());
        Arc::new(Self { core, skin })
    }

    pub(crate) fn rest(core: Arc<Core>) -> Arc<Self> {
        let skin = Skin::Rest;
        Arc::new(Self { core, skin })
    }

    /// Lets a request in with the session of its caller, or says why not.
    async fn admit(&self, request: &mut Request) -> Result<(), ApiError> {
        if self.skin.is_public(request) {
            return Ok(());
        }
        let peer = request.extensions().get::<Peer>();
        let caller = self.core.admission.admit(request.headers(), peer).await?;
        let session = Session::new(Arc::clone(&self.core), caller);
        request.extensions_mut().insert(session);
        Ok(())
    }
}

/// Checks the key, bounds the time, counts.
pub(crate) async fn pass(
    State(gate): State<Arc<Gate>>,
    mut request: Request,
    next: Next,
) -> Response {
    let skin = &gate.skin;
    let timer = gate.core.metrics.start(skin.name(), skin.method(&request));
    let longest = gate.core.config.limits.deadline;
    let deadline = skin.deadline(&request).map_or(longest, |d| d.min(longest));
    let answering = async {
        match gate.admit(&mut request).await {
            Ok(()) => next.run(request).await,
            Err(error) => skin.refuse(error),
        }
    };
    let response = match tokio::time::timeout(deadline, answering).await {
        Ok(response) => response,
        Err(_) => skin.refuse(ApiError::new(
            Reason::DeadlineExceeded,
            format!("the call took longer than its deadline of {deadline:?}"),
        )),
    };
    timer.finish(skin.code(&response));
    response
}

impl Skin {
    fn name(&self) -> &'static str {
        match self {
            Skin::Grpc(_) => "grpc",
            Skin::Rest => "rest",
        }
    }

    fn is_public(&self, request: &Request) -> bool {
        matches!(self, Skin::Grpc(_)) && request.uri().path().starts_with(HEALTH)
    }

    /// The call's name in metrics, one of a bounded set: the gRPC method, or the HTTP method and the route.
    fn method(&self, request: &Request) -> String {
        match self {
            Skin::Grpc(known) => {
                let path = request.uri().path();
                let name = if known.contains(path) { path } else { UNKNOWN };
                name.trim_start_matches('/').to_owned()
            }
            Skin::Rest => {
                let route = request.extensions().get::<MatchedPath>();
                match (verb(request.method()), route) {
                    // What stands for anything below a path is no call.
                    (Some(verb), Some(route)) if !route.as_str().contains('*') => {
                        format!("{verb} {}", route.as_str().trim_end_matches('/'))
                    }
                    _ => UNKNOWN.to_owned(),
                }
            }
        }
    }

    /// The deadline that the caller set.
    fn deadline(&self, request: &Request) -> Option<Duration> {
        match self {
            Skin::Grpc(_) => grpc_timeout(request.headers()),
            Skin::Rest => None,
        }
    }

    fn refuse(&self, error: ApiError) -> Response {
        match self {
            Skin::Grpc(_) => Status::from(error).into_http::<Body>(),
            Skin::Rest => rest::refuse(error),
        }
    }

    /// How the call went: the gRPC code in the head of the response (a call that got as far as streaming counts as OK), or the
    /// HTTP status.
    fn code(&self, response: &Response) -> String {
        match self {
            Skin::Grpc(_) => {
                let status = response.headers().get("grpc-status");
                let code = status.map_or(Code::Ok, |value| Code::from_bytes(value.as_bytes()));
                metrics::name_of(code).to_owned()
            }
            Skin::Rest => response.status().as_u16().to_string(),
        }
    }
}

/// The method's name; none for those that nobody has heard of.
fn verb(method: &Method) -> Option<&str> {
    const KNOWN: [Method; 7] = [
        Method::DELETE,
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::PATCH,
        Method::POST,
        Method::PUT,
    ];
    KNOWN.contains(method).then(|| method.as_str())
}

/// The deadline in `grpc-timeout` ("at most 8 digits" and a unit; gRPC over HTTP/2).
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
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
    use http::HeaderValue;

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
            assert_eq!(grpc_timeout(&headers), expected, "{text:?}");
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
