//! A real sender: ffmpeg, which plays a file in real time, over and over, into whatever protocol is asked for.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

/// Between one that ended and the next.
const PAUSE: Duration = Duration::from_millis(100);

/// What is sent for as long as this lives. One that serves a single connection is followed by another, as an encoder that
/// listens takes whoever comes next.
pub struct Sender {
    running: Arc<Mutex<Running>>,
    following: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Running {
    pid: Option<Pid>,
    over: bool,
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
        let mut command = Command::new("ffmpeg");
        command
            .args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y"])
            .args(["-re", "-stream_loop", times, "-i"])
            .arg(file)
            .args(["-c", "copy"])
            .args(format)
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = command.spawn().context("cannot start ffmpeg")?;
        let pid = Pid::from_child(&child);
        let running = Arc::new(Mutex::new(Running {
            pid: Some(pid),
            over: times == "0",
        }));
        let following = Arc::clone(&running);
        let following = thread::spawn(move || {
            loop {
                let _ = child.wait();
                locked(&following).pid = None;
                thread::park_timeout(PAUSE);
                let mut running = locked(&following);
                if running.over {
                    return;
                }
                let Ok(next) = command.spawn() else { return };
                running.pid = Some(Pid::from_child(&next));
                child = next;
            }
        });
        Ok(Self {
            running,
            following: Some(following),
        })
    }
}

fn locked(running: &Mutex<Running>) -> std::sync::MutexGuard<'_, Running> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Sender {
    fn drop(&mut self) {
        let mut running = locked(&self.running);
        running.over = true;
        if let Some(pid) = running.pid {
            let _ = kill_process(pid, Signal::KILL);
        }
        drop(running);
        if let Some(following) = self.following.take() {
            following.thread().unpark();
            let _ = following.join();
        }
    }
}
