//! llama.cpp's own server with random models: what it answers is nonsense, but the same nonsense each time.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::{python, repository, soon};

/// The key that it asks for.
pub const KEY: &str = "sk-of-the-test-0123456789";
/// The name of the model that chats and sees.
pub const VLM: &str = "random-vlm";
/// The name of the model that embeds, in vectors of [`DIMENSION`] numbers.
pub const EMBEDDER: &str = "random-embedder";
/// How long its vectors are.
pub const DIMENSION: usize = 64;

/// A running server.
pub struct Llama {
    /// Where the model that chats is served, with `/v1`.
    pub chat: String,
    /// Where the model that embeds is served, with `/v1`.
    pub embed: String,
    /// Ends when its standard input does.
    _child: Child,
    directory: TempDir,
}

impl Llama {
    /// Makes the models and starts serving them.
    ///
    /// # Errors
    /// When `scripts/setup test` has not installed it, or it does not come up.
    pub async fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        std::fs::write(directory.path().join("key"), format!("{KEY}\n"))?;
        let mut child = Command::new(python::interpreter()?)
            .arg(repository().join("tests/openai_server/serve.py"))
            .args([directory.path().as_os_str(), KEY.as_ref()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let said = child.stdout.take().context("it has a standard output")?;
        let mut lines = BufReader::new(said).lines();
        let line = soon("llama.cpp's server", lines.next_line()).await??;
        let line = line.context("it says where it listens")?;
        let [chat, embed] = serde_json::from_str(&line)?;
        Ok(Self {
            chat,
            embed,
            _child: child,
            directory,
        })
    }

    /// A file with the key.
    pub fn key_file(&self) -> PathBuf {
        self.directory.path().join("key")
    }
}
