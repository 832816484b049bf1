//! What is kept: by age and by size, the oldest removed first; and hours that are over get their index.
//!
//! An index must name nothing that is gone and leave out nothing that is there, however often and wherever this is cut off:
//!
//! - To remove segments, the hour's index goes first, then the segments, then a new index is written. In between, the hour is listed.
//! - Who writes an index lists the hour again afterwards, and writes it again if it has changed meanwhile. Who adds a segment removes the
//!   index after it (`Store::put_segment`): whichever comes last, the two never leave an index without the segment.
//! - What a worker killed between two of these steps leaves behind heals: an hour without index gets one, and in each round one hour, by
//!   chance, has its index compared with a listing.

use std::time::Duration;

use crate::error::StoreError;
use crate::hours::{Listed, Sum};
use crate::library::Library;
use crate::names::{HOUR_US, Segment};
use crate::staged;

/// How old the indexes may be that sums are made of. Before anything is removed its hour is listed.
const SUMMED: Duration = Duration::from_secs(600);
/// How often an hour that keeps changing is written anew before it counts as not over yet.
const TRIES: usize = 3;

/// For how long, and how much, is kept of one stream; 0: no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Retention {
    /// Segments that ended longer ago are removed, in microseconds.
    pub max_age_us: i64,
    /// The oldest are removed when all together are larger.
    pub max_bytes: u64,
}

impl Retention {
    /// What a stream says, and the default where it says 0.
    pub fn of(said: sightline_proto::v1::Retention, default: Self) -> Self {
        let age_us = said.max_age_seconds.max(0).saturating_mul(1_000_000);
        let bytes = u64::try_from(said.max_bytes).unwrap_or(0);
        Self {
            max_age_us: if age_us == 0 {
                default.max_age_us
            } else {
                age_us
            },
            max_bytes: if bytes == 0 { default.max_bytes } else { bytes },
        }
    }
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
/// may do so at the same time, and it may be cut off anywhere. Of a local store it also removes files that a killed worker was
/// writing, an hour later.
///
/// # Errors
/// When the store fails; the next round goes on. `NotFound` when `rtstream` is no id of a stream.
pub async fn enforce(
    library: &Library,
    rtstream: &str,
    retention: Retention,
    written_up_to_us: i64,
    now_us: i64,
) -> Result<Kept, StoreError> {
    let mut round = Round::begin(library, rtstream, written_up_to_us).await?;
    round.trim(retention, now_us).await?;
    round.seal_hours().await?;
    round.compare_one(now_us).await?;
    staged::remove(library.store(), rtstream, &round.listed, now_us).await?;
    Ok(round.kept)
}

struct Round<'a> {
    library: &'a Library,
    rtstream: &'a str,
    written_up_to_us: i64,
    /// In order.
    hours: Vec<Sum>,
    /// Hours whose folder was looked into.
    listed: Vec<i64>,
    kept: Kept,
}

impl<'a> Round<'a> {
    async fn begin(
        library: &'a Library,
        rtstream: &'a str,
        written_up_to_us: i64,
    ) -> Result<Self, StoreError> {
        let hours = library.sums(rtstream, SUMMED).await?;
        let unsealed = hours.iter().filter(|sum| !sum.sealed);
        Ok(Self {
            library,
            rtstream,
            written_up_to_us,
            listed: unsealed.map(|sum| sum.hour).collect(),
            kept: Kept {
                bytes: hours.iter().map(|sum| sum.bytes).sum(),
                ..Kept::default()
            },
            hours,
        })
    }

    /// From the oldest hour on, as long as there is something to remove.
    async fn trim(&mut self, retention: Retention, now_us: i64) -> Result<(), StoreError> {
        let ended_by_us = match retention.max_age_us {
            0 => i64::MIN,
            age => now_us.saturating_sub(age),
        };
        let most = match retention.max_bytes {
            0 => u64::MAX,
            bytes => bytes,
        };
        for at in 0..self.hours.len() {
            let sum = self.hours[at];
            // An hour without segments has nothing to remove, the next may.
            let Some(first_end_us) = sum.first_end_us else {
                continue;
            };
            if first_end_us > ended_by_us && self.kept.bytes <= most {
                break;
            }
            self.trim_hour(at, ended_by_us, most).await?;
        }
        Ok(())
    }

    async fn trim_hour(
        &mut self,
        at: usize,
        ended_by_us: i64,
        most: u64,
    ) -> Result<(), StoreError> {
        let sum = self.hours[at];
        let store = self.library.store();
        let found = self.look_into(sum.hour).await?;
        // What was known may be old: others remove, too.
        let mut bytes: u64 = found.segments.iter().map(|s| s.bytes).sum();
        self.kept.bytes = self.kept.bytes - sum.bytes + bytes;
        let keep_from = found.segments.iter().position(|segment| {
            let keep = segment.end_us() > ended_by_us && self.kept.bytes <= most;
            if !keep {
                self.kept.bytes -= segment.bytes;
                bytes -= segment.bytes;
            }
            keep
        });
        let (remove, keep) = found
            .segments
            .split_at(keep_from.unwrap_or(found.segments.len()));
        if found.index {
            store.remove_index(self.rtstream, sum.hour).await?;
        }
        store.remove_segments(self.rtstream, remove).await?;
        self.library.forget(self.rtstream, sum.hour);
        self.kept.removed += remove.len() as u64;
        self.kept.removed_bytes += remove.iter().map(|s| s.bytes).sum::<u64>();
        self.hours[at] = Sum {
            bytes,
            first_end_us: keep.first().map(Segment::end_us),
            sealed: false,
            ..sum
        };
        Ok(())
    }

    /// Hours that are over and have no index get one.
    async fn seal_hours(&mut self) -> Result<(), StoreError> {
        for at in 0..self.hours.len() {
            let sum = self.hours[at];
            let over_us = (sum.hour + 2).saturating_mul(HOUR_US);
            if sum.sealed || sum.first_end_us.is_none() || over_us > self.written_up_to_us {
                continue;
            }
            let found = self.look_into(sum.hour).await?;
            self.seal(sum.hour, found).await?;
        }
        Ok(())
    }

    /// Compares the index of one hour with what there is.
    async fn compare_one(&mut self, now_us: i64) -> Result<(), StoreError> {
        let sealed: Vec<i64> = self
            .hours
            .iter()
            .filter(|s| s.sealed)
            .map(|s| s.hour)
            .collect();
        // The microseconds of a clock are chance enough.
        let Some(chance) = (now_us.unsigned_abs()).checked_rem(sealed.len() as u64) else {
            return Ok(());
        };
        let hour = sealed[chance as usize];
        let indexed = self.library.store().whole_hour(self.rtstream, hour).await?;
        let found = self.look_into(hour).await?;
        if found.segments != indexed.segments {
            self.seal(hour, found).await?;
        }
        Ok(())
    }

    /// Writes the index of an hour in which this was found.
    async fn seal(&self, hour: i64, mut found: Listed) -> Result<(), StoreError> {
        let store = self.library.store();
        for _ in 0..TRIES {
            if found.segments.is_empty() {
                break;
            }
            store
                .put_index(self.rtstream, hour, &found.segments)
                .await?;
            self.library.forget(self.rtstream, hour);
            let again = store.list_hour(self.rtstream, hour).await?;
            if again.segments == found.segments {
                return Ok(());
            }
            found = again;
        }
        // Empty, or not over yet.
        store.remove_index(self.rtstream, hour).await?;
        self.library.forget(self.rtstream, hour);
        Ok(())
    }

    async fn look_into(&mut self, hour: i64) -> Result<Listed, StoreError> {
        if !self.listed.contains(&hour) {
            self.listed.push(hour);
        }
        self.library.store().list_hour(self.rtstream, hour).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_keeps_what_it_says_and_else_the_default() {
        let default = Retention {
            max_age_us: 5,
            max_bytes: 7,
        };
        for (age, bytes, expected) in [
            (0, 0, (5, 7)),
            (2, 0, (2_000_000, 7)),
            (0, 9, (5, 9)),
            (-1, -1, (5, 7)),
            (i64::MAX, 1, (i64::MAX, 1)),
        ] {
            let said = sightline_proto::v1::Retention {
                max_age_seconds: age,
                max_bytes: bytes,
            };
            let kept = Retention::of(said, default);
            assert_eq!((kept.max_age_us, kept.max_bytes), expected);
        }
    }
}
