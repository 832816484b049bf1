//! From coded pictures to JPEGs: decoding what is asked for, scaling, encoding.

use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;

use crate::chain::{Chain, Output, element};
use crate::codecs::{self, Codec};
use crate::error::Failure;

/// Quality of the JPEGs: the first, unless the picture is too large in bytes with it.
const QUALITIES: [i32; 4] = [85, 65, 45, 25];
/// Decoders drop what lies before 0, and pictures may lie a little before it.
const SHIFT_US: i64 = 3_600_000_000;

/// A coded picture.
#[derive(Debug, Clone)]
pub(crate) struct Coded {
    pub(crate) buffer: gst::Buffer,
    pub(crate) caps: gst::Caps,
    pub(crate) position_us: i64,
}

/// A decoded picture.
pub(crate) struct Picture {
    output: Output,
    pub(crate) position_us: i64,
}

impl Picture {
    /// As it came out of the decoder.
    pub(crate) fn decoded(&self) -> &Output {
        &self.output
    }
}

/// Decodes pictures, in coding order in and in showing order out.
pub(crate) struct Decoder {
    chain: Chain,
}

impl Decoder {
    /// A decoder for a codec.
    ///
    /// # Errors
    /// When the plugin is missing.
    pub(crate) fn new(codec: &Codec) -> Result<Self, Failure> {
        let decoder = codec.decoder()?.ok_or_else(|| {
            Failure::permanent("its pictures are not coded, which is not supported")
        })?;
        Ok(Self {
            chain: Chain::new(&[decoder])?,
        })
    }

    /// Takes the next picture and returns those that are ready.
    ///
    /// # Errors
    /// When the decoder gives up; a damaged picture alone is no reason.
    pub(crate) fn push(&mut self, coded: &Coded) -> Result<Vec<Picture>, Failure> {
        let shifted = (coded.position_us + SHIFT_US).max(0).unsigned_abs();
        let mut buffer = coded.buffer.copy();
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(gst::ClockTime::from_useconds(shifted));
            buffer.set_dts(gst::ClockTime::NONE);
        }
        Ok(pictures(self.chain.push(&coded.caps, buffer)?))
    }

    /// Returns the pictures that were held back. The next one pushed must be a keyframe.
    pub(crate) fn drain(&mut self) -> Vec<Picture> {
        pictures(self.chain.drain_pictures())
    }
}

fn pictures(outputs: Vec<Output>) -> Vec<Picture> {
    outputs
        .into_iter()
        .filter_map(|output| {
            let shifted = i64::try_from(output.buffer.pts()?.useconds()).ok()?;
            Some(Picture {
                output,
                position_us: shifted - SHIFT_US,
            })
        })
        .collect()
}

/// Scales pictures and makes JPEGs of them.
pub(crate) struct JpegEncoder {
    chain: Chain,
    filter: gst::Element,
    encoder: gst::Element,
    /// The caps that `filter` is set for.
    input: Option<gst::Caps>,
    edge: u32,
}

impl JpegEncoder {
    /// An encoder for pictures whose longest side is scaled down to `edge` pixels.
    ///
    /// # Errors
    /// When a plugin is missing.
    pub(crate) fn new(edge: u32) -> Result<Self, Failure> {
        let scaler = element("videoconvertscale")?;
        // Averages over all of the source's pixels; the cheaper ones pick some and shimmer.
        scaler.set_property_from_str("method", "bilinear2");
        let filter = element("capsfilter")?;
        let encoder = element("jpegenc")?;
        Ok(Self {
            chain: Chain::new(&[scaler, filter.clone(), encoder.clone()])?,
            filter,
            encoder,
            input: None,
            edge,
        })
    }

    /// The picture as a JPEG, of lower quality if it would be larger than `most_bytes` otherwise.
    ///
    /// # Errors
    /// When the picture is of no known kind or too large.
    pub(crate) fn encode(
        &mut self,
        picture: &Picture,
        most_bytes: usize,
    ) -> Result<Bytes, Failure> {
        let caps = &picture.output.caps;
        if self.input.as_ref() != Some(caps) {
            codecs::check_size(caps)?;
            self.filter
                .set_property("caps", target_caps(caps, self.edge)?);
            self.input = Some(caps.clone());
        }
        let unfit = || Failure::passing("a picture could not be encoded");
        let mut jpeg = Bytes::new();
        for quality in QUALITIES {
            self.encoder.set_property("quality", quality);
            let encoded = self.chain.push(caps, picture.output.buffer.clone())?;
            let output = encoded.first().ok_or_else(unfit)?;
            let map = output.buffer.map_readable().map_err(|_| unfit())?;
            jpeg = Bytes::copy_from_slice(&map);
            if jpeg.len() <= most_bytes {
                break;
            }
        }
        Ok(jpeg)
    }
}

/// What a picture becomes: scaled, with square pixels, as RGB: the JPEG encoder makes of that the colours that every JPEG
/// has. From YUV it would take limited-range ones as they are, and GStreamer 1.22 does not stretch them by itself.
fn target_caps(caps: &gst::Caps, edge: u32) -> Result<gst::Caps, Failure> {
    let info = gst_video::VideoInfo::from_caps(caps)
        .map_err(|_| Failure::permanent("its decoded pictures are of an unknown kind"))?;
    let par = info.par();
    let shown = u64::from(info.width()) * u64::from(par.numer().max(1).unsigned_abs())
        / u64::from(par.denom().max(1).unsigned_abs());
    let (width, height) = scaled(shown, u64::from(info.height()), u64::from(edge));
    Ok(gst::Caps::builder("video/x-raw")
        .field("format", "RGBx")
        .field("width", width)
        .field("height", height)
        .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
        .build())
}

/// The longest side at most `edge`, never larger than before, the other in proportion, both even.
fn scaled(width: u64, height: u64, edge: u64) -> (i32, i32) {
    let longest = width.max(height).max(1);
    let edge = if edge == 0 {
        longest
    } else {
        edge.min(longest)
    };
    let side = |pixels: u64| {
        let scaled = (pixels * edge + longest / 2) / longest;
        i32::try_from((scaled & !1).max(2)).unwrap_or(2)
    };
    (side(width), side(height))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_scaled_down_in_proportion_and_never_up() {
        for (width, height, edge, expected) in [
            (1920, 1080, 512, (512, 288)),
            (1080, 1920, 512, (288, 512)),
            (640, 360, 512, (512, 288)),
            (320, 241, 512, (320, 240)),
            (640, 360, 0, (640, 360)),
            (4000, 2, 512, (512, 2)),
            (1, 1, 512, (2, 2)),
        ] {
            assert_eq!(scaled(width, height, edge), expected, "{width}x{height}");
        }
    }
}
