//! What a process tells its operator beside metrics: log lines on standard error, and where a collector is named, traces, log lines
//! and metrics by OTLP.

mod exporting;
mod headers;
mod lines;
mod measured;
mod sending;

use thiserror::Error;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry};

pub use exporting::{Otlp, export, flush, register_metrics};
pub use headers::Headers;
pub use lines::LogFormat;

/// A part of what takes log lines and spans.
type Part = Box<dyn Layer<Registry> + Send + Sync>;

/// Telemetry that can't be set up.
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
    /// The collector's address can't be used. It is not repeated: there may be a password in it.
    #[error("the OTLP endpoint is not usable; write for example \"http://collector:4317\"")]
    Endpoint(#[source] tonic::transport::Error),
    /// The process has a logger already.
    #[error("logging is set up twice")]
    Twice,
}

/// Starts logging to standard error. `filter` as of `tracing_subscriber::EnvFilter`, for example `info`. With a collector, spans and
/// log lines are gathered for it from now on, and [`export`] begins to send them.
///
/// # Errors
/// When the filter or the collector's address can't be read; the error says what to do.
pub fn init(filter: &str, format: LogFormat, otlp: Option<&Otlp>) -> Result<(), TelemetryError> {
    let mut parts = vec![lines::part(env_filter(filter)?, format)];
    if let Some(otlp) = otlp {
        parts.extend(exporting::parts(otlp, env_filter(filter)?)?);
    }
    tracing_subscriber::registry()
        .with(parts)
        .try_init()
        .map_err(|_| TelemetryError::Twice)
}

fn env_filter(filter: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::try_new(filter).map_err(|source| TelemetryError::Filter {
        filter: filter.to_owned(),
        source,
    })
}
