//! The audio track: decoded to 16 kHz mono and cut into utterances.

use std::sync::Arc;

use gstreamer as gst;
use sightline_proto::internal::Utterance;
use sightline_proto::internal::child_report::Report;

use crate::chain::{Chain, Output, element};
use crate::codecs::Codec;
use crate::error::Failure;
use crate::session::Session;
use crate::speech::{Cutter, RATE, Speech, duration_us};

/// Decoders drop what lies before 0, and audio may start a little before it.
const SHIFT_US: i64 = 3_600_000_000;
/// Decoded before the wanted start, because decoders need some frames to settle.
const LEAD_US: i64 = 200_000;
/// Errors in a row after which the track is given up.
const MAX_ERRORS: u32 = 100;

/// The audio track of a source.
pub(crate) struct AudioTrack {
    session: Arc<Session>,
    codec: &'static Codec,
    chain: Option<Chain>,
    cutter: Option<Cutter>,
    version: u64,
    wanted: bool,
    from_us: i64,
    errors: u32,
}

impl AudioTrack {
    pub(crate) fn new(session: Arc<Session>, codec: &'static Codec) -> Self {
        Self {
            session,
            codec,
            chain: None,
            cutter: None,
            version: 0,
            wanted: false,
            from_us: 0,
            errors: 0,
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
        if !self.wanted {
            self.finish();
            self.chain = None;
            return Ok(());
        }
        if position_us + LEAD_US < self.from_us {
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
                self.chain = None;
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    /// The audio ends here: an utterance under way is over.
    pub(crate) fn finish(&mut self) {
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
        let chain = match &mut self.chain {
            Some(chain) => chain,
            none => none.insert(new_chain(self.codec)?),
        };
        let shifted = (position_us + SHIFT_US).max(0).unsigned_abs();
        let mut buffer = buffer.copy();
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(gst::ClockTime::from_useconds(shifted));
            buffer.set_dts(gst::ClockTime::NONE);
        }
        chain.push(caps, buffer)
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
        let early = samples_in(self.from_us.max(0) - position_us).min(samples.len());
        self.cut(position_us + duration_us(early), &samples[early..]);
        Ok(())
    }

    fn cut(&mut self, position_us: i64, samples: &[i16]) {
        if samples.is_empty() {
            return;
        }
        let goes_on = self.cutter.as_mut().is_some_and(|c| c.follow(position_us));
        if !goes_on {
            self.finish();
        }
        let cutter = self
            .cutter
            .get_or_insert_with(|| Cutter::starting_at(position_us));
        for speech in cutter.push(samples) {
            self.report(speech);
        }
    }

    fn report(&self, speech: Speech) {
        let pcm: Vec<u8> = speech
            .samples
            .iter()
            .flat_map(|s| s.to_le_bytes())
            .collect();
        self.session.report(Report::Utterance(Utterance {
            start_position_us: speech.start_us,
            pcm: pcm.into(),
        }));
    }

    fn follow_wishes(&mut self) {
        if let Some((take, version)) = self.session.control.take_since(self.version) {
            self.version = version;
            self.wanted = take.audio;
            self.from_us = take.audio_from_us;
        }
    }
}

/// How many samples that is; none for a time that has passed.
fn samples_in(us: i64) -> usize {
    usize::try_from(us).map_or(0, |us| us.saturating_mul(RATE) / 1_000_000)
}

fn new_chain(codec: &Codec) -> Result<Chain, Failure> {
    let filter = element("capsfilter")?;
    let caps = gst::Caps::builder("audio/x-raw")
        .field("format", "S16LE")
        .field("layout", "interleaved")
        .field("rate", RATE as i32)
        .field("channels", 1)
        .build();
    gst::prelude::ObjectExt::set_property(&filter, "caps", caps);
    let mut elements = Vec::with_capacity(4);
    elements.extend(codec.decoder()?);
    elements.push(element("audioconvert")?);
    elements.push(element("audioresample")?);
    elements.push(filter);
    Chain::new(&elements)
}
