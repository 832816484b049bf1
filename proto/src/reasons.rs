//! Why a call was refused: one table for every skin of the API.
//!
//! A reason is stable and for programs; the message is for people and says what to do; field violations name what was wrong
//! in the request.

use std::fmt;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// The domain of every `google.rpc.ErrorInfo` that this platform sends.
pub const DOMAIN: &str = "sightline";

/// One row a reason: when, its name, its text and its gRPC code.
macro_rules! reasons {
    ($(#[doc = $when:literal] $name:ident = $text:literal, $code:ident;)+) => {
        /// Stable reasons, each with its gRPC code.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $(#[doc = $when] $name,)+
        }

        impl Reason {
            /// Every reason, for documentation and tests.
            pub const ALL: &[Reason] = &[$(Reason::$name),+];

            fn row(self) -> (&'static str, Code, &'static str) {
                match self {
                    $(Reason::$name => ($text, Code::$code, $when),)+
                }
            }
        }
    };
}

reasons! {
    /// No such object, or not yours to see.
    NotFound = "NOT_FOUND", NotFound;
    /// A field of the request is wrong; the violations say which.
    InvalidArgument = "INVALID_ARGUMENT", InvalidArgument;
    /// No key, or a wrong one.
    Unauthenticated = "UNAUTHENTICATED", Unauthenticated;
    /// The key may not do this.
    PermissionDenied = "PERMISSION_DENIED", PermissionDenied;
    /// The key came over a connection that is not encrypted, from another machine.
    InsecureConnection = "INSECURE_CONNECTION", Unauthenticated;
    /// The same id or request id is taken by something else.
    AlreadyExists = "ALREADY_EXISTS", AlreadyExists;
    /// The object is not in a state for this.
    FailedPrecondition = "FAILED_PRECONDITION", FailedPrecondition;
    /// Something that this call needs is down; trying again later helps.
    Unavailable = "UNAVAILABLE", Unavailable;
    /// The source's URL is not allowed or not supported.
    SourceRefused = "SOURCE_REFUSED", InvalidArgument;
    /// No such model is configured.
    ModelUnknown = "MODEL_UNKNOWN", InvalidArgument;
    /// The operator does not allow connecting to that address.
    EgressRefused = "EGRESS_REFUSED", InvalidArgument;
    /// Somebody else changed the object at the same time; trying again helps.
    Conflict = "CONFLICT", Aborted;
    /// The page token is not from this list with these parameters.
    PageTokenInvalid = "PAGE_TOKEN_INVALID", InvalidArgument;
    /// The cursor is not one that Watch gave out.
    CursorInvalid = "CURSOR_INVALID", InvalidArgument;
    /// The call took longer than its deadline.
    DeadlineExceeded = "DEADLINE_EXCEEDED", DeadlineExceeded;
    /// A fault on this side; the server's log has the cause.
    Internal = "INTERNAL", Internal;
}

impl Reason {
    /// The stable text of the reason.
    pub fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The gRPC code of the reason.
    pub fn code(self) -> Code {
        self.row().1
    }

    /// When it is given, for people.
    pub fn meaning(self) -> &'static str {
        self.row().2.trim()
    }
}

/// A refused call: reason, message for people and the fields at fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiError {
    /// Why, for programs.
    pub reason: Reason,
    /// What went wrong and what to do, for people; never a secret.
    pub message: String,
    /// The fields at fault, each with what is allowed.
    pub fields: Vec<(String, String)>,
}

impl ApiError {
    /// An error without field violations.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
            fields: Vec::new(),
        }
    }

    /// A wrong field: `allowed` says what it must be and what it was.
    pub fn field(mut self, name: impl Into<String>, allowed: impl Into<String>) -> Self {
        self.fields.push((name.into(), allowed.into()));
        self
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let mut details = ErrorDetails::new();
        details.set_error_info(error.reason.as_str(), DOMAIN, []);
        for (field, allowed) in &error.fields {
            details.add_bad_request_violation(field, allowed);
        }
        Status::with_error_details(error.reason.code(), error.message, details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_carries_reason_and_fields() {
        let status: Status = ApiError::new(Reason::InvalidArgument, "the prompt is empty")
            .field("prompt", "1 to 4000 characters, got 0")
            .into();
        let details = status.get_error_details();
        let info = details.error_info().expect("set above");
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("INVALID_ARGUMENT", DOMAIN)
        );
        let fields = &details.bad_request().expect("set above").field_violations;
        assert_eq!(fields[0].field, "prompt");
        assert_eq!(status.code(), Code::InvalidArgument);
    }

    #[test]
    fn reasons_are_told_apart_by_their_text() {
        let mut texts: Vec<_> = Reason::ALL.iter().map(|r| r.as_str()).collect();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), Reason::ALL.len());
    }
}
