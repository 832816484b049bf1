//! `sightline` as a client of the public API: what a user asks of a running server, over gRPC like every other client.

pub mod args;
mod backtest;
mod call;
mod collections;
mod endpoints;
mod events;
mod indexes;
mod keys;
mod latency;
pub mod moment;
mod output;
mod policy;
mod shown;
mod streams;
mod system;
mod watch;

use std::io::{self, ErrorKind};
use std::process::ExitCode;

use anyhow::{Error, Result};
use serde_json::json;

use self::args::ClientCommand;
use self::call::{Refused, connect};
use self::output::Output;

/// Asks, and shows the answer.
///
/// # Errors
/// When the server refuses or does not answer. With `--json` that is told as one JSON object on standard error, and is no error
/// to tell again.
pub async fn run(command: ClientCommand) -> Result<ExitCode> {
    let out = Output::new(command.server().json);
    match dispatch(command, &out).await {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if nobody_reads(&error) => Ok(ExitCode::SUCCESS),
        Err(error) if out.json => {
            eprintln!("{}", for_programs(&error));
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(error),
    }
}

async fn dispatch(command: ClientCommand, out: &Output) -> Result<()> {
    let client = connect(command.server()).await?;
    match command {
        ClientCommand::Stream(on) => streams::run(client, on.command, out).await,
        ClientCommand::Transcript(args) => streams::transcript(client, args, out).await,
        ClientCommand::Index(on) => indexes::run(client, on.command, out).await,
        ClientCommand::Scenes(args) => indexes::scenes(client, args, out).await,
        ClientCommand::Search(args) => indexes::search(client, args, out).await,
        ClientCommand::Event(on) => events::run(client, on.command, out).await,
        ClientCommand::Alert(on) => events::alerts(client, on.command, out).await,
        ClientCommand::Endpoint(on) => endpoints::run(client, on.command, out).await,
        ClientCommand::Watch(args) => watch::run(client, args, out).await,
        ClientCommand::Collection(on) => collections::run(client, on.command, out).await,
        ClientCommand::Keys(on) => keys::run(client, on.command, out).await,
        ClientCommand::System(_) => system::run(client, out).await,
    }
}

/// Whether the reader of standard output has gone, as `head` does: it has all it wants.
fn nobody_reads(error: &Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == ErrorKind::BrokenPipe)
}

fn for_programs(error: &Error) -> serde_json::Value {
    match error.downcast_ref::<Refused>() {
        Some(refused) => refused.json(),
        None => json!({"error": {"reason": "", "message": format!("{error:#}"), "fields": {}}}),
    }
}
