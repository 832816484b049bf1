//! What can go wrong with the catalog.

use sightline_bus::BusError;
use thiserror::Error;

/// Something that the catalog could not do.
#[derive(Debug, Error)]
pub enum CatalogError {
    /// There is a record with this key already.
    #[error("{key} exists already")]
    Exists {
        /// The record's key.
        key: String,
    },
    /// Somebody else wrote the record since it was read.
    #[error("{key} was changed by somebody else at the same time")]
    Conflict {
        /// The record's key.
        key: String,
    },
    /// There is no such record.
    #[error("there is no {key}")]
    Missing {
        /// The record's key.
        key: String,
    },
    /// The id can't be part of a key.
    #[error("{id:?} is no id: an id has letters, digits, '-' and '_' only")]
    Id {
        /// What was given.
        id: String,
    },
    /// The record is none of this release's.
    #[error("{key} can't be read: it was written by another release, or by something else")]
    Unreadable {
        /// The record's key.
        key: String,
        /// Why.
        source: prost::DecodeError,
    },
    /// The number of partitions is none.
    #[error(
        "the key \"config\" of the bucket CATALOG names {0} partitions: it was not written by this platform"
    )]
    Partitions(u32),
    /// The server did not answer, or refused.
    #[error("{key} could not be {action}")]
    Failed {
        /// The record's key, or the bucket's name.
        key: String,
        /// What was tried: "read", "created", "updated", "deleted", "watched".
        action: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The bus does not answer.
    #[error("the bucket CATALOG can't be reached")]
    Bus(#[from] BusError),
}

impl CatalogError {
    pub(crate) fn failed(
        action: &'static str,
        key: &str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Failed {
            key: key.to_owned(),
            action,
            source: source.into(),
        }
    }
}
