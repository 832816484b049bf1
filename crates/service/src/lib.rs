//! What every role needs to run and to be operated: clock, failpoints, metrics, probes, telemetry.

pub mod admin;
mod chain;
pub mod clock;
pub mod failpoint;
pub mod metrics;
pub mod telemetry;
pub mod trace;

pub use chain::chain;
pub use tokio_util::sync::CancellationToken as Shutdown;
