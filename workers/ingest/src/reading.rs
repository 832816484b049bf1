//! Reading whole segments out of the store.

use bytes::Bytes;
use sightline_recordings::{Segment, Store, StoreError};
use thiserror::Error;

/// No child cuts larger segments.
const LARGEST: u64 = 32 << 20;

/// Why a segment can't be read.
#[derive(Debug, Error)]
pub(crate) enum ReadError {
    /// The store did not give it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing of this platform wrote it.
    #[error("a segment of {0} bytes is too large")]
    TooLarge(u64),
}

/// Reads a segment of at most 32 MiB.
pub(crate) async fn segment(
    store: &Store,
    rtstream_id: &str,
    segment: Segment,
) -> Result<Bytes, ReadError> {
    let body = store.segment(rtstream_id, segment).await?;
    if body.size > LARGEST {
        return Err(ReadError::TooLarge(body.size));
    }
    Ok(body.bytes().await?)
}
