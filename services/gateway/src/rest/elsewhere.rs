//! Paths without a call: what VideoDB has and this platform does not, what does not exist, and wrong methods.

use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode, Uri};

use super::answer::Refusal;

/// First parts of the paths that this skin answers for.
pub(super) const FIRST: [&str; 23] = [
    "rtstream",
    "collection",
    "async-response",
    "audio",
    "billing",
    "capture",
    "compile",
    "download",
    "editor",
    "generate",
    "image",
    "index",
    "job",
    "meeting",
    "sandbox",
    "search",
    "timeline",
    "transcode",
    "understand",
    "upload",
    "upload_url",
    "video",
    "voice_clone",
];

/// What VideoDB has of a collection besides its streams.
const OF_COLLECTIONS: [&str; 16] = [
    "aggregate",
    "ask",
    "audio",
    "capture",
    "generate",
    "identities",
    "image",
    "index",
    "meeting",
    "query",
    "search",
    "semantic-search",
    "understand",
    "upload",
    "upload_url",
    "video",
];

/// Anything below one of `FIRST` that has no route; `below` is the path without it.
pub(super) async fn no_such_path(first: &'static str, below: Uri) -> Response {
    let mut parts = below.path().split('/').filter(|part| !part.is_empty());
    let what = parts.nth(1);
    let outside = match (first, what) {
        ("collection", Some(name)) if OF_COLLECTIONS.contains(&name) => what,
        ("rtstream" | "collection", _) => None,
        _ => Some(first),
    };
    match outside {
        Some(what) => Refusal::not_here(format!("{what} is not part of Sightline")),
        None => {
            let message = "there is no such call; / says what this server is";
            Refusal::new(StatusCode::NOT_FOUND, "NOT_FOUND", message)
        }
    }
    .into_response()
}

/// A path that is there, with a method that it does not have.
pub(super) async fn wrong_method(method: Method) -> Response {
    let message = format!("{method} is not a method of this path");
    let status = StatusCode::METHOD_NOT_ALLOWED;
    Refusal::new(status, "METHOD_NOT_ALLOWED", message).into_response()
}
