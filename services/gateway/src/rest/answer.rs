//! Answers: the envelope around data and errors, and what a request's body and query are read into.

use axum::Json;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use serde_json::json;
use sightline_proto::reasons::{ApiError, Reason};
use tonic::Code;

/// What a handler returns.
pub(super) type Answer = Result<Data, Refusal>;

/// Data in its envelope.
pub(super) struct Data(serde_json::Value);

impl Data {
    /// The data of a call that went well.
    pub(super) fn of(data: impl Serialize) -> Answer {
        serde_json::to_value(data).map(Self).map_err(|error| {
            tracing::error!(%error, "an answer is not JSON");
            Refusal(ApiError::new(
                Reason::Internal,
                "the answer cannot be written",
            ))
        })
    }
}

impl IntoResponse for Data {
    fn into_response(self) -> Response {
        Json(json!({"success": true, "data": self.0})).into_response()
    }
}

/// A refused call.
pub(super) struct Refusal(pub(super) ApiError);

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl From<JsonRejection> for Refusal {
    fn from(rejection: JsonRejection) -> Self {
        Self(ApiError::new(
            Reason::InvalidArgument,
            format!("the body cannot be read: {}", rejection.body_text()),
        ))
    }
}

impl From<QueryRejection> for Refusal {
    fn from(rejection: QueryRejection) -> Self {
        Self(ApiError::new(
            Reason::InvalidArgument,
            format!("the query cannot be read: {}", rejection.body_text()),
        ))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let error = self.0;
        let body = json!({
            "success": false,
            "message": message(&error),
            "error_code": error.reason.as_str(),
        });
        (status(error.reason.code()), Json(body)).into_response()
    }
}

/// The message with the fields at fault: clients of this skin show nothing else.
fn message(error: &ApiError) -> String {
    let fields: Vec<String> = error
        .fields
        .iter()
        .map(|(field, allowed)| format!("{field}: {allowed}"))
        .collect();
    if fields.is_empty() {
        error.message.clone()
    } else {
        format!("{} ({})", error.message, fields.join("; "))
    }
}

/// The HTTP status that clients of this skin know the error by.
fn status(code: Code) -> StatusCode {
    match code {
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Internal | Code::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    }
}
