//! Answers: the envelope around data and errors.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use serde_json::json;
use sightline_proto::reasons::{ApiError, Reason};
use tonic::Code;

/// What a handler returns.
pub(super) type Answer = Result<Data, Refusal>;

/// Data in its envelope.
pub(super) struct Data {
    status: StatusCode,
    data: serde_json::Value,
}

impl Data {
    /// The data of a call that went well.
    pub(super) fn of(data: impl Serialize) -> Answer {
        Self::with(StatusCode::OK, data)
    }

    /// What a call made.
    pub(super) fn created(data: impl Serialize) -> Answer {
        Self::with(StatusCode::CREATED, data)
    }

    fn with(status: StatusCode, data: impl Serialize) -> Answer {
        match serde_json::to_value(data) {
            Ok(data) => Ok(Self { status, data }),
            Err(error) => {
                tracing::error!(%error, "an answer is not JSON");
                Err(ApiError::new(Reason::Internal, "the answer cannot be written").into())
            }
        }
    }
}

impl IntoResponse for Data {
    fn into_response(self) -> Response {
        let body = json!({"success": true, "data": self.data});
        (self.status, Json(body)).into_response()
    }
}

/// A refused call.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Refusal {
    /// What HTTP alone knows, or what this platform does not have.
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    /// What VideoDB has and this platform does not.
    pub(super) fn not_here(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "NOT_IMPLEMENTED", message)
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self {
            status: status(error.reason.code()),
            code: error.reason.as_str(),
            message: message(&error),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({
            "success": false,
            "message": self.message,
            "error_code": self.code,
        });
        (self.status, Json(body)).into_response()
    }
}

/// Errors with the names that fields have in this skin.
pub(super) fn renaming(names: &[(&str, &str)]) -> impl Fn(ApiError) -> Refusal {
    move |mut error| {
        for (field, allowed) in &mut error.fields {
            let Some((_, name)) = names.iter().find(|(core, _)| core == field) else {
                continue;
            };
            let (before, after) = (format!("{field}: {allowed}"), format!("{name}: {allowed}"));
            error.message = error.message.replace(&before, &after);
            (*name).clone_into(field);
        }
        error.into()
    }
}

/// The message with the fields at fault: clients of this skin show nothing else.
fn message(error: &ApiError) -> String {
    let untold: Vec<String> = error
        .fields
        .iter()
        .map(|(field, allowed)| format!("{field}: {allowed}"))
        .filter(|fault| !error.message.contains(fault))
        .collect();
    if untold.is_empty() {
        error.message.clone()
    } else {
        format!("{} ({})", error.message, untold.join("; "))
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
