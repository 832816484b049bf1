//! The VideoDB-compatible skin: JSON over HTTP, as the official VideoDB clients speak it. Only translation: what a call does is in
//! `api`.
//!
//! Every answer is `{"success":true,"data":…}` or `{"success":false,"message":…,"error_code":…}`; times are Unix seconds. Every
//! path may end with a slash.

mod answer;
mod asked;
mod collections;
mod elsewhere;
mod events;
mod exports;
mod filters;
mod indexes;
mod openapi;
mod paging;
mod request;
mod search;
mod streams;
mod transcripts;
mod understandings;
mod values;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, patch, post};
use sightline_proto::reasons::ApiError;

use self::answer::Refusal;

/// All routes of the skin.
pub(crate) fn routes(message_bytes: usize) -> Router {
    let mut router = Router::new();
    for (path, methods) in calls() {
        router = router
            .route(&format!("{path}/"), methods.clone())
            .route(path, methods);
    }
    router = router.method_not_allowed_fallback(elsewhere::wrong_method);
    for first in elsewhere::FIRST {
        let below = Router::new().fallback(move |below| elsewhere::no_such_path(first, below));
        router = router.nest(&format!("/{first}"), below);
    }
    router.layer(DefaultBodyLimit::max(message_bytes))
}

/// What is served without a key: the document that says what all of this is.
pub(crate) fn public() -> Router {
    Router::new().route(openapi::PATH, get(openapi::document))
}

/// Every path with its methods.
fn calls() -> impl Iterator<Item = (&'static str, MethodRouter)> {
    let calls = [
        collections(),
        streams(),
        indexes(),
        understandings(),
        events(),
    ];
    calls.into_iter().flatten()
}

type Routes = Vec<(&'static str, MethodRouter)>;

fn collections() -> Routes {
    use self::collections as c;
    let one = get(c::get).patch(c::update).delete(c::delete);
    vec![
        ("/collection", get(c::list).post(c::create)),
        ("/collection/{id}", one),
        ("/collection/{id}/websocket", get(c::websocket)),
    ]
}

fn streams() -> Routes {
    use self::{exports, search, streams as s, transcripts as t};
    vec![
        ("/rtstream", get(s::list).post(s::connect)),
        ("/rtstream/{id}", get(s::get).patch(s::rename)),
        ("/rtstream/{id}/status", patch(s::set_status)),
        ("/rtstream/{id}/stream", get(s::stream)),
        ("/rtstream/{id}/search", post(search::in_stream)),
        (
            "/rtstream/collection/{id}/search",
            post(search::in_collection),
        ),
        ("/rtstream/{id}/transcription", get(t::list).post(t::switch)),
        ("/rtstream/{id}/transcription/status", get(t::status_of)),
        ("/rtstream/{id}/export", post(exports::export)),
    ]
}

fn indexes() -> Routes {
    use self::indexes as i;
    vec![
        (
            "/rtstream/{id}/index/scene",
            get(i::list_scene).post(i::create),
        ),
        (
            "/rtstream/{id}/index/scene/{index}",
            get(i::scenes).patch(i::change),
        ),
        (
            "/rtstream/{id}/index/scene/{index}/status",
            patch(i::set_status),
        ),
        ("/rtstream/{id}/index/{index}", get(i::get_scene)),
    ]
}

/// The newer paths of the same.
fn understandings() -> Routes {
    use self::understandings as u;
    vec![
        ("/rtstream/{id}/understand", get(u::list).post(u::create)),
        ("/rtstream/{id}/understand/{index}", get(u::get)),
        (
            "/rtstream/{id}/understand/{index}/status",
            patch(u::set_status),
        ),
        ("/rtstream/{id}/understand/{index}/records", get(u::records)),
        (
            "/rtstream/{id}/indexes",
            get(u::list_indexes).post(u::index),
        ),
        ("/rtstream/{id}/indexes/{index}", get(u::get_index)),
        (
            "/rtstream/{id}/indexes/{index}/status",
            patch(u::set_index_status),
        ),
        (
            "/rtstream/{id}/indexes/{index}/records",
            get(u::index_records),
        ),
    ]
}

fn events() -> Routes {
    use self::events as e;
    let alerts = || get(e::list_alerts).post(e::create_alert);
    let status = || patch(e::set_alert_status);
    vec![
        ("/rtstream/event", get(e::list).post(e::create)),
        ("/rtstream/{id}/index/{index}/alert", alerts()),
        ("/rtstream/{id}/indexes/{index}/alert", alerts()),
        (
            "/rtstream/{id}/index/{index}/alert/{alert}/status",
            status(),
        ),
        (
            "/rtstream/{id}/indexes/{index}/alert/{alert}/status",
            status(),
        ),
    ]
}

/// A call that was not let in, as this skin says it.
pub(crate) fn refuse(error: ApiError) -> Response {
    Refusal::from(error).into_response()
}
