//! Vision-language models in the ONNX layout of SmolVLM (Idefics3): `config.json` and its
//! siblings, and `onnx/{vision_encoder,embed_tokens,decoder_model_merged}.onnx`.
//!
//! Sizes, types, special tokens and the chat template all come from those files, so any model of
//! the family loads. Frames are sent whole, one tile each: splitting them into tiles, as the
//! processor can for documents, would cost a dozen times as much for each frame of live video.

mod files;
mod graph;
mod preprocess;
mod prompt;
mod window;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

pub use window::Window;

use crate::revision::revision;
use crate::{Describer, InferenceError, RgbImage, WindowSession};
use files::ModelFiles;
use graph::Graph;
use preprocess::Preprocessor;
use prompt::PromptFormat;

/// How to load a [`SmolVlm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VlmOptions {
    /// Threads that one computation is spread over, at least 1.
    pub threads: usize,
    /// Which of the exported weights to load.
    pub precision: Precision,
}

impl Default for VlmOptions {
    fn default() -> Self {
        Self {
            threads: 1,
            precision: Precision::Fp32,
        }
    }
}

/// Number format of the weights, as an export offers it beside the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32 bit floats: `*.onnx`.
    Fp32,
    /// 16 bit floats: `*_fp16.onnx`.
    Fp16,
    /// 8 bit integers: `*_quantized.onnx` or `*_int8.onnx`.
    Int8,
    /// 4 bit blocks: `*_q4.onnx`.
    Q4,
    /// 4 bit blocks and 16 bit floats: `*_q4f16.onnx`.
    Q4F16,
}

impl Precision {
    const ALL: [Self; 5] = [Self::Fp32, Self::Fp16, Self::Int8, Self::Q4, Self::Q4F16];

    /// What stands before `.onnx`, most usual first.
    fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Fp32 => &[""],
            Self::Fp16 => &["_fp16"],
            Self::Int8 => &["_quantized", "_int8"],
            Self::Q4 => &["_q4"],
            Self::Q4F16 => &["_q4f16"],
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
            Self::Q4 => "q4",
            Self::Q4F16 => "q4f16",
        })
    }
}

impl FromStr for Precision {
    type Err = InferenceError;

    fn from_str(name: &str) -> Result<Self, InferenceError> {
        Self::ALL
            .into_iter()
            .find(|p| p.to_string() == name)
            .ok_or_else(|| {
                let known = Self::ALL.map(|p| p.to_string()).join(", ");
                InferenceError::InvalidInput(format!("no precision {name:?}; there are {known}"))
            })
    }
}

/// A loaded vision-language model of the SmolVLM family.
pub struct SmolVlm {
    graph: Graph,
    preprocessor: Preprocessor,
    prompts: PromptFormat,
    /// Most tokens that a prompt and its answer may have together.
    max_positions: usize,
    revision: String,
}

impl SmolVlm {
    /// Loads the model in `directory`. [`crate::onnx::init`] comes first.
    pub fn load(directory: &Path, options: &VlmOptions) -> Result<Self, InferenceError> {
        let files = ModelFiles::read(directory)?;
        let preprocessor = Preprocessor::new(&files)?;
        let prompts = PromptFormat::new(&files)?;
        let graph = Graph::load(directory, options, preprocessor.tile_edge())?;
        let label = format!("smolvlm {}", options.precision);
        let loaded = files
            .paths()
            .iter()
            .chain(graph.paths())
            .map(PathBuf::as_path);
        let revision = revision(&label, loaded)?;
        tracing::debug!(directory = %directory.display(), %label, revision, "loaded model");
        let max_positions = files.config.text_config.max_position_embeddings;
        Ok(Self {
            graph,
            preprocessor,
            prompts,
            max_positions,
            revision,
        })
    }

    /// The 8 bit square image that the vision encoder gets (before normalisation) for `frame`.
    pub fn tile(&self, frame: &RgbImage) -> RgbImage {
        self.preprocessor.tile(frame)
    }

    /// The vision encoder's output for `frame`: one row of the model's width for each of the
    /// image's tokens, row after row.
    pub fn image_features(&self, frame: &RgbImage) -> Result<Vec<f32>, InferenceError> {
        let tile = self.preprocessor.tile(frame);
        let pixels = self.preprocessor.normalise(&tile);
        self.graph.image_features(pixels)
    }

    /// [`Describer::open_window`], as its own type.
    pub fn window(
        &self,
        frames: &[RgbImage],
        window_seconds: f64,
    ) -> Result<Window<'_>, InferenceError> {
        Window::open(self, frames, window_seconds)
    }
}

impl Describer for SmolVlm {
    fn revision(&self) -> &str {
        &self.revision
    }

    fn frame_edge(&self) -> u32 {
        self.preprocessor.frame_edge()
    }

    fn open_window<'a>(
        &'a self,
        frames: &[RgbImage],
        window_seconds: f64,
    ) -> Result<Box<dyn WindowSession + 'a>, InferenceError> {
        Ok(Box::new(self.window(frames, window_seconds)?))
    }
}
