//! The product's promise, told as users' stories on the real binary: real nats-server, real decoder, real models.

mod alerts_killed;
mod backtest;
mod bad_input;
mod clients;
mod cluster;
mod console;
mod corrupted;
mod demo;
mod faults;
mod health;
mod interim;
mod kill;
mod models;
mod observed;
mod operated;
mod playback;
mod recording;
mod remote_models;
mod roles;
mod rtsp;
mod sources;
mod truth;
mod up;
mod videodb;

use sightline_testkit::platform::Ground;

/// A test's own nats-server and directory, for the binary that this build made.
async fn ground() -> anyhow::Result<Ground> {
    Ground::prepare(env!("CARGO_BIN_EXE_sightline")).await
}
