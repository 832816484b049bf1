//! Vision-language models as they are published for ONNX Runtime: `config.json` and its siblings, and
//! `onnx/{vision_encoder,embed_tokens,decoder_model_merged}.onnx`.
//!
//! Sizes, types, special tokens and the chat template all come from those files; what a family of models does its own
//! way is one file in `family`. [`engine::Engine`]
//! serves the windows of many streams; [`Window`] asks about one, with nothing else under way.

mod cache;
mod chat;
pub mod engine;
mod family;
mod files;
mod fuse;
mod graph;
mod heap;
mod precision;
mod weights;
mod window;

use std::path::{Path, PathBuf};

pub use family::View;
pub use precision::Precision;
pub use window::Window;

use crate::revision::revision;
use crate::{InferenceError, Placed, RgbImage};
use chat::Chat;
use family::{Family, Picture};
use files::Directory;
use graph::Graph;

/// Far more than any published model has.
const MAX_POSITIONS: usize = 1 << 22;

/// How to load a [`Vlm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VlmOptions {
    /// Threads that one computation is spread over, at least 1.
    pub threads: usize,
    /// Which of the exported weights to load.
    pub precision: Precision,
    /// Where it computes: see [`crate::onnx::place`].
    pub device: Placed,
}

impl Default for VlmOptions {
    fn default() -> Self {
        Self {
            threads: 1,
            precision: Precision::Fp32,
            device: Placed::Cpu,
        }
    }
}

/// A loaded vision-language model of one of the known families.
pub struct Vlm {
    graph: Graph,
    family: Box<dyn Family>,
    chat: Chat,
    /// Most tokens that a prompt and its answer may have together.
    max_positions: usize,
    revision: String,
}

impl Vlm {
    /// Loads the model in `directory`. [`crate::onnx::init`] comes first.
    pub fn load(directory: &Path, options: &VlmOptions) -> Result<Self, InferenceError> {
        let mut files = Directory::new(directory);
        let family = family::load(&mut files)?;
        let chat = Chat::new(&mut files, family.as_ref())?;
        let max_positions = family.max_positions();
        if !(16..=MAX_POSITIONS).contains(&max_positions) {
            let problem = format!("max_position_embeddings is {max_positions}");
            return Err(files.unsupported("config.json", problem));
        }
        let graph = Graph::load(directory, options, family.as_ref())?;
        let known = graph.vocabulary();
        if known > 0
            && let Some(id) = chat.ids_used().find(|&id| id as usize >= known)
        {
            let problem = format!(
                "it needs token {id}, but the decoder knows {known} tokens: take all files from \
                 one export"
            );
            return Err(files.unsupported("tokenizer.json", problem));
        }
        let label = format!("smolvlm {}", options.precision);
        let loaded = files.paths().iter().chain(graph.paths());
        let revision = revision(&label, loaded.map(PathBuf::as_path))?;
        tracing::debug!(directory = %directory.display(), %label, revision, "loaded model");
        Ok(Self {
            graph,
            family,
            chat,
            max_positions,
            revision,
        })
    }

    /// The vision encoder's output for `frame` as a whole: one row of the model's width for each of the
    /// image's tokens, row after row.
    pub fn image_features(&self, frame: &RgbImage) -> Result<Vec<f32>, InferenceError> {
        let frames = std::slice::from_ref(frame);
        let layout = self.family.lay_out(frames, 0.0, View::Images)?;
        self.features(&layout.pictures[0])
    }

    /// Encodes the frames of a window of `window_seconds` (in order of time) and computes the state that all questions and
    /// prompts about it share.
    pub fn window(
        &self,
        frames: &[RgbImage],
        window_seconds: f64,
        view: View,
    ) -> Result<Window<'_>, InferenceError> {
        Window::open(self, frames, window_seconds, view)
    }

    /// Stable identifier of the loaded model: 16 hexadecimal digits over its files and precision.
    pub fn revision(&self) -> &str {
        &self.revision
    }

    /// Longest edge in pixels that the model can make use of; larger frames are scaled down to it before anything else.
    pub fn frame_edge(&self) -> u32 {
        self.family.frame_edge()
    }

    fn features(&self, picture: &Picture) -> Result<Vec<f32>, InferenceError> {
        let inputs = self.family.encoder_inputs(picture);
        self.graph.image_features(inputs)
    }
}
