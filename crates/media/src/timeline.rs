//! Times: from a buffer's timestamps to a position from media time 0, and from a position to the wall clock.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use gstreamer as gst;
use sightline_service::clock::Clock;

/// How a source's times are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// A camera: what arrives is now.
    Live,
    /// A file at one second a second.
    RealTime,
    /// A file as fast as its reports are taken.
    Fast,
}

/// The times of one source.
pub(crate) struct Timeline {
    pub(crate) pace: Pace,
    clock: Arc<dyn Clock>,
    start_position_us: i64,
    /// Fetched sources: where in the stream what comes first is; none where their own times say so.
    begins_us: Option<i64>,
    /// 0 until media arrives, if it was not given.
    given_epoch_us: i64,
    anchor: Mutex<Option<Anchor>>,
    /// Files: what the container calls the time of media time 0.
    origin_us: Mutex<Option<i64>>,
}

/// One moment known on every scale.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    epoch_us: i64,
    position_us: i64,
    instant: Instant,
    wall_us: i64,
    /// Live sources: running time of `position_us`.
    running_us: i64,
}

impl Timeline {
    /// `start_us` is where the source is wanted from, `epoch_us` the wall time of media time 0 if that is known.
    pub(crate) fn new(pace: Pace, start_us: i64, epoch_us: i64, clock: Arc<dyn Clock>) -> Self {
        Self {
            pace,
            clock,
            start_position_us: start_us.max(0),
            begins_us: None,
            given_epoch_us: epoch_us,
            anchor: Mutex::new(None),
            origin_us: Mutex::new(None),
        }
    }

    /// The same for a source whose first media is at a known position, whatever its own times say.
    pub(crate) fn beginning(self, begins_us: Option<i64>) -> Self {
        Self { begins_us, ..self }
    }

    /// Whether what is there is only read to come to where the source is wanted from.
    pub(crate) fn is_before_start(&self, position_us: i64) -> bool {
        self.begins_us.is_some() && position_us < self.start_position_us
    }

    /// Whether a fetched source is wanted from a place behind its beginning.
    pub(crate) fn is_late(&self) -> bool {
        self.begins_us.is_some() && self.start_position_us > 0
    }

    /// Files: says what the container calls the time of the first media that comes; the first word counts.
    pub(crate) fn set_first_us(&self, first_us: i64) {
        self.set_origin_us(first_us - self.begins_us.unwrap_or(0));
    }

    /// Files: says what the container calls the time of media time 0; the first word counts.
    pub(crate) fn set_origin_us(&self, origin_us: i64) {
        let mut origin = self
            .origin_us
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        origin.get_or_insert(origin_us);
    }

    /// Files: what the container calls the time of media time 0, once that is known.
    pub(crate) fn origin_us(&self) -> Option<i64> {
        *self
            .origin_us
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Wall time of media time 0; none until media has arrived.
    pub(crate) fn epoch_us(&self) -> Option<i64> {
        self.anchor().map(|anchor| anchor.epoch_us)
    }

    /// The position of a buffer that has just arrived. `running_now` is the pipeline's running time.
    pub(crate) fn arrived(
        &self,
        segment: &gst::FormattedSegment<gst::ClockTime>,
        pts: gst::ClockTime,
        running_now: Option<gst::ClockTime>,
    ) -> Option<i64> {
        match self.pace {
            Pace::Live => {
                let running_us = micros(segment.to_running_time_full(pts)?);
                let behind_us = running_now.map_or(0, |now| clock_micros(now) - running_us);
                Some(self.live_position(running_us, behind_us))
            }
            Pace::RealTime | Pace::Fast => {
                let position_us = container_us(segment, pts)? - self.origin_us().unwrap_or(0);
                self.anchor_file(position_us);
                Some(position_us)
            }
        }
    }

    /// When a position of a file played in real time is due; none where nothing has to wait.
    pub(crate) fn due(&self, position_us: i64) -> Option<Instant> {
        let anchor = self.anchor().filter(|_| self.pace == Pace::RealTime)?;
        let ahead = u64::try_from(position_us - anchor.position_us).ok()?;
        Some(anchor.instant + Duration::from_micros(ahead))
    }

    /// Wall clock when a position was captured: arrived, or was due.
    pub(crate) fn captured_us(&self, position_us: i64) -> i64 {
        match (self.pace, self.anchor()) {
            (Pace::Live | Pace::RealTime, Some(anchor)) => {
                anchor.wall_us + (position_us - anchor.position_us)
            }
            _ => self.clock.now_us(),
        }
    }

    /// Wall clock.
    pub(crate) fn now_us(&self) -> i64 {
        self.clock.now_us()
    }

    fn live_position(&self, running_us: i64, behind_us: i64) -> i64 {
        // What a server has kept for those who come comes faster than it was made, and was there before it came.
        let wall_us = self.clock.now_us() - behind_us.max(0);
        let mut anchor = self.lock();
        let (epoch_us, position_us) = match *anchor {
            Some(known) => (
                known.epoch_us,
                known.position_us + running_us - known.running_us,
            ),
            None if self.given_epoch_us != 0 => {
                (self.given_epoch_us, (wall_us - self.given_epoch_us).max(0))
            }
            None => (wall_us, 0),
        };
        // Renewed with every buffer, so that a step of the wall clock is in no capture time for long.
        *anchor = Some(Anchor {
            epoch_us,
            position_us,
            instant: Instant::now(),
            wall_us,
            running_us,
        });
        position_us
    }

    fn anchor_file(&self, position_us: i64) {
        let mut anchor = self.lock();
        if anchor.is_some() {
            return;
        }
        // What lies before the wanted start is only read to decode what follows.
        let position_us = position_us.max(self.start_position_us);
        let wall_us = self.clock.now_us();
        let epoch_us = match self.given_epoch_us {
            0 => wall_us - position_us,
            given => given,
        };
        *anchor = Some(Anchor {
            epoch_us,
            position_us,
            instant: Instant::now(),
            wall_us,
            running_us: 0,
        });
    }

    fn anchor(&self) -> Option<Anchor> {
        *self.lock()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Anchor>> {
        self.anchor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file's time as its container has it.
pub(crate) fn container_us(
    segment: &gst::FormattedSegment<gst::ClockTime>,
    pts: gst::ClockTime,
) -> Option<i64> {
    segment.to_stream_time_full(pts).map(micros)
}

fn micros(time: gst::Signed<gst::ClockTime>) -> i64 {
    match time {
        gst::Signed::Positive(time) => clock_micros(time),
        gst::Signed::Negative(time) => -clock_micros(time),
    }
}

fn clock_micros(time: gst::ClockTime) -> i64 {
    i64::try_from(time.useconds()).unwrap_or(i64::MAX)
}
