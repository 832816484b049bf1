//! Superseded windows, counted from the gaps between the numbers of those that came.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use sightline_proto::ids;
use sightline_proto::internal::{FrameWindow, Sampling};

/// Most samplings that are kept in mind; beyond it the one that was silent for longest is forgotten.
const MAX_SAMPLINGS: usize = 4096;
/// How many numbers later a window may still come: workers run side by side, and one window may be redelivered.
const LATE: u64 = 2;

/// What came of each sampling of each stream.
#[derive(Default)]
pub(crate) struct Numbers(Mutex<HashMap<(String, String), Seen>>);

struct Seen {
    epoch_us: i64,
    /// See `Plan::revision`: over a change of the indexes there may be a gap that is none.
    revision: u64,
    highest: u64,
    /// Numbers below `highest` that may still come.
    awaited: BTreeSet<u64>,
    captured_us: i64,
}

impl Numbers {
    /// Takes note of a window, and returns how many it shows to have been superseded.
    pub(crate) fn see(&self, window: &FrameWindow, sampling: &Sampling, revision: u64) -> u64 {
        let mut samplings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (window.rtstream_id.clone(), ids::sampling_key(sampling));
        match samplings.get_mut(&key) {
            Some(seen) if seen.epoch_us == window.epoch_us && seen.revision == revision => {
                seen.captured_us = window.captured_us;
                seen.see(window.window)
            }
            _ => {
                if samplings.len() >= MAX_SAMPLINGS {
                    forget_one(&mut samplings);
                }
                let first = Seen {
                    epoch_us: window.epoch_us,
                    revision,
                    highest: window.window,
                    awaited: BTreeSet::new(),
                    captured_us: window.captured_us,
                };
                samplings.insert(key, first);
                0
            }
        }
    }
}

impl Seen {
    fn see(&mut self, number: u64) -> u64 {
        self.awaited.remove(&number);
        if number <= self.highest {
            return 0;
        }
        let gap = self.highest + 1..number;
        self.highest = number;
        let still_awaited = number.saturating_sub(LATE);
        // Nobody waits for most of a long gap: it is counted and not remembered.
        let mut superseded = still_awaited.saturating_sub(gap.start);
        self.awaited.extend(gap.start.max(still_awaited)..gap.end);
        while self.awaited.first().is_some_and(|&n| n < still_awaited) {
            self.awaited.pop_first();
            superseded += 1;
        }
        superseded
    }
}

fn forget_one(samplings: &mut HashMap<(String, String), Seen>) {
    let oldest = samplings
        .iter()
        .min_by_key(|(_, seen)| seen.captured_us)
        .map(|(key, _)| key.clone());
    if let Some(oldest) = oldest {
        samplings.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLING: Sampling = Sampling {
        window_us: 5_000_000,
        frame_count: 2,
    };

    fn window(rtstream: &str, epoch_us: i64, number: u64) -> FrameWindow {
        FrameWindow {
            rtstream_id: rtstream.into(),
            epoch_us,
            window: number,
            captured_us: epoch_us + i64::try_from(number).unwrap(),
            ..FrameWindow::default()
        }
    }

    /// How many of the windows before the last two were counted as superseded, after all `numbers` came in this order.
    fn check(numbers: &[u64], superseded: u64) {
        let seen = Numbers::default();
        let counted: u64 = numbers
            .iter()
            .map(|&n| seen.see(&window("rts-1", 0, n), &SAMPLING, 1))
            .sum();
        assert_eq!(counted, superseded, "{numbers:?}");
    }

    #[test]
    fn gaps_are_counted_once_no_later_window_can_fill_them() {
        check(&[], 0);
        check(&[7, 8, 9], 0);
        check(&[0, 2], 0);
        check(&[0, 2, 3, 4], 1);
        check(&[0, 2, 1, 3, 4, 5], 0);
        check(&[0, 4, 5, 6], 3);
        check(&[0, 100], 97);
        check(&[0, 100, 98, 101, 102], 98);
        check(&[5, 4, 3, 6, 7, 8], 0);
        check(&[3, 3, 3], 0);
    }

    #[test]
    fn a_new_epoch_or_a_change_of_the_indexes_starts_afresh() {
        let seen = Numbers::default();
        assert_eq!(seen.see(&window("rts-1", 0, 0), &SAMPLING, 1), 0);
        assert_eq!(seen.see(&window("rts-1", 10, 50), &SAMPLING, 1), 0);
        assert_eq!(seen.see(&window("rts-1", 10, 90), &SAMPLING, 2), 0);
        assert_eq!(seen.see(&window("rts-2", 10, 190), &SAMPLING, 2), 0);
        assert_eq!(seen.see(&window("rts-1", 10, 100), &SAMPLING, 2), 7);
    }

    #[test]
    fn memory_is_bounded() {
        let seen = Numbers::default();
        for n in 0..MAX_SAMPLINGS + 10 {
            seen.see(
                &window(&format!("rts-{n}"), i64::try_from(n).unwrap(), 0),
                &SAMPLING,
                1,
            );
        }
        let kept = seen.0.lock().unwrap();
        assert_eq!(kept.len(), MAX_SAMPLINGS);
        assert!(kept.keys().all(|(rtstream, _)| rtstream != "rts-9"));
        assert!(kept.keys().any(|(rtstream, _)| rtstream == "rts-10"));
    }
}
