//! The real binary as a process: started, listened to, told to stop, killed.

use std::ffi::OsString;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::LONG;

/// Log lines that are kept for looking at afterwards; a test that writes more has gone wrong.
const LOG_LINES: usize = 100_000;
/// How long the end of a log may take after the end of its process.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A running `sightline` process. Dropping it kills it.
pub struct Process {
    name: String,
    child: Child,
    stdout: Lines<BufReader<ChildStdout>>,
    log: Arc<Mutex<Vec<String>>>,
    logging: JoinHandle<()>,
}

impl Process {
    /// Starts `binary` with `arguments` and nothing but `PATH`, `HOME`, the cache directory, ONNX Runtime's place and `environment` around it.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(
        binary: &Path,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        Self::run(std::process::Command::new(binary), arguments, environment)
    }

    /// The same for a command that runs the binary somewhere, such as [`crate::hosts::Host::command`].
    ///
    /// # Errors
    /// When it can't be started.
    pub fn run(
        command: std::process::Command,
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
        environment: &[(&str, &str)],
    ) -> Result<Self> {
        let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).collect();
        let name = arguments.first().map(|a| a.to_string_lossy().into_owned());
        let program = command.get_program().display().to_string();
        let mut command = Command::from(command);
        command
            .args(&arguments)
            .env_clear()
            .envs(kept())
            .envs(environment.iter().copied());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let stdout = child.stdout.take().context("it has a standard output")?;
        let stderr = child.stderr.take().context("it has a standard error")?;
        let log = Arc::new(Mutex::new(Vec::new()));
        let logging = tokio::spawn(keep(stderr, Arc::clone(&log)));
        Ok(Self {
            name: name.unwrap_or_default(),
            child,
            stdout: BufReader::new(stdout).lines(),
            log,
            logging,
        })
    }

    /// The next line of its standard output.
    ///
    /// # Errors
    /// When it ends first, or says nothing for long; the error has the end of its log.
    pub async fn line(&mut self) -> Result<String> {
        match timeout(LONG, self.stdout.next_line()).await {
            Ok(Ok(Some(line))) => Ok(line),
            Ok(Ok(None)) => bail!(
                "{} ended before it said anything\n{}",
                self.name,
                self.last_words()
            ),
            Ok(Err(error)) => Err(error).context("its output is unreadable"),
            Err(_) => bail!("{} says nothing\n{}", self.name, self.last_words()),
        }
    }

    /// All that is left of its standard output, until it ends.
    ///
    /// # Errors
    /// When it does not end within `longest`.
    pub async fn output(&mut self, longest: Duration) -> Result<Vec<String>> {
        let reading = async {
            let mut lines = Vec::new();
            while let Some(line) = self.stdout.next_line().await? {
                lines.push(line);
            }
            anyhow::Ok(lines)
        };
        let read = timeout(longest, reading).await;
        match read {
            Ok(lines) => lines,
            Err(_) => bail!("{} does not end\n{}", self.name, self.last_words()),
        }
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<Pid> {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok());
        pid.and_then(Pid::from_raw)
    }

    /// Whether it has ended, killed or by itself.
    ///
    /// # Errors
    /// When that can't be said.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Kills it as `kill -9` does, and waits until it is gone.
    ///
    /// # Errors
    /// When it can't be waited for.
    pub async fn kill(&mut self) -> Result<()> {
        self.child
            .kill()
            .await
            .with_context(|| format!("cannot kill {}", self.name))
    }

    /// Asks it to stop, as an operator does, and waits for the end.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn terminate(&mut self) -> Result<ExitStatus> {
        if let Some(pid) = self.pid() {
            kill_process(pid, Signal::TERM)?;
        }
        self.ended().await
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn ended(&mut self) -> Result<ExitStatus> {
        let Ok(status) = timeout(LONG, self.child.wait()).await else {
            bail!("{} does not end\n{}", self.name, self.last_words());
        };
        // What it wrote last may still be in the pipe; a child of its own may hold that open for a moment.
        if !self.logging.is_finished() {
            let _ = timeout(LAST_WORDS, &mut self.logging).await;
        }
        Ok(status?)
    }

    /// What it wrote to its standard error.
    pub fn log(&self) -> Vec<String> {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The ids of its children.
    ///
    /// # Errors
    /// When /proc can't be read.
    pub fn children(&self) -> Result<Vec<Pid>> {
        let parent = self.pid().context("it runs")?.as_raw_nonzero().get();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
                continue;
            };
            // A process may end while it is looked at.
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
            let of = fields
                .split(' ')
                .nth(1)
                .and_then(|ppid| ppid.parse::<i32>().ok());
            if of == Some(parent) {
                found.extend(Pid::from_raw(pid));
            }
        }
        Ok(found)
    }

    fn last_words(&self) -> String {
        let log = self.log();
        log[log.len().saturating_sub(20)..].join("\n")
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "a process under test gets these of this test's environment"
)]
fn kept() -> Vec<(OsString, OsString)> {
    ["PATH", "HOME", "XDG_CACHE_HOME", "SIGHTLINE_ONNXRUNTIME"]
        .into_iter()
        .filter_map(|name| Some((name.into(), std::env::var_os(name)?)))
        .collect()
}

async fn keep(stderr: impl AsyncRead + Unpin, log: Arc<Mutex<Vec<String>>>) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() < LOG_LINES {
            log.push(line);
        }
    }
}
