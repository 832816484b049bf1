//! Measuring 5 s of pictures or sound, so cheaply that it may always run: a few pixels of two pictures, and the samples that
//! are heard anyway. What is too dark or too quiet is for others to say.

use bytes::Bytes;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use sightline_proto::internal::{Frame, MeasuredPictures, MeasuredSound, Sampling};

use crate::picture::Picture;
use crate::speech::duration_us;

/// Length of a window.
const WINDOW_US: i64 = 5_000_000;
/// The pictures that are measured: 2.5 s apart, so that cameras' usual keyframes alone have to be decoded.
pub(crate) const PICTURES: Sampling = Sampling {
    window_us: WINDOW_US,
    frame_count: 2,
};
/// The pixels that are looked at. Not averages of their neighbours: the noise of a camera that lives would vanish in those.
const COLUMNS: usize = 64;
const ROWS: usize = 36;

/// How bright some pixels of a decoded picture are, 0 to 255; none if it is of an unknown kind.
pub(crate) fn pixels(picture: &Picture) -> Option<Bytes> {
    let picture = picture.decoded();
    let info = gst_video::VideoInfo::from_caps(&picture.caps).ok()?;
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(&picture.buffer, &info).ok()?;
    // The first component is brightness, or red, or grey.
    let plane = frame.comp_data(0).ok()?;
    let [depth, step, row_bytes] = [
        info.comp_depth(0),
        u32::try_from(info.comp_pstride(0)).ok()?,
        u32::try_from(frame.comp_stride(0)).ok()?,
    ]
    .map(|number| number as usize);
    let (width, height) = (frame.width() as usize, frame.height() as usize);
    let mut bright = Vec::with_capacity(COLUMNS * ROWS);
    for row in 0..ROWS {
        let start = (2 * row + 1) * height / (2 * ROWS) * row_bytes;
        for column in 0..COLUMNS {
            let at = start + (2 * column + 1) * width / (2 * COLUMNS) * step;
            let low = *plane.get(at)?;
            bright.push(match depth {
                0..=8 => low,
                _ => u8::try_from(u16::from_le_bytes([low, *plane.get(at + 1)?]) >> (depth - 8))
                    .unwrap_or(u8::MAX),
            });
        }
    }
    Some(bright.into())
}

/// What there is to say about the pictures of a window, each frame holding its [`pixels`].
pub(crate) fn pictures(frames: &[Frame]) -> MeasuredPictures {
    let pictures = || frames.iter().map(|frame| frame.jpeg.as_ref());
    let pairs = pictures().zip(pictures().skip(1));
    let most = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0, f32::max);
    MeasuredPictures {
        count: u32::try_from(frames.len()).unwrap_or(u32::MAX),
        change: most(&mut pairs.map(|(one, next)| difference(one, next))),
        brightness: most(&mut pictures().map(|picture| spread(picture).0)),
        deviation: most(&mut pictures().map(|picture| spread(picture).1)),
    }
}

/// How far the pixels of two pictures are apart on average.
fn difference(one: &[u8], next: &[u8]) -> f32 {
    let apart = one.iter().zip(next).map(|(a, b)| u32::from(a.abs_diff(*b)));
    apart.sum::<u32>() as f32 / one.len().max(1) as f32
}

/// Mean and standard deviation.
fn spread(picture: &[u8]) -> (f32, f32) {
    let count = picture.len().max(1) as f32;
    let mean = picture.iter().map(|p| f32::from(*p)).sum::<f32>() / count;
    let squares = picture.iter().map(|p| (f32::from(*p) - mean).powi(2));
    (mean, (squares.sum::<f32>() / count).sqrt())
}

/// Adds up the sound of each window.
#[derive(Debug, Default)]
pub(crate) struct SoundMeter {
    /// The window under way: nothing before it is measured.
    window: u64,
    samples: usize,
    squares: f64,
    /// Where the last samples of the window were.
    last_us: i64,
}

/// The sound of a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Heard {
    pub(crate) window: u64,
    /// Where its last samples were.
    pub(crate) last_us: i64,
    pub(crate) sound: MeasuredSound,
}

impl SoundMeter {
    /// A meter for this window and later ones.
    pub(crate) fn from_window(window: u64) -> Self {
        Self {
            window,
            ..Self::default()
        }
    }

    /// Where the window under way starts.
    pub(crate) fn start_us(&self) -> i64 {
        i64::try_from(self.window).map_or(i64::MAX, |window| window.saturating_mul(WINDOW_US))
    }

    /// Takes the next samples, 16 kHz, which count for the window that they start in. Returns the one that is over with that.
    pub(crate) fn push(&mut self, position_us: i64, samples: &[i16]) -> Option<Heard> {
        let window = u64::try_from(position_us.div_euclid(WINDOW_US)).ok()?;
        if window < self.window {
            return None;
        }
        let over = (window > self.window).then(|| self.finish()).flatten();
        self.window = window;
        self.last_us = position_us + duration_us(samples.len());
        self.samples += samples.len();
        let squares = samples.iter().map(|sample| f64::from(*sample).powi(2));
        self.squares += squares.sum::<f64>();
        over
    }

    /// Ends the window under way; none if nothing of it was heard.
    pub(crate) fn finish(&mut self) -> Option<Heard> {
        let Self {
            window,
            samples,
            squares,
            last_us,
        } = std::mem::replace(self, Self::from_window(self.window.saturating_add(1)));
        let level = (squares / samples.max(1) as f64).sqrt() / f64::from(i16::MAX);
        (samples > 0).then_some(Heard {
            window,
            last_us,
            sound: MeasuredSound {
                heard_us: duration_us(samples),
                level: level as f32,
            },
        })
    }
}
