//! Stopping: SIGTERM and SIGINT drain; what does not drain in time, or a second signal, ends the process.

use std::time::Duration;

use anyhow::{Context, Result};
use sightline_service::Shutdown;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long draining may take. Roles need less: workers give back to the bus what they have not finished after 20 s, the
/// gateway cuts calls after 10 s.
const DRAIN: Duration = Duration::from_secs(30);

/// A token that the first SIGTERM or SIGINT cancels.
///
/// # Errors
/// When the signals can't be listened to.
pub fn shutdown_on_signal() -> Result<Shutdown> {
    let shutdown = Shutdown::new();
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen to SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen to SIGINT")?;
    let stop = shutdown.clone();
    tokio::spawn(async move {
        either(&mut terminate, &mut interrupt).await;
        tracing::info!("stopping, what is under way is finished first");
        stop.cancel();
        tokio::select! {
            () = either(&mut terminate, &mut interrupt) => {}
            () = tokio::time::sleep(DRAIN) => {
                tracing::error!(seconds = DRAIN.as_secs(), "not drained in time, giving up");
            }
        }
        std::process::exit(1);
    });
    Ok(shutdown)
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
