//! What is kept: by age and by size, the oldest removed first; and hours that are over get their index.

use crate::error::StoreError;
use crate::library::Library;

/// For how long, and how much, is kept of one stream; 0: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Segments that ended longer ago are removed, in microseconds.
    pub max_age_us: i64,
    /// The oldest are removed when all together are larger.
    pub max_bytes: u64,
}

/// What one round did to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Kept {
    /// Segments removed.
    pub removed: u64,
    /// Their size.
    pub removed_bytes: u64,
    /// Size of what is left.
    pub bytes: u64,
}

/// Removes what is too old or too much of a stream's recording, and writes the index of hours in which nothing is written any
/// more: those that end an hour before `written_up_to_us`, up to which the stream's recording has come. Any number of workers
/// may do so at the same time, and it may be cut off anywhere.
pub async fn enforce(
    _library: &Library,
    _rtstream: &str,
    _retention: Retention,
    _written_up_to_us: i64,
    _now_us: i64,
) -> Result<Kept, StoreError> {
    unimplemented!()
}
