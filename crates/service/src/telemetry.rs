//! Logs of a process: to standard error, for people or as JSON.

use std::io::IsTerminal;

use thiserror::Error;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for programs.
    Json,
}

/// Logging that can't be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter can't be read.
    #[error(
        "log filter {filter:?} is not understood; write for example \"info\" or \"warn,sightline_ingest=debug\""
    )]
    Filter {
        /// What was given.
        filter: String,
        /// Why.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The process has a logger already.
    #[error("logging is set up twice")]
    Twice,
}

/// Starts logging to standard error. `filter` as of `tracing_subscriber::EnvFilter`, for example `info`.
pub fn init(filter: &str, format: LogFormat) -> Result<(), TelemetryError> {
    let env_filter = EnvFilter::try_new(filter).map_err(|source| TelemetryError::Filter {
        filter: filter.to_owned(),
        source,
    })?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(env_filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let set = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
    set.map_err(|_| TelemetryError::Twice)
}
