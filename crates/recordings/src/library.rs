//! What is recorded: looked up by hour, without walking directories.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use sightline_proto::ids::Kind;
use uuid::Uuid;

use crate::cache::Cache;
use crate::error::StoreError;
use crate::hours::{Hour, Sum};
use crate::names::{self, HOUR_US, LONGEST_US, Segment};
use crate::store::{AT_ONCE, DEADLINE, Store};

/// How old what is listed may be.
const LISTED: Duration = Duration::from_secs(1);
/// How old what comes out of an index may be: only retention changes it.
const SEALED: Duration = Duration::from_secs(30);
/// Memory for segments of hours, for sums of hours, and for lists of hours.
const HOURS_BYTES: usize = 52 * 1024 * 1024;
const SUMS_BYTES: usize = 8 * 1024 * 1024;
const LISTS_BYTES: usize = 4 * 1024 * 1024;

/// Finds segments. Hours are read once and kept for a while, within 64 MiB of memory. Clones share what was read.
#[derive(Debug, Clone)]
pub struct Library(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: Store,
    lists: Cache<Uuid, Vec<i64>>,
    hours: Cache<(Uuid, i64), Hour>,
    /// For retention, which needs no more than these of hours of which there may be very many.
    sums: Cache<(Uuid, i64), Sum>,
}

impl Library {
    /// A library over a store.
    pub fn new(store: Store) -> Self {
        Self(Arc::new(Shared {
            store,
            lists: Cache::new(LISTS_BYTES),
            hours: Cache::new(HOURS_BYTES),
            sums: Cache::new(SUMS_BYTES),
        }))
    }

    /// The store behind it.
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// The segments that overlap the time from `from_us` up to `to_us`, in order of start and no two with the same; what is
    /// added shows after a second at most, what retention removes after 30 s.
    ///
    /// # Errors
    /// When the store fails; `NotFound` when `rtstream` is no id of a stream. One without a recording has no segments.
    pub async fn segments(
        &self,
        rtstream: &str,
        from_us: i64,
        to_us: i64,
    ) -> Result<Vec<Segment>, StoreError> {
        let hours = self.hours(rtstream).await?;
        // What starts in the hour before may reach into the range.
        let earliest = from_us.saturating_sub(LONGEST_US).div_euclid(HOUR_US);
        let latest = to_us.div_euclid(HOUR_US);
        // Owned: a stream over references is not seen to be `Send` by callers.
        let wanted: Vec<i64> = hours
            .iter()
            .copied()
            .filter(|hour| (earliest..=latest).contains(hour))
            .collect();
        let read: Vec<Arc<Hour>> = stream::iter(wanted)
            .map(|hour| self.hour(rtstream, hour))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let count = read.iter().map(|hour| hour.segments.len()).sum();
        let mut found: Vec<Segment> = Vec::with_capacity(count);
        for hour in &read {
            let within = |s: &&Segment| s.end_us() > from_us && s.start_us < to_us;
            found.extend(hour.segments.iter().filter(within));
        }
        // The longest of those with one start comes first.
        found.dedup_by_key(|segment| segment.start_us);
        Ok(found)
    }

    /// Where the recording starts and ends; none without any segment.
    ///
    /// # Errors
    /// As of [`Library::segments`].
    pub async fn extent(&self, rtstream: &str) -> Result<Option<(i64, i64)>, StoreError> {
        let hours = self.hours(rtstream).await?;
        let mut start_us = None;
        for hour in hours.iter() {
            let hour = self.hour(rtstream, *hour).await?;
            start_us = hour.segments.first().map(|segment| segment.start_us);
            if start_us.is_some() {
                break;
            }
        }
        let Some(start_us) = start_us else {
            return Ok(None);
        };
        for hour in hours.iter().rev() {
            let hour = self.hour(rtstream, *hour).await?;
            if let Some(end_us) = hour.segments.iter().map(Segment::end_us).max() {
                return Ok(Some((start_us, end_us)));
            }
        }
        Ok(None)
    }

    /// The hours of a stream, in order.
    async fn hours(&self, rtstream: &str) -> Result<Arc<Vec<i64>>, StoreError> {
        let key = stream_key(rtstream)?;
        let list = self.0.lists.get(
            key,
            |_| LISTED,
            |hours| hours.capacity() * size_of::<i64>(),
            self.0.store.hours(rtstream),
        );
        in_time(list).await
    }

    async fn hour(&self, rtstream: &str, hour: i64) -> Result<Arc<Hour>, StoreError> {
        let key = (stream_key(rtstream)?, hour);
        let read = self.0.hours.get(
            key,
            |hour| if hour.sealed { SEALED } else { LISTED },
            |hour| hour.segments.capacity() * size_of::<Segment>(),
            self.0.store.hour(rtstream, hour),
        );
        in_time(read).await
    }

    /// What retention has to know of each hour of a stream, in order; where it comes out of an index, it may be `sealed` old.
    pub(crate) async fn sums(
        &self,
        rtstream: &str,
        sealed: Duration,
    ) -> Result<Vec<Sum>, StoreError> {
        let stream = stream_key(rtstream)?;
        let hours = self.hours(rtstream).await?;
        let sum = async |hour| {
            let read = async { Ok(self.0.store.whole_hour(rtstream, hour).await?.sum(hour)) };
            let fresh = |sum: &Sum| if sum.sealed { sealed } else { Duration::ZERO };
            let kept = self
                .0
                .sums
                .get((stream, hour), fresh, |_| size_of::<Sum>(), read);
            in_time(kept).await.map(|sum| *sum)
        };
        stream::iter(hours.iter().copied())
            .map(sum)
            .buffered(AT_ONCE)
            .try_collect()
            .await
    }

    /// An hour has changed: the next who asks gets it anew.
    pub(crate) fn forget(&self, rtstream: &str, hour: i64) {
        if let Ok(stream) = stream_key(rtstream) {
            self.0.hours.forget((stream, hour));
            self.0.sums.forget((stream, hour));
            self.0.lists.forget(stream);
        }
    }
}

/// Waiting for another who reads the same counts, too.
async fn in_time<T>(reading: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let read = tokio::time::timeout(DEADLINE, reading).await;
    read.unwrap_or(Err(StoreError::Deadline {
        seconds: DEADLINE.as_secs(),
    }))
}

fn stream_key(rtstream: &str) -> Result<Uuid, StoreError> {
    names::uuid(Kind::RtStream, rtstream).ok_or_else(|| StoreError::NotFound {
        what: "recording of that stream".to_owned(),
    })
}
