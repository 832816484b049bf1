//! A service that is killed between storing and acknowledging loses nothing and doubles nothing. The test runs itself again
//! as the process that is killed.

use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use sightline_bus::{Bus, BusConfig};
use sightline_service::failpoint;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::support::{LONG, Platform, all, assert_records, embedder, scene, serve, variable};

const TEST: &str = "killed::a_killed_service_loses_and_doubles_nothing";
const FAILPOINT: &str = "SIGHTLINE_TEST_FAILPOINT";
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
        let mut child = Service::start(&platform, place)?;
        let ended = spawn_blocking(move || child.0.wait());
        let status = timeout(LONG, ended)
            .await
            .context("it was not killed")???;
        assert_eq!(status.code(), None, "{place}: it ended by itself");
    }
    let service = platform.serve().await?;
    let records = service.holds(all(), observations.len()).await?;
    assert_records(&records, &observations)?;
    service.stop().await
}

/// The child: serves with a place at which it is killed.
async fn serve_until_killed(armed: &str) -> Result<()> {
    failpoint::arm(armed)?;
    let config = BusConfig {
        url: variable(NATS_URL).context("no url")?,
        name: "killed".to_owned(),
        token: variable(NATS_TOKEN),
    };
    let bus = Bus::connect(&config).await?;
    let store = variable(STORE).context("no store")?;
    let service = serve(bus, Arc::new(embedder()?), Path::new(&store)).await?;
    service.holds(all(), 1000).await?;
    bail!("it was not killed")
}

/// The running child; one that is not killed in time is ended with the test.
struct Service(Child);

impl Service {
    fn start(platform: &Platform, armed: &str) -> Result<Self> {
        let bus = platform.server.config("killed");
        let child = Command::new(std::env::current_exe()?)
            .args(["--exact", TEST, "--nocapture"])
            .env(FAILPOINT, armed)
            .env(NATS_URL, bus.url)
            .env(NATS_TOKEN, bus.token.unwrap_or_default())
            .env(STORE, platform.store_dir())
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
