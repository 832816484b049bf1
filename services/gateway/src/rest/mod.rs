//! The VideoDB-compatible skin: JSON over HTTP, as the official VideoDB clients speak it. Only translation: what a call does is in
//! `api`.
//!
//! Every answer is `{"success":true,"data":…}` or `{"success":false,"message":…,"error_code":…}`; times are Unix seconds.

mod answer;
mod search;
mod streams;
mod values;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use sightline_proto::reasons::{ApiError, Reason};

use self::answer::Refusal;
use crate::api::Core;

/// The core, as handlers get it.
type Shared = State<Arc<Core>>;

/// All routes of the skin.
pub(crate) fn routes(core: Arc<Core>) -> Router {
    Router::new()
        .route("/rtstream/{id}/stream", get(streams::stream))
        .route("/rtstream/{id}/search", post(search::in_stream))
        .route(
            "/rtstream/collection/{id}/search",
            post(search::in_collection),
        )
        .layer(from_fn_with_state(Arc::clone(&core), pass))
        .with_state(core)
}

/// Checks the key and bounds the time.
async fn pass(State(core): Shared, request: Request, next: Next) -> Response {
    if let Err(error) = core.config.api_keys.check(request.headers()) {
        return Refusal(error).into_response();
    }
    let deadline: Duration = core.config.limits.deadline;
    match tokio::time::timeout(deadline, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Refusal(ApiError::new(
            Reason::DeadlineExceeded,
            format!("the call took longer than {deadline:?}"),
        ))
        .into_response(),
    }
}
