//! The child's side: reads one source for its worker, which it hears on standard input and tells on standard output.

use std::io::{self, BufReader, Write};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};
use sightline_media::{Control, play};
use sightline_proto::internal::child_command::Command;
use sightline_proto::internal::child_report::Report;
use sightline_proto::internal::{ChildCommand, ChildReport, Failed, OpenSource};
use sightline_service::clock::SystemClock;

use crate::wire;

/// Address space of a child: a stream that makes a decoder ask for more ends the child alone. Threads reserve much more
/// than they use.
const ADDRESS_SPACE: u64 = 4 << 30;
/// Files and sockets of a child.
const FILES: u64 = 256;
/// How long a child whose worker is gone may take to end by itself.
const LAST_MOMENT: Duration = Duration::from_secs(2);

/// Reads one source as commanded on standard input until it ends, fails, or the worker is gone: what the hidden
/// `sightline ingest-child` does.
pub fn run_child() -> ExitCode {
    limit();
    let control = Arc::new(Control::default());
    let open = listen(Arc::clone(&control));
    // The worker is gone before it said what to open.
    let Ok(open) = open.recv() else {
        return ExitCode::SUCCESS;
    };
    let output = Arc::new(Output {
        stdout: Mutex::new(io::stdout()),
        control: Arc::clone(&control),
    });
    let reports = Arc::clone(&output);
    let ended = play(
        &open,
        &control,
        Arc::new(SystemClock),
        Box::new(move |report| reports.write(report)),
    );
    output.write(match ended {
        Ok(ended) => Report::Ended(ended),
        Err(failure) => Report::Failed(Failed {
            reason: failure.reason,
            permanent: failure.permanent,
        }),
    });
    ExitCode::SUCCESS
}

/// Where reports go. A worker that takes none holds the source back: the pipe is full.
struct Output {
    stdout: Mutex<io::Stdout>,
    control: Arc<Control>,
}

impl Output {
    fn write(&self, report: Report) {
        let report = ChildReport {
            report: Some(report),
        };
        let mut stdout = self.stdout.lock().unwrap_or_else(PoisonError::into_inner);
        let written = wire::write(&mut *stdout, &report).and_then(|()| stdout.flush());
        if written.is_err() {
            self.control.stop();
        }
    }
}

/// Follows the commands on a thread of its own; the source to open comes out.
fn listen(control: Arc<Control>) -> Receiver<OpenSource> {
    let (sender, opened) = sync_channel(1);
    std::thread::spawn(move || {
        let mut stdin = BufReader::new(io::stdin());
        while let Ok(Some(command)) = wire::read::<ChildCommand>(&mut stdin) {
            match command.command {
                Some(Command::Open(open)) => {
                    let _ = sender.try_send(open);
                }
                Some(Command::Take(take)) => control.take(take),
                None => {}
            }
        }
        // Standard input is closed: the worker is done with this child, or gone.
        control.stop();
        drop(sender);
        std::thread::park_timeout(LAST_MOMENT);
        std::process::exit(1);
    });
    opened
}

/// A hostile stream costs this process alone.
fn limit() {
    for (resource, most) in [(Resource::As, ADDRESS_SPACE), (Resource::Nofile, FILES)] {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        if let Err(error) = setrlimit(resource, limit) {
            tracing::warn!(%error, ?resource, "a limit of an ingest child is not set");
        }
    }
}
