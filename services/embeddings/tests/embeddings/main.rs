//! The service on a real nats-server, the real embedding model and a real store: observations in, records out.
//!
//! ONNX Runtime comes from `SIGHTLINE_ONNXRUNTIME`, which `make test` sets.

mod asking;
mod batches;
mod deleting;
mod failing;
mod killed;
mod rebuilding;
mod support;
mod switching;
mod together;
