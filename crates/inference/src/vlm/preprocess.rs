//! Frames to pixel values, as transformers' `Idefics3ImageProcessorPil` does without splitting.

use crate::image::Filter;
use crate::vlm::files::ModelFiles;
use crate::{InferenceError, RgbImage};

const FILE: &str = "preprocessor_config.json";

/// transformers never scales an image beyond this edge.
const MAX_RESIZED_EDGE: usize = 4096;

pub(super) struct Preprocessor {
    frame_edge: u32,
    tile_edge: usize,
    filter: Filter,
    /// Pixel value of each grey level, per channel.
    values: [[f32; 256]; 3],
}

impl Preprocessor {
    pub(super) fn new(files: &ModelFiles) -> Result<Self, InferenceError> {
        let config = &files.preprocessor;
        let filter = Filter::from_pillow(config.resample).ok_or_else(|| {
            let problem = format!("resample {} is not 1, 2 or 3", config.resample);
            files.unsupported(FILE, problem)
        })?;
        let (frame_edge, tile_edge) = (
            config.size.longest_edge,
            config.max_image_size.longest_edge as usize,
        );
        let edges = 1..=MAX_RESIZED_EDGE;
        if !edges.contains(&(frame_edge as usize)) || !edges.contains(&tile_edge) {
            return Err(files.unsupported(FILE, "a longest_edge is not 1 to 4096"));
        }
        let value = |channel: usize, level: usize| {
            let scaled = level as f64 * config.rescale_factor;
            ((scaled - config.image_mean[channel]) / config.image_std[channel]) as f32
        };
        let values = std::array::from_fn(|c| std::array::from_fn(|level| value(c, level)));
        Ok(Self {
            frame_edge,
            tile_edge,
            filter,
            values,
        })
    }

    pub(super) fn frame_edge(&self) -> u32 {
        self.frame_edge
    }

    /// Edge of the square that the vision encoder sees.
    pub(super) fn tile_edge(&self) -> usize {
        self.tile_edge
    }

    /// Two resizes, as in training: to the longest edge, then to the square. The first one
    /// enlarges small frames, which is what the model has learned from.
    pub(super) fn tile(&self, frame: &RgbImage) -> RgbImage {
        let (width, height) =
            fit_longest_edge(frame.width(), frame.height(), self.frame_edge as usize);
        frame
            .resize(width, height, self.filter)
            .resize(self.tile_edge, self.tile_edge, self.filter)
    }

    /// `[3, edge, edge]` values of a tile.
    pub(super) fn normalise(&self, tile: &RgbImage) -> Vec<f32> {
        let plane = |c: usize| {
            let values = &self.values[c];
            tile.pixels()
                .iter()
                .skip(c)
                .step_by(3)
                .map(|&level| values[usize::from(level)])
        };
        (0..3).flat_map(plane).collect()
    }
}

/// Sizes as `_resize_output_size_rescale_to_max_len` of transformers: the shorter edge is
/// truncated, then made even.
fn fit_longest_edge(width: usize, height: usize, longest: usize) -> (usize, usize) {
    let aspect = width as f64 / height as f64;
    let even = |shorter: f64| (shorter as usize).next_multiple_of(2).max(1);
    if width >= height {
        (longest, even(longest as f64 / aspect))
    } else {
        (even(longest as f64 * aspect), longest)
    }
}

#[cfg(test)]
mod tests {
    use super::fit_longest_edge;

    #[test]
    fn longest_edge_is_fitted_as_transformers_does() {
        let check = |frame: (usize, usize), longest, expected| {
            assert_eq!(
                fit_longest_edge(frame.0, frame.1, longest),
                expected,
                "{frame:?}"
            );
        };
        check((640, 360), 640, (640, 360));
        check((1920, 1080), 640, (640, 360));
        check((320, 180), 2048, (2048, 1152));
        check((1000, 333), 640, (640, 214));
        check((360, 640), 640, (360, 640));
        check((8192, 1), 640, (640, 1));
    }
}
