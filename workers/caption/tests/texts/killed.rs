//! A worker that is killed anywhere loses no answer and doubles none. The test runs itself again as the process that is killed.

use std::collections::HashSet;
use std::process::{Child, Command};

use anyhow::{Context, Result, bail};
use sightline_bus::BusConfig;
use sightline_proto::v1::alert::State;
use sightline_service::failpoint;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::harness::{LONG, Platform, serve};

const TEST: &str = "killed::a_killed_worker_loses_and_doubles_nothing";
const FAILPOINT: &str = "SIGHTLINE_TEST_FAILPOINT";
const NATS_URL: &str = "SIGHTLINE_TEST_NATS_URL";
const NATS_TOKEN: &str = "SIGHTLINE_TEST_NATS_TOKEN";
const PLACES: [&str; 4] = [
    "texts.after_verdicts=2",
    "texts-reader.before_output=2",
    "texts-reader.before_ack=2",
    "texts-reader.after_ack=2",
];
/// Batches for each worker that is killed.
const EACH: u64 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_loses_and_doubles_nothing() -> Result<()> {
    if let Some(armed) = variable(FAILPOINT) {
        return serve_until_killed(&armed).await;
    }
    let platform = Platform::start().await?;
    platform.index("idx-1", "Sum up:").await?;
    platform
        .watch("idx-1", "evt-1", "Somebody says word", State::Enabled, 0)
        .await?;
    let mut said = 0;
    for place in PLACES {
        for _ in 0..EACH {
            platform.say("idx-1", said, &format!("word {said}")).await?;
            said += 1;
        }
        dies(&platform, place).await?;
    }
    let worker = platform.serve().await?;
    platform.done().await?;
    worker.stop().await?;
    for kind in ["verdict", "audio_scene"] {
        let found = platform.observed(kind, said as usize).await?;
        let distinct: HashSet<_> = found.iter().map(|o| (&o.id, o.start_us)).collect();
        assert_eq!(
            (found.len(), distinct.len()),
            (said as usize, said as usize),
            "{kind}"
        );
    }
    Ok(())
}

/// Runs a worker that is killed at this place.
async fn dies(platform: &Platform, place: &str) -> Result<()> {
    let mut child = Process::start(platform, place)?;
    let ended = spawn_blocking(move || child.0.wait());
    let status = timeout(LONG, ended)
        .await
        .with_context(|| format!("{place}: not killed"))???;
    assert_eq!(status.code(), None, "{place}: it ended by itself");
    Ok(())
}

/// The child: serves with a place at which it is killed.
async fn serve_until_killed(armed: &str) -> Result<()> {
    failpoint::arm(armed)?;
    let config = BusConfig {
        url: variable(NATS_URL).context("no url")?,
        name: "killed".to_owned(),
        login: variable(NATS_TOKEN).into(),
        ..BusConfig::default()
    };
    let _worker = serve(&config).await?;
    sleep(LONG).await;
    bail!("it was not killed")
}

/// The running child; one that is not killed in time is ended with the test.
struct Process(Child);

impl Process {
    fn start(platform: &Platform, armed: &str) -> Result<Self> {
        let bus = platform.server.config("killed");
        let child = Command::new(std::env::current_exe()?)
            .args(["--exact", TEST, "--nocapture"])
            .env(FAILPOINT, armed)
            .env(NATS_URL, bus.url)
            .env(NATS_TOKEN, bus.login.token().unwrap_or_default())
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "how the test speaks to itself")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
