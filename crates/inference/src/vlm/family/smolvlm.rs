//! SmolVLM and SmolVLM2 (both Idefics3's architecture), as transformers' processors feed them.

use serde::Deserialize;

use super::{Family, Layout, Levels, Part, Picture, View, levels};
use crate::image::Filter;
use crate::vlm::files::Directory;
use crate::vlm::graph::Input;
use crate::{InferenceError, RgbImage};

/// Model types of the family. SmolVLM2 adds a video prompt.
pub(super) const IDEFICS3: &str = "idefics3";
pub(super) const SMOLVLM: &str = "smolvlm";

const IMAGE: &str = "<image>";
const AROUND_IMAGE: &str = "<fake_token_around_image>";
const WHOLE_IMAGE: &str = "<global-img>";

const FILE: &str = "preprocessor_config.json";

/// transformers never scales an image beyond this edge.
const MAX_RESIZED_EDGE: usize = 4096;

/// Tokens of a tile at most: one for each 64 pixels of the largest one.
const MAX_TILE_TOKENS: usize = 4096;

/// The tokenizers name tiles of up to so many rows and columns.
const MAX_TILES: usize = 6;

#[derive(Deserialize)]
struct Config {
    text_config: TextConfig,
}

#[derive(Deserialize)]
struct TextConfig {
    max_position_embeddings: usize,
}

#[derive(Deserialize)]
struct ProcessorConfig {
    /// Tokens of one tile.
    image_seq_len: usize,
}

#[derive(Deserialize)]
struct PreprocessorConfig {
    size: LongestEdge,
    max_image_size: LongestEdge,
    #[serde(default)]
    do_image_splitting: bool,
    resample: u32,
    rescale_factor: f64,
    image_mean: [f64; 3],
    image_std: [f64; 3],
}

#[derive(Deserialize, Clone, Copy)]
struct LongestEdge {
    longest_edge: usize,
}

struct SmolVlm {
    max_positions: usize,
    /// Longest edge that a frame is brought to before it becomes a tile. Of a video too: transformers overrules
    /// `video_sampling.video_size` with `size`.
    frame_edge: usize,
    tile_edge: usize,
    tile_tokens: usize,
    splits: bool,
    filter: Filter,
    values: Levels,
    video_prompt: bool,
}

/// Reads the family's files.
pub(super) fn load(
    directory: &mut Directory,
    model_type: &str,
) -> Result<Box<dyn Family>, InferenceError> {
    let config: Config = directory.json("config.json")?;
    let preprocessor: PreprocessorConfig = directory.json(FILE)?;
    let processor: ProcessorConfig = directory.json("processor_config.json")?;
    let filter = Filter::from_pillow(preprocessor.resample).ok_or_else(|| {
        let problem = format!("resample {} is not 1, 2 or 3", preprocessor.resample);
        directory.unsupported(FILE, problem)
    })?;
    let family = SmolVlm {
        max_positions: config.text_config.max_position_embeddings,
        frame_edge: preprocessor.size.longest_edge,
        tile_edge: preprocessor.max_image_size.longest_edge,
        tile_tokens: processor.image_seq_len,
        splits: preprocessor.do_image_splitting,
        filter,
        values: levels(
            preprocessor.rescale_factor,
            preprocessor.image_mean,
            preprocessor.image_std,
        ),
        video_prompt: model_type == SMOLVLM,
    };
    let edges = [family.frame_edge, family.tile_edge];
    if !edges.iter().all(|e| (1..=MAX_RESIZED_EDGE).contains(e)) {
        return Err(directory.unsupported(FILE, "a longest_edge is not 1 to 4096"));
    }
    if !(1..=MAX_TILE_TOKENS).contains(&family.tile_tokens) {
        let problem = format!("image_seq_len is not 1 to {MAX_TILE_TOKENS}");
        return Err(directory.unsupported("processor_config.json", problem));
    }
    if family.frame_edge.div_ceil(family.tile_edge) > MAX_TILES && family.splits {
        let problem = format!("it splits images into more than {MAX_TILES} tiles in a row");
        return Err(directory.unsupported(FILE, problem));
    }
    Ok(Box::new(family))
}

impl Family for SmolVlm {
    fn frame_edge(&self) -> u32 {
        self.frame_edge as u32
    }

    fn max_positions(&self) -> usize {
        self.max_positions
    }

    fn image_token(&self) -> &str {
        IMAGE
    }

    fn image_end(&self) -> &str {
        AROUND_IMAGE
    }

    fn tokens(&self) -> Vec<String> {
        let mut tokens = vec![WHOLE_IMAGE.to_owned()];
        if self.splits {
            tokens.extend((1..=MAX_TILES * MAX_TILES).map(|i| place(i - 1, MAX_TILES)));
        }
        tokens
    }

    fn pixel_shape(&self) -> Vec<i64> {
        let edge = self.tile_edge as i64;
        vec![-1, -1, 3, edge, edge]
    }

    fn lay_out(
        &self,
        frames: &[RgbImage],
        seconds: f64,
        view: View,
    ) -> Result<Layout, InferenceError> {
        let video = self.video_prompt && view == View::Video;
        let mut layout = Layout {
            pictures: Vec::new(),
            before: vec![Part::Image; frames.len()],
            images: Vec::new(),
            lead: String::new(),
        };
        for frame in frames {
            let frame = self.fitted(frame);
            let (tiles, rows, columns) = if view == View::Tiles && self.splits {
                self.split(&frame)
            } else {
                (vec![self.whole(&frame)], 0, 0)
            };
            layout.images.push(self.image_text(rows, columns));
            layout
                .pictures
                .extend(tiles.into_iter().map(|pixels| Picture {
                    pixels,
                    grid: (1, self.tile_tokens),
                }));
        }
        if video {
            layout.before = video_parts(frames.len(), seconds);
            layout.lead = "\n\n".to_owned();
        }
        Ok(layout)
    }

    fn shows_whole_pictures(&self) -> bool {
        true
    }

    fn encoder_inputs(&self, picture: &Picture) -> Vec<(&'static str, Input)> {
        let edge = self.tile_edge;
        let plane = |c: usize| {
            let values = &self.values[c];
            let channel = picture.pixels.pixels().iter().skip(c).step_by(3);
            channel.map(|&level| values[usize::from(level)])
        };
        let pixels = (0..3).flat_map(plane).collect();
        let mask = vec![true; edge * edge];
        vec![
            (
                "pixel_values",
                Input::F32(vec![1, 1, 3, edge, edge], pixels),
            ),
            (
                "pixel_attention_mask",
                Input::Bool(vec![1, 1, edge, edge], mask),
            ),
        ]
    }
}

impl SmolVlm {
    /// Brought to the longest edge, as in training: small frames are enlarged, which is what the model has learned from.
    fn fitted(&self, frame: &RgbImage) -> RgbImage {
        let (width, height) = fit_longest_edge(frame.width(), frame.height(), self.frame_edge);
        frame.resize(width, height, self.filter)
    }

    fn whole(&self, frame: &RgbImage) -> RgbImage {
        frame.resize(self.tile_edge, self.tile_edge, self.filter)
    }

    /// Tiles row after row and the whole image at the end, with the number of rows and columns (0 if it is one tile).
    fn split(&self, frame: &RgbImage) -> (Vec<RgbImage>, usize, usize) {
        let edge = self.tile_edge;
        let (width, height) = whole_tiles(frame.width(), frame.height(), edge);
        let frame = frame.resize(width, height, self.filter);
        if (width, height) == (edge, edge) {
            return (vec![frame], 0, 0);
        }
        let (rows, columns) = (height / edge, width / edge);
        let places = (0..rows).flat_map(|r| (0..columns).map(move |c| (r, c)));
        let tile = |(r, c): (usize, usize)| frame.crop(c * edge, r * edge, edge, edge);
        let mut tiles: Vec<RgbImage> = places.map(tile).collect();
        tiles.push(self.whole(&frame));
        (tiles, rows, columns)
    }

    fn image_text(&self, rows: usize, columns: usize) -> String {
        let image = IMAGE.repeat(self.tile_tokens);
        let mut text = String::new();
        for tile in 0..rows * columns {
            text.push_str(&format!("{AROUND_IMAGE}{}{image}", place(tile, columns)));
            if (tile + 1) % columns == 0 {
                text.push('\n');
            }
        }
        if rows > 0 {
            text.push('\n');
        }
        text + &format!("{AROUND_IMAGE}{WHOLE_IMAGE}{image}{AROUND_IMAGE}")
    }
}

/// The token that says where a tile was.
fn place(tile: usize, columns: usize) -> String {
    format!("<row_{}_col_{}>", tile / columns + 1, tile % columns + 1)
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

/// Sizes as `resize_for_vision_encoder` of transformers: both edges whole multiples of a tile's.
fn whole_tiles(width: usize, height: usize, edge: usize) -> (usize, usize) {
    let aspect = width as f64 / height as f64;
    if width >= height {
        let width = width.next_multiple_of(edge);
        let height = ((width as f64 / aspect) as usize).max(1);
        (width, height.next_multiple_of(edge))
    } else {
        let height = height.next_multiple_of(edge);
        let width = ((height as f64 * aspect) as usize).max(1);
        (width.next_multiple_of(edge), height)
    }
}

/// SmolVLM2's prompt for videos (`processing_smolvlm.py` of transformers), with the frames spread
/// evenly over the window.
fn video_parts(frames: usize, seconds: f64) -> Vec<Part> {
    let seconds = seconds.max(0.0);
    let whole = seconds as u64;
    let (hours, minutes) = (whole / 3600, whole / 60 % 60);
    let duration = format!("{hours}:{minutes:02}:{:02}", whole % 60);
    let count = in_words(frames);
    let mut parts = vec![Part::Text(format!(
        "You are provided the following series of {count} frames from a {duration} [H:MM:SS] \
         video.\n"
    ))];
    for frame in 0..frames {
        let at = (seconds * frame as f64 / frames as f64) as u64;
        parts.push(Part::Text(format!(
            "\nFrame from {:02}:{:02}:",
            at / 60,
            at % 60
        )));
        parts.push(Part::Image);
    }
    parts
}

fn in_words(count: usize) -> String {
    const WORDS: [&str; 21] = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
        "twenty",
    ];
    WORDS
        .get(count)
        .map_or_else(|| count.to_string(), |word| (*word).to_owned())
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
