//! The loaded models against what their authors recorded, and what a user gets wrong.
//!
//! ONNX Runtime comes from `SIGHTLINE_ONNXRUNTIME`, or from the `.venv` that `make test` makes.

mod compare;
mod devices;
mod embed;
mod engine;
mod errors;
mod image;
mod parity;
mod read;
mod support;
mod vlm;
mod whisper;
