//! Recording: coded pictures and sound as they pass, cut into segments and written as MPEG-TS, never decoded.
//!
//! Buffers are kept by reference until their segment is complete, and copied once, into it. Sound that is no AAC is coded anew.

mod aac;
mod cut;
mod demux;
mod mux;
mod nal;
#[cfg(test)]
mod tests;
mod transcode;
mod write;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gstreamer as gst;
use sightline_proto::internal::child_report::Report;
use sightline_proto::internal::{NotRecordable, RecordedSegment};

pub(crate) use self::aac::{Frame, frames};
use self::cut::{Cutter, Picture, Sound};
pub(crate) use self::demux::{Contents, Unit, demux, unwrapped};
pub(crate) use self::nal::Coding;
use self::nal::Framing;
use self::transcode::Transcoder;
use self::write::DecodingTimes;
use crate::codecs::{Codec, Medium};
use crate::picture::Coded;
use crate::session::Session;
use crate::timeline::Pace;

/// A picture that says nothing of its length, nor do those before it.
const USUAL_PICTURE_US: i64 = 40_000;
/// No picture is believed to be shown for longer.
const LONGEST_PICTURE_US: i64 = 120_000_000;
/// Streams without certain entry points: after this long, a picture that the parser calls a keyframe is one.
const ENTRY_WITHIN_US: i64 = 10_000_000;

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
    /// Why not everything is recorded, until it was said.
    refusal: Option<NotRecordable>,
    refused: bool,
    finished: bool,
}

/// What is known of the pictures.
struct Video {
    coding: Coding,
    caps: Option<gst::Caps>,
    framing: Option<Framing>,
    /// The parameter sets that came last.
    sets: Vec<u8>,
    shared_sets: Option<Arc<[u8]>>,
    last_us: Option<i64>,
    /// How long a picture is shown, where they do not say.
    usual_us: i64,
    entry_us: Option<i64>,
    dropped: u64,
}

/// What is done with the sound.
struct Audio {
    codec: &'static Codec,
    caps: Option<gst::Caps>,
    way: Way,
}

enum Way {
    /// With headers of its own, or with those that a configuration makes.
    AsItIs(Option<aac::Config>),
    Anew(Box<Transcoder>),
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
                state.audio = Some(Audio {
                    codec,
                    caps: None,
                    way: Way::Anew(Box::new(Transcoder::new(codec))),
                });
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
                video.dropped += 1;
                let dropped = video.dropped;
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
        if let (Some(cutter), Some(audio)) = (&mut self.cutter, &mut self.audio)
            && let Way::Anew(transcoder) = &mut audio.way
        {
            let held_back = transcoder.finish();
            held_back.into_iter().for_each(|sound| cutter.sound(sound));
        }
    }
}

impl Video {
    fn new(coding: Coding) -> Self {
        Self {
            coding,
            caps: None,
            framing: None,
            sets: Vec::new(),
            shared_sets: None,
            last_us: None,
            usual_us: USUAL_PICTURE_US,
            entry_us: None,
            dropped: 0,
        }
    }

    /// What is recorded of it; none if it is damaged.
    fn picture(&mut self, coded: &Coded) -> Option<Picture> {
        self.follow_caps(&coded.caps);
        let framing = self.framing?;
        let map = coded.buffer.map_readable().ok()?;
        let length = framing.length(&map)?;
        let head = self.coding.head(framing, &map, &mut self.sets);
        drop(map);
        let key = self.is_key(coded, head.entry);
        if self.shared_sets.as_deref() != Some(&*self.sets) {
            self.shared_sets = Some(self.sets.as_slice().into());
        }
        let sets = self.shared_sets.clone().filter(|_| key && !head.sets);
        Some(Picture {
            coding: self.coding,
            framing,
            sets,
            delimited: head.delimited,
            key,
            position_us: coded.position_us,
            duration_us: self.duration(coded),
            length,
            data: coded.buffer.clone(),
        })
    }

    fn follow_caps(&mut self, caps: &gst::Caps) {
        if self.caps.as_ref() == Some(caps) {
            return;
        }
        self.caps = Some(caps.clone());
        let structure = caps.structure(0);
        let format = structure.and_then(|s| s.get::<&str>("stream-format").ok());
        if format == Some("byte-stream") {
            self.framing = Some(Framing::StartCodes);
            return;
        }
        let data = structure.and_then(|s| s.get::<gst::Buffer>("codec_data").ok());
        let known = data.and_then(|data| self.coding.configuration(&data.map_readable().ok()?));
        self.framing = known.as_ref().map(|(framing, _)| *framing);
        if let Some((_, sets)) = known.filter(|(_, sets)| !sets.is_empty()) {
            self.sets = sets;
        }
    }

    fn is_key(&mut self, coded: &Coded, entry: bool) -> bool {
        let at_us = coded.position_us;
        let since_us = at_us - *self.entry_us.get_or_insert(at_us);
        let flagged = !coded.buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let key = flagged && (entry || !(0..ENTRY_WITHIN_US).contains(&since_us));
        if key {
            self.entry_us = Some(at_us);
        }
        key
    }

    fn duration(&mut self, coded: &Coded) -> i64 {
        let at_us = coded.position_us;
        let since = self.last_us.replace(at_us).map(|last_us| at_us - last_us);
        let said = coded.buffer.duration().map(gst::ClockTime::useconds);
        match said.and_then(|us| i64::try_from(us).ok()) {
            Some(us) if us > 0 => us.min(LONGEST_PICTURE_US),
            _ => {
                if let Some(us) = since.filter(|us| (1..1_000_000).contains(us)) {
                    self.usual_us = us;
                }
                self.usual_us
            }
        }
    }
}

impl Audio {
    /// What is recorded of it.
    ///
    /// # Errors
    /// When it cannot be coded anew, in words.
    fn sounds(&mut self, coded: &Coded) -> Result<Vec<Sound>, String> {
        if self.caps.as_ref() != Some(&coded.caps) {
            self.caps = Some(coded.caps.clone());
            self.way = match as_it_is(&coded.caps) {
                Some(config) => Way::AsItIs(config),
                None => Way::Anew(Box::new(Transcoder::new(self.codec))),
            };
        }
        match &mut self.way {
            Way::AsItIs(config) => {
                let bytes = coded.buffer.size() + config.map_or(0, |_| aac::HEADER);
                if coded.buffer.size() == 0 || bytes > aac::MAX_FRAME {
                    return Ok(Vec::new());
                }
                Ok(vec![Sound {
                    data: coded.buffer.clone(),
                    config: *config,
                    position_us: coded.position_us,
                    duration_us: frame_us(coded),
                }])
            }
            Way::Anew(transcoder) => transcoder
                .push(&coded.caps, &coded.buffer, coded.position_us)
                .map_err(|failure| {
                    let name = self.codec.name();
                    format!("its sound ({name}) is not recorded: {failure}")
                }),
        }
    }
}

/// AAC that can be written with headers; none for any other sound.
fn as_it_is(caps: &gst::Caps) -> Option<Option<aac::Config>> {
    let structure = caps.structure(0)?;
    let version = structure.get::<i32>("mpegversion").ok()?;
    if structure.name() != "audio/mpeg" || !matches!(version, 2 | 4) {
        return None;
    }
    match structure.get::<&str>("stream-format").ok()? {
        "adts" => Some(None),
        "raw" => {
            let data = structure.get::<gst::Buffer>("codec_data").ok()?;
            aac::Config::parse(&data.map_readable().ok()?).map(Some)
        }
        _ => None,
    }
}

fn frame_us(coded: &Coded) -> i64 {
    let structure = coded.caps.structure(0);
    let rate = structure.and_then(|s| s.get::<i32>("rate").ok());
    let rate = i64::from(rate.filter(|rate| *rate > 0).unwrap_or(48_000));
    aac::SAMPLES * 1_000_000 / rate
}
