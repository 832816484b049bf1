//! The child's side: reads one source for its worker, or makes pictures or one file, as it hears on standard input, and tells on
//! standard output.

use std::io::{self, BufReader, Stdin};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};
use sightline_media::{Control, Failure, Policy, play};
use sightline_proto::internal::child_command::Command;
use sightline_proto::internal::child_report::Report;
use sightline_proto::internal::{
    ChildCommand, ChildReport, Exported, Failed, MakeThumbnail, OpenSource, Picture, WriteExport,
};
use sightline_service::clock::SystemClock;

use crate::wire;

/// Address space of a child: a stream that makes a decoder ask for more ends the child alone. Threads reserve much more
/// than they use.
const ADDRESS_SPACE: u64 = 4 << 30;
/// Files and sockets of a child.
const FILES: u64 = 256;
/// How long a child whose worker is gone may take to end by itself.
const LAST_MOMENT: Duration = Duration::from_secs(2);

/// Where commands come from.
type Commands = BufReader<Stdin>;

/// Does what it is commanded on standard input, until that is done or the worker is gone: reads one source, takes pictures out of
/// segments, or writes one export. Sources are where `policy` allows. What the hidden `sightline ingest-child` does.
pub fn run_child(policy: &Policy) -> ExitCode {
    limit();
    let control = Arc::new(Control::default());
    let output = Arc::new(Output {
        stdout: Mutex::new(io::stdout()),
        control: Arc::clone(&control),
    });
    let mut stdin = BufReader::new(io::stdin());
    let first = wire::read::<ChildCommand>(&mut stdin);
    let last = match first.ok().flatten().and_then(|first| first.command) {
        Some(Command::Open(open)) => read_source(&open, policy, stdin, &control, &output),
        Some(Command::Thumbnail(wanted)) => return pictures(wanted, stdin, &output),
        Some(Command::Export(wanted)) => write_export(&wanted, stdin),
        // The worker is gone before it said what to do.
        _ => return ExitCode::SUCCESS,
    };
    output.write(last);
    ExitCode::SUCCESS
}

/// Reads a source until it ends, fails, or the worker wants no more of it.
fn read_source(
    open: &OpenSource,
    policy: &Policy,
    stdin: Commands,
    control: &Arc<Control>,
    output: &Arc<Output>,
) -> Report {
    listen(stdin, Arc::clone(control));
    let reports = Arc::clone(output);
    let ended = play(
        open,
        policy,
        control,
        Arc::new(SystemClock),
        Box::new(move |report| reports.write(report)),
    );
    match ended {
        Ok(ended) => Report::Ended(ended),
        Err(failure) => failed(failure),
    }
}

/// Takes pictures out of segments, one after the other, until the worker is done with this child, or gone.
fn pictures(first: MakeThumbnail, mut stdin: Commands, output: &Output) -> ExitCode {
    let (sender, wanted) = sync_channel(1);
    std::thread::spawn(move || {
        while let Ok(Some(command)) = wire::read::<ChildCommand>(&mut stdin) {
            let Some(Command::Thumbnail(next)) = command.command else {
                break;
            };
            if sender.send(next).is_err() {
                break;
            }
        }
        std::process::exit(1);
    });
    let mut next = Some(first);
    while let Some(taken) = next {
        output.write(picture(&taken));
        next = wanted.recv().ok();
    }
    ExitCode::SUCCESS
}

fn picture(wanted: &MakeThumbnail) -> Report {
    match sightline_media::thumbnail(&wanted.ts, wanted.offset_us, wanted.edge) {
        Ok(jpeg) => Report::Picture(Picture { jpeg: jpeg.into() }),
        Err(failure) => failed(failure),
    }
}

/// Writes the segments that follow into an MP4 file.
fn write_export(wanted: &WriteExport, mut stdin: Commands) -> Report {
    let next = move || {
        let command = wire::read::<ChildCommand>(&mut stdin);
        match command.ok().flatten().and_then(|command| command.command) {
            Some(Command::ExportSegment(segment)) => Some(segment.ts),
            Some(Command::ExportEnd(_)) => None,
            // The worker is gone, and what is written is not whole.
            _ => std::process::exit(1),
        }
    };
    match sightline_media::export(next, Path::new(&wanted.file)) {
        Ok(duration_us) => Report::Exported(Exported { duration_us }),
        Err(failure) => failed(failure),
    }
}

fn failed(failure: Failure) -> Report {
    Report::Failed(Failed {
        reason: failure.reason,
        permanent: failure.permanent,
    })
}

/// Where reports go. A worker that takes none holds the source back: the pipe is full.
struct Output {
    stdout: Mutex<io::Stdout>,
    control: Arc<Control>,
}

impl Output {
    fn write(&self, report: Report) {
        let mut stdout = self.stdout.lock().unwrap_or_else(PoisonError::into_inner);
        let written = match report {
            Report::Segment(segment) => wire::write_segment(&mut *stdout, segment),
            report => wire::write(
                &mut *stdout,
                &ChildReport {
                    report: Some(report),
                },
            ),
        };
        if written.is_err() {
            self.control.stop();
        }
    }
}

/// Follows the commands on a thread of its own.
fn listen(mut stdin: Commands, control: Arc<Control>) {
    std::thread::spawn(move || {
        while let Ok(Some(command)) = wire::read::<ChildCommand>(&mut stdin) {
            if let Some(Command::Take(take)) = command.command {
                control.take(take);
            }
        }
        // Standard input is closed: the worker is done with this child, or gone.
        control.stop();
        std::thread::park_timeout(LAST_MOMENT);
        std::process::exit(1);
    });
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
