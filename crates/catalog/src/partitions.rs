//! The partitions of OBSERVATIONS: their number, fixed at the first start of a cluster, and which one a stream is in.

use async_nats::jetstream::kv::{CreateErrorKind, Store};
use prost::Message;
use sightline_proto::internal::ConfigRecord;

use crate::error::CatalogError;
use crate::within_deadline;

/// The key that holds the number.
const KEY: &str = "config";
/// How many partitions a new cluster gets.
const DEFAULT: u32 = 4;

/// The number of partitions, written by whoever comes first.
pub(crate) async fn settle(store: &Store) -> Result<u32, CatalogError> {
    if let Some(found) = read(store).await? {
        return Ok(found);
    }
    let config = ConfigRecord {
        partitions: DEFAULT,
    };
    let created = store.create(KEY, config.encode_to_vec().into());
    match within_deadline("created", KEY, created).await? {
        Ok(_) => Ok(DEFAULT),
        Err(error) if error.kind() == CreateErrorKind::AlreadyExists => {
            let missing = || CatalogError::Missing {
                key: KEY.to_owned(),
            };
            read(store).await?.ok_or_else(missing)
        }
        Err(error) => Err(CatalogError::failed("created", KEY, error)),
    }
}

async fn read(store: &Store) -> Result<Option<u32>, CatalogError> {
    let found = within_deadline("read", KEY, store.get(KEY))
        .await?
        .map_err(|source| CatalogError::failed("read", KEY, source))?;
    let Some(payload) = found else {
        return Ok(None);
    };
    let config = ConfigRecord::decode(payload).map_err(|source| CatalogError::Unreadable {
        key: KEY.to_owned(),
        source,
    })?;
    match config.partitions {
        0 => Err(CatalogError::Partitions(0)),
        partitions => Ok(Some(partitions)),
    }
}

/// The partition of a stream: FNV-1a, because it must never change.
pub(crate) fn of(rtstream: &str, partitions: u32) -> u32 {
    let hash = rtstream
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    u32::try_from(hash % u64::from(partitions)).expect("less than the number of partitions")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that changed its partition would be evaluated twice or out of order.
    #[test]
    fn a_stream_never_changes_its_partition() {
        for (rtstream, expected) in [("", 1), ("a", 0), ("rts-1", 2), ("foobar", 0)] {
            assert_eq!(of(rtstream, 4), expected, "{rtstream:?}");
        }
    }

    #[test]
    fn streams_are_spread_over_all_partitions() {
        let mut counts = [0; 4];
        for number in 0..1000 {
            counts[of(&format!("rts-{number}"), 4) as usize] += 1;
        }
        assert!(counts.iter().all(|count| *count > 200), "{counts:?}");
    }
}
