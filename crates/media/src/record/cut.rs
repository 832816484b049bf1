//! Where a recording is cut: what belongs to which segment.
//!
//! A segment begins with a keyframe and ends where the next begins. Sound comes on another thread, sooner or later than the
//! pictures of its time: a segment that was cut waits a little for it. Nothing is recorded twice: segments never overlap.

use std::collections::VecDeque;
use std::sync::Arc;

use gstreamer as gst;

use super::aac;
use super::nal::{Coding, Framing};

/// A segment is cut at the first keyframe this long after its start.
const SHORTEST_US: i64 = 4_000_000;
/// And without one at this length, or this size, or this many pictures.
const LONGEST_US: i64 = 120_000_000;
const MAX_BYTES: usize = 24 << 20;
const MAX_PICTURES: usize = 16_384;
/// Sound that waits for its pictures; the oldest is dropped beyond.
const MAX_SOUND_BYTES: usize = 8 << 20;
const MAX_SOUNDS: usize = 32_768;
/// How much of the pictures a segment that was cut waits for its sound.
const SOUND_LATE_US: i64 = 1_000_000;
/// Times that jump further end a segment.
const JUMP_US: i64 = 1_000_000;
/// How many pictures are put in another order than they are shown in.
const MAX_REORDERED: i64 = 16;
/// How much sound comes without pictures before it is recorded alone.
const ALONE_US: i64 = 10_000_000;
/// How much earlier than wanted a first keyframe may be, and a first sound.
const EARLY_US: i64 = 20_000;
const SOUND_EARLY_US: i64 = 5_000;

/// A coded picture.
pub(crate) struct Picture {
    pub(crate) data: gst::Buffer,
    pub(crate) coding: Coding,
    pub(crate) framing: Framing,
    /// Parameter sets, with start codes, that are put in front of it.
    pub(crate) sets: Option<Arc<[u8]>>,
    /// Whether it begins with an access unit delimiter itself.
    pub(crate) delimited: bool,
    pub(crate) key: bool,
    pub(crate) position_us: i64,
    pub(crate) duration_us: i64,
    /// Its length with start codes.
    pub(crate) length: usize,
}

/// A frame of AAC.
pub(crate) struct Sound {
    pub(crate) data: gst::Buffer,
    /// What its header has to say; none if it has one.
    pub(crate) config: Option<aac::Config>,
    pub(crate) position_us: i64,
    pub(crate) duration_us: i64,
}

impl Sound {
    fn end_us(&self) -> i64 {
        self.position_us + self.duration_us
    }
}

/// What belongs together: pictures as they are decoded, sound in the order of its times.
pub(crate) struct Segment {
    pub(crate) start_us: i64,
    pub(crate) end_us: i64,
    pub(crate) pictures: Vec<Picture>,
    pub(crate) sounds: Vec<Sound>,
}

/// A segment under way.
struct Open {
    pictures: Vec<Picture>,
    bytes: usize,
    /// Time of the picture that it began with.
    key_us: i64,
    /// Its earliest time, its latest, and where that ends.
    start_us: i64,
    last_us: i64,
    end_us: i64,
    /// Whether nothing came before it that it goes on from.
    fresh: bool,
}

/// Cuts what comes into segments.
pub(crate) struct Cutter {
    /// Where pictures and sound may begin: a little before what was asked for, and where the last segment ended.
    from_us: i64,
    sound_from_us: i64,
    has_pictures: bool,
    has_sound: bool,
    open: Option<Open>,
    /// Was cut, and waits for its sound.
    cut: Option<Open>,
    /// Sound without pictures: a segment under way.
    alone: Option<Open>,
    sounds: VecDeque<Sound>,
    sound_bytes: usize,
    pictures_at_us: Option<i64>,
    sound_at_us: Option<i64>,
    /// Whether the next segment goes on from the last.
    goes_on: bool,
    complete: Vec<Segment>,
}

impl Cutter {
    /// Records nothing that begins before this position.
    pub(crate) fn new(from_us: i64, has_pictures: bool, has_sound: bool) -> Self {
        Self {
            from_us: from_us.saturating_sub(EARLY_US),
            sound_from_us: from_us.saturating_sub(SOUND_EARLY_US),
            has_pictures,
            has_sound,
            open: None,
            cut: None,
            alone: None,
            sounds: VecDeque::new(),
            sound_bytes: 0,
            pictures_at_us: None,
            sound_at_us: None,
            goes_on: false,
            complete: Vec::new(),
        }
    }

    /// Says which kinds of tracks there are, as far as known.
    pub(crate) fn expect(&mut self, has_pictures: bool, has_sound: bool) {
        self.has_pictures = has_pictures;
        self.has_sound = has_sound;
    }

    /// What has become complete.
    pub(crate) fn complete(&mut self) -> Vec<Segment> {
        std::mem::take(&mut self.complete)
    }

    /// Takes the next picture. `broken` says that some before it are missing.
    pub(crate) fn picture(&mut self, picture: Picture, broken: bool) {
        let at_us = picture.position_us;
        self.pictures_at_us = Some(at_us);
        if broken || self.open.as_ref().is_some_and(|open| open.jumps(&picture)) {
            self.break_off(false);
        }
        match &mut self.open {
            // Only hostile ones, and those before a first keyframe that cannot be decoded.
            _ if at_us < self.from_us => {}
            None if picture.key => {
                self.end_alone(Some(at_us));
                self.begin(picture);
            }
            None => self.forget_sound_before(at_us - 2 * SOUND_LATE_US),
            Some(open) if open.is_over(&picture) => {
                self.settle(true);
                self.cut = self.open.take();
                self.goes_on = true;
                self.begin(picture);
            }
            Some(open) => open.push(picture),
        }
        self.settle(false);
    }

    /// Takes the next frame of sound.
    pub(crate) fn sound(&mut self, sound: Sound) {
        let (at_us, end_us) = (sound.position_us, sound.end_us());
        self.sound_at_us = Some(at_us);
        self.sound_bytes += sound.data.size();
        self.sounds.push_back(sound);
        while self.sound_bytes > MAX_SOUND_BYTES || self.sounds.len() > MAX_SOUNDS {
            let Some(dropped) = self.sounds.pop_front() else {
                break;
            };
            self.sound_bytes -= dropped.data.size();
        }
        if self.is_alone(at_us) {
            self.sound_alone(at_us, end_us);
        }
        self.settle(false);
    }

    /// Ends what is under way, with the last picture's end; `with_rest` at the end of the source, with all its sound.
    pub(crate) fn break_off(&mut self, with_rest: bool) {
        self.settle(true);
        if let Some(open) = self.open.take() {
            let rest = self.sounds.iter().map(Sound::end_us).max();
            let end_us = rest
                .filter(|_| with_rest)
                .map_or(open.end_us, |rest_us| rest_us.max(open.end_us));
            self.finish(open, end_us);
        }
        self.end_alone(None);
        self.goes_on = false;
    }

    fn begin(&mut self, picture: Picture) {
        let mut open = Open::new(picture.position_us, !self.goes_on);
        open.push(picture);
        self.open = Some(open);
    }

    /// Completes the segment that was cut, if it need not wait or must not.
    fn settle(&mut self, now: bool) {
        let (Some(_), Some(open)) = (&self.cut, &self.open) else {
            return;
        };
        let end_us = open.start_us;
        // Pictures that are shown before the keyframe follow it.
        let start_is_known = open.last_us > open.key_us;
        let passed = |at: Option<i64>, limit_us: i64| at.is_some_and(|at_us| at_us >= limit_us);
        let sound_is_known = !self.has_sound
            || passed(self.sound_at_us, end_us)
            || passed(self.pictures_at_us, end_us.saturating_add(SOUND_LATE_US));
        if (now || (start_is_known && sound_is_known))
            && let Some(cut) = self.cut.take()
        {
            self.finish(cut, end_us);
        }
    }

    fn finish(&mut self, open: Open, end_us: i64) {
        let from_us = if open.fresh { open.start_us } else { i64::MIN };
        let waiting = std::mem::take(&mut self.sounds);
        let (now, later): (Vec<_>, VecDeque<_>) =
            waiting
                .into_iter()
                .fold(Default::default(), |(mut now, mut later), sound| {
                    if sound.position_us >= end_us {
                        later.push_back(sound);
                    } else if sound.position_us >= from_us {
                        now.push(sound);
                    }
                    (now, later)
                });
        let mut sounds = now;
        sounds.sort_by_key(|sound| sound.position_us);
        self.sound_bytes = later.iter().map(|sound| sound.data.size()).sum();
        self.sounds = later;
        self.from_us = self.from_us.max(end_us);
        self.sound_from_us = self.from_us;
        if open.pictures.is_empty() && sounds.is_empty() {
            return;
        }
        self.complete.push(Segment {
            start_us: open.start_us,
            end_us,
            pictures: open.pictures,
            sounds,
        });
    }

    fn forget_sound_before(&mut self, position_us: i64) {
        if self.alone.is_some() {
            return;
        }
        while let Some(sound) = self.sounds.pop_front_if(|s| s.position_us < position_us) {
            self.sound_bytes -= sound.data.size();
        }
    }

    /// Whether no pictures come with the sound.
    fn is_alone(&self, at_us: i64) -> bool {
        let first = self.sounds.front().map(|sound| sound.position_us);
        let since = self.pictures_at_us.or(first);
        !self.has_pictures || since.is_some_and(|since_us| at_us - since_us > ALONE_US)
    }

    fn sound_alone(&mut self, at_us: i64, end_us: i64) {
        if self.open.is_some() {
            self.break_off(false);
            self.goes_on = true;
        }
        if self
            .alone
            .as_ref()
            .is_some_and(|alone| at_us - alone.end_us > JUMP_US || at_us < alone.last_us - JUMP_US)
        {
            self.end_alone(None);
            self.goes_on = false;
        }
        let from_us = self.sound_from_us;
        let first = |sounds: &VecDeque<Sound>| {
            let times = sounds.iter().map(|sound| sound.position_us);
            times.filter(|at_us| *at_us >= from_us).min()
        };
        let Some(alone) = &mut self.alone else {
            if let Some(start_us) = first(&self.sounds) {
                let mut alone = Open::new(start_us, true);
                (alone.last_us, alone.end_us) = (at_us, end_us);
                self.alone = Some(alone);
            } else {
                self.sounds.clear();
                self.sound_bytes = 0;
            }
            return;
        };
        (alone.last_us, alone.end_us) = (at_us, end_us);
        let limit_us = alone.start_us + SHORTEST_US;
        let times = self.sounds.iter().map(|sound| sound.position_us);
        if at_us >= limit_us
            && let Some(cut_us) = times.filter(|at_us| *at_us >= limit_us).min()
            && let Some(over) = self.alone.take()
        {
            let mut next = Open::new(cut_us, false);
            (next.last_us, next.end_us) = (at_us, end_us);
            self.finish(over, cut_us);
            self.alone = Some(next);
        }
    }

    /// Ends a segment of sound alone: where pictures begin, if they follow at once.
    fn end_alone(&mut self, pictures_from_us: Option<i64>) {
        let Some(alone) = self.alone.take() else {
            return;
        };
        let from_us = pictures_from_us.unwrap_or(i64::MAX);
        let follows = from_us - alone.end_us < JUMP_US;
        self.goes_on = follows;
        let end_us = if follows { from_us } else { alone.end_us };
        if end_us > alone.start_us {
            self.finish(alone, end_us);
        }
    }
}

impl Open {
    fn new(start_us: i64, fresh: bool) -> Self {
        Self {
            pictures: Vec::new(),
            bytes: 0,
            key_us: start_us,
            start_us,
            last_us: start_us,
            end_us: start_us,
            fresh,
        }
    }

    fn push(&mut self, picture: Picture) {
        let at_us = picture.position_us;
        self.start_us = self.start_us.min(at_us);
        self.last_us = self.last_us.max(at_us);
        self.end_us = self.end_us.max(at_us + picture.duration_us);
        self.bytes += picture.length;
        self.pictures.push(picture);
    }

    fn is_over(&self, next: &Picture) -> bool {
        let length_us = next.position_us - self.start_us;
        (next.key && length_us >= SHORTEST_US)
            || length_us >= LONGEST_US
            || self.bytes + next.length > MAX_BYTES
            || self.pictures.len() >= MAX_PICTURES
    }

    fn jumps(&self, next: &Picture) -> bool {
        let reorders_us = JUMP_US.max(MAX_REORDERED.saturating_mul(next.duration_us));
        next.position_us - self.end_us > JUMP_US || next.position_us < self.last_us - reorders_us
    }
}
