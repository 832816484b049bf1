//! What playback answers: bodies out of the store, and why there is none.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use sightline_recordings::links::LinkError;
use sightline_recordings::{ObjectBody, StoreError};
use sightline_service::chain;

/// After how many seconds it is worth asking again.
const RETRY: &str = "2";

/// Why there is nothing to play.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It does not exist, for good.
    NotFound(&'static str),
    /// It is still to come.
    NotYet,
    /// The link was not made here, or was changed.
    Invalid,
    /// The link has stopped working.
    Expired,
    /// The part asked for lies beyond the end; the size of the whole.
    Beyond(u64),
    /// Too many ask at once.
    Busy,
    /// Something that this needs does not answer.
    Unavailable,
}

impl Refusal {
    /// The status, and the words for people.
    pub(super) fn says(&self) -> (StatusCode, &'static str) {
        match self {
            Refusal::NotFound(words) => (StatusCode::NOT_FOUND, words),
            Refusal::NotYet => (
                StatusCode::NOT_FOUND,
                "nothing of this is recorded yet; try again shortly",
            ),
            Refusal::Invalid => (StatusCode::FORBIDDEN, "this link is not valid"),
            Refusal::Expired => (
                StatusCode::GONE,
                "this link has expired; ask whoever sent it for a new one",
            ),
            Refusal::Beyond(_) => (
                StatusCode::RANGE_NOT_SATISFIABLE,
                "the file is shorter than that",
            ),
            Refusal::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "too many ask for this at once; try again shortly",
            ),
            Refusal::Unavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "recordings can't be had at this moment; try again shortly",
            ),
        }
    }

    /// Whether asking again later helps.
    fn passes(&self) -> bool {
        matches!(self, Refusal::NotYet | Refusal::Busy | Refusal::Unavailable)
    }

    /// Adds what the status calls for.
    pub(super) fn mark(&self, response: &mut Response) {
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.passes() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY));
        }
        if let Refusal::Beyond(size) = self {
            let whole = format!("bytes */{size}");
            set(response, header::CONTENT_RANGE, &whole);
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, words) = self.says();
        let mut response = (status, format!("{words}\n")).into_response();
        self.mark(&mut response);
        response
    }
}

impl From<LinkError> for Refusal {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Invalid => Refusal::Invalid,
            LinkError::Expired => Refusal::Expired,
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        if let StoreError::NotFound { .. } = error {
            return Refusal::NotFound("this is not recorded, or not kept any more");
        }
        tracing::warn!(error = chain(&error), "the object store failed a viewer");
        Refusal::Unavailable
    }
}

/// An object as it comes from the store, never held whole.
pub(super) fn streamed(body: ObjectBody, kind: &'static str, caching: &'static str) -> Response {
    let length = body.range.end.saturating_sub(body.range.start);
    let mut response = Response::new(Body::from_stream(body.stream));
    set(&mut response, header::CONTENT_LENGTH, &length.to_string());
    described(&mut response, kind, caching);
    response
}

/// Says what an answer is and how long it may be kept.
pub(super) fn described(response: &mut Response, kind: &'static str, caching: &'static str) {
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
}

/// Sets a header whose value is made here, of visible ASCII.
pub(super) fn set(response: &mut Response, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// The answer to one who has it already.
pub(super) fn unchanged(headers: &HeaderMap, tag: &str, caching: &'static str) -> Option<Response> {
    let known = headers.get(header::IF_NONE_MATCH)?.to_str().ok()?;
    let same = |known: &str| known == "*" || known.trim_start_matches("W/") == tag;
    if !known.split(',').map(str::trim).any(same) {
        return None;
    }
    let mut response = StatusCode::NOT_MODIFIED.into_response();
    set(&mut response, header::ETAG, tag);
    set(&mut response, header::CACHE_CONTROL, caching);
    Some(response)
}
