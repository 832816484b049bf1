//! The `sightline` binary: the whole platform (`up`), a show of it (`demo`), each role alone, and a client of a running server.

mod alone;
mod args;
mod client;
mod demo;
mod files;
mod metrics_page;
mod models;
mod nats;
mod otel;
mod platform;
mod recordings;
mod reindex;
mod roles;
mod secret;
mod signals;
mod sinks;
mod up;
mod vectors;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Error, Result};
use clap::Parser;
use sightline_service::telemetry;

use crate::args::{Cli, Command, LogFormat};

/// How long blocking calls under way may take at the end. A model that listens while the process ends finds its library taken down
/// under it, which is a crash; one that hangs, or a file system that does, must not keep a process that has drained.
const BLOCKING: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let cli = Cli::parse_from(arguments());
    match prepare(&cli) {
        Ok(()) => {}
        Err(error) => return fail(&error),
    }
    if let Command::IngestChild(reach) = cli.command {
        return sightline_ingest::run_child(&reach.policy());
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Error::new(error).context("cannot start")),
    };
    let result = runtime.block_on(async {
        let result = Box::pin(run(cli.command)).await;
        telemetry::flush().await;
        result
    });
    runtime.shutdown_timeout(BLOCKING);
    match result {
        Ok(code) => code,
        Err(error) => fail(&error),
    }
}

/// The command line. `alerts` runs a role, and nobody who asks for `alerts latency` wants to run one.
fn arguments() -> Vec<OsString> {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    if let [_, command, what, ..] = arguments.as_mut_slice()
        && command == "alerts"
        && what == "latency"
    {
        *command = "alert".into();
    }
    arguments
}

/// TLS, logs and failpoints, before anything else.
fn prepare(cli: &Cli) -> Result<()> {
    let usual = match cli.command {
        Command::Demo(_)
        | Command::IngestChild(_)
        | Command::Models(_)
        | Command::Client(_)
        | Command::Reindex(_)
        | Command::Bus(_) => "warn",
        _ => "info",
    };
    let format = match cli.log_format {
        LogFormat::Text => telemetry::LogFormat::Text,
        LogFormat::Json => telemetry::LogFormat::Json,
    };
    // Two TLS providers may be linked in; without a choice rustls panics at its first use.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let filter = cli.log.as_deref().unwrap_or(usual);
    telemetry::init(filter, format, otel::collector(&cli.command).as_ref())?;
    for spec in &cli.failpoint {
        sightline_service::failpoint::arm(spec)?;
    }
    Ok(())
}

async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Demo(args) => demo::run(args).await,
        Command::Up(args) => up::run(args).await,
        Command::Gateway(args) => alone::gateway(args).await,
        Command::Embeddings(args) => alone::embeddings(args).await,
        Command::Alerts(args) => alone::alerts(args).await,
        Command::Ingest(args) => alone::ingest(args).await,
        Command::Caption(args) => alone::caption(args).await,
        Command::Transcribe(args) => alone::transcribe(args).await,
        Command::Models(args) => models::run(args).await,
        Command::Client(command) => client::run(command).await,
        Command::Reindex(args) => reindex::run(args).await,
        Command::Bus(args) => nats::run(args).await,
        Command::MetricsPage => {
            print!("{}", metrics_page::page());
            Ok(ExitCode::SUCCESS)
        }
        Command::IngestChild(_) => unreachable!("it runs without this runtime"),
    }
}

/// Says what went wrong, with its causes, and what to do.
fn fail(error: &Error) -> ExitCode {
    eprintln!("sightline: {error:#}");
    ExitCode::FAILURE
}
