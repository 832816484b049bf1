//! Recorded segments into one MP4, without coding anything anew.

use std::collections::VecDeque;
use std::path::Path;

use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;

use crate::chain::{Chain, Output, element};
use crate::codecs::{self, Medium};
use crate::error::Failure;
use crate::mp4::{Description, Mp4, Sample};
use crate::record::{Coding, Contents, Frame, Unit, demux, frames, unwrapped};

/// Ticks a second in a recording.
const TICKS: i64 = 90_000;
/// Units a second for pictures: a third, so that a hole of a day still has its length in the file.
const PICTURE_TIMESCALE: u32 = 30_000;
/// Pieces of sound (of 0.1 s) that are written together.
const PIECES: usize = 10;
/// Pictures that a parser is believed to hold back.
const MAX_PARSING: usize = 64;
/// Sound that is off by less than this follows what came before.
const UNEVEN: i64 = TICKS / 50;

/// Writes recorded segments, in their order, into one MP4 that can be played while it is loaded, and returns its duration in
/// microseconds. Where segments are missing, what follows keeps its distance in time, up to a day. `next` hands out the
/// segments; one is held at a time. Blocks. While it lasts there is a file of the same size beside it, named `.part`.
///
/// # Errors
/// When there are no segments, something is none, pictures cannot be read, or the file cannot be written.
pub fn export(
    mut next: impl FnMut() -> Option<Bytes> + Send + 'static,
    file: &Path,
) -> Result<i64, Failure> {
    gst::init().map_err(|e| Failure::permanent(format!("GStreamer does not start: {e}")))?;
    let mut export = Export {
        mp4: Mp4::create(file).map_err(unwritten)?,
        video: None,
        audio: None,
        known: None,
        shown: None,
    };
    while let Some(ts) = next() {
        let contents = demux(&ts)
            .ok_or_else(|| Failure::permanent("it holds something that is no recorded segment"))?;
        export.write(contents)?;
    }
    export.finish()
}

struct Export {
    mp4: Mp4,
    video: Option<Video>,
    audio: Option<Audio>,
    /// Time 0, and where the last segment begins, in ticks.
    known: Option<(i64, i64)>,
    /// The first and the last moment.
    shown: Option<(i64, i64)>,
}

/// Makes of pictures with start codes what a file has.
struct Video {
    track: usize,
    coding: Coding,
    caps: gst::Caps,
    parser: Chain,
    /// Times of what is in the parser, and whether it is a keyframe.
    parsing: VecDeque<(i64, i64, bool)>,
    known: Option<(gst::Caps, Description)>,
}

struct Audio {
    track: usize,
    rate: u32,
    /// When the next frame is due, in samples.
    next: Option<i64>,
}

impl Export {
    fn write(&mut self, contents: Contents) -> Result<(), Failure> {
        let Some(first) = contents.units.first() else {
            return Ok(());
        };
        let (start, known) = self.known.unwrap_or((first.decoded, first.decoded));
        let known = unwrapped(known, first.decoded);
        self.known = Some((start, known));
        let mut pieces = Vec::with_capacity(PIECES);
        for unit in contents.units {
            let [shown, decoded] =
                [unit.shown, unit.decoded].map(|time| unwrapped(known, time) - start);
            let (first, last) = self.shown.unwrap_or((shown, shown));
            self.shown = Some((first.min(shown), last.max(shown)));
            match (unit.is_video, contents.coding) {
                (true, Some(coding)) => self.picture(coding, unit, shown, decoded)?,
                (true, None) => {}
                (false, _) => pieces.push((unit, shown)),
            }
            if pieces.len() == PIECES {
                self.sounds(&mut pieces)?;
            }
        }
        self.sounds(&mut pieces)
    }

    fn picture(
        &mut self,
        coding: Coding,
        unit: Unit,
        shown: i64,
        decoded: i64,
    ) -> Result<(), Failure> {
        let video = match &mut self.video {
            Some(video) => video,
            none => none.insert(Video::new(coding, &mut self.mp4)?),
        };
        if video.coding != coding {
            let parser = std::mem::replace(&mut video.parser, parser(coding)?);
            video.write(&mut self.mp4, parser.finish())?;
            (video.coding, video.caps) = (coding, coding.caps());
        }
        let mut buffer = gst::Buffer::from_mut_slice(unit.data);
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(clock(shown));
            buffer.set_dts(clock(decoded));
        }
        video.parsing.push_back((shown, decoded, unit.key));
        if video.parsing.len() > MAX_PARSING {
            video.parsing.pop_front();
        }
        let parsed = video.parser.push(&video.caps, buffer)?;
        video.write(&mut self.mp4, parsed)
    }

    fn sounds(&mut self, pieces: &mut Vec<(Unit, i64)>) -> Result<(), Failure> {
        for (unit, shown) in pieces.drain(..) {
            for (number, frame) in (0..).zip(frames(&unit.data)) {
                let mp4 = &mut self.mp4;
                let audio = self.audio.get_or_insert_with(|| Audio {
                    track: mp4.add(Medium::Audio, frame.rate),
                    rate: frame.rate,
                    next: None,
                });
                audio.write(mp4, &frame, shown, number)?;
            }
        }
        Ok(())
    }

    fn finish(mut self) -> Result<i64, Failure> {
        if let Some(video) = &mut self.video {
            let parser = std::mem::replace(&mut video.parser, parser(video.coding)?);
            video.write(&mut self.mp4, parser.finish())?;
        }
        let nothing = || Failure::permanent("nothing is recorded there");
        let (first, last) = self.shown.ok_or_else(nothing)?;
        self.mp4.finish().map_err(unwritten)?;
        // The last picture of all is shown for 0.04 s.
        Ok((last + TICKS / 25 - first) * 100 / 9)
    }
}

impl Video {
    fn new(coding: Coding, mp4: &mut Mp4) -> Result<Self, Failure> {
        Ok(Self {
            track: mp4.add(Medium::Video, PICTURE_TIMESCALE),
            coding,
            caps: coding.caps(),
            parser: parser(coding)?,
            parsing: VecDeque::new(),
            known: None,
        })
    }

    fn write(&mut self, mp4: &mut Mp4, parsed: Vec<Output>) -> Result<(), Failure> {
        for output in parsed {
            let is_it = |(shown, ..): &(i64, i64, bool)| Some(clock(*shown)) == output.buffer.pts();
            // What the parser does not put out is damaged.
            if let Some(at) = self.parsing.iter().position(is_it) {
                self.parsing.drain(..at);
                if let Some(times) = self.parsing.pop_front() {
                    self.write_one(mp4, &output, times)?;
                }
            }
        }
        Ok(())
    }

    fn write_one(
        &mut self,
        mp4: &mut Mp4,
        output: &Output,
        (shown, decoded, key): (i64, i64, bool),
    ) -> Result<(), Failure> {
        let known = match self.known.take() {
            Some(known) if known.0 == output.caps => known,
            _ => (
                output.caps.clone(),
                description(self.coding, &output.caps)
                    .ok_or_else(|| Failure::permanent("its pictures cannot be read"))?,
            ),
        };
        let (_, description) = self.known.insert(known);
        let map = output.buffer.map_readable();
        let map = map.map_err(|_| Failure::passing("a picture cannot be read"))?;
        let [shown, decoded] = [shown, decoded].map(|ticks| scaled(ticks, PICTURE_TIMESCALE));
        let sample = Sample {
            bytes: 0,
            decoded,
            shown,
            key,
        };
        mp4.write(self.track, description, sample, &map)
            .map_err(unwritten)
    }
}

impl Audio {
    fn write(
        &mut self,
        mp4: &mut Mp4,
        frame: &Frame<'_>,
        shown: i64,
        number: i64,
    ) -> Result<(), Failure> {
        let length = 1024 * i64::from(self.rate) / i64::from(frame.rate);
        let said = scaled(shown, self.rate) + number * length;
        let uneven = scaled(UNEVEN, self.rate);
        let at = match self.next {
            Some(next) if (said - next).abs() < uneven => next,
            // A track cannot go back.
            Some(next) => said.max(next),
            None => said,
        };
        self.next = Some(at + length);
        let sample = Sample {
            bytes: 0,
            decoded: at,
            shown: at,
            key: true,
        };
        mp4.write(self.track, &frame.description(), sample, frame.data)
            .map_err(unwritten)
    }
}

fn parser(coding: Coding) -> Result<Chain, Failure> {
    let (parser, stored) = match coding {
        Coding::H264 => ("h264parse", "video/x-h264,stream-format=avc,alignment=au"),
        Coding::H265 => ("h265parse", "video/x-h265,stream-format=hvc1,alignment=au"),
    };
    let filter = element("capsfilter")?;
    filter.set_property("caps", codecs::caps(stored));
    Chain::new(&[element(parser)?, filter])
}

fn description(coding: Coding, caps: &gst::Caps) -> Option<Description> {
    let structure = caps.structure(0)?;
    let side = |name| u16::try_from(structure.get::<i32>(name).unwrap_or(0)).unwrap_or(0);
    let pixel = structure.get::<gst::Fraction>("pixel-aspect-ratio").ok();
    let pixel = pixel.map(|p| (p.numer().unsigned_abs(), p.denom().unsigned_abs()));
    let data = structure.get::<gst::Buffer>("codec_data").ok()?;
    Some(Description {
        kind: match coding {
            Coding::H264 => b"avc1",
            Coding::H265 => b"hvc1",
        },
        setup: data.map_readable().ok()?.to_vec(),
        size: (side("width"), side("height")),
        pixel: pixel.filter(|p| p.0 > 0 && p.1 > 0).unwrap_or((1, 1)),
        channels: 0,
        rate: 0,
    })
}

fn scaled(ticks: i64, timescale: u32) -> i64 {
    let units = i128::from(ticks) * i128::from(timescale) + i128::from(TICKS / 2);
    i64::try_from(units.div_euclid(i128::from(TICKS))).unwrap_or(i64::MAX)
}

fn clock(ticks: i64) -> gst::ClockTime {
    gst::ClockTime::from_nseconds(ticks.max(0).unsigned_abs() * 100_000 / 9)
}

fn unwritten(error: std::io::Error) -> Failure {
    Failure::passing(format!("the recording cannot be exported: {error}"))
}
