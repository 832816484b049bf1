//! The audio track: decoded to 16 kHz mono, cut into utterances and measured.

use std::sync::Arc;

use gstreamer as gst;
use gstreamer::prelude::*;
use sightline_proto::internal::child_report::Report;
use sightline_proto::internal::measured_window::What;
use sightline_proto::internal::{MeasuredWindow, Utterance};

use crate::chain::{Chain, Output, SHIFT_US, element, timed};
use crate::codecs::Codec;
use crate::error::Failure;
use crate::measure::{Heard, SoundMeter};
use crate::session::Session;
use crate::speech::{Cutter, RATE, Speech};

/// Heard before the wanted start, because decoders and the detector of speech need some frames to settle.
pub(crate) const LEAD_US: i64 = 1_000_000;
/// How often an utterance is told before it is over.
const INTERIM_US: i64 = 1_000_000;
/// Errors in a row after which the track is given up.
const MAX_ERRORS: u32 = 100;

/// The audio track of a source.
pub(crate) struct AudioTrack {
    session: Arc<Session>,
    codec: &'static Codec,
    chains: Option<Chains>,
    cutter: Option<Cutter>,
    version: u64,
    wanted: bool,
    from_us: i64,
    /// The transcription session.
    session_number: u32,
    /// Measures, where that is wanted.
    meter: Option<SoundMeter>,
    errors: u32,
    /// Where an utterance that is not over is told again.
    interim_us: i64,
}

impl AudioTrack {
    pub(crate) fn new(session: Arc<Session>, codec: &'static Codec) -> Self {
        Self {
            session,
            codec,
            chains: None,
            cutter: None,
            version: 0,
            wanted: false,
            from_us: 0,
            session_number: 0,
            meter: None,
            errors: 0,
            interim_us: 0,
        }
    }

    /// Takes the next coded frame.
    ///
    /// # Errors
    /// When nothing can be decoded at all.
    pub(crate) fn push(
        &mut self,
        caps: &gst::Caps,
        buffer: &gst::Buffer,
        position_us: i64,
    ) -> Result<(), Failure> {
        self.follow_wishes();
        let transcribed = self.wanted && position_us + LEAD_US >= self.from_us;
        let measured = self.meter.as_ref().map(SoundMeter::start_us);
        if !transcribed && measured.is_none_or(|start_us| position_us < start_us) {
            return Ok(());
        }
        match self.decode(caps, buffer, position_us) {
            Ok(outputs) => {
                self.errors = 0;
                for output in outputs {
                    self.hear(&output)?;
                }
                Ok(())
            }
            Err(_) if self.errors < MAX_ERRORS => {
                self.errors += 1;
                self.chains = None;
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    /// The audio ends here: an utterance under way is over, and what was heard of a window is all of it.
    pub(crate) fn finish(&mut self) {
        self.finish_utterance();
        if let Some(heard) = self.meter.as_mut().and_then(SoundMeter::finish) {
            self.report_measured(heard);
        }
    }

    fn finish_utterance(&mut self) {
        if let Some(speech) = self.cutter.take().and_then(|mut c| c.finish()) {
            self.report(speech);
        }
    }

    fn decode(
        &mut self,
        caps: &gst::Caps,
        buffer: &gst::Buffer,
        position_us: i64,
    ) -> Result<Vec<Output>, Failure> {
        let chains = match &mut self.chains {
            Some(chains) => chains,
            none => none.insert(Chains::new(self.codec)?),
        };
        chains.push(caps, timed(buffer, position_us))
    }

    fn hear(&mut self, output: &Output) -> Result<(), Failure> {
        let Some(pts) = output.buffer.pts() else {
            return Ok(());
        };
        let map = output
            .buffer
            .map_readable()
            .map_err(|_| Failure::passing("audio cannot be read"))?;
        let samples: Vec<i16> = map
            .chunks_exact(2)
            .map(|bytes| i16::from_le_bytes([bytes[0], bytes[1]]))
            .collect();
        let position_us = i64::try_from(pts.useconds()).unwrap_or(i64::MAX) - SHIFT_US;
        if let Some(over) = self
            .meter
            .as_mut()
            .and_then(|m| m.push(position_us, &samples))
        {
            self.report_measured(over);
        }
        if self.wanted {
            self.cut(position_us, &samples);
        }
        Ok(())
    }

    fn cut(&mut self, position_us: i64, samples: &[i16]) {
        let goes_on = self.cutter.as_mut().is_some_and(|c| c.follow(position_us));
        if !goes_on {
            self.finish_utterance();
        }
        let from_us = self.from_us.max(0);
        let cutter = self
            .cutter
            .get_or_insert_with(|| Cutter::starting_at(position_us, from_us));
        for speech in cutter.push(samples) {
            self.report(speech);
        }
        if self.session.interim {
            self.tell(position_us);
        }
    }

    /// Tells what was heard so far of an utterance that is not over, a second after it began and each second from then on.
    fn tell(&mut self, position_us: i64) {
        let speaking = self.cutter.as_ref().filter(|c| c.is_speaking());
        let Some(cutter) = speaking else {
            self.interim_us = position_us + INTERIM_US;
            return;
        };
        if position_us >= self.interim_us
            && let Some(speech) = cutter.so_far()
        {
            self.interim_us = position_us + INTERIM_US;
            let interim = self.utterance(&speech);
            self.session.report(Report::Interim(interim));
        }
    }

    fn report(&self, speech: Speech) {
        self.session
            .report(Report::Utterance(self.utterance(&speech)));
    }

    fn utterance(&self, speech: &Speech) -> Utterance {
        let samples = speech.samples.iter();
        let pcm: Vec<u8> = samples.flat_map(|s| s.to_le_bytes()).collect();
        Utterance {
            start_position_us: speech.start_us,
            pcm: pcm.into(),
            session: self.session_number,
        }
    }

    fn report_measured(&self, heard: Heard) {
        let timeline = &self.session.timeline;
        self.session.report(Report::Measured(MeasuredWindow {
            window: heard.window,
            captured_us: timeline.captured_us(heard.last_us),
            sampled_us: timeline.now_us(),
            what: Some(What::Sound(heard.sound)),
        }));
    }

    fn follow_wishes(&mut self) {
        if let Some((take, version)) = self.session.control.take_since(self.version) {
            self.version = version;
            let goes_on = self.wanted && take.audio && take.audio_session == self.session_number;
            if !goes_on && (self.wanted || take.audio) {
                // What was heard before belongs to the session before.
                self.finish_utterance();
                self.chains = None;
            }
            self.meter = take.measure_sound.then(|| {
                let known = self.meter.take();
                known.unwrap_or_else(|| SoundMeter::from_window(take.sound_from_window))
            });
            self.wanted = take.audio;
            self.from_us = take.audio_from_us;
            self.session_number = take.audio_session;
        }
    }
}

/// From coded audio to 16 kHz.
struct Chains {
    decoding: Chain,
    resampling: Chain,
    /// Whether the resampler has begun.
    begun: bool,
}

impl Chains {
    fn new(codec: &Codec) -> Result<Self, Failure> {
        let mut decoding = Vec::with_capacity(3);
        decoding.extend(codec.decoder()?);
        decoding.push(element("audioconvert")?);
        decoding.push(samples(gst::Caps::builder("audio/x-raw"))?);
        let at_rate = gst::Caps::builder("audio/x-raw").field("rate", RATE as i32);
        Ok(Self {
            decoding: Chain::new(&decoding)?,
            resampling: Chain::new(&[element("audioresample")?, samples(at_rate)?])?,
            begun: false,
        })
    }

    fn push(&mut self, caps: &gst::Caps, buffer: gst::Buffer) -> Result<Vec<Output>, Failure> {
        let mut resampled = Vec::new();
        for decoded in self.decoding.push(caps, buffer)? {
            let buffer = match self.begun {
                true => Some(decoded.buffer),
                false => from_whole_centisecond(&decoded),
            };
            if let Some(buffer) = buffer {
                self.begun = true;
                resampled.extend(self.resampling.push(&decoded.caps, buffer)?);
            }
        }
        Ok(resampled)
    }
}

/// A filter for one channel of 16 bits, and what else the caps say.
fn samples(caps: gst::caps::Builder<gst::caps::NoFeature>) -> Result<gst::Element, Failure> {
    let filter = element("capsfilter")?;
    let caps = caps
        .field("format", "S16LE")
        .field("layout", "interleaved")
        .field("channels", 1)
        .build();
    filter.set_property("caps", caps);
    Ok(filter)
}

/// What lies from the next whole hundredth of a second on. A resampler that begins there makes of the same audio the same
/// samples, wherever reading began; so speech that is cut again after a crash begins at the same time again.
fn from_whole_centisecond(decoded: &Output) -> Option<gst::Buffer> {
    const BYTES: u64 = 2;
    let rate: i32 = decoded.caps.structure(0)?.get("rate").ok()?;
    let rate = u64::try_from(rate).ok().filter(|rate| *rate > 0)?;
    let pts = decoded.buffer.pts()?.nseconds();
    let sample = u128::from(pts) * u128::from(rate) + 500_000_000;
    let sample = u64::try_from(sample / 1_000_000_000).ok()?;
    let whole = sample.div_ceil(rate / 100) * (rate / 100);
    let skipped = usize::try_from((whole - sample) * BYTES).ok()?;
    if skipped >= decoded.buffer.size() {
        return None;
    }
    let mut rest = decoded
        .buffer
        .copy_region(gst::BufferCopyFlags::MEMORY, skipped..)
        .ok()?;
    let start = whole * 1_000_000 / rate;
    rest.get_mut()?
        .set_pts(gst::ClockTime::from_useconds(start));
    Some(rest)
}
