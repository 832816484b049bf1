//! What was read and is kept for a while, within a bound of memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::{Duration, Instant};

use crate::error::StoreError;

/// What an entry takes besides its value, about.
const ENTRY_BYTES: usize = 200;

/// Values by key; those used least lately go when all together are larger than the bound.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    most_bytes: usize,
    entries: Mutex<Entries<K, V>>,
}

/// A value and when it was read. Its lock is held while it is being read, so that many who want it read it once.
type Slot<V> = Arc<tokio::sync::Mutex<Option<(Instant, Arc<V>)>>>;

#[derive(Debug)]
struct Entries<K, V> {
    by_key: HashMap<K, Entry<V>>,
    bytes: usize,
    /// Counts uses.
    turn: u64,
}

#[derive(Debug)]
struct Entry<V> {
    slot: Slot<V>,
    bytes: usize,
    used: u64,
}

impl<K: Copy + Eq + Hash, V> Cache<K, V> {
    pub fn new(most_bytes: usize) -> Self {
        Self {
            most_bytes,
            entries: Mutex::new(Entries {
                by_key: HashMap::new(),
                bytes: 0,
                turn: 0,
            }),
        }
    }

    /// What was read less than `fresh` ago, or what `read` gives now. `size` says what a value takes, in bytes.
    pub async fn get(
        &self,
        key: K,
        fresh: impl Fn(&V) -> Duration,
        size: impl Fn(&V) -> usize,
        read: impl Future<Output = Result<V, StoreError>>,
    ) -> Result<Arc<V>, StoreError> {
        let slot = self.slot(key);
        let mut held = slot.lock().await;
        if let Some((at, value)) = &*held
            && at.elapsed() < fresh(value)
        {
            return Ok(Arc::clone(value));
        }
        let at = Instant::now();
        let value = Arc::new(read.await?);
        *held = Some((at, Arc::clone(&value)));
        self.weigh(key, &slot, ENTRY_BYTES + size(&value));
        Ok(value)
    }

    /// Forgets a value: what it is of has changed.
    pub fn forget(&self, key: K) {
        let mut entries = self.lock();
        if let Some(entry) = entries.by_key.remove(&key) {
            entries.bytes -= entry.bytes;
        }
    }

    fn slot(&self, key: K) -> Slot<V> {
        let mut entries = self.lock();
        let Entries {
            by_key,
            bytes,
            turn,
        } = &mut *entries;
        *turn += 1;
        let entry = by_key.entry(key).or_insert_with(|| {
            *bytes += ENTRY_BYTES;
            Entry {
                slot: Slot::default(),
                bytes: ENTRY_BYTES,
                used: 0,
            }
        });
        entry.used = *turn;
        Arc::clone(&entry.slot)
    }

    fn weigh(&self, key: K, slot: &Slot<V>, size: usize) {
        let mut entries = self.lock();
        let Entries { by_key, bytes, .. } = &mut *entries;
        // It may have been forgotten meanwhile.
        if let Some(entry) = by_key.get_mut(&key).filter(|e| Arc::ptr_eq(&e.slot, slot)) {
            *bytes = *bytes - entry.bytes + size;
            entry.bytes = size;
        }
        if *bytes > self.most_bytes {
            entries.shrink(self.most_bytes / 4 * 3);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries<K, V>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Copy + Eq + Hash, V> Entries<K, V> {
    /// To well below the bound, so that this is not done for each value.
    fn shrink(&mut self, most_bytes: usize) {
        let mut by_use: Vec<(u64, K)> = self.by_key.iter().map(|(key, e)| (e.used, *key)).collect();
        by_use.sort_unstable_by_key(|(used, _)| *used);
        for (_, key) in by_use {
            if self.bytes <= most_bytes {
                break;
            }
            if let Some(entry) = self.by_key.remove(&key) {
                self.bytes -= entry.bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::future::join_all;

    use super::*;

    const FRESH: Duration = Duration::from_secs(1);

    /// Reads a value that says how often it was read.
    async fn get(cache: &Cache<u32, u32>, key: u32, reads: &AtomicU32, size: usize) -> u32 {
        let read = async {
            tokio::task::yield_now().await;
            Ok(reads.fetch_add(1, Ordering::Relaxed) + 1)
        };
        let got = cache.get(key, |_| FRESH, |_| size, read).await;
        *got.expect("reading does not fail")
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_fresh_is_read_once() {
        let (cache, reads) = (Cache::new(10_000), AtomicU32::new(0));
        let many = join_all((0..10).map(|_| get(&cache, 7, &reads, 1))).await;
        assert_eq!(many, [1; 10]);
        tokio::time::advance(FRESH - Duration::from_millis(1)).await;
        assert_eq!(get(&cache, 7, &reads, 1).await, 1);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(get(&cache, 7, &reads, 1).await, 2);
        cache.forget(7);
        assert_eq!(get(&cache, 7, &reads, 1).await, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_used_least_lately_goes_first() {
        let (cache, reads) = (Cache::new(10_000), AtomicU32::new(0));
        for key in 0..1000 {
            get(&cache, key, &reads, 800).await;
            get(&cache, 0, &reads, 800).await;
            assert!(cache.lock().bytes <= 10_000);
        }
        assert_eq!(reads.load(Ordering::Relaxed), 1000, "the one in use stays");
        let entries = cache.lock();
        let sum: usize = entries.by_key.values().map(|entry| entry.bytes).sum();
        assert!(sum == entries.bytes && entries.by_key.len() > 5);
    }

    #[tokio::test]
    async fn what_fails_is_not_kept() {
        let cache: Cache<u32, u32> = Cache::new(10_000);
        let failing = async {
            Err(StoreError::Damaged {
                what: "index".to_owned(),
            })
        };
        assert!(cache.get(1, |_| FRESH, |_| 1, failing).await.is_err());
        assert_eq!(get(&cache, 1, &AtomicU32::new(0), 1).await, 1);
    }
}
