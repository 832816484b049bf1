//! Requests: the ids in a path, the query and the body, each refused in the envelope.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, JsonRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Query, RawPathParams, Request};
use http::StatusCode;
use http::request::Parts;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sightline_proto::reasons::{ApiError, Reason};

use super::answer::Refusal;
use super::values::wrong;
use crate::api::Session;

/// The ids in a path; empty where the path has none.
#[derive(Default)]
pub(super) struct Ids {
    /// The stream's or the collection's.
    pub(super) id: String,
    /// The index's or the understanding's.
    pub(super) index: String,
    pub(super) alert: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Ids {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        let params = params.map_err(|_| unreadable("the path is not UTF-8"))?;
        let mut ids = Self::default();
        for (name, value) in &params {
            let id = match name {
                "id" => &mut ids.id,
                "index" => &mut ids.index,
                _ => &mut ids.alert,
            };
            value.clone_into(id);
        }
        Ok(ids)
    }
}

impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        Ok(Session::of(&parts.extensions)?)
    }
}

/// A query.
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let Query(query) = Query::try_from_uri(&parts.uri)?;
        Ok(Self(query))
    }
}

/// A JSON body, whatever its content type says; without one, an empty object.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let bytes = Bytes::from_request(request, state).await?;
        let text = bytes.trim_ascii();
        let text = if text.is_empty() { b"{}" } else { text };
        // A list would be taken for the values of the fields in their order.
        if text[0] != b'{' {
            return Err(unreadable("the body must be a JSON object"));
        }
        let Json(body) = Json::from_bytes(text)?;
        Ok(Self(body))
    }
}

impl From<BytesRejection> for Refusal {
    fn from(rejection: BytesRejection) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let message = "the body is larger than this server takes";
            return Self::new(rejection.status(), "BODY_TOO_LARGE", message);
        }
        unreadable(&rejection.body_text())
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        unreadable(&format!(
            "the body cannot be read: {}",
            rejection.body_text()
        ))
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        unreadable(&format!(
            "the query cannot be read: {}",
            rejection.body_text()
        ))
    }
}

fn unreadable(message: &str) -> Refusal {
    ApiError::new(Reason::InvalidArgument, message).into()
}

/// What switches something: clients send `action`, documents `status`.
#[derive(Deserialize)]
pub(super) struct Switch {
    pub(super) action: Option<String>,
    pub(super) status: Option<String>,
}

impl Switch {
    /// Whether it is to be on; `on` and `off` are the words for it, as an action and as a status.
    pub(super) fn is_on(&self, on: [&str; 2], off: [&str; 2]) -> Result<bool, ApiError> {
        let asked = self.action.as_deref().or(self.status.as_deref());
        match asked {
            Some(word) if on.contains(&word) => Ok(true),
            Some(word) if off.contains(&word) => Ok(false),
            _ => Err(wrong("action", format!("\"{}\" or \"{}\"", on[0], off[0]))),
        }
    }
}

/// Refuses what this platform does not do (yet), unless it is null, false or empty.
pub(super) fn unsupported<const N: usize>(
    fields: [(&'static str, &Option<Value>); N],
) -> Result<(), ApiError> {
    let asked = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(items) => !items.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    };
    let mut fields = fields.into_iter();
    match fields.find(|(_, value)| value.as_ref().is_some_and(asked)) {
        Some((field, _)) => Err(wrong(field, "not supported by Sightline yet; leave it out")),
        None => Ok(()),
    }
}
