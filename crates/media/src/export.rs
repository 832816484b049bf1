//! Recorded segments into one MP4, without coding anything anew.

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use crate::chain::element;
use crate::codecs;
use crate::error::Failure;
use crate::record::{Coding, Contents, Unit, demux, frames, unwrapped};

/// How many segments are looked at to find out whether there are pictures and sound.
const LOOKED_AT: usize = 3;
/// What waits to be written before more is read.
const MAX_WAITING: u64 = 8 << 20;
/// How long writing may make no progress, and how long the end may take, in which everything is copied once.
const STUCK: Duration = Duration::from_secs(60);
const LAST_STEP: Duration = Duration::from_secs(900);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// The last picture of all is shown for this long, in ticks of 90 kHz.
const LAST_PICTURE: i64 = 3_600;

/// Writes recorded segments, in their order, into one MP4 that can be played while it is loaded, and returns its duration in
/// microseconds. Where segments are missing, what follows keeps its distance in time. `next` hands out the segments; at most
/// a few are held at a time. Blocks; the file may be there in part when this fails.
///
/// # Errors
/// When there are no segments, something is none, the way its pictures are coded changes, or the file cannot be written.
pub fn export(
    mut next: impl FnMut() -> Option<Bytes> + Send + 'static,
    file: &Path,
) -> Result<i64, Failure> {
    gst::init().map_err(|e| Failure::permanent(format!("GStreamer does not start: {e}")))?;
    let mut read = move || next().map(|ts| take_apart(&ts));
    let mut first = Vec::with_capacity(LOOKED_AT);
    while first.len() < LOOKED_AT
        && let Some(contents) = read()
    {
        first.push(contents?);
    }
    let coding = first.iter().find_map(|contents| contents.coding);
    let sound = first.iter().find_map(Sound::of);
    let times = first.iter().flat_map(|contents| &contents.units);
    let start = times.map(|unit| unit.decoded).next();
    let start = start.ok_or_else(|| Failure::permanent("nothing is recorded there"))?;
    let mut writer = Writer::new(coding, sound, start, file)?;
    for contents in first {
        writer.write(contents)?;
    }
    while let Some(contents) = read() {
        writer.write(contents?)?;
    }
    writer.finish()
}

fn take_apart(ts: &[u8]) -> Result<Contents, Failure> {
    demux(ts).ok_or_else(|| Failure::permanent("it holds something that is no recorded segment"))
}

/// What all of the sound is like.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Sound {
    config: [u8; 2],
    rate: u32,
    channels: u8,
}

impl Sound {
    fn of(contents: &Contents) -> Option<Self> {
        let unit = contents.units.iter().find(|unit| !unit.is_video)?;
        let frame = frames(&unit.data).into_iter().next()?;
        Some(Self {
            config: frame.config,
            rate: frame.rate,
            channels: frame.channels,
        })
    }

    fn caps(self) -> gst::Caps {
        gst::Caps::builder("audio/mpeg")
            .field("mpegversion", 4)
            .field("stream-format", "raw")
            .field("framed", true)
            .field("codec_data", gst::Buffer::from_slice(self.config))
            .field("rate", i32::try_from(self.rate).unwrap_or(48_000))
            .field("channels", i32::from(self.channels))
            .build()
    }
}

/// The file under way.
struct Writer {
    pipeline: gst::Pipeline,
    video: Option<(Coding, gst_app::AppSrc)>,
    audio: Option<(Sound, gst_app::AppSrc)>,
    /// Time 0 of the file, and the latest that was read.
    start: i64,
    known: i64,
    shown: Option<(i64, i64)>,
}

impl Writer {
    fn new(
        coding: Option<Coding>,
        sound: Option<Sound>,
        start: i64,
        file: &Path,
    ) -> Result<Self, Failure> {
        let pipeline = gst::Pipeline::new();
        let muxer = element("mp4mux")?;
        muxer.set_property("faststart", true);
        muxer.set_property("faststart-file", file.with_extension("part"));
        let sink = element("filesink")?;
        sink.set_property("location", file);
        sink.set_property("sync", false);
        link(&pipeline, &[muxer.clone(), sink])?;
        let video = match coding {
            Some(coding) => {
                let (parser, caps) = match coding {
                    Coding::H264 => ("h264parse", "video/x-h264"),
                    Coding::H265 => ("h265parse", "video/x-h265"),
                };
                let mut caps = codecs::caps(caps);
                if let Some(structure) = caps.get_mut().and_then(|c| c.structure_mut(0)) {
                    structure.set("stream-format", "byte-stream");
                    structure.set("alignment", "au");
                }
                let source = source(&caps);
                let parser = element(parser)?;
                link(&pipeline, &[source.clone().upcast(), parser])?;
                Some((coding, source))
            }
            None => None,
        };
        let audio = match sound {
            Some(sound) => {
                let source = source(&sound.caps());
                link(&pipeline, &[source.clone().upcast()])?;
                Some((sound, source))
            }
            None => None,
        };
        let writer = Self {
            pipeline,
            video,
            audio,
            start,
            known: start,
            shown: None,
        };
        writer.connect(&muxer)?;
        writer
            .pipeline
            .set_state(gst::State::Playing)
            .map_err(|_| {
                writer
                    .failure()
                    .unwrap_or_else(|| unwritten("it does not start"))
            })?;
        Ok(writer)
    }

    /// Every source, and what parses it, to the muxer.
    fn connect(&self, muxer: &gst::Element) -> Result<(), Failure> {
        let sources = self.video.iter().map(|(_, source)| source);
        for source in sources.chain(self.audio.iter().map(|(_, source)| source)) {
            let parser = source.static_pad("src").and_then(|pad| pad.peer());
            let last = parser.and_then(|pad| pad.parent_element());
            let last = last.unwrap_or_else(|| source.clone().upcast());
            last.link(muxer).map_err(|e| unwritten(&e.message))?;
        }
        Ok(())
    }

    fn write(&mut self, contents: Contents) -> Result<(), Failure> {
        let coding = self.video.as_ref().map(|(coding, _)| *coding);
        if contents.coding.is_some() && coding.is_some() && contents.coding != coding {
            let reason = "the way its pictures are coded changes: export what comes before and after it apart";
            return Err(Failure::permanent(reason));
        }
        let Some(first) = contents.units.first() else {
            return Ok(());
        };
        let known = unwrapped(self.known, first.decoded);
        self.known = known;
        let mut ends = [known, known];
        for unit in contents.units {
            let times = [unit.shown, unit.decoded].map(|time| unwrapped(known, time));
            ends[usize::from(unit.is_video)] = ends[usize::from(unit.is_video)].max(times[0]);
            self.note(times[0]);
            if unit.is_video {
                self.push_picture(unit, times);
            } else {
                self.push_sound(&unit, times[0]);
            }
        }
        // The muxer waits for every track: what has nothing in this segment has to say so.
        let end = ends[0].max(ends[1]);
        for (is_video, source) in [
            (false, self.audio.as_ref().map(|a| &a.1)),
            (true, self.video.as_ref().map(|v| &v.1)),
        ] {
            if let Some(source) = source.filter(|_| ends[usize::from(is_video)] == known) {
                let gap = gst::event::Gap::builder(self.time(known))
                    .duration(self.time(end).saturating_sub(self.time(known)));
                source.send_event(gap.build());
            }
        }
        self.wait_until_written()
    }

    fn note(&mut self, shown: i64) {
        let (first, last) = self.shown.unwrap_or((shown, shown));
        self.shown = Some((first.min(shown), last.max(shown)));
    }

    fn time(&self, ticks: i64) -> gst::ClockTime {
        let since = u64::try_from(ticks - self.start).unwrap_or(0);
        gst::ClockTime::from_nseconds(since.saturating_mul(100_000) / 9)
    }

    fn push_picture(&self, unit: Unit, [shown, decoded]: [i64; 2]) {
        let Some((_, source)) = &self.video else {
            return;
        };
        let mut buffer = gst::Buffer::from_mut_slice(unit.data);
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(self.time(shown));
            buffer.set_dts(self.time(decoded));
            if !unit.key {
                buffer.set_flags(gst::BufferFlags::DELTA_UNIT);
            }
        }
        // What cannot be taken is on the pipeline's bus.
        let _ = source.push_buffer(buffer);
    }

    fn push_sound(&self, unit: &Unit, shown: i64) {
        let Some((sound, source)) = &self.audio else {
            return;
        };
        let start = self.time(shown);
        for (number, frame) in (0..).zip(frames(&unit.data)) {
            if frame.config != sound.config {
                continue;
            }
            let length = |frames: u64| {
                let samples = frames * 1024 * 1_000_000_000;
                gst::ClockTime::from_nseconds(samples / u64::from(sound.rate))
            };
            let mut buffer = gst::Buffer::from_mut_slice(frame.data.to_vec());
            if let Some(buffer) = buffer.get_mut() {
                buffer.set_pts(start + length(number));
                buffer.set_dts(start + length(number));
                buffer.set_duration(length(1));
            }
            let _ = source.push_buffer(buffer);
        }
    }

    fn waiting(&self) -> u64 {
        let video = self.video.as_ref().map(|(_, source)| source);
        let audio = self.audio.as_ref().map(|(_, source)| source);
        let sources = video.into_iter().chain(audio);
        sources.map(gst_app::AppSrc::current_level_bytes).sum()
    }

    /// Waits until little enough waits.
    fn wait_until_written(&self) -> Result<(), Failure> {
        let (mut least, mut since) = (u64::MAX, Instant::now());
        loop {
            if let Some(failure) = self.failure() {
                return Err(failure);
            }
            let waiting = self.waiting();
            if waiting <= MAX_WAITING {
                return Ok(());
            }
            if waiting < least {
                (least, since) = (waiting, Instant::now());
            } else if since.elapsed() > STUCK {
                return Err(unwritten("writing makes no progress"));
            }
            self.look(&[]);
        }
    }

    /// Waits a little for one of these messages.
    fn look(&self, kinds: &[gst::MessageType]) -> Option<gst::Message> {
        let bus = self.pipeline.bus()?;
        let kinds = if kinds.is_empty() {
            &[gst::MessageType::Application]
        } else {
            kinds
        };
        bus.timed_pop_filtered(gst::ClockTime::try_from(LOOK).ok(), kinds)
    }

    fn failure(&self) -> Option<Failure> {
        let bus = self.pipeline.bus()?;
        let message = bus.pop_filtered(&[gst::MessageType::Error])?;
        match message.view() {
            gst::MessageView::Error(error) => Some(unwritten(&error.error().to_string())),
            _ => None,
        }
    }

    fn finish(self) -> Result<i64, Failure> {
        for source in self
            .video
            .iter()
            .map(|v| &v.1)
            .chain(self.audio.iter().map(|a| &a.1))
        {
            let _ = source.end_of_stream();
        }
        let started = Instant::now();
        while started.elapsed() < LAST_STEP {
            if let Some(failure) = self.failure() {
                return Err(failure);
            }
            if self.look(&[gst::MessageType::Eos]).is_some() {
                let (first, last) = self.shown.unwrap_or_default();
                return Ok((last + LAST_PICTURE - first) * 100 / 9);
            }
        }
        Err(unwritten("it does not come to an end"))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

fn source(caps: &gst::Caps) -> gst_app::AppSrc {
    // Bounded by waiting after each segment: blocking on one track could wait for the other for ever.
    gst_app::AppSrc::builder()
        .caps(caps)
        .format(gst::Format::Time)
        .max_bytes(0)
        .max_buffers(0)
        .build()
}

fn link(pipeline: &gst::Pipeline, elements: &[gst::Element]) -> Result<(), Failure> {
    pipeline
        .add_many(elements)
        .and_then(|()| gst::Element::link_many(elements))
        .map_err(|e| unwritten(&e.message))
}

fn unwritten(why: &str) -> Failure {
    Failure::passing(format!("the recording cannot be exported: {why}"))
}
