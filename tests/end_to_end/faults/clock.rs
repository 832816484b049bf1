//! The clock of all roles leaps an hour ahead and back again while a camera is watched.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sightline_proto::v1::rt_stream::{Playback, State};
use sightline_testkit::oracle::Ledger;
use sightline_testkit::platform::{alert, connect, index, start, state, stop};
use sightline_testkit::receiver::Receiver;
use sightline_testkit::rtsp::RtspServer;
use sightline_testkit::{sample_clip, until};

use super::fleet::{Fleet, ONE_EACH};
use crate::ground;
use crate::roles::prepared;

/// Debian's libfaketime, wherever its architecture keeps it.
fn library() -> Result<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib")?.flatten();
    let files = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    let mut found = files.filter(|file| file.exists());
    found
        .next()
        .context("libfaketime: scripts/setup test installs it")
}

/// The binary, with a clock that is as far ahead as the file `ahead` says, in seconds.
fn with_a_clock(binary: &Path, ahead: &Path, dir: &Path) -> Result<PathBuf> {
    let program = dir.join("sightline");
    let script = format!(
        "#!/bin/sh\nexport LD_PRELOAD={} FAKETIME_TIMESTAMP_FILE={} FAKETIME_NO_CACHE=1 \
         FAKETIME_DONT_FAKE_MONOTONIC=1\nexec {} \"$@\"\n",
        library()?.display(),
        ahead.display(),
        binary.display()
    );
    std::fs::write(&program, script)?;
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755))?;
    Ok(program)
}

/// Sets it in one go.
fn set(ahead: &Path, seconds: &str) -> Result<()> {
    let next = ahead.with_extension("next");
    std::fs::write(&next, format!("{seconds}\n"))?;
    Ok(std::fs::rename(next, ahead)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_leaps_changes_nothing_that_is_seen_or_told() -> Result<()> {
    let ground = ground().await?;
    let ahead = ground.dir().join("ahead");
    set(&ahead, "+0")?;
    let binary = with_a_clock(&ground.binary, &ahead, ground.dir())?;
    let mut fleet = Fleet::new(ground);
    fleet.binary = binary;
    // The fleet tells only the binary that it knows.
    fleet.tell("ingest", &["--allow-source", "127.0.0.1"]);
    fleet.begin_all(&ONE_EACH).await?;
    let receiver = Receiver::start().await?;
    let camera = RtspServer::start(&sample_clip())?;
    let mut client = fleet.client(0).await?;
    let stream = connect(&mut client, &camera.url(), Playback::RealTime)
        .await?
        .id;
    let index = index(&mut client, &stream, "Describe activity").await?.id;
    let prompt = "Detect when someone enters restricted area";
    alert(&mut client, &index, prompt, &receiver.url()).await?;
    start(&mut client, &stream).await?;
    let windows = async || {
        let ledger = Ledger::read(&fleet.ground.bus, &stream).await?;
        anyhow::Ok(ledger.windows(&index))
    };
    for seconds in ["+0", "+3600", "-3600"] {
        set(&ahead, seconds)?;
        let before = windows().await?.len();
        until("two more windows", async || {
            Ok((windows().await?.len() >= before + 2).then_some(()))
        })
        .await?;
    }
    // A window that was captured before the leap may count as one that waited for an hour.
    stop(&mut client, &stream).await?;
    fleet.ground.drained().await?;
    let ledger = Ledger::read(&fleet.ground.bus, &stream).await?;
    ledger.compare(&mut client, &stream, &[&index]).await?;
    assert!(
        ledger.missing(&index).len() <= 2,
        "{:?}",
        ledger.windows(&index)
    );

    // A fresh event passes.
    let (fresh, index) = prepared(&mut client, &receiver).await?;
    start(&mut client, &fresh).await?;
    state(&mut client, &fresh, State::Ended).await?;
    fleet.ground.drained().await?;
    let ledger = Ledger::read(&fleet.ground.bus, &fresh).await?;
    assert_eq!(ledger.windows(&index), (0..18).collect::<Vec<u64>>());
    let fired = ledger.firings();
    assert!(!fired.is_empty(), "nothing was fired");
    until("it to be told", async || {
        let told = receiver.webhooks(0).await?;
        let is_told = |id: &String| told.iter().any(|webhook| webhook.id == *id);
        Ok(fired.iter().all(is_told).then_some(()))
    })
    .await?;
    drop(camera);
    fleet.end(&[]).await
}
