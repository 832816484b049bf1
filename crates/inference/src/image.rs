//! Frames as RGB pixels: decoding from JPEG, and scaling exactly as Pillow does.

use std::f64::consts::PI;

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use crate::InferenceError;

/// Largest width and height in pixels that a frame may have.
pub const MAX_IMAGE_EDGE: usize = 8192;

const CHANNELS: usize = 3;

/// An image of 8 bit red, green and blue, row after row.
#[derive(Clone, PartialEq, Eq)]
pub struct RgbImage {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

impl RgbImage {
    /// Wraps `pixels` (`width` x `height` x 3 bytes, rows from the top).
    pub fn new(width: usize, height: usize, pixels: Vec<u8>) -> Result<Self, InferenceError> {
        let fits = (1..=MAX_IMAGE_EDGE).contains(&width) && (1..=MAX_IMAGE_EDGE).contains(&height);
        if !fits || pixels.len() != width * height * CHANNELS {
            return Err(InferenceError::InvalidInput(format!(
                "an image of {width}x{height} pixels with {} bytes; it needs edges of 1 to \
                 {MAX_IMAGE_EDGE} and 3 bytes a pixel",
                pixels.len()
            )));
        }
        Ok(Self {
            width,
            height,
            pixels,
        })
    }

    /// Decodes a JPEG, colour or grey. Larger than [`MAX_IMAGE_EDGE`] is refused before decoding.
    pub fn from_jpeg(jpeg: &[u8]) -> Result<Self, InferenceError> {
        let options = DecoderOptions::default()
            .set_max_width(MAX_IMAGE_EDGE)
            .set_max_height(MAX_IMAGE_EDGE)
            .jpeg_set_out_colorspace(ColorSpace::RGB);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(jpeg), options);
        let pixels = decoder.decode().map_err(|e| InferenceError::Image {
            problem: e.to_string(),
        })?;
        let (width, height) = decoder.dimensions().unwrap_or_default();
        Self::new(width, height, pixels)
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The bytes: `width` x `height` x 3, rows from the top.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Scales to `width` x `height`, bit for bit as Pillow's `Image.resize` does.
    ///
    /// Pillow's arithmetic (`src/libImaging/Resample.c`): weights rounded to 22 fractional bits,
    /// one direction after the other, each pass rounded to 8 bits. SIMD resizers keep 16 bit weights and differ by a
    /// grey level here and there, which is enough to change what a model says.
    pub(crate) fn resize(&self, width: usize, height: usize, filter: Filter) -> Self {
        let in_width = |image: &Self| match image.width == width {
            true => image.clone(),
            false => image.resize_rows(width, filter),
        };
        let in_height = |image: &Self| match image.height == height {
            true => image.clone(),
            false => image.resize_columns(height, filter),
        };
        if self.loses_height_first(width, height) {
            in_width(&in_height(self))
        } else {
            in_height(&in_width(self))
        }
    }

    /// Since version 13 Pillow begins with the height if more than twice as much of it goes as of the width, which is
    /// so for portraits (found by trying: all of 110 random sizes agree).
    fn loses_height_first(&self, width: usize, height: usize) -> bool {
        height < self.height && self.height - height + 2 * width > 2 * self.width
    }

    /// The part of `width` x `height` pixels that begins at column `x` and row `y`, which lies within the image.
    pub(crate) fn crop(&self, x: usize, y: usize, width: usize, height: usize) -> Self {
        let rows = self.pixels.chunks_exact(self.width * CHANNELS);
        let rows = rows.skip(y).take(height);
        let columns = x * CHANNELS..(x + width) * CHANNELS;
        Self {
            width,
            height,
            pixels: rows
                .flat_map(|row| &row[columns.clone()])
                .copied()
                .collect(),
        }
    }

    fn resize_rows(&self, width: usize, filter: Filter) -> Self {
        let taps = Taps::new(self.width, width, filter);
        let mut pixels = Vec::with_capacity(width * self.height * CHANNELS);
        for row in self.pixels.chunks_exact(self.width * CHANNELS) {
            let (row, _) = row.as_chunks::<CHANNELS>();
            for (start, weights) in taps.iter() {
                let [mut red, mut green, mut blue] = [ROUND; CHANNELS];
                for (&[r, g, b], &weight) in row[start..].iter().zip(weights) {
                    red += i32::from(r) * weight;
                    green += i32::from(g) * weight;
                    blue += i32::from(b) * weight;
                }
                pixels.extend_from_slice(&[to_u8(red), to_u8(green), to_u8(blue)]);
            }
        }
        Self {
            width,
            height: self.height,
            pixels,
        }
    }

    fn resize_columns(&self, height: usize, filter: Filter) -> Self {
        let stride = self.width * CHANNELS;
        let mut pixels = Vec::with_capacity(stride * height);
        let mut sums = vec![0_i32; stride];
        for (start, weights) in Taps::new(self.height, height, filter).iter() {
            sums.fill(ROUND);
            let source = self.pixels[start * stride..].chunks_exact(stride);
            for (row, &weight) in source.zip(weights) {
                for (sum, &value) in sums.iter_mut().zip(row) {
                    *sum += i32::from(value) * weight;
                }
            }
            pixels.extend(sums.iter().map(|&sum| to_u8(sum)));
        }
        Self {
            width: self.width,
            height,
            pixels,
        }
    }
}

impl std::fmt::Debug for RgbImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RgbImage({}x{})", self.width, self.height)
    }
}

/// A resampling filter, by Pillow's definitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Filter {
    Lanczos,
    Bilinear,
    Bicubic,
}

impl Filter {
    /// The filter with this number in Pillow and in `preprocessor_config.json`.
    pub(crate) fn from_pillow(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Lanczos),
            2 => Some(Self::Bilinear),
            3 => Some(Self::Bicubic),
            _ => None,
        }
    }

    fn support(self) -> f64 {
        match self {
            Self::Lanczos => 3.0,
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn weight(self, x: f64) -> f64 {
        match self {
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Lanczos => 0.0,
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
            Self::Bicubic => bicubic(x.abs()),
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 {
        1.0
    } else {
        (x * PI).sin() / (x * PI)
    }
}

/// The cubic convolution kernel with a = -0.5.
fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

const WEIGHT_BITS: u32 = 22;
const ROUND: i32 = 1 << (WEIGHT_BITS - 1);

#[inline]
fn to_u8(sum: i32) -> u8 {
    (sum >> WEIGHT_BITS).clamp(0, 255) as u8
}

/// For every output position: where its inputs start, and their fixed-point weights.
struct Taps {
    starts: Vec<(usize, usize)>,
    weights: Vec<i32>,
}

impl Taps {
    fn new(from: usize, to: usize, filter: Filter) -> Self {
        let scale = from as f64 / to as f64;
        let stretch = scale.max(1.0);
        let support = filter.support() * stretch;
        let mut taps = Self {
            starts: Vec::with_capacity(to),
            weights: Vec::new(),
        };
        let mut row = Vec::new();
        for position in 0..to {
            let center = (position as f64 + 0.5) * scale;
            // Casts truncate and clamp below at 0, as in Pillow.
            let start = (center - support + 0.5) as usize;
            let end = ((center + support + 0.5) as usize).min(from);
            row.clear();
            row.extend(
                (start..end).map(|i| filter.weight((i as f64 - center + 0.5) * (1.0 / stretch))),
            );
            let total: f64 = row.iter().sum();
            taps.starts.push((start, end - start));
            taps.weights.extend(row.iter().map(|w| fixed(w / total)));
        }
        taps
    }

    fn iter(&self) -> impl Iterator<Item = (usize, &[i32])> {
        let mut rest = self.weights.as_slice();
        self.starts.iter().map(move |&(start, len)| {
            let (weights, tail) = rest.split_at(len);
            rest = tail;
            (start, weights)
        })
    }
}

/// Rounds half away from zero, as Pillow does.
fn fixed(weight: f64) -> i32 {
    let half = if weight < 0.0 { -0.5 } else { 0.5 };
    (half + weight * f64::from(1_u32 << WEIGHT_BITS)) as i32
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::{Filter, RgbImage};

    /// Digests of the same pixels scaled by Pillow 13.0.0.
    #[test]
    fn scaling_equals_pillow_bit_for_bit() {
        let (width, height) = (233, 151);
        let pixel = |i: usize| {
            let (x, y, c) = (i / 3 % width, i / 3 / width, i % 3);
            ((x * 7 + y * 13 + c * 101 + x * y) % 256) as u8
        };
        let image = RgbImage::new(width, height, (0..width * height * 3).map(pixel).collect());
        let image = image.unwrap();
        let check = |filter, width, height, expected: &str| {
            let digest = Sha256::digest(image.resize(width, height, filter).pixels());
            let digest: String = digest[..8].iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(digest, expected, "{filter:?} {width}x{height}");
        };
        check(Filter::Lanczos, 64, 64, "2becb0d2f2fa1972");
        check(Filter::Lanczos, 640, 401, "48007c83d58e90c3");
        check(Filter::Lanczos, 1, 1, "8e12ed997390722b");
        check(Filter::Lanczos, 233, 10, "3a52f7f31185efd2");
        check(Filter::Lanczos, 500, 151, "4c399f70806825dd");
        // Height first.
        check(Filter::Lanczos, 220, 64, "8f2effddb922505f");
        check(Filter::Bicubic, 640, 100, "cb8a1b4bb90632d0");
        check(Filter::Bilinear, 64, 64, "edd756fae42c2920");
        check(Filter::Bilinear, 640, 401, "1f8e055d25f3cbc7");
        check(Filter::Bilinear, 1, 1, "8e12ed997390722b");
        check(Filter::Bilinear, 233, 10, "6e2851d04aad535f");
        check(Filter::Bilinear, 500, 151, "a82ab8a0cadb82f0");
        check(Filter::Bicubic, 64, 64, "d8b14343c67b8a16");
        check(Filter::Bicubic, 640, 401, "c6e3be77e5482d1c");
        check(Filter::Bicubic, 1, 1, "8e12ed997390722b");
        check(Filter::Bicubic, 233, 10, "b100a4dbe26ef0dd");
        check(Filter::Bicubic, 500, 151, "b3ac9af15f267314");
    }
}
