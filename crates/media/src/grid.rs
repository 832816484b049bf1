//! The grid of one sampling: which frames it takes, and when a window of them is complete.
//!
//! A window of T is cut into N slots of T/N; each takes one frame, the first at or after its start. So a window is complete
//! the moment its last slot has a frame, and nothing is held back for a frame that might lie nearer to the middle.

use sightline_proto::internal::{Frame, Sampling};

/// How far behind what has been read a frame may still come out: pictures are decoded in another order than shown.
const REORDERING_US: i64 = 500_000;

/// One sampling as it goes over a stream.
#[derive(Debug)]
pub(crate) struct Grid {
    sampling: Sampling,
    frames_per_window: u64,
    /// Frames this long before a slot's start count as in it.
    early_us: i64,
    /// Number of the first slot that has no frame yet and may still get one, counted from media time 0.
    next_slot: u64,
    /// Frames of the window that `next_slot` is in.
    frames: Vec<Frame>,
}

/// The frames of one window.
#[derive(Debug, PartialEq)]
pub(crate) struct GridWindow {
    pub(crate) sampling: Sampling,
    pub(crate) window: u64,
    pub(crate) end_us: i64,
    pub(crate) frames: Vec<Frame>,
}

impl Grid {
    /// A sampling from window `first_window` on. Cameras' clocks are uneven, and their keyframes often fall on the very starts
    /// of slots: a frame that comes `early_us` before one is taken for it.
    pub(crate) fn new(sampling: Sampling, first_window: u64, early_us: i64) -> Self {
        let sampling = Sampling {
            window_us: sampling.window_us.max(1),
            frame_count: sampling.frame_count.max(1),
        };
        let frames_per_window = u64::from(sampling.frame_count);
        Self {
            sampling,
            frames_per_window,
            early_us,
            next_slot: first_window.saturating_mul(frames_per_window),
            frames: Vec::new(),
        }
    }

    /// Its shape.
    pub(crate) fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// Length of a slot.
    pub(crate) fn slot_us(&self) -> i64 {
        self.sampling.window_us / i64::from(self.sampling.frame_count)
    }

    /// Where the next slot that needs a frame starts.
    pub(crate) fn due_us(&self) -> i64 {
        self.slot_start(self.next_slot) - self.early_us
    }

    /// Whether a frame at this position would be taken.
    pub(crate) fn wants(&self, position_us: i64) -> bool {
        let position_us = position_us + self.early_us;
        position_us >= 0 && self.slot_at(position_us) >= self.next_slot
    }

    /// Takes a frame that is wanted. Returns the windows that are over or complete with it: at most two.
    pub(crate) fn take(&mut self, frame: Frame) -> Vec<GridWindow> {
        let slot = self.slot_at(frame.time_us + self.early_us);
        let mut done: Vec<_> = self
            .close_before(slot / self.frames_per_window)
            .into_iter()
            .collect();
        self.frames.push(frame);
        self.next_slot = slot + 1;
        if self.next_slot.is_multiple_of(self.frames_per_window) {
            done.extend(self.cut(slot / self.frames_per_window));
        }
        done
    }

    /// No frame far before this position will come any more. Returns the window that ended without all of its frames.
    pub(crate) fn read_up_to(&mut self, position_us: i64) -> Option<GridWindow> {
        let certain = position_us - REORDERING_US;
        if certain < 0 {
            return None;
        }
        self.close_before(self.slot_at(certain) / self.frames_per_window)
    }

    /// The source ended. Returns the window that it ended in.
    pub(crate) fn finish(&mut self) -> Option<GridWindow> {
        self.close_before(u64::MAX / self.frames_per_window)
    }

    /// The first window that starts at or after a position.
    pub(crate) fn window_from(sampling: &Sampling, position_us: i64) -> u64 {
        let window_us = sampling.window_us.max(1);
        let whole = position_us.max(0).div_euclid(window_us);
        let inside = position_us.max(0) % window_us > 0;
        (whole + i64::from(inside)).unsigned_abs()
    }

    /// Closes the window under way if it lies before `window`.
    fn close_before(&mut self, window: u64) -> Option<GridWindow> {
        let current = self.next_slot / self.frames_per_window;
        if current >= window {
            return None;
        }
        self.next_slot = window * self.frames_per_window;
        self.cut(current)
    }

    fn cut(&mut self, window: u64) -> Option<GridWindow> {
        let frames = std::mem::take(&mut self.frames);
        let end = i128::from(window + 1) * i128::from(self.sampling.window_us);
        (!frames.is_empty()).then(|| GridWindow {
            sampling: self.sampling,
            window,
            end_us: saturated(end),
            frames,
        })
    }

    fn slot_start(&self, slot: u64) -> i64 {
        let (window, index) = (
            i128::from(slot / self.frames_per_window),
            i128::from(slot % self.frames_per_window),
        );
        let window_us = i128::from(self.sampling.window_us);
        saturated(window * window_us + index * window_us / i128::from(self.frames_per_window))
    }

    fn slot_at(&self, position_us: i64) -> u64 {
        let (position, window_us) = (
            i128::from(position_us.max(0)),
            i128::from(self.sampling.window_us),
        );
        let frames = i128::from(self.frames_per_window);
        let slot = position / window_us * frames + position % window_us * frames / window_us;
        let slot = u64::try_from(slot).unwrap_or(u64::MAX);
        // Slots start at whole microseconds, rounded down: the division above may come out one slot early.
        let rounded = slot.saturating_add(1);
        if self.slot_start(rounded) <= position_us {
            rounded
        } else {
            slot
        }
    }
}

fn saturated(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn sampling(window_us: i64, frame_count: u32) -> Sampling {
        Sampling {
            window_us,
            frame_count,
        }
    }

    /// Offers frames at these times and returns each window's number with the times of its frames.
    fn check(
        grid: &mut Grid,
        times: impl IntoIterator<Item = i64>,
        expected: &[(u64, i64, &[i64])],
    ) {
        let mut found = Vec::new();
        for time_us in times {
            found.extend(grid.read_up_to(time_us));
            if grid.wants(time_us) {
                let frame = Frame {
                    time_us,
                    ..Frame::default()
                };
                found.extend(grid.take(frame));
            }
        }
        found.extend(grid.finish());
        let found: Vec<_> = found
            .into_iter()
            .map(|w| {
                let times: Vec<_> = w.frames.iter().map(|f| f.time_us).collect();
                (w.window, w.end_us, times)
            })
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(window, end, times)| (*window, *end, times.to_vec()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn each_slot_takes_the_first_frame_at_or_after_its_start() {
        // A keyframe every 2 s, 2 frames of every 5 s: the next window starts at 5 and takes the keyframe at 6.
        let keyframes = (0..8).map(|i| i * 2 * SECOND);
        check(
            &mut Grid::new(sampling(5 * SECOND, 2), 0, 0),
            keyframes,
            &[
                (0, 5 * SECOND, &[0, 4 * SECOND]),
                (1, 10 * SECOND, &[6 * SECOND, 8 * SECOND]),
                (2, 15 * SECOND, &[10 * SECOND, 14 * SECOND]),
            ],
        );
    }

    #[test]
    fn keyframes_that_come_a_little_early_are_taken_for_the_next_slot() {
        check(
            &mut Grid::new(sampling(2 * SECOND, 1), 0, 40_000),
            [1_000, 1_999_000, 3_961_000, 5_959_000, 8_010_000],
            &[
                (0, 2 * SECOND, &[1_000]),
                (1, 4 * SECOND, &[1_999_000]),
                (2, 6 * SECOND, &[3_961_000]),
                (4, 10 * SECOND, &[8_010_000]),
            ],
        );
    }

    #[test]
    fn a_window_is_complete_with_the_frame_of_its_last_slot() {
        let mut grid = Grid::new(sampling(5 * SECOND, 2), 0, 0);
        let frame = |time_us| Frame {
            time_us,
            ..Frame::default()
        };
        assert_eq!(grid.take(frame(0)), []);
        assert_eq!(grid.due_us(), 2_500_000);
        assert!(!grid.wants(2_499_999));
        assert_eq!(grid.take(frame(2_500_000)).len(), 1);
        assert_eq!(grid.due_us(), 5 * SECOND);
    }

    #[test]
    fn a_slot_without_a_frame_leaves_the_window_with_fewer() {
        check(
            &mut Grid::new(sampling(4 * SECOND, 4), 0, 0),
            [0, 3 * SECOND, 13 * SECOND, 20 * SECOND],
            &[
                (0, 4 * SECOND, &[0, 3 * SECOND]),
                (3, 16 * SECOND, &[13 * SECOND]),
                (5, 24 * SECOND, &[20 * SECOND]),
            ],
        );
    }

    #[test]
    fn a_window_that_lacks_its_last_frame_is_closed_once_it_is_certainly_over() {
        let mut grid = Grid::new(sampling(5 * SECOND, 2), 0, 0);
        grid.take(Frame::default());
        assert_eq!(grid.read_up_to(5 * SECOND), None);
        let closed = grid.read_up_to(5 * SECOND + REORDERING_US).expect("over");
        assert_eq!((closed.window, closed.frames.len()), (0, 1));
    }

    #[test]
    fn nothing_before_the_first_wanted_window_is_taken() {
        check(
            &mut Grid::new(sampling(5 * SECOND, 1), 2, 0),
            (0..4).map(|i| i * 4 * SECOND),
            &[(2, 15 * SECOND, &[12 * SECOND])],
        );
    }

    #[test]
    fn slots_that_do_not_divide_evenly_start_where_they_are_found() {
        for (window_us, frames) in [
            (1_000_000, 3),
            (5 * SECOND, 7),
            (1_000_001, 16),
            (600 * SECOND, 16),
        ] {
            let grid = Grid::new(sampling(window_us, frames), 0, 0);
            for slot in (0..100).chain(1_000_000..1_000_100) {
                let start = grid.slot_start(slot);
                assert_eq!(
                    grid.slot_at(start),
                    slot,
                    "{window_us} {frames} start of {slot}"
                );
                assert_eq!(
                    grid.slot_at(start - 1) + 1,
                    slot.max(1),
                    "before the start of {slot}"
                );
            }
        }
    }

    #[test]
    fn a_new_sampling_starts_with_the_next_whole_window() {
        let sampling = sampling(5 * SECOND, 2);
        for (position_us, window) in [(0, 0), (1, 1), (5 * SECOND, 1), (12 * SECOND, 3), (-1, 0)] {
            assert_eq!(
                Grid::window_from(&sampling, position_us),
                window,
                "{position_us}"
            );
        }
    }
}
