//! Why the store did not do what it was asked.

use thiserror::Error;

/// Why the store did not do what it was asked. No message holds a credential.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The store's address can't be used.
    #[error(
        "{address:?} is no address of an object store: write file:///DIR or s3://BUCKET/PREFIX"
    )]
    Address {
        /// What was given, without credentials.
        address: String,
    },
    /// It is not there.
    #[error("there is no {what} in the object store")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// Something of that name is there already.
    #[error("there is a {what} in the object store already")]
    Exists {
        /// What was to be made.
        what: String,
    },
    /// The store did not answer in time.
    #[error("the object store did not answer within {seconds} s")]
    Deadline {
        /// The deadline.
        seconds: u64,
    },
    /// The store refused or failed.
    #[error("the object store could not {action}")]
    Failed {
        /// What was tried: "write", "read", "list", "remove".
        action: &'static str,
        /// Why.
        source: object_store::Error,
    },
    /// What the store holds can't be read.
    #[error("{what} in the object store is damaged")]
    Damaged {
        /// What it is.
        what: String,
    },
}
