//! What can go wrong with a remote model. No message holds the key.

use std::path::PathBuf;
use std::time::Duration;

use sightline_egress::EgressError;

use crate::InferenceError;

/// Why a remote model gave no answer. Every message says which address was asked, and what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum RemoteError {
    #[error("cannot read the key from {}: the file must exist and be readable by this process", .path.display())]
    KeyFile {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{} holds no usable key: it must be one line of visible ASCII characters", .path.display())]
    Key { path: PathBuf },
    #[error(
        "the address {url} cannot be used: {problem}; give the base address of the API, for example http://host:8000/v1"
    )]
    Url { url: String, problem: String },
    #[error("cannot connect to {url}: see that the server runs and can be reached from here")]
    Connect { url: String, source: EgressError },
    #[error("{url} broke off before its answer was complete: see the server's log")]
    Broken { url: String, source: EgressError },
    #[error(
        "no answer from {url} within {after:?}: raise timeout_s, or lower concurrency if the server has too much to do"
    )]
    Timeout { url: String, after: Duration },
    #[error(
        "{url} does not let us in (status {status}): see that key_file holds the key of this server"
    )]
    Forbidden { url: String, status: u16 },
    #[error("{url} does not know the model {model}; {known}")]
    Model {
        url: String,
        model: String,
        known: String,
    },
    #[error(
        "{url} has no such page (status 404): see that the address ends as the server's API begins, usually in /v1, and that it offers this"
    )]
    Missing { url: String },
    #[error("{url} refused the request (status {status}): {message}")]
    Refused {
        url: String,
        status: u16,
        message: String,
    },
    #[error(
        "{url} cannot answer now (status {status}): {message}; lower concurrency if that stays so"
    )]
    Unavailable {
        url: String,
        status: u16,
        message: String,
        retry_after: Option<Duration>,
    },
    #[error(
        "the answer of {url} cannot be used: {problem}; see that this is the address of an OpenAI-compatible API"
    )]
    Answer { url: String, problem: String },
    #[error("{url} failed several times in a row: it is asked again in {} s", .again.as_secs_f64().ceil())]
    Paused { url: String, again: Duration },
}

impl RemoteError {
    pub(super) fn answer(url: &str, problem: impl Into<String>) -> Self {
        Self::Answer {
            url: url.to_owned(),
            problem: problem.into(),
        }
    }

    pub(super) fn from_egress(url: &str, error: EgressError) -> Self {
        let url = url.to_owned();
        match error {
            EgressError::Url { reason } => Self::Url {
                url,
                problem: reason,
            },
            EgressError::Deadline(after) => Self::Timeout { url, after },
            source @ EgressError::Broken { .. } => Self::Broken { url, source },
            source => Self::Connect { url, source },
        }
    }

    /// How long the server wants to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether asking again may help.
    pub(super) fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. } | Self::Broken { .. } | Self::Unavailable { .. }
        )
    }

    /// Whether the server is to blame, rather than what it was asked, or how often.
    pub(super) fn is_failure(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Broken { .. }
            | Self::Timeout { .. }
            | Self::Answer { .. } => true,
            Self::Unavailable { status, .. } => *status != 429,
            _ => false,
        }
    }
}

impl From<RemoteError> for InferenceError {
    fn from(error: RemoteError) -> Self {
        match error {
            // What was asked cannot be taken by this model; other questions can.
            refused @ RemoteError::Refused { .. } => Self::InvalidInput(refused.to_string()),
            error => Self::run("asking the remote model", error),
        }
    }
}
