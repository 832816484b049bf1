//! The video track: decides what is decoded, and fills the windows.
//!
//! Where keyframes are close enough together for a sampling, only those that it takes are decoded. Where they are not, what
//! lies between the last keyframe and the wanted time is decoded too, and the rest of every group of pictures is dropped.

use std::collections::VecDeque;
use std::sync::Arc;

use sightline_proto::internal::child_report::Report;
use sightline_proto::internal::measured_window::What;
use sightline_proto::internal::{Frame, MeasuredWindow, SampledWindow, TakeFrom};

use crate::codecs::Codec;
use crate::error::Failure;
use crate::grid::{Grid, GridWindow};
use crate::measure;
use crate::picture::{Coded, Decoder, JpegEncoder, Picture};
use crate::session::Session;
use crate::timeline::Pace;

/// Coded pictures that wait for a later one to be wanted are kept up to this size, then decoded.
const MAX_WAITING_BYTES: usize = 32 << 20;
/// All frames of a window together: the bus takes 1 MB.
const MAX_WINDOW_BYTES: usize = 900_000;
/// How much earlier than a slot's start a camera's frame may be and still count as in it.
pub(crate) const LIVE_EARLY_US: i64 = 40_000;
/// Errors in a row that a decoder is started anew after.
const MAX_ERRORS: u32 = 20;

/// The video track of a source.
pub(crate) struct VideoTrack {
    session: Arc<Session>,
    codec: &'static Codec,
    decoder: Option<Decoder>,
    encoder: JpegEncoder,
    grids: Vec<Grid>,
    /// Which pictures are measured: its frames hold pixels of them.
    measuring: Option<Grid>,
    /// Version of the control's wishes that `grids` follows.
    version: u64,
    group: Group,
    keyframes: Keyframes,
    errors: u32,
}

/// What the decoder has not seen of the group of pictures under way.
#[derive(Default)]
struct Group {
    /// Whether its keyframe was seen.
    open: bool,
    waiting: Vec<Coded>,
    bytes: usize,
}

/// How far keyframes are apart.
#[derive(Default)]
pub(crate) struct Keyframes {
    last_us: Option<i64>,
    /// The last few distances.
    distances: VecDeque<i64>,
}

impl Keyframes {
    pub(crate) fn seen(&mut self, position_us: i64) {
        if let Some(last) = self.last_us.replace(position_us) {
            self.distances.push_back(position_us - last);
            if self.distances.len() > 3 {
                self.distances.pop_front();
            }
        }
    }

    /// Whether there is one in every stretch of this length, as far as can be told at a position.
    pub(crate) fn are_within(&self, slot_us: i64, position_us: i64) -> bool {
        // Cameras stamp their pictures a little unevenly.
        let slot_us = slot_us + slot_us / 100;
        let waited = self.last_us.map_or(0, |last| position_us - last);
        waited <= slot_us && self.distances.iter().all(|distance| *distance <= slot_us)
    }
}

impl VideoTrack {
    pub(crate) fn new(session: Arc<Session>, codec: &'static Codec) -> Result<Self, Failure> {
        let encoder = JpegEncoder::new(session.frame_edge)?;
        Ok(Self {
            session,
            codec,
            decoder: None,
            encoder,
            grids: Vec::new(),
            measuring: None,
            version: 0,
            group: Group::default(),
            keyframes: Keyframes::default(),
            errors: 0,
        })
    }

    /// Takes the next coded picture. `broken` says that pictures before it are missing.
    ///
    /// # Errors
    /// When nothing can be decoded at all.
    pub(crate) fn push(&mut self, coded: Coded, key: bool, broken: bool) -> Result<(), Failure> {
        let position_us = coded.position_us;
        self.follow_wishes(position_us);
        if key {
            self.keyframes.seen(position_us);
            self.group = Group {
                open: true,
                ..Group::default()
            };
        } else if broken {
            self.group = Group::default();
        }
        if !self.group.open {
            return Ok(());
        }
        self.group.bytes += coded.buffer.size();
        self.group.waiting.push(coded);

        let wanted_now = key && self.all_grids().any(|grid| grid.wants(position_us));
        let between_keyframes = self.all_grids().any(|grid| {
            grid.due_us() <= position_us && !self.keyframes.are_within(grid.slot_us(), position_us)
        });
        if wanted_now || between_keyframes || self.group.bytes > MAX_WAITING_BYTES {
            let pictures = self.decode(key);
            self.fill(pictures)?;
        }
        if !between_keyframes {
            let over: Vec<_> = self
                .grids
                .iter_mut()
                .filter_map(|grid| grid.read_up_to(position_us))
                .collect();
            self.report(over);
            let measured = self.measuring.as_mut();
            let over = measured.and_then(|grid| grid.read_up_to(position_us));
            self.report_measured(over);
        }
        Ok(())
    }

    /// The source ended.
    ///
    /// # Errors
    /// When the last picture can't be encoded.
    pub(crate) fn finish(&mut self) -> Result<(), Failure> {
        let held_back = self.decoder.as_mut().map(Decoder::drain);
        self.fill(held_back.unwrap_or_default())?;
        let over: Vec<_> = self.grids.iter_mut().filter_map(Grid::finish).collect();
        self.report(over);
        let over = self.measuring.as_mut().and_then(Grid::finish);
        self.report_measured(over);
        Ok(())
    }

    /// Decodes what waits. A keyframe is given out at once and stays, because what follows it may yet be wanted.
    fn decode(&mut self, key: bool) -> Vec<Picture> {
        let decoded = self.try_decode(key);
        if !key {
            self.group.waiting.clear();
            self.group.bytes = 0;
        }
        match decoded {
            Ok(pictures) => pictures,
            Err(failure) => {
                tracing::debug!(%failure, "decoder is started anew at the next keyframe");
                self.decoder = None;
                self.group = Group::default();
                self.errors += 1;
                Vec::new()
            }
        }
    }

    fn try_decode(&mut self, drain: bool) -> Result<Vec<Picture>, Failure> {
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            none => none.insert(Decoder::new(self.codec)?),
        };
        let mut pictures = Vec::new();
        for coded in &self.group.waiting {
            pictures.extend(decoder.push(coded)?);
        }
        if drain {
            pictures.extend(decoder.drain());
        }
        Ok(pictures)
    }

    fn fill(&mut self, pictures: Vec<Picture>) -> Result<(), Failure> {
        if self.errors > MAX_ERRORS {
            return Err(Failure {
                reason: "its pictures cannot be decoded".to_owned(),
                // A file stays as it is; a camera may be set right.
                permanent: self.session.timeline.pace != Pace::Live,
            });
        }
        for picture in pictures {
            self.errors = 0;
            self.session.activity.decoded();
            let position_us = picture.position_us;
            self.measure(&picture);
            if !self.grids.iter().any(|grid| grid.wants(position_us)) {
                continue;
            }
            let frame = Frame {
                time_us: position_us,
                jpeg: self.encoder.encode(&picture, self.most_bytes())?,
            };
            let mut complete = Vec::new();
            for grid in &mut self.grids {
                if grid.wants(position_us) {
                    complete.extend(grid.take(frame.clone()));
                }
            }
            self.report(complete);
        }
        Ok(())
    }

    fn all_grids(&self) -> impl Iterator<Item = &Grid> {
        self.grids.iter().chain(&self.measuring)
    }

    fn measure(&mut self, picture: &Picture) {
        let position_us = picture.position_us;
        let measuring = self.measuring.as_mut();
        let Some(grid) = measuring.filter(|grid| grid.wants(position_us)) else {
            return;
        };
        let Some(pixels) = measure::pixels(picture) else {
            return;
        };
        let over = grid.take(Frame {
            time_us: position_us,
            jpeg: pixels,
        });
        self.report_measured(over);
    }

    /// How large a frame may be for any of the samplings.
    fn most_bytes(&self) -> usize {
        let frames = self.grids.iter().map(|g| g.sampling().frame_count);
        let most = usize::try_from(frames.max().unwrap_or(1)).unwrap_or(usize::MAX);
        MAX_WINDOW_BYTES / most.max(1)
    }

    fn report(&self, windows: Vec<GridWindow>) {
        for window in windows {
            let Some(last) = window.frames.last() else {
                continue;
            };
            self.session.report(Report::Window(SampledWindow {
                sampling: Some(window.sampling),
                window: window.window,
                end_position_us: window.end_us.min(self.session.length_us()),
                captured_us: self.session.timeline.captured_us(last.time_us),
                sampled_us: self.session.timeline.now_us(),
                frames: window.frames,
            }));
        }
    }

    fn report_measured(&self, windows: impl IntoIterator<Item = GridWindow>) {
        for window in windows {
            let Some(last) = window.frames.last() else {
                continue;
            };
            self.session.report(Report::Measured(MeasuredWindow {
                window: window.window,
                captured_us: self.session.timeline.captured_us(last.time_us),
                sampled_us: self.session.timeline.now_us(),
                what: Some(What::Pictures(measure::pictures(&window.frames))),
            }));
        }
    }

    fn follow_wishes(&mut self, position_us: i64) {
        let Some((take, version)) = self.session.control.take_since(self.version) else {
            return;
        };
        let early_us = match self.session.timeline.pace {
            Pace::Live => LIVE_EARLY_US,
            Pace::RealTime | Pace::Fast => 0,
        };
        let first_wishes = self.version == 0;
        self.version = version;
        let begin = |sampling, first_window: u64| {
            let next_whole = match first_wishes {
                true => 0,
                false => Grid::window_from(&sampling, position_us),
            };
            Grid::new(sampling, first_window.max(next_whole), early_us)
        };
        let mut grids = Vec::with_capacity(take.samplings.len());
        for wanted in &take.samplings {
            let Some(sampling) = wanted.sampling else {
                continue;
            };
            let known = self.grids.iter().position(|g| *g.sampling() == sampling);
            grids.push(match known {
                Some(known) => self.grids.swap_remove(known),
                None => begin(sampling, wanted.first_window),
            });
        }
        self.measuring = take.measure_pictures.then(|| {
            let known = self.measuring.take();
            known.unwrap_or_else(|| begin(measure::PICTURES, take.pictures_from_window))
        });
        self.grids = grids;
        self.session.activity.wants_pictures(longest_slot(&take));
    }
}

/// How long no picture may be wanted at all; none if none ever is.
fn longest_slot(take: &TakeFrom) -> Option<i64> {
    let samplings = take.samplings.iter().filter_map(|w| w.sampling.as_ref());
    let measured = take.measure_pictures.then_some(&measure::PICTURES);
    samplings
        .chain(measured)
        .map(|s| s.window_us / i64::from(s.frame_count.max(1)))
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keyframe_interval_is_measured_and_follows_the_stream() {
        let mut keyframes = Keyframes::default();
        let slot = 2_500_000;
        assert!(keyframes.are_within(slot, 0));
        keyframes.seen(0);
        assert!(keyframes.are_within(slot, slot));
        assert!(!keyframes.are_within(slot, slot + 40_000));
        for second in [2, 4, 6] {
            keyframes.seen(second * 1_000_000);
        }
        assert!(keyframes.are_within(slot, 7_500_000));
        // One long distance, and for a while nothing is taken for granted.
        keyframes.seen(16_000_000);
        assert!(!keyframes.are_within(slot, 16_000_000));
        for second in [18, 20, 22] {
            keyframes.seen(second * 1_000_000);
        }
        assert!(keyframes.are_within(slot, 22_000_000));
    }
}
