//! Why a source can't be read.

use thiserror::Error;

/// A source that can't be read, or no longer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct Failure {
    /// Why, in words, without credentials.
    pub reason: String,
    /// Whether trying again can't help.
    pub permanent: bool,
}

impl Failure {
    /// Trying again can't help: the source itself is at fault.
    pub fn permanent(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            permanent: true,
        }
    }

    /// Trying again may help.
    pub fn passing(reason: impl Into<String>) -> Self {
        Self {
            reason: reason.into(),
            permanent: false,
        }
    }
}
