//! The routes of the public port, gRPC-web and CORS.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use sightline_service::admin::Readiness;
use sightline_service::trace::TraceRequests;
use tonic::Status;
use tonic::service::Routes;
use tonic_web::GrpcWebLayer;

use crate::api::Core;
use crate::console;
use crate::gate::{Gate, pass};
use crate::rest;

/// All routes: the two skins of the API behind their gates (traced for those whom these let pass), what plays recordings, the console, and the page for probes.
pub(crate) fn router(
    core: &Arc<Core>,
    services: Routes,
    playback: Router,
    readiness: Readiness,
) -> Router {
    let grpc = services
        .into_axum_router()
        .layer(TraceRequests::Server)
        .layer(from_fn_with_state(Gate::grpc(Arc::clone(core)), pass))
        .layer(GrpcWebLayer::new())
        .layer(from_fn(cors));
    let rest = rest::routes(core.config.limits.message_bytes)
        .layer(TraceRequests::Server)
        .layer(from_fn_with_state(Gate::rest(Arc::clone(core)), pass))
        .layer(from_fn(cors));
    let probe = move || async move { health(&readiness) };
    console::routes()
        .route("/healthz", get(probe))
        .merge(grpc.reset_fallback())
        .merge(rest)
        .merge(playback)
        .fallback(no_such_path)
}

/// Lets web pages of any origin call: keys travel in metadata and never in cookies, so an origin proves nothing.
async fn cors(request: Request, next: Next) -> Response {
    const HEADERS: [(HeaderName, &str); 3] = [
        (
            header::ACCESS_CONTROL_ALLOW_METHODS,
            "DELETE, GET, OPTIONS, PATCH, POST",
        ),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "authorization, content-type, grpc-timeout, x-access-token, x-grpc-web, x-user-agent, x-videodb-client",
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
