//! A real sender: ffmpeg, which plays a file in real time, over and over, into whatever protocol is asked for.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

/// What is sent for as long as this lives.
pub struct Sender {
    running: Child,
}

impl Sender {
    /// Sends a file as it is coded: `format` and `url` are ffmpeg's.
    ///
    /// # Errors
    /// When ffmpeg can't be started.
    pub fn start(file: &Path, format: &[&str], url: &str) -> Result<Self> {
        Self::start_at("-1", file, format, url)
    }

    /// The same, once.
    ///
    /// # Errors
    /// When ffmpeg can't be started.
    pub fn once(file: &Path, format: &[&str], url: &str) -> Result<Self> {
        Self::start_at("0", file, format, url)
    }

    fn start_at(times: &str, file: &Path, format: &[&str], url: &str) -> Result<Self> {
        let running = Command::new("ffmpeg")
            .args([
                "-hide_banner",
                "-loglevel",
                "error",
                "-nostdin",
                "-y",
                "-re",
            ])
            .args(["-stream_loop", times, "-i"])
            .arg(file)
            .args(["-c", "copy"])
            .args(format)
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start ffmpeg")?;
        Ok(Self { running })
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let _ = self.running.kill();
        let _ = self.running.wait();
    }
}
