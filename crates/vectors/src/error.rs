//! What can go wrong with a store.

use std::path::PathBuf;

use thiserror::Error;

/// What a library said.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Something that a store could not do.
#[derive(Debug, Error)]
pub enum VectorError {
    /// The caller asked for something that no store can do.
    #[error("{0}")]
    Invalid(String),
    /// Another process has the store.
    #[error(
        "the vector store in {} is in use by {holder}: it can be open once only, so stop that process or use another folder",
        .dir.display()
    )]
    Locked {
        /// The store's folder.
        dir: PathBuf,
        /// Who has it, for example "process 17".
        holder: String,
    },
    /// The store holds vectors of another model, or was made by another release.
    #[error(
        "the vector store in {place} {problem}; delete {place}: a new one is filled from OBSERVATIONS at the next start"
    )]
    Mismatch {
        /// The folder or collection.
        place: String,
        /// What does not fit.
        problem: String,
    },
    /// Somebody else's collection has the name.
    #[error(
        "collection {collection} on the qdrant server was not made by this program: name another one"
    )]
    Foreign {
        /// The collection.
        collection: String,
    },
    /// The store's files can't be used.
    #[error(
        "the vector store in {} cannot be opened; if nothing else helps, delete that folder: it is filled from OBSERVATIONS at the next start",
        .dir.display()
    )]
    Open {
        /// The store's folder.
        dir: PathBuf,
        /// Why.
        source: Cause,
    },
    /// Points could not be stored.
    #[error("points could not be stored: {reason}")]
    Write {
        /// Why. One reason may be given to several callers, so it is text.
        reason: String,
    },
    /// The store could not be read.
    #[error("the vector store could not be read")]
    Read {
        /// Why.
        source: Cause,
    },
    /// A Qdrant server does not answer, or refused.
    #[error(
        "the qdrant server at {url} could not {action}: check that it runs there and that the API key is right"
    )]
    Server {
        /// Its address.
        url: String,
        /// What was asked.
        action: &'static str,
        /// Why.
        source: Cause,
    },
}

impl VectorError {
    pub(crate) fn read(source: impl Into<Cause>) -> Self {
        Self::Read {
            source: source.into(),
        }
    }
}
