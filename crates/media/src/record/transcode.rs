//! Sound that is no AAC, coded anew as AAC while it is recorded.

use gstreamer as gst;
use gstreamer::prelude::*;

use super::aac;
use super::cut::Sound;
use crate::chain::{Chain, Output, SHIFT_US, element, timed};
use crate::codecs::Codec;
use crate::error::Failure;

/// Bits a second, of one channel.
const BITRATE: i32 = 64_000;
/// Errors in a row after which it is given up.
const MAX_ERRORS: u32 = 100;
/// Times that jump further are coded as two.
const JUMP_US: i64 = 1_000_000;

/// Codes sound anew.
pub(crate) struct Transcoder {
    codec: &'static Codec,
    chain: Option<Chain>,
    last_us: Option<i64>,
    errors: u32,
}

impl Transcoder {
    pub(crate) fn new(codec: &'static Codec) -> Self {
        Self {
            codec,
            chain: None,
            last_us: None,
            errors: 0,
        }
    }

    /// Takes a coded frame and returns what is ready.
    ///
    /// # Errors
    /// When nothing can be decoded or coded at all.
    pub(crate) fn push(
        &mut self,
        caps: &gst::Caps,
        buffer: &gst::Buffer,
        position_us: i64,
    ) -> Result<Vec<Sound>, Failure> {
        let last = self.last_us.replace(position_us);
        if last.is_some_and(|last_us| (position_us - last_us).abs() > JUMP_US) {
            self.chain = None;
        }
        match self.code(caps, buffer, position_us) {
            Ok(outputs) => {
                self.errors = 0;
                Ok(outputs.into_iter().filter_map(sound).collect())
            }
            Err(failure) => {
                self.chain = None;
                self.errors += 1;
                if self.errors > MAX_ERRORS {
                    return Err(failure);
                }
                Ok(Vec::new())
            }
        }
    }

    /// What was held back. The next frame begins anew.
    pub(crate) fn finish(&mut self) -> Vec<Sound> {
        let held_back = self.chain.take().map(Chain::finish);
        let held_back = held_back.unwrap_or_default();
        held_back.into_iter().filter_map(sound).collect()
    }

    fn code(
        &mut self,
        caps: &gst::Caps,
        buffer: &gst::Buffer,
        position_us: i64,
    ) -> Result<Vec<Output>, Failure> {
        let chain = match &mut self.chain {
            Some(chain) => chain,
            none => none.insert(chain(self.codec, caps)?),
        };
        chain.push(caps, timed(buffer, position_us))
    }
}

fn chain(codec: &Codec, caps: &gst::Caps) -> Result<Chain, Failure> {
    let mut elements = Vec::with_capacity(5);
    elements.extend(codec.decoder()?);
    elements.push(element("audioconvert")?);
    elements.push(element("audioresample")?);
    let filter = element("capsfilter")?;
    let channels = gst::IntRange::new(1, 2);
    let raw = gst::Caps::builder("audio/x-raw").field("channels", channels);
    filter.set_property("caps", raw.build());
    elements.push(filter);
    let encoder = element("avenc_aac")?;
    let channels = caps
        .structure(0)
        .and_then(|s| s.get::<i32>("channels").ok());
    encoder.set_property(
        "bitrate",
        if channels == Some(1) {
            BITRATE
        } else {
            2 * BITRATE
        },
    );
    elements.push(encoder);
    Chain::new(&elements)
}

/// The encoder's frames come one frame before the time that they say: it looks ahead.
fn sound(output: Output) -> Option<Sound> {
    let structure = output.caps.structure(0)?;
    let data = structure.get::<gst::Buffer>("codec_data").ok()?;
    let config = aac::Config::parse(&data.map_readable().ok()?)?;
    let rate = structure.get::<i32>("rate").ok().filter(|rate| *rate > 0)?;
    let duration_us = aac::SAMPLES * 1_000_000 / i64::from(rate);
    let shown = i64::try_from(output.buffer.pts()?.useconds()).ok()?;
    Some(Sound {
        position_us: shown - SHIFT_US - duration_us,
        duration_us,
        config: Some(config),
        data: output.buffer,
    })
}
