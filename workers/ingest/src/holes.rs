//! Where a recording has holes, and why: each is told once, when what comes after it is stored.

use sightline_recordings::Segment;
use sightline_recordings::playlist::GAP_US;

/// The camera was away, or sent nothing.
pub(crate) const OFFLINE: &str = "offline";
/// The child or the worker died.
pub(crate) const WORKER_LOST: &str = "worker_lost";
/// The store did not take what was there.
pub(crate) const STORE_DOWN: &str = "store_down";

/// A stretch that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) from_us: i64,
    pub(crate) to_us: i64,
    pub(crate) reason: &'static str,
}

/// What is known of the holes to come.
#[derive(Debug, Default)]
pub(crate) struct Holes {
    /// From the first to the last segment that was lost since one was stored after them.
    lost: Option<(i64, i64)>,
    /// Where media stopped coming first, and why.
    interrupted: Option<(i64, &'static str)>,
}

impl Holes {
    /// A segment is not stored, and never will be.
    pub(crate) fn lose(&mut self, segment: Segment) {
        let (from_us, to_us) = self.lost.unwrap_or((segment.start_us, segment.end_us()));
        self.lost = Some((from_us.min(segment.start_us), to_us.max(segment.end_us())));
    }

    /// What starts at `at_us` or later comes after an interruption.
    pub(crate) fn interrupt(&mut self, at_us: i64, reason: &'static str) {
        self.interrupted.get_or_insert((at_us, reason));
    }

    /// Takes back what was said of an interruption.
    pub(crate) fn take_interruption(&mut self) -> Option<(i64, &'static str)> {
        self.interrupted.take()
    }

    /// The hole between `recorded_us` (0: nothing is stored yet) and the next segment that is stored.
    pub(crate) fn before(&mut self, recorded_us: i64, segment: Segment) -> Option<Hole> {
        let to_us = segment.start_us;
        let lost = self.lost.filter(|lost| lost.0 < to_us);
        self.lost = self.lost.filter(|lost| lost.1 > to_us);
        let interrupted = self
            .interrupted
            .filter(|interrupted| interrupted.0 <= to_us);
        if interrupted.is_some() {
            self.interrupted = None;
        }
        let reason = match (lost, interrupted) {
            (Some(_), _) => STORE_DOWN,
            (None, Some((_, reason))) => reason,
            (None, None) => OFFLINE,
        };
        hole(recorded_us, lost, to_us, reason)
    }

    /// The hole at the end of a recording: what is lost and has nothing after it.
    pub(crate) fn at_the_end(&mut self, recorded_us: i64) -> Option<Hole> {
        let lost = self.lost.take()?;
        hole(recorded_us, Some(lost), lost.1, STORE_DOWN)
    }
}

fn hole(
    recorded_us: i64,
    lost: Option<(i64, i64)>,
    to_us: i64,
    reason: &'static str,
) -> Option<Hole> {
    // Before anything was stored only what is known to be lost is missing.
    let from_us = match recorded_us {
        0 => lost?.0,
        recorded_us => recorded_us,
    };
    (to_us.saturating_sub(from_us) > GAP_US).then_some(Hole {
        from_us,
        to_us,
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn segment(start: i64, end: i64) -> Segment {
        Segment {
            start_us: start * SECOND,
            duration_us: (end - start) * SECOND,
            bytes: 0,
        }
    }

    fn hole(from: i64, to: i64, reason: &'static str) -> Option<Hole> {
        Some(Hole {
            from_us: from * SECOND,
            to_us: to * SECOND,
            reason,
        })
    }

    /// What happens to a recording.
    enum Happens {
        Lost(i64, i64),
        Interrupted(i64, &'static str),
        Stored(i64, i64, Option<Hole>),
        Over(Option<Hole>),
    }
    use Happens::{Interrupted, Lost, Over, Stored};

    fn check(story: &[Happens]) {
        let (mut holes, mut recorded_us) = (Holes::default(), 0);
        for (number, happens) in story.iter().enumerate() {
            match *happens {
                Lost(start, end) => holes.lose(segment(start, end)),
                Interrupted(at, reason) => holes.interrupt(at * SECOND, reason),
                Stored(start, end, expected) => {
                    let stored = segment(start, end);
                    assert_eq!(holes.before(recorded_us, stored), expected, "{number}");
                    recorded_us = recorded_us.max(stored.end_us());
                }
                Over(expected) => assert_eq!(holes.at_the_end(recorded_us), expected, "{number}"),
            }
        }
    }

    #[test]
    fn each_hole_is_told_once_with_what_made_it() {
        check(&[Stored(10, 14, None), Stored(14, 18, None), Over(None)]);
        check(&[
            Stored(10, 14, None),
            Stored(20, 24, hole(14, 20, OFFLINE)),
            Stored(24, 28, None),
        ]);
        // What was handed over before the child died is stored after that.
        check(&[
            Stored(10, 14, None),
            Interrupted(18, WORKER_LOST),
            Interrupted(18, OFFLINE),
            Stored(14, 18, None),
            Stored(20, 24, hole(18, 20, WORKER_LOST)),
            Stored(30, 34, hole(24, 30, OFFLINE)),
        ]);
        // A file goes on where it was interrupted.
        check(&[
            Stored(10, 14, None),
            Interrupted(14, WORKER_LOST),
            Stored(14, 18, None),
            Stored(20, 24, hole(18, 20, OFFLINE)),
        ]);
    }

    #[test]
    fn what_the_store_did_not_take_is_told_as_that() {
        // The one that is being put is stored at last, the next ones are not.
        check(&[
            Stored(10, 14, None),
            Lost(18, 22),
            Lost(22, 26),
            Stored(14, 18, None),
            Lost(26, 30),
            Stored(30, 34, hole(18, 30, STORE_DOWN)),
            Stored(34, 38, None),
            Over(None),
        ]);
        check(&[Lost(10, 14), Lost(14, 18), Over(hole(10, 18, STORE_DOWN))]);
        check(&[Lost(10, 14), Stored(14, 18, hole(10, 14, STORE_DOWN))]);
        check(&[
            Stored(10, 14, None),
            Interrupted(14, OFFLINE),
            Lost(20, 24),
            Over(hole(14, 24, STORE_DOWN)),
            Over(None),
        ]);
    }
}
