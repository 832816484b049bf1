//! Local inference: frames to text and verdicts, speech to text, text to vectors.
//!
//! Three traits, each with one backend that runs in this process: [`vlm::Vlm`] and
//! [`embed::TextEmbedder`] on ONNX Runtime, [`whisper::Whisper`] on whisper.cpp. Call
//! [`onnx::init`] once before loading either of the first two. Every call blocks for as long as
//! the model computes: from async code, call through `spawn_blocking`.

pub mod embed;
mod error;
mod image;
pub mod onnx;
mod revision;
pub mod vlm;
pub mod whisper;

pub use error::InferenceError;
pub use image::{MAX_IMAGE_EDGE, RgbImage};

/// A model that looks at the frames of a window and answers in words.
pub trait Describer: Send + Sync {
    /// Stable identifier of the loaded model: 16 hexadecimal digits over its files and precision.
    fn revision(&self) -> &str;

    /// Longest edge in pixels that the model can make use of; larger frames are scaled down to it
    /// before anything else, so scaling them earlier loses nothing.
    fn frame_edge(&self) -> u32;

    /// Encodes the frames of a window (in order of time) and computes the state that all
    /// questions and prompts about it share. `window_seconds` is the length of the window.
    fn open_window<'a>(
        &'a self,
        frames: &[RgbImage],
        window_seconds: f64,
    ) -> Result<Box<dyn WindowSession + 'a>, InferenceError>;
}

/// One window, encoded: each call continues from the same state, so neither their order nor
/// their number changes any answer.
pub trait WindowSession: Send {
    /// Probability (0 to 1) that `event_prompt` is happening in the window, from the first
    /// token's logits for "Yes" and "No".
    fn judge(&mut self, event_prompt: &str) -> Result<f32, InferenceError>;

    /// Answers `prompt` greedily, in at most `max_new_tokens` tokens.
    fn describe(&mut self, prompt: &str, max_new_tokens: usize) -> Result<String, InferenceError>;
}

/// A model that writes down speech.
pub trait Transcriber: Send + Sync {
    /// Stable identifier of the loaded model: 16 hexadecimal digits over its file.
    fn revision(&self) -> &str;

    /// Transcribes 16 kHz mono samples in -1..1, at most [`whisper::MAX_SECONDS`] of them.
    /// Silence gives an empty list.
    fn transcribe(&self, pcm: &[f32]) -> Result<Vec<SpokenSegment>, InferenceError>;
}

/// A stretch of speech, about a sentence. Times are seconds from the start of the samples.
#[derive(Debug, Clone, PartialEq)]
pub struct SpokenSegment {
    /// When it begins.
    pub start: f64,
    /// When it ends.
    pub end: f64,
    /// Its text, trimmed.
    pub text: String,
    /// Its words in order; punctuation belongs to the word it follows.
    pub words: Vec<SpokenWord>,
}

/// A word of a [`SpokenSegment`].
#[derive(Debug, Clone, PartialEq)]
pub struct SpokenWord {
    /// When it begins, in seconds from the start of the samples.
    pub start: f64,
    /// When it ends, in seconds from the start of the samples.
    pub end: f64,
    /// The word with its punctuation, without spaces around it.
    pub text: String,
    /// How sure the model is (0 to 1): the mean over the word's tokens.
    pub probability: f32,
}

/// A model that turns texts into vectors to search by cosine similarity.
pub trait Embedder: Send + Sync {
    /// Stable identifier of the loaded model: 16 hexadecimal digits over its files.
    fn revision(&self) -> &str;

    /// Length of each vector.
    fn dimension(&self) -> usize;

    /// One vector of length 1 (L2) for each text, in order.
    fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, InferenceError>;
}
