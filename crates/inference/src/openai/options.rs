//! How to reach a model on a server.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use http::header::HeaderValue;

use super::error::RemoteError;
use crate::InferenceError;

/// How to reach a model.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the API begins, for example `http://host:8000/v1`.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// What lets us in.
    pub key: Option<Key>,
    /// How long one try may take.
    pub timeout: Duration,
    /// Most requests at once, at least 1.
    pub concurrency: usize,
}

impl Options {
    /// Without a key, 30 s a try, 8 requests at once.
    pub fn new(url: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            model: model.into(),
            key: None,
            timeout: Duration::from_secs(30),
            concurrency: 8,
        }
    }
}

/// An API key. Neither its Debug form nor any error or log shows it.
#[derive(Clone)]
pub struct Key(String);

impl Key {
    /// Reads it from a file; white space around it does not count.
    ///
    /// # Errors
    /// When the file cannot be read, or holds something else than one line of visible characters.
    pub fn read(path: &Path) -> Result<Self, InferenceError> {
        let text = std::fs::read_to_string(path).map_err(|source| RemoteError::KeyFile {
            path: path.to_owned(),
            source,
        })?;
        let key = text.trim();
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            let path = path.to_owned();
            return Err(RemoteError::Key { path }.into());
        }
        Ok(Self(key.to_owned()))
    }

    /// For taking it out of what a server says.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn header(&self) -> HeaderValue {
        let value = format!("Bearer {}", self.0);
        let mut value = HeaderValue::from_str(&value).expect("visible ASCII");
        value.set_sensitive(true);
        value
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}
