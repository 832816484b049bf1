//! Recording: coded pictures and sound as they pass, cut into segments and written as MPEG-TS, never decoded.
//!
//! Buffers are kept by reference until their segment is complete, and copied once, into it. Sound that is no AAC is coded anew.

mod aac;
mod cut;
mod demux;
mod mux;
mod nal;
mod passing;
#[cfg(test)]
mod tests;
mod transcode;
mod write;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sightline_proto::internal::child_report::Report;
use sightline_proto::internal::{NotRecordable, RecordedSegment};

pub(crate) use self::aac::{Frame, frames};
use self::cut::Cutter;
pub(crate) use self::demux::{Contents, Unit, demux, unwrapped};
pub(crate) use self::nal::Coding;
use self::passing::{Audio, Video};
use self::write::DecodingTimes;
use crate::codecs::{Codec, Medium};
use crate::picture::Coded;
use crate::session::Session;
use crate::timeline::Pace;

/// Records a source while that is wanted. All its tracks share it.
pub(crate) struct Recorder {
    session: Arc<Session>,
    state: Mutex<State>,
}

struct State {
    version: u64,
    /// While it is wanted and the source can be recorded.
    cutter: Option<Cutter>,
    has_video: bool,
    video: Option<Video>,
    audio: Option<Audio>,
    decoding: DecodingTimes,
    /// Damaged pictures.
    dropped: u64,
    /// Why not everything is recorded, until it was said.
    refusal: Option<NotRecordable>,
    refused: bool,
    finished: bool,
}

impl Recorder {
    pub(crate) fn new(session: Arc<Session>) -> Self {
        let state = State {
            version: 0,
            cutter: None,
            has_video: false,
            video: None,
            audio: None,
            decoding: DecodingTimes::default(),
            dropped: 0,
            refusal: None,
            refused: false,
            finished: false,
        };
        Self {
            session,
            state: Mutex::new(state),
        }
    }

    /// There will be pictures; before any sound is taken.
    pub(crate) fn expect_pictures(&self) {
        let mut state = self.lock();
        state.has_video = true;
        state.tell_cutter();
    }

    /// There is a track with this codec.
    pub(crate) fn expect(&self, codec: &'static Codec) {
        let mut state = self.lock();
        match (codec.medium, codec.coding()) {
            (Medium::Video, Some(coding)) => state.video = Some(Video::new(coding)),
            (Medium::Video, None) => {
                let name = codec.name();
                let reason = format!("its pictures are {name}: only H.264 and H.265 are recorded");
                state.refuse(reason, false);
            }
            (Medium::Audio, _) => {
                state.audio = Some(Audio::new(codec));
            }
        }
        state.has_video |= codec.medium == Medium::Video;
        state.tell_cutter();
    }

    /// There is sound of this kind, which cannot be decoded.
    pub(crate) fn lacks_sound(&self, what: &str) {
        let reason = format!("its sound is {what}, which is not supported: it is recorded without");
        self.lock().refuse(reason, true);
    }

    /// Takes what passes. `broken` says that some before it is missing.
    pub(crate) fn take(&self, medium: Medium, coded: &Coded, broken: bool) {
        let mut state = self.lock();
        if state.finished {
            return;
        }
        self.follow_wishes(&mut state);
        self.report_refusal(&mut state);
        if state.cutter.is_none() {
            return;
        }
        // Demuxers of files say so where nothing is missing; what is, shows in the times.
        let broken = broken && self.session.timeline.pace == Pace::Live;
        match medium {
            Medium::Video => state.picture(coded, broken),
            Medium::Audio => state.sound(coded),
        }
        self.report(&mut state);
    }

    /// Completes what is under way; nothing is taken any more. `at_end`: the source was read to its end.
    pub(crate) fn finish(&self, at_end: bool) {
        let mut state = self.lock();
        state.finished = true;
        self.end(&mut state, at_end);
    }

    fn end(&self, state: &mut State, at_end: bool) {
        if state.cutter.is_none() {
            return;
        }
        state.flush_sound();
        if let Some(cutter) = &mut state.cutter {
            cutter.break_off(at_end);
        }
        self.report(state);
        state.cutter = None;
    }

    fn report(&self, state: &mut State) {
        let Some(cutter) = &mut state.cutter else {
            return;
        };
        let Some(epoch_us) = self.session.timeline.epoch_us() else {
            return;
        };
        for segment in cutter.complete() {
            let ts = write::write(&segment, epoch_us, &mut state.decoding);
            self.session.report(Report::Segment(RecordedSegment {
                start_position_us: segment.start_us,
                duration_us: segment.end_us - segment.start_us,
                ts: ts.into(),
            }));
        }
    }

    fn report_refusal(&self, state: &mut State) {
        let wanted = state.cutter.is_some();
        // What is said first is how the source was opened.
        if !wanted || state.refusal.is_none() || (state.has_video && !self.session.is_open()) {
            return;
        }
        if let Some(refusal) = state.refusal.take() {
            self.session.report(Report::NotRecordable(refusal));
        }
    }

    fn follow_wishes(&self, state: &mut State) {
        let Some((take, version)) = self.session.control.take_since(state.version) else {
            return;
        };
        state.version = version;
        if !take.record {
            self.end(state, false);
        } else if state.cutter.is_none() {
            let from_us = take.record_from_us;
            let (video, audio) = (state.has_video, state.audio.is_some());
            state.cutter = Some(Cutter::new(from_us, video, audio));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn tell_cutter(&mut self) {
        if let Some(cutter) = &mut self.cutter {
            cutter.expect(self.has_video, self.audio.is_some());
        }
    }

    fn refuse(&mut self, reason: String, sound_only: bool) {
        self.refused |= !sound_only;
        self.refusal = Some(NotRecordable { reason, sound_only });
    }

    fn picture(&mut self, coded: &Coded, broken: bool) {
        let (Some(cutter), Some(video)) = (&mut self.cutter, &mut self.video) else {
            return;
        };
        match video.picture(coded) {
            Some(picture) => cutter.picture(picture, broken),
            None => {
                self.dropped += 1;
                let dropped = self.dropped;
                if dropped.is_power_of_two() {
                    tracing::debug!(dropped, "a damaged picture is not recorded");
                }
            }
        }
    }

    fn sound(&mut self, coded: &Coded) {
        // Sound of pictures that are not recorded is not recorded either.
        let (Some(cutter), Some(audio), false) = (&mut self.cutter, &mut self.audio, self.refused)
        else {
            return;
        };
        match audio.sounds(coded) {
            Ok(sounds) => sounds.into_iter().for_each(|sound| cutter.sound(sound)),
            Err(reason) => {
                self.audio = None;
                self.refuse(reason, true);
                self.tell_cutter();
            }
        }
    }

    fn flush_sound(&mut self) {
        if let (Some(cutter), Some(audio)) = (&mut self.cutter, &mut self.audio) {
            let held_back = audio.finish();
            held_back.into_iter().for_each(|sound| cutter.sound(sound));
        }
    }
}
