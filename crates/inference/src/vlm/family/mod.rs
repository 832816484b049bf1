//! What sets families of models apart: how frames become pixels and prompt, and how tokens are numbered.
//!
//! A family is one file beside this one and one line in [`FAMILIES`].

mod qwen2_vl;
mod smolvlm;

use super::files::Directory;
use super::graph::Input;
use crate::{InferenceError, RgbImage};

/// How frames are shown to a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum View {
    /// As moments of one video, in the words that the model has learned for it; as images if it has none.
    #[default]
    Video,
    /// One after another, each as a whole.
    Images,
    /// One after another, each cut into tiles of the vision encoder's size as the model's preprocessor says: a dozen
    /// times the cost, for small print. As [`View::Images`] if the preprocessor does not split.
    Tiles,
}

/// What a family does its own way.
pub(super) trait Family: Send + Sync {
    /// Longest edge in pixels that the model can make use of.
    fn frame_edge(&self) -> u32;

    /// Most tokens that a prompt and its answer may have together.
    fn max_positions(&self) -> usize;

    /// The token that the chat template puts in the place of an image, and whose embeddings images replace.
    fn image_token(&self) -> &str;

    /// The token after which nothing of an image follows.
    fn image_end(&self) -> &str;

    /// Further tokens that the tokenizer must know.
    fn tokens(&self) -> Vec<String>;

    /// Dimensions of the vision encoder's `pixel_values`; -1 where they may vary.
    fn pixel_shape(&self) -> Vec<i64>;

    /// Scales and cuts frames, and says how they stand in a prompt. `seconds` is the length of their window.
    fn lay_out(
        &self,
        frames: &[RgbImage],
        seconds: f64,
        view: View,
    ) -> Result<Layout, InferenceError>;

    /// What the vision encoder takes for one picture.
    fn encoder_inputs(&self, picture: &Picture) -> Vec<(&'static str, Input)>;

    /// Positions of the tokens that all prompts on a window begin with; `is_image` tells image tokens.
    fn positions(&self, tokens: &[bool], _pictures: &[Picture]) -> Positions {
        Positions::counted(tokens.len())
    }
}

/// Frames as a family shows them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layout {
    /// What the vision encoder gets, in order.
    pub(super) pictures: Vec<Picture>,
    /// The message before the user's words.
    pub(super) before: Vec<Part>,
    /// What stands for each [`Part::Image`] in the prompt.
    pub(super) images: Vec<String>,
    /// Stands directly before the user's words.
    pub(super) lead: String,
}

/// A piece of a chat message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Image,
    Text(String),
}

/// An image of the size that the vision encoder takes, before normalisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) pixels: RgbImage,
    /// Tokens that it becomes, in rows and columns.
    pub(super) grid: (usize, usize),
}

impl Picture {
    /// Gives back the memory of an image that is encoded.
    pub(super) fn forget_pixels(&mut self) {
        self.pixels = RgbImage::new(1, 1, vec![0; 3]).expect("one pixel");
    }
}

/// Positions of tokens: one row for each axis on which the decoder counts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Positions {
    pub(super) axes: Vec<Vec<i64>>,
    /// Position of the token that follows, on all axes.
    pub(super) next: i64,
}

impl Positions {
    /// 0, 1, 2 and so on.
    pub(super) fn counted(tokens: usize) -> Self {
        Self {
            axes: vec![(0..tokens as i64).collect()],
            next: tokens as i64,
        }
    }
}

type Loader = fn(&mut Directory, model_type: &str) -> Result<Box<dyn Family>, InferenceError>;

/// `model_type` of config.json, and who reads such a directory.
const FAMILIES: &[(&str, Loader)] = &[
    (smolvlm::IDEFICS3, smolvlm::load),
    (smolvlm::SMOLVLM, smolvlm::load),
    (qwen2_vl::QWEN2_VL, qwen2_vl::load),
    (qwen2_vl::QWEN2_5_VL, qwen2_vl::load),
];

/// The family of the model in `directory`.
pub(super) fn load(directory: &mut Directory) -> Result<Box<dyn Family>, InferenceError> {
    let model_type = directory.model_type()?;
    let Some((_, loader)) = FAMILIES.iter().find(|(name, _)| *name == model_type) else {
        let known: Vec<&str> = FAMILIES.iter().map(|(name, _)| *name).collect();
        let problem = format!(
            "its model_type is {model_type:?}; give a model of the SmolVLM family or another of \
             those known here ({}), exported to ONNX",
            known.join(", ")
        );
        return Err(directory.unsupported("config.json", problem));
    };
    loader(directory, &model_type)
}

/// Pixel values of every grey level, per channel.
pub(super) type Levels = [[f32; 256]; 3];

/// `(level * scale - mean) / std`, in the double precision of transformers.
pub(super) fn levels(scale: f64, mean: [f64; 3], std: [f64; 3]) -> Levels {
    std::array::from_fn(|c| {
        std::array::from_fn(|level| ((level as f64 * scale - mean[c]) / std[c]) as f32)
    })
}
