//! Qwen2-VL and Qwen2.5-VL as onnx-community publishes them: images of any size, cut into patches, and positions on
//! three axes (time, row, column).

use serde::Deserialize;

use super::{Family, Layout, Levels, Part, Picture, Positions, View, levels};
use crate::image::Filter;
use crate::vlm::files::Directory;
use crate::vlm::graph::Input;
use crate::{InferenceError, RgbImage};

pub(super) const QWEN2_VL: &str = "qwen2_vl";
pub(super) const QWEN2_5_VL: &str = "qwen2_5_vl";

const IMAGE: &str = "<|image_pad|>";
const IMAGE_END: &str = "<|vision_end|>";

const FILE: &str = "preprocessor_config.json";

/// What Qwen's own `qwen_vl_utils` allows a frame of a video, in tokens.
const VIDEO_TOKENS: usize = 768;

/// Frames are enlarged to no more pixels than that, whatever the files say.
const MAX_ENLARGED: usize = 1 << 24;

/// transformers refuses images that are longer for their width.
const MAX_ASPECT: usize = 200;

/// Both numbers stand at the top in older files, in `text_config` in newer ones.
#[derive(Deserialize)]
struct Config {
    max_position_embeddings: Option<usize>,
    text_config: Option<TextConfig>,
}

#[derive(Deserialize)]
struct TextConfig {
    max_position_embeddings: Option<usize>,
}

#[derive(Deserialize)]
struct PreprocessorConfig {
    min_pixels: Option<usize>,
    max_pixels: Option<usize>,
    size: Option<Size>,
    #[serde(default = "bicubic")]
    resample: u32,
    #[serde(default = "one_of_255")]
    rescale_factor: f64,
    image_mean: [f64; 3],
    image_std: [f64; 3],
    patch_size: usize,
    temporal_patch_size: usize,
    merge_size: usize,
}

#[derive(Deserialize)]
struct Size {
    #[serde(alias = "min_pixels")]
    shortest_edge: Option<usize>,
    #[serde(alias = "max_pixels")]
    longest_edge: Option<usize>,
}

fn bicubic() -> u32 {
    3
}

fn one_of_255() -> f64 {
    1.0 / 255.0
}

struct Qwen2Vl {
    max_positions: usize,
    min_pixels: usize,
    max_pixels: usize,
    patch: usize,
    /// Pictures that one patch spans: a single one stands for all of them.
    times: usize,
    /// Patches along each edge of what becomes one token.
    merge: usize,
    filter: Filter,
    values: Levels,
}

/// Reads the family's files.
pub(super) fn load(
    directory: &mut Directory,
    _model_type: &str,
) -> Result<Box<dyn Family>, InferenceError> {
    let config: Config = directory.json("config.json")?;
    let preprocessor: PreprocessorConfig = directory.json(FILE)?;
    let nested = config.text_config.and_then(|t| t.max_position_embeddings);
    let max_positions = config.max_position_embeddings.or(nested).ok_or_else(|| {
        directory.unsupported("config.json", "there is no max_position_embeddings in it")
    })?;
    let filter = Filter::from_pillow(preprocessor.resample).ok_or_else(|| {
        let problem = format!("resample {} is not 1, 2 or 3", preprocessor.resample);
        directory.unsupported(FILE, problem)
    })?;
    let size = preprocessor.size.as_ref();
    let smallest = size.and_then(|s| s.shortest_edge);
    let largest = size.and_then(|s| s.longest_edge);
    let family = Qwen2Vl {
        max_positions,
        // Rounding leaves nothing of a frame that is small for a token.
        min_pixels: preprocessor
            .min_pixels
            .or(smallest)
            .unwrap_or(56 * 56)
            .max(1),
        max_pixels: preprocessor
            .max_pixels
            .or(largest)
            .unwrap_or(28 * 28 * 1280),
        patch: preprocessor.patch_size,
        times: preprocessor.temporal_patch_size,
        merge: preprocessor.merge_size,
        filter,
        values: levels(
            preprocessor.rescale_factor,
            preprocessor.image_mean,
            preprocessor.image_std,
        ),
    };
    let sizes = [family.patch, family.times, family.merge];
    let sound = sizes.iter().all(|size| (1..=64).contains(size));
    if !sound || family.min_pixels > family.max_pixels.min(MAX_ENLARGED) {
        return Err(directory.unsupported(FILE, "its sizes of patches and images make no sense"));
    }
    Ok(Box::new(family))
}

impl Family for Qwen2Vl {
    /// A frame as wide as it may get at twice the width for its height.
    fn frame_edge(&self) -> u32 {
        let pixels = self.video_pixels() as f64;
        (2.0 * pixels).sqrt().ceil() as u32
    }

    fn max_positions(&self) -> usize {
        self.max_positions
    }

    fn image_token(&self) -> &str {
        IMAGE
    }

    fn image_end(&self) -> &str {
        IMAGE_END
    }

    fn tokens(&self) -> Vec<String> {
        vec!["<|vision_start|>".to_owned()]
    }

    fn pixel_shape(&self) -> Vec<i64> {
        vec![-1, self.patch_values() as i64]
    }

    fn lay_out(
        &self,
        frames: &[RgbImage],
        _seconds: f64,
        view: View,
    ) -> Result<Layout, InferenceError> {
        let most = match view {
            View::Video => self.video_pixels(),
            View::Images | View::Tiles => self.max_pixels,
        };
        let factor = self.patch * self.merge;
        let mut pictures = Vec::new();
        for frame in frames {
            let (width, height) = self.fitted(frame.width(), frame.height(), most)?;
            pictures.push(Picture {
                pixels: frame.resize(width, height, self.filter),
                grid: (height / factor, width / factor),
            });
        }
        let tokens = |picture: &Picture| IMAGE.repeat(picture.grid.0 * picture.grid.1);
        Ok(Layout {
            images: pictures.iter().map(tokens).collect(),
            before: vec![Part::Image; frames.len()],
            lead: String::new(),
            pictures,
        })
    }

    fn encoder_inputs(&self, picture: &Picture) -> Vec<(&'static str, Input)> {
        let (rows, columns) = (picture.grid.0 * self.merge, picture.grid.1 * self.merge);
        let grid = vec![1, rows as i64, columns as i64];
        let shape = vec![rows * columns, self.patch_values()];
        vec![
            ("pixel_values", Input::F32(shape, self.patches(picture))),
            ("image_grid_thw", Input::I64(vec![1, 3], grid)),
        ]
    }

    /// As `get_rope_index` of transformers: text counts on all axes at once; an image stands still in time, counts its
    /// rows and columns, and is as long as its longer edge.
    fn positions(&self, tokens: &[bool], pictures: &[Picture]) -> Positions {
        let mut axes = vec![Vec::new(); 3];
        let (mut next, mut at) = (0, 0);
        let mut pictures = pictures.iter();
        while at < tokens.len() {
            let grid = if tokens[at] { pictures.next() } else { None };
            let Some(&Picture { grid, .. }) = grid else {
                axes.iter_mut().for_each(|axis| axis.push(next));
                next += 1;
                at += 1;
                continue;
            };
            for row in 0..grid.0 as i64 {
                for column in 0..grid.1 as i64 {
                    axes[0].push(next);
                    axes[1].push(next + row);
                    axes[2].push(next + column);
                }
            }
            next += grid.0.max(grid.1) as i64;
            at += grid.0 * grid.1;
        }
        Positions { axes, next }
    }
}

impl Qwen2Vl {
    fn video_pixels(&self) -> usize {
        let token = self.patch * self.merge;
        (VIDEO_TOKENS * token * token)
            .min(self.max_pixels)
            .max(self.min_pixels)
    }

    fn patch_values(&self) -> usize {
        3 * self.times * self.patch * self.patch
    }

    /// Sizes as `smart_resize` of transformers: whole tokens, and no more and no fewer pixels than allowed.
    fn fitted(
        &self,
        width: usize,
        height: usize,
        most: usize,
    ) -> Result<(usize, usize), InferenceError> {
        if width.max(height) > MAX_ASPECT * width.min(height) {
            return Err(InferenceError::InvalidInput(format!(
                "a frame of {width}x{height} is too long for its width"
            )));
        }
        let factor = (self.patch * self.merge) as f64;
        let (w, h) = (width as f64, height as f64);
        let whole = |edge: f64| (edge * factor) as usize;
        // Python rounds halves to the even number.
        let (columns, rows) = (
            (w / factor).round_ties_even(),
            (h / factor).round_ties_even(),
        );
        let pixels = whole(columns) * whole(rows);
        let fit = |columns: f64, rows: f64| (whole(columns), whole(rows));
        Ok(if pixels > most {
            let shrink = (w * h / most as f64).sqrt();
            let edge = |edge: f64| (edge / shrink / factor).floor().max(1.0);
            fit(edge(w), edge(h))
        } else if pixels < self.min_pixels {
            let grow = (self.min_pixels as f64 / (w * h)).sqrt();
            let edge = |edge: f64| (edge * grow / factor).ceil();
            fit(edge(w), edge(h))
        } else {
            fit(columns, rows)
        })
    }

    /// Patches in the order in which their tokens are merged, each with its channels, its moments and its rows.
    fn patches(&self, picture: &Picture) -> Vec<f32> {
        let (patch, merge) = (self.patch, self.merge);
        let (rows, columns) = picture.grid;
        let (width, levels) = (picture.pixels.width(), picture.pixels.pixels());
        let mut values = Vec::with_capacity(rows * columns * merge * merge * self.patch_values());
        for token in 0..rows * columns {
            for part in 0..merge * merge {
                let y = (token / columns * merge + part / merge) * patch;
                let x = (token % columns * merge + part % merge) * patch;
                for (channel, table) in self.values.iter().enumerate() {
                    let start = values.len();
                    for row in y..y + patch {
                        let line = &levels[(row * width + x) * 3..(row * width + x + patch) * 3];
                        let line = line.iter().skip(channel).step_by(3);
                        values.extend(line.map(|&level| table[usize::from(level)]));
                    }
                    let end = values.len();
                    for _ in 1..self.times {
                        values.extend_from_within(start..end);
                    }
                }
            }
        }
        values
    }
}
