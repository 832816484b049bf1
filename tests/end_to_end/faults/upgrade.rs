//! The release before and this one work together, in one cluster and over what the other has stored. `scripts/test-upgrade` builds the
//! release before and runs this.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sightline_bus::StreamName;
use sightline_proto::v1::rt_stream::{Playback, State};
use sightline_testkit::oracle::Ledger;
use sightline_testkit::platform::{alert, clip_url, connect, index, start, state};
use sightline_testkit::receiver::Receiver;
use sightline_testkit::until;

use super::fleet::{Fleet, ONE_EACH};
use crate::ground;

/// Where `scripts/test-upgrade` puts the binary of the release before: beside the folder of this one.
fn before() -> Result<PathBuf> {
    let release = Path::new(env!("CARGO_BIN_EXE_sightline")).parent();
    let target = release.and_then(Path::parent).context("a target folder")?;
    let binary = target.join("upgrade/sightline");
    ensure!(
        binary.exists(),
        "{} is not there: scripts/test-upgrade makes it",
        binary.display()
    );
    Ok(binary)
}

/// A cluster of one release is replaced by the other, one role after the other, while a clip is watched.
pub async fn roll(from: &Path, to: &Path) -> Result<()> {
    let mut fleet = Fleet::new(ground().await?);
    fleet.binary = from.to_owned();
    fleet.begin_all(&ONE_EACH).await?;
    let receiver = Receiver::start().await?;
    let mut client = fleet.client(0).await?;
    let stream = connect(&mut client, &clip_url()?, Playback::RealTime)
        .await?
        .id;
    let index = index(&mut client, &stream, "Describe activity").await?.id;
    let prompt = "Detect when someone enters restricted area";
    alert(&mut client, &index, prompt, &receiver.url()).await?;
    start(&mut client, &stream).await?;
    fleet.binary = to.to_owned();
    // In the order of docs/operations.md.
    for role in [
        "ingest",
        "caption",
        "transcribe",
        "embeddings",
        "alerts",
        "gateway",
    ] {
        let described = async || {
            let ledger = Ledger::read(&fleet.ground.bus, &stream).await?;
            anyhow::Ok(ledger.windows(&index).len())
        };
        let before = described().await?;
        until("more to be described", async || {
            let now = described().await?;
            Ok((now > before || now == 18).then_some(()))
        })
        .await?;
        fleet.stop((role, 0)).await?;
        fleet.begin((role, 0)).await?;
    }
    let mut client = fleet.client(0).await?;
    state(&mut client, &stream, State::Ended).await?;
    for stream in [StreamName::Frames, StreamName::Audio] {
        fleet.ground.emptied(stream).await?;
    }
    // The newer release's consumers of batches wait for it to come back: one before it may know no batches.
    until("what both releases know to be worked off", async || {
        let places = fleet.ground.bus.places(StreamName::Observations).await?;
        let mut known = places
            .iter()
            .filter(|(name, _)| !name.starts_with("batching-"));
        Ok(known.all(|(_, place)| place.open == 0).then_some(()))
    })
    .await?;
    let ledger = Ledger::read(&fleet.ground.bus, &stream).await?;
    assert_eq!(ledger.windows(&index), (0..18).collect::<Vec<u64>>());
    ledger.compare(&mut client, &stream, &[&index]).await?;
    let fired = ledger.firings();
    ensure!(!fired.is_empty(), "nothing was fired");
    receiver.told(&fired).await?;
    fleet.end(&[]).await
}

pub async fn up_and_back() -> Result<()> {
    let (before, now) = (before()?, Path::new(env!("CARGO_BIN_EXE_sightline")));
    roll(&before, now).await.context("to this release")?;
    roll(now, &before).await.context("back to the one before")
}
