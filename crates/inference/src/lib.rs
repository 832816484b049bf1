//! Inference: frames to text and verdicts, speech to text, text to vectors.
//!
//! Three traits, each with a backend that runs in this process: [`vlm::engine::Engine`] and
//! [`embed::TextEmbedder`] on ONNX Runtime, [`whisper::Whisper`] on whisper.cpp; and each with one that asks a server
//! ([`openai`]). Call [`onnx::init`] once before loading either of the first two. [`Transcriber`] and [`Embedder`] block for as long as
//! the model computes: from async code, call through `spawn_blocking`.

mod describe;
mod device;
pub mod embed;
mod error;
mod image;
mod memory;
pub mod onnx;
pub mod openai;
mod revision;
mod transcript;
mod turns;
pub mod vlm;
pub mod whisper;

pub use describe::{About, Answer, Answers, Describer, Job, Outcome, Prompt, SubmitError};
pub use device::{Device, Placed};
pub use error::InferenceError;
pub use image::{MAX_IMAGE_EDGE, RgbImage};
pub use transcript::{SpokenSegment, SpokenWord, Transcript};

/// A model that writes down speech.
pub trait Transcriber: Send + Sync {
    /// Stable identifier of the loaded model: 16 hexadecimal digits over its file.
    fn revision(&self) -> &str;

    /// Transcribes 16 kHz mono samples in -1..1, at most [`whisper::MAX_SECONDS`] of them.
    /// Silence gives no segments.
    fn transcribe(&self, pcm: &[f32], speech: &Speech) -> Result<Transcript, InferenceError>;
}

/// What is known beforehand of speech, and what is wanted of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Speech {
    /// The language that is spoken, ISO 639-1; None: the model tells it.
    pub language: Option<String>,
    /// Whether to translate it into English.
    pub translate: bool,
}

/// A model that turns texts into vectors to search by cosine similarity.
pub trait Embedder: Send + Sync {
    /// Stable identifier of the loaded model: 16 hexadecimal digits over its files.
    fn revision(&self) -> &str;

    /// Length of each vector.
    fn dimension(&self) -> usize;

    /// One vector of length 1 (L2) for each text, in order: of texts that are stored.
    fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, InferenceError>;

    /// The same of texts that are looked for. Some models want to be told which is which.
    fn embed_queries(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, InferenceError> {
        self.embed(texts)
    }
}
