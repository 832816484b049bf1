//! A worker that is killed anywhere loses no batch and doubles none. The test runs itself again as the process that is
//! killed.

use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sightline_bus::BusConfig;
use sightline_proto::internal::{Observation, RunRecord};
use sightline_proto::v1::rt_stream::State;
use sightline_service::clock::ManualClock;
use sightline_service::failpoint;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::harness::{EPOCH_US, LONG, Platform, SECOND_US, STREAM, body, serve, words};

const TEST: &str = "killed::a_killed_worker_loses_and_doubles_nothing";
const FAILPOINT: &str = "SIGHTLINE_TEST_FAILPOINT";
const NATS_URL: &str = "SIGHTLINE_TEST_NATS_URL";
const NATS_TOKEN: &str = "SIGHTLINE_TEST_NATS_TOKEN";
const NOW_US: &str = "SIGHTLINE_TEST_NOW_US";

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_loses_and_doubles_nothing() -> Result<()> {
    if let Some(armed) = variable(FAILPOINT) {
        return serve_until_killed(&armed).await;
    }
    let platform = Platform::start().await?;
    platform.index("idx-1", words(4), 0).await?;
    platform.index("idx-2", words(4), 0).await?;
    platform.read_by("idx-2", "reader").await?;
    for n in 0..10 {
        platform.say(n * 3, &format!("a{n} b{n} c{n}")).await?;
    }
    let durable = format!("batching-{}", platform.catalog.partition_of(STREAM));
    for place in [
        "batching.before_state=1".to_owned(),
        "batching.after_state=1".to_owned(),
        "batching.after_publish=1".to_owned(),
        format!("{durable}.before_ack=2"),
        format!("{durable}.after_ack=1"),
    ] {
        dies(&platform, &place, EPOCH_US).await?;
    }
    // The end is by the clock, and whoever comes next finds it as it was decided.
    let over = RunRecord {
        epoch_us: EPOCH_US,
        state: State::Ended.into(),
        ..RunRecord::default()
    };
    platform.catalog.create(STREAM, &over).await?;
    let worker = platform.serve().await?;
    platform.batches("idx-1", 7).await?;
    worker.stop().await?;
    for place in ["batching.before_state=1", "batching.after_state=1"] {
        dies(&platform, place, EPOCH_US + 100 * SECOND_US).await?;
    }
    platform.say(40, "z").await?;
    let worker = platform.serve().await?;
    platform.waits("idx-1", 1).await?;
    platform.passes_until("idx-1", 9).await?;
    let shown = platform.shown("idx-1", 9).await?;
    let said: Vec<&str> = shown
        .iter()
        .filter_map(|s| s.split_once(' '))
        .map(|s| s.1)
        .collect();
    let mut expected: Vec<String> = (0..10).map(|n| format!("a{n} b{n} c{n}")).collect();
    expected.push("z".to_owned());
    assert_eq!(said.join(" "), expected.join(" "), "{shown:?}");
    let numbers: Vec<&str> = shown
        .iter()
        .filter_map(|s| s.split_once('@'))
        .map(|s| s.0)
        .collect();
    assert_eq!(numbers, ["0", "1", "2", "3", "4", "5", "6", "7", "8"]);
    // What a model is to read is on its way to the model, each word once. Where a kill came before its end was decided, what
    // was said later may be in one batch with it.
    let last = |read: &[Observation]| {
        let last = read.last().and_then(|observed| body(observed).ok());
        last.is_some_and(|batch| batch.transcript.ends_with('z'))
    };
    let read = platform.texts("reader", "idx-2", last).await?;
    let read: Vec<_> = read.iter().map(body).collect::<Result<_>>()?;
    let said: Vec<&str> = read.iter().map(|batch| &*batch.transcript).collect();
    assert_eq!(said.join(" "), expected.join(" "));
    let numbers = read.iter().map(|batch| batch.batch);
    assert!(numbers.eq(0..read.len() as u64), "{said:?}");
    worker.stop().await
}

/// Runs a worker that is killed at this place.
async fn dies(platform: &Platform, place: &str, now_us: i64) -> Result<()> {
    let mut child = Worker::start(platform, place, now_us)?;
    let ended = spawn_blocking(move || child.0.wait());
    let status = timeout(LONG, ended)
        .await
        .with_context(|| format!("{place}: not killed"))???;
    assert_eq!(status.code(), None, "{place}: it ended by itself");
    Ok(())
}

/// The child: serves with a place at which it is killed, its clock going on 10 s each second.
async fn serve_until_killed(armed: &str) -> Result<()> {
    failpoint::arm(armed)?;
    let config = BusConfig {
        url: variable(NATS_URL).context("no url")?,
        name: "killed".to_owned(),
        login: variable(NATS_TOKEN).into(),
        ..BusConfig::default()
    };
    let now_us: i64 = variable(NOW_US).context("no time")?.parse()?;
    let clock = Arc::new(ManualClock::at(now_us));
    let _worker = serve(&config, clock.clone()).await?;
    for tenths in 0..1200 {
        sleep(Duration::from_millis(100)).await;
        clock.set(now_us + tenths * SECOND_US);
    }
    bail!("it was not killed")
}

/// The running child; one that is not killed in time is ended with the test.
struct Worker(Child);

impl Worker {
    fn start(platform: &Platform, armed: &str, now_us: i64) -> Result<Self> {
        let bus = platform.server.config("killed");
        let child = Command::new(std::env::current_exe()?)
            .args(["--exact", TEST, "--nocapture"])
            .env(FAILPOINT, armed)
            .env(NATS_URL, bus.url)
            .env(NATS_TOKEN, bus.login.token().unwrap_or_default())
            .env(NOW_US, now_us.to_string())
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "how the test speaks to itself")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
