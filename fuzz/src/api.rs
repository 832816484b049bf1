//! What REST's files name of the gateway's core: nothing of it is called.

use sightline_proto::reasons::{ApiError, Reason};

pub(crate) use crate::violations::shown;

/// Nobody.
pub(crate) struct Session;

impl Session {
    pub(crate) fn of(_: &http::Extensions) -> Result<Self, ApiError> {
        Err(ApiError::new(Reason::Internal, "nobody calls here"))
    }
}
