//! Models behind an OpenAI-compatible API: vLLM, SGLang, llama.cpp's server, Ollama, Text Embeddings Inference and others.
//!
//! [`Client::connect`] finds a model, and [`RemoteDescriber`], [`RemoteTranscriber`] and [`RemoteEmbedder`] use it as what
//! it is. Requests are bounded in number, time and size; what fails in passing (no connection, 429, 5xx) is asked again
//! up to twice, when the server says or after a pause; a server that failed five times in a row is left alone for ten seconds.

mod asking;
mod breaker;
mod chat;
mod client;
mod describer;
mod embedder;
mod error;
mod heard;
mod options;
mod said;
mod transcriber;
mod turns;
mod upload;
mod vectors;

pub use client::Client;
pub use describer::RemoteDescriber;
pub use embedder::RemoteEmbedder;
pub use options::{Key, Options};
pub use transcriber::RemoteTranscriber;
