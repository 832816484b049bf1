//! What the threads of one playing source share.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sightline_proto::internal::Opened;
use sightline_proto::internal::child_report::Report;

use crate::control::Control;
use crate::error::Failure;
use crate::timeline::Timeline;

/// Where reports go. Called on media threads: as long as it does not return, the source is held back.
pub type Reports = Box<dyn Fn(Report) + Send + Sync>;

/// One playing source.
pub(crate) struct Session {
    pub(crate) control: Arc<Control>,
    pub(crate) timeline: Timeline,
    pub(crate) activity: Activity,
    pub(crate) frame_edge: u32,
    /// Whether what is heard of an utterance is told before it is over.
    pub(crate) interim: bool,
    /// Whether an end is a failure.
    endless: AtomicBool,
    reports: Reports,
    opened: Mutex<Option<Opened>>,
    has_audio: AtomicBool,
    /// Length as far as known; the largest number for what has none.
    length_us: AtomicI64,
    /// End of what was read.
    read_us: AtomicI64,
    failure: Mutex<Option<Failure>>,
    /// Why no more is fetched: it counts once what was fetched is played.
    broken_off: Mutex<Option<Failure>>,
}

impl Session {
    pub(crate) fn new(
        control: Arc<Control>,
        timeline: Timeline,
        frame_edge: u32,
        interim: bool,
        endless: bool,
        reports: Reports,
    ) -> Self {
        Self {
            control,
            timeline,
            activity: Activity::default(),
            frame_edge,
            interim,
            endless: AtomicBool::new(endless),
            reports,
            opened: Mutex::new(None),
            has_audio: AtomicBool::new(false),
            length_us: AtomicI64::new(i64::MAX),
            read_us: AtomicI64::new(0),
            failure: Mutex::new(None),
            broken_off: Mutex::new(None),
        }
    }

    /// Whether the source goes on for ever, so that an end of it is a failure.
    pub(crate) fn is_endless(&self) -> bool {
        self.endless.load(Ordering::Relaxed)
    }

    /// It was said that the source ends.
    pub(crate) fn set_ends(&self) {
        self.endless.store(false, Ordering::Relaxed);
    }

    /// Says that there is audio; before the first report.
    pub(crate) fn set_has_audio(&self) {
        self.has_audio.store(true, Ordering::Relaxed);
    }

    /// Media has arrived: says so, once.
    pub(crate) fn open(&self, width: u32, height: u32) {
        let Some(epoch_us) = self.timeline.epoch_us() else {
            return;
        };
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if opened.is_none() {
            let report = Opened {
                epoch_us,
                width,
                height,
                has_audio: self.has_audio.load(Ordering::Relaxed),
            };
            *opened = Some(report);
            // Under the lock, so that nothing overtakes it.
            (self.reports)(Report::Opened(report));
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.is_some()
    }

    pub(crate) fn report(&self, report: Report) {
        self.open(0, 0);
        (self.reports)(report);
    }

    pub(crate) fn set_length_us(&self, length_us: i64) {
        self.length_us.store(length_us, Ordering::Relaxed);
    }

    pub(crate) fn length_us(&self) -> i64 {
        self.length_us.load(Ordering::Relaxed)
    }

    pub(crate) fn read_up_to(&self, position_us: i64) {
        self.read_us.fetch_max(position_us, Ordering::Relaxed);
    }

    pub(crate) fn read_us(&self) -> i64 {
        self.read_us.load(Ordering::Relaxed)
    }

    /// Ends the source; the first reason counts.
    pub(crate) fn fail(&self, failure: Failure) {
        let mut slot = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        slot.get_or_insert(failure);
    }

    /// No more comes, but what came is still to be played; the first reason counts.
    pub(crate) fn break_off(&self, failure: Failure) {
        let mut slot = self
            .broken_off
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        slot.get_or_insert(failure);
    }

    /// Why no more came.
    pub(crate) fn broken_off(&self) -> Option<Failure> {
        let slot = self
            .broken_off
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        slot.clone()
    }

    pub(crate) fn failure(&self) -> Option<Failure> {
        let slot = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        slot.clone()
    }
}

/// When something last happened, for the watchdogs. Cameras go silent without closing anything.
pub(crate) struct Activity {
    start: Instant,
    /// Milliseconds after `start`.
    bytes: AtomicU64,
    media: AtomicU64,
    picture: AtomicU64,
    /// How many threads are handling media: then it is not the source that is slow.
    handling: AtomicU32,
    /// Longest time without a picture, in milliseconds; 0 where none is wanted.
    picture_limit: AtomicU64,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            bytes: AtomicU64::new(0),
            media: AtomicU64::new(0),
            picture: AtomicU64::new(0),
            handling: AtomicU32::new(0),
            picture_limit: AtomicU64::new(0),
        }
    }
}

impl Activity {
    /// Media has arrived and is handled until the guard goes.
    pub(crate) fn handling(&self) -> Handling<'_> {
        self.handling.fetch_add(1, Ordering::Relaxed);
        Handling(self)
    }

    /// A camera has sent something.
    pub(crate) fn received(&self) {
        self.bytes.store(self.now(), Ordering::Relaxed);
    }

    /// How long a camera has sent nothing at all.
    pub(crate) fn mute_for(&self) -> Duration {
        self.since(&self.bytes)
    }

    /// A picture was decoded.
    pub(crate) fn decoded(&self) {
        self.picture.store(self.now(), Ordering::Relaxed);
    }

    /// Pictures are wanted at least this often, or none at all; counted from now on.
    pub(crate) fn wants_pictures(&self, every_us: Option<i64>) {
        let limit = every_us.map_or(0, |us| us.unsigned_abs() / 1000 + PICTURE_LIMIT_MS);
        self.picture_limit.store(limit, Ordering::Relaxed);
        self.decoded();
    }

    /// How long no media has arrived.
    pub(crate) fn silent_for(&self) -> Duration {
        if self.handling.load(Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        self.since(&self.media)
    }

    /// Whether pictures are wanted and none came for too long.
    pub(crate) fn lacks_pictures(&self) -> bool {
        let limit = self.picture_limit.load(Ordering::Relaxed);
        limit > 0 && self.since(&self.picture) > Duration::from_millis(limit)
    }

    fn since(&self, moment: &AtomicU64) -> Duration {
        Duration::from_millis(self.now().saturating_sub(moment.load(Ordering::Relaxed)))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Longest time without a decoded picture, on top of the time in which none may be wanted.
const PICTURE_LIMIT_MS: u64 = 20_000;

pub(crate) struct Handling<'a>(&'a Activity);

impl Drop for Handling<'_> {
    fn drop(&mut self) {
        self.0.media.store(self.0.now(), Ordering::Relaxed);
        self.0.handling.fetch_sub(1, Ordering::Relaxed);
    }
}
