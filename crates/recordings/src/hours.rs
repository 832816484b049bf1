//! Hours of a stream: which there are, their segments, their indexes.

use futures::{StreamExt, stream};
use object_store::path::Path;
use prost::Message;
use sightline_proto::internal::HourIndex;

use crate::error::StoreError;
use crate::names::{self, HOUR_US, Segment};
use crate::store::{DEADLINE, Store, within};

/// Larger than the index of any hour: some 300,000 segments.
const INDEX_BYTES: usize = 4 * 1024 * 1024;

/// What an hour holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hour {
    /// In order of start, the longer of two first.
    pub segments: Vec<Segment>,
    /// Whether they come out of an index.
    pub sealed: bool,
}

impl Hour {
    pub fn sum(&self, hour: i64) -> Sum {
        Sum {
            hour,
            bytes: self.segments.iter().map(|s| s.bytes).sum(),
            first_end_us: self.segments.first().map(Segment::end_us),
            sealed: self.sealed,
        }
    }
}

/// What retention has to know of an hour.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sum {
    /// Which one.
    pub hour: i64,
    /// Size of its segments.
    pub bytes: u64,
    /// Where the first of them ends.
    pub first_end_us: Option<i64>,
    /// Whether it comes out of an index.
    pub sealed: bool,
}

/// What a listing of an hour shows.
pub(crate) struct Listed {
    /// In order of start, the longer of two first.
    pub segments: Vec<Segment>,
    /// Whether there is an index.
    pub index: bool,
}

impl Store {
    /// The hours of a stream, in order.
    pub(crate) async fn hours(&self, rtstream: &str) -> Result<Vec<i64>, StoreError> {
        let folder = names::stream(rtstream)?;
        let listing = self.objects.list_with_delimiter(Some(&folder));
        let listed = within(DEADLINE, "list", "recording", listing).await?;
        let mut hours: Vec<i64> = listed
            .common_prefixes
            .iter()
            .filter_map(|path| names::parse_hour(path.filename()?))
            .collect();
        hours.sort_unstable();
        Ok(hours)
    }

    /// An hour out of its index; a listing when it has none, or one that can't be read. Files are not synced to the disk one by one
    /// (that would cost more than all the rest of recording): what a power cut left empty is not there.
    pub(crate) async fn hour(&self, rtstream: &str, hour: i64) -> Result<Hour, StoreError> {
        let mut found = self.whole_hour(rtstream, hour).await?;
        found.segments.retain(|segment| segment.bytes > 0);
        Ok(found)
    }

    /// The same with what is empty: what retention has to remove, and an index to agree with.
    pub(crate) async fn whole_hour(&self, rtstream: &str, hour: i64) -> Result<Hour, StoreError> {
        match self.index(rtstream, hour).await {
            Ok(segments) => {
                return Ok(Hour {
                    segments,
                    sealed: true,
                });
            }
            Err(StoreError::NotFound { .. }) => {}
            Err(error @ StoreError::Damaged { .. }) => {
                let hour = names::hour_name(hour);
                tracing::warn!(rtstream, hour, %error, "hour is listed instead");
            }
            Err(error) => return Err(error),
        }
        let listed = self.list_hour(rtstream, hour).await?;
        Ok(Hour {
            segments: listed.segments,
            sealed: false,
        })
    }

    /// What is in the folder of an hour.
    pub(crate) async fn list_hour(&self, rtstream: &str, hour: i64) -> Result<Listed, StoreError> {
        let folder = names::hour(rtstream, hour)?;
        let listing = self.objects.list_with_delimiter(Some(&folder));
        let listed = within(DEADLINE, "list", "recording", listing).await?;
        let mut found = Listed {
            segments: Vec::with_capacity(listed.objects.len()),
            index: false,
        };
        for object in &listed.objects {
            let name = object.location.filename().unwrap_or_default();
            found.index |= name == names::INDEX;
            let segment = Segment::parse(name).filter(|segment| segment.hour() == hour);
            found.segments.extend(segment.map(|segment| Segment {
                bytes: object.size,
                ..segment
            }));
        }
        found.segments.sort_unstable_by_key(in_order);
        Ok(found)
    }

    /// Writes the index of an hour.
    pub(crate) async fn put_index(
        &self,
        rtstream: &str,
        hour: i64,
        segments: &[Segment],
    ) -> Result<(), StoreError> {
        let start_us = hour * HOUR_US;
        let index = HourIndex {
            start_us: segments.iter().map(|s| s.start_us - start_us).collect(),
            duration_us: segments.iter().map(|s| s.duration_us).collect(),
            bytes: segments.iter().map(|s| s.bytes).collect(),
        };
        let path = names::index(rtstream, hour)?;
        self.put(&path, "index", index.encode_to_vec().into()).await
    }

    /// Removes the index of an hour, if there is one.
    pub(crate) async fn remove_index(&self, rtstream: &str, hour: i64) -> Result<(), StoreError> {
        self.remove(&names::index(rtstream, hour)?, "index").await
    }

    /// Removes segments; some may be gone already.
    pub(crate) async fn remove_segments(
        &self,
        rtstream: &str,
        segments: &[Segment],
    ) -> Result<(), StoreError> {
        let paths: Result<Vec<Path>, StoreError> = segments
            .iter()
            .map(|segment| names::segment(rtstream, *segment))
            .collect();
        self.remove_all(stream::iter(paths?).map(Ok).boxed()).await
    }

    async fn index(&self, rtstream: &str, hour: i64) -> Result<Vec<Segment>, StoreError> {
        let path = names::index(rtstream, hour)?;
        let bytes = self.small(&path, "index", INDEX_BYTES).await?;
        let index = HourIndex::decode(bytes).ok();
        let segments = index.and_then(|index| segments_of(&index, hour));
        segments.ok_or_else(|| StoreError::Damaged {
            what: "index".to_owned(),
        })
    }
}

/// By start, the longer of two first.
fn in_order(segment: &Segment) -> (i64, std::cmp::Reverse<i64>) {
    (segment.start_us, std::cmp::Reverse(segment.duration_us))
}

/// The segments in an index; none when it is not as one that is written here.
fn segments_of(index: &HourIndex, hour: i64) -> Option<Vec<Segment>> {
    let count = index.start_us.len();
    if index.duration_us.len() != count || index.bytes.len() != count {
        return None;
    }
    let lists = index
        .start_us
        .iter()
        .zip(&index.duration_us)
        .zip(&index.bytes);
    let mut segments: Vec<Segment> = Vec::with_capacity(count);
    for ((start, duration), bytes) in lists {
        let segment = Segment {
            start_us: start.checked_add(hour * HOUR_US)?,
            duration_us: *duration,
            bytes: *bytes,
        };
        let follows = segments
            .last()
            .is_none_or(|last| in_order(last) < in_order(&segment));
        if !follows || !segment.can_be() || segment.hour() != hour {
            return None;
        }
        segments.push(segment);
    }
    Some(segments)
}
