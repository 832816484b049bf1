//! What is recorded: looked up by hour, without walking directories.

use crate::error::StoreError;
use crate::names::Segment;
use crate::store::Store;

/// Finds segments. Hours are read once and kept for a while, within a bound of memory. Clones share what was read.
#[derive(Debug, Clone)]
pub struct Library(Store);

impl Library {
    /// A library over a store.
    pub fn new(_store: Store) -> Self {
        unimplemented!()
    }

    /// The store behind it.
    pub fn store(&self) -> &Store {
        unimplemented!()
    }

    /// The segments that overlap the time from `from_us` up to `to_us`, in order of start; at most a second old.
    pub async fn segments(&self, _rtstream: &str, _from_us: i64, _to_us: i64) -> Result<Vec<Segment>, StoreError> {
        unimplemented!()
    }

    /// Where the recording starts and ends; none without any segment.
    pub async fn extent(&self, _rtstream: &str) -> Result<Option<(i64, i64)>, StoreError> {
        unimplemented!()
    }
}
