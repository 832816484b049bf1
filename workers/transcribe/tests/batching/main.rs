//! Batches of transcripts for audio indexes, on a real nats-server: transcripts in, audio scenes out.

mod cutting;
mod ending;
mod harness;
mod killed;
