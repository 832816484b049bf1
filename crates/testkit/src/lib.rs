//! What tests of the whole platform are made of: real servers on free ports, the real binary as processes, and the oracle
//! that compares what was acknowledged with what came out.

pub mod browser;
pub mod dice;
pub mod hosts;
pub mod llama;
pub mod nats;
pub mod nginx;
pub mod oracle;
pub mod otlp;
pub mod platform;
pub mod process;
pub mod proxy;
pub mod python;
pub mod receiver;
pub mod resources;
pub mod rtsp;
pub mod s3;
pub mod sender;
pub mod sounds;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

/// The longest that anything may take in a test: far above what it does take, so that a slow machine fails nothing.
pub const LONG: Duration = Duration::from_secs(120);

/// Waits for something; the error says for what.
///
/// # Errors
/// When it takes too long.
pub async fn soon<T>(what: &str, waiting: impl Future<Output = T>) -> Result<T> {
    let waited = tokio::time::timeout(LONG, waiting).await;
    waited.with_context(|| format!("waited in vain for {what}"))
}

/// Asks again and again until there is an answer.
///
/// # Errors
/// When asking fails, or there is none for long.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let asking = async {
        loop {
            if let Some(answer) = ask().await? {
                return Ok(answer);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(what, asking).await?
}

/// The repository.
pub fn repository() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The sample clip: 90 s, 640x360, 10 frames a second, with speech.
pub fn sample_clip() -> PathBuf {
    repository().join("tests/media/street-demo.mp4")
}
