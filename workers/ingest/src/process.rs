//! The worker's side of a child process.

use std::ffi::OsString;
use std::io;
use std::process::Stdio;

use prost::Message;
use sightline_proto::internal::child_command::Command as Body;
use sightline_proto::internal::child_report::Report;
use sightline_proto::internal::{ChildCommand, ChildReport, OpenSource, TakeFrom};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;

use crate::wire;

/// Reports that were read and not yet handled. When they are, the pipe fills, and with it the source is held back.
const READ_AHEAD: usize = 2;
/// Variables of the worker that may hold secrets: a child reads what strangers send.
const SECRETS: [&str; 9] = [
    "SIGHTLINE_API_KEY",
    "SIGHTLINE_NATS_URL",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_TOKEN",
    "AWS_SSE_CUSTOMER_KEY_BASE64",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
];

/// A running child. Dropping it kills it.
pub(crate) struct ChildProcess {
    child: Child,
    /// None once the child was told to complete what it has.
    stdin: Option<ChildStdin>,
    reports: mpsc::Receiver<io::Result<Report>>,
}

impl ChildProcess {
    /// Starts a child that opens `open`.
    pub(crate) async fn start(program: &[OsString], open: OpenSource) -> io::Result<Self> {
        let mut started = Self::spawn(program)?;
        started.send(Body::Open(open)).await?;
        Ok(started)
    }

    /// Starts a child that waits for its first command.
    pub(crate) fn spawn(program: &[OsString]) -> io::Result<Self> {
        let (program, arguments) = program.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        for secret in SECRETS {
            command.env_remove(secret);
        }
        let mut child = command
            .args(arguments)
            // Many threads allocate little each: one heap for each would cost more than all they hold.
            .env("MALLOC_ARENA_MAX", "2")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C in a terminal is for the worker, which ends its children itself.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let stdin = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let (sender, reports) = mpsc::channel(READ_AHEAD);
        tokio::spawn(follow(stdout, sender));
        Ok(Self {
            child,
            stdin: Some(stdin),
            reports,
        })
    }

    /// Says what to take from now on.
    pub(crate) async fn take(&mut self, take: TakeFrom) -> io::Result<()> {
        self.send(Body::Take(take)).await
    }

    /// Asks the child to complete what it has open, and to end: by closing its standard input.
    pub(crate) fn complete(&mut self) {
        self.stdin = None;
    }

    /// The next report; `None` when the child is gone. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Option<io::Result<Report>> {
        self.reports.recv().await
    }

    /// Ends the child and says how it ended.
    pub(crate) async fn end(mut self) -> String {
        let ended_itself = self.child.try_wait().ok().flatten();
        let _ = self.child.start_kill();
        match (ended_itself, self.child.wait().await) {
            (Some(status), _) | (None, Ok(status)) => status.to_string(),
            (None, Err(error)) => error.to_string(),
        }
    }

    /// Gives the child a command; waits while the child takes none.
    pub(crate) async fn send(&mut self, command: Body) -> io::Result<()> {
        let command = ChildCommand {
            command: Some(command),
        };
        let stdin = self.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        stdin
            .write_all(&command.encode_length_delimited_to_vec())
            .await?;
        stdin.flush().await
    }
}

/// Reads reports on a task of its own, because reading must not be cut off between two bytes.
async fn follow(stdout: ChildStdout, sender: mpsc::Sender<io::Result<Report>>) {
    let mut stdout = BufReader::new(stdout);
    loop {
        let report = match wire::read_async::<ChildReport>(&mut stdout).await {
            Ok(Some(ChildReport {
                report: Some(report),
            })) => Ok(report),
            Ok(Some(_)) => continue,
            Ok(None) => return,
            Err(error) => Err(error),
        };
        let failed = report.is_err();
        if sender.send(report).await.is_err() || failed {
            return;
        }
    }
}
