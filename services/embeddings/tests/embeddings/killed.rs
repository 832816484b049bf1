//! A service that is killed between storing and acknowledging loses nothing and doubles nothing. The test runs itself again
//! as the process that is killed.

use std::path::PathBuf;
use std::process::{self, Command};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use sightline_bus::{Bus, BusConfig};
use sightline_service::failpoint;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::support::{LONG, Platform, all, assert_records, embedder, scene, serve, variable};

const TEST: &str = "killed::a_killed_service_loses_and_doubles_nothing";
pub const FAILPOINT: &str = "SIGHTLINE_TEST_FAILPOINT";
const NATS_URL: &str = "SIGHTLINE_TEST_NATS_URL";
const NATS_TOKEN: &str = "SIGHTLINE_TEST_NATS_TOKEN";
const STORE: &str = "SIGHTLINE_TEST_STORE";

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_service_loses_and_doubles_nothing() -> Result<()> {
    if let Some(armed) = variable(FAILPOINT) {
        return serve_until_killed(&armed).await;
    }
    let platform = Platform::start().await?;
    let observations: Vec<_> = (0..200)
        .map(|window| scene("rts-1", "idx-1", window, &format!("scene {window}")))
        .collect();
    platform.publish(&observations).await?;
    for place in ["embeddings.before_upsert=2", "embeddings.after_upsert=1"] {
        Child::start(&platform, TEST, place)?.dies_at(place).await?;
    }
    let service = platform.serve().await?;
    let records = service.holds(all(), observations.len()).await?;
    assert_records(&records, &observations)?;
    service.stop().await
}

/// The child: serves with a place at which it is killed.
async fn serve_until_killed(armed: &str) -> Result<()> {
    failpoint::arm(armed)?;
    let (bus, store) = inherited().await?;
    let service = serve(bus, Arc::new(embedder()?), &store).await?;
    service.holds(all(), 1000).await?;
    bail!("it was not killed")
}

/// In the child: the bus and the store that the test gave it.
pub async fn inherited() -> Result<(Bus, PathBuf)> {
    let config = BusConfig {
        url: variable(NATS_URL).context("no url")?,
        name: "killed".to_owned(),
        login: variable(NATS_TOKEN).into(),
        ..BusConfig::default()
    };
    let store = variable(STORE).context("no store")?;
    Ok((Bus::connect(&config).await?, store.into()))
}

/// The running child; one that is not killed in time is ended with the test.
pub struct Child(process::Child);

impl Child {
    /// Runs a test as a process that is killed at a place.
    pub fn start(platform: &Platform, test: &str, armed: &str) -> Result<Self> {
        let bus = platform.server.config("killed");
        let child = Command::new(std::env::current_exe()?)
            .args(["--exact", test, "--nocapture"])
            .env(FAILPOINT, armed)
            .env(NATS_URL, bus.url)
            .env(NATS_TOKEN, bus.login.token().unwrap_or_default())
            .env(STORE, platform.store_dir())
            .spawn()?;
        Ok(Self(child))
    }

    /// Waits until it is killed.
    pub async fn dies_at(mut self, place: &str) -> Result<()> {
        let ended = spawn_blocking(move || self.0.wait());
        let status = timeout(LONG, ended)
            .await
            .with_context(|| format!("{place}: it was not killed"))???;
        assert_eq!(status.code(), None, "{place}: it ended by itself");
        Ok(())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
