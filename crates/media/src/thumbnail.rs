//! A picture out of a recorded segment.

use std::time::{Duration, Instant};

use gstreamer as gst;

use crate::codecs;
use crate::error::Failure;
use crate::picture::{Coded, Decoder, JpegEncoder, Picture};
use crate::record::{Unit, demux, unwrapped};

/// How long decoding may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// A picture is coded less finely if it would be larger.
const MAX_BYTES: usize = 900_000;

/// The picture that is shown this many microseconds after the start of a recorded segment, as a JPEG whose longest side is at
/// most `edge` pixels. Before the first picture that is the first, after the last the last. Blocks for up to 5 s.
///
/// # Errors
/// When the bytes are no segment, there are no pictures in it, or they cannot be decoded in time.
pub fn thumbnail(ts: &[u8], offset_us: i64, edge: u32) -> Result<Vec<u8>, Failure> {
    gst::init().map_err(|e| Failure::permanent(format!("GStreamer does not start: {e}")))?;
    let contents = demux(ts).ok_or_else(|| Failure::permanent("it is no recorded segment"))?;
    let without = || Failure::permanent("there are no pictures in this part of the recording");
    let coding = contents.coding.ok_or_else(without)?;
    let pictures: Vec<_> = contents.units.iter().filter(|unit| unit.is_video).collect();
    let known = pictures.first().ok_or_else(without)?.shown;
    let shown = |unit: &Unit| unwrapped(known, unit.shown);
    let start = pictures
        .iter()
        .map(|unit| shown(unit))
        .min()
        .unwrap_or(known);
    let wanted = start.saturating_add(offset_us.clamp(0, i64::MAX / 9) * 9 / 100);
    let times = pictures.iter().map(|unit| shown(unit));
    let chosen = times.filter(|at| *at <= wanted).max().unwrap_or(start);
    let before = |unit: &&Unit| unit.key && shown(unit) <= chosen;
    let from = pictures.iter().rposition(before).unwrap_or(0);
    let coded = pictures[from..].iter().map(|unit| Coded {
        buffer: gst::Buffer::from_slice(unit.data.clone()),
        caps: coding.caps(),
        position_us: (shown(unit) - start) * 100 / 9,
    });
    let picture = decode(coded, (chosen - start) * 100 / 9)?;
    let jpeg = JpegEncoder::new(edge)?.encode(&picture, MAX_BYTES)?;
    Ok(jpeg.into())
}

/// The picture of this position, or of the nearest that can be decoded before it, or after it.
fn decode(coded: impl Iterator<Item = Coded>, position_us: i64) -> Result<Picture, Failure> {
    let started = Instant::now();
    let mut decoder = None;
    let mut best: Option<Picture> = None;
    let mut take = |pictures: Vec<Picture>| {
        for picture in pictures {
            if best.is_none() || picture.position_us <= position_us {
                best = Some(picture);
            }
        }
        best.as_ref().is_some_and(|p| p.position_us >= position_us)
    };
    for coded in coded {
        if started.elapsed() > DEADLINE {
            return Err(Failure::passing("the picture could not be decoded in time"));
        }
        let decoder = match &mut decoder {
            Some(decoder) => decoder,
            none => none.insert(new_decoder(&coded.caps)?),
        };
        if take(decoder.push(&coded)?) {
            break;
        }
    }
    take(
        decoder
            .map(|mut decoder| decoder.drain())
            .unwrap_or_default(),
    );
    best.ok_or_else(|| Failure::permanent("the picture cannot be decoded"))
}

fn new_decoder(caps: &gst::Caps) -> Result<Decoder, Failure> {
    let codec = codecs::codec_of(caps);
    Decoder::new(codec.ok_or_else(|| Failure::permanent("its pictures are of no known kind"))?)
}
