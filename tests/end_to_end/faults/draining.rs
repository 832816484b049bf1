//! Streams change hands: a worker that is drained hands its streams over, one that dies loses them, and none has more than it
//! may. Whatever is told to stop in mid-work ends well, and nothing that it had finished is done again.

use std::time::Duration;

use anyhow::{Result, ensure};
use sightline_catalog::Catalog;
use sightline_proto::client::Client;
use sightline_proto::v1::rt_stream::{Playback, State};
use sightline_testkit::oracle::Ledger;
use sightline_testkit::platform::{
    alert, clip_url, connect, connect_recorded, index, start, state, stop,
};
use sightline_testkit::receiver::Receiver;
use sightline_testkit::rtsp::RtspServer;
use sightline_testkit::{sample_clip, until};
use tokio::time::Instant;

use super::fleet::{Fleet, ONE_EACH, Who};
use crate::ground;
use crate::operated::ready;

const FIRST: Who = ("ingest", 0);
const SECOND: Who = ("ingest", 1);
/// Windows of a stream that may be missing without a gap: on a slow machine those of a hand-over come all at once, and the
/// caption worker takes the newest.
const PASSED_OVER: usize = 2;

/// Waits until a process holds all of these.
async fn held(fleet: &Fleet, catalog: &Catalog, streams: &[String], by: Who) -> Result<()> {
    until(&format!("{by:?} to hold the streams"), async || {
        let held = streams
            .iter()
            .all(|stream| fleet.holder(catalog, stream) == Some(by));
        Ok(held.then_some(()))
    })
    .await
}

/// Waits until each index has so many more scenes, and each stream is active.
async fn goes_on(fleet: &Fleet, client: &mut Client, streams: &[(String, String)]) -> Result<()> {
    for (stream, index) in streams {
        state(client, stream, State::Active).await?;
        let described = async || {
            let ledger = Ledger::read(&fleet.ground.bus, stream).await?;
            anyhow::Ok(ledger.windows(index).len())
        };
        let before = described().await?;
        until("two more windows", async || {
            Ok((described().await? >= before + 2).then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// Two cameras change hands twice: their worker is drained, then the next one dies. Nothing is missing but what is told, and of the
/// drained worker's recordings no more than `longest`; others have a dead worker's streams within `takeover`.
pub async fn change_hands(longest: Duration, takeover: Duration) -> Result<()> {
    let mut fleet = Fleet::new(ground().await?);
    fleet.begin_all(&ONE_EACH).await?;
    let catalog = Catalog::open(&fleet.ground.bus).await?;
    let camera = RtspServer::start(&sample_clip())?;
    let mut client = fleet.client(0).await?;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let stream = connect_recorded(&mut client, &camera.url(), Playback::RealTime).await?;
        let index = index(&mut client, &stream.id, "Describe the scene").await?;
        start(&mut client, &stream.id).await?;
        streams.push((stream.id, index.id));
    }
    let ids: Vec<String> = streams.iter().map(|(stream, _)| stream.clone()).collect();
    goes_on(&fleet, &mut client, &streams).await?;
    held(&fleet, &catalog, &ids, FIRST).await?;

    fleet.begin(SECOND).await?;
    fleet.stop(FIRST).await?;
    held(&fleet, &catalog, &ids, SECOND).await?;
    goes_on(&fleet, &mut client, &streams).await?;
    let longest_us = i64::try_from(longest.as_micros())?;
    for (stream, index) in &streams {
        let ledger = Ledger::read(&fleet.ground.bus, stream).await?;
        let holes = ledger.recording_gaps();
        println!(
            "handed over: {holes:?}, missing {:?}",
            ledger.missing(index)
        );
        let short = holes.iter().all(|hole| hole.1 - hole.0 <= longest_us);
        ensure!(short && holes.len() <= 1, "{holes:?}");
        told(&ledger, index)?;
    }

    fleet.begin(FIRST).await?;
    fleet.kill(SECOND).await?;
    let killed = Instant::now();
    held(&fleet, &catalog, &ids, FIRST).await?;
    let took = killed.elapsed();
    ensure!(took < takeover, "{took:?}");
    goes_on(&fleet, &mut client, &streams).await?;
    for (stream, index) in &streams {
        stop(&mut client, stream).await?;
        fleet.ground.drained().await?;
        let ledger = Ledger::read(&fleet.ground.bus, stream).await?;
        ledger.compare(&mut client, stream, &[index]).await?;
        told(&ledger, index)?;
    }
    drop(camera);
    // A machine that is slow has it killed, and tells of what is lost.
    fleet.end(&["the child did not end in time"]).await
}

/// Every window that is missing lies where pictures are told to be.
fn told(ledger: &Ledger, index: &str) -> Result<()> {
    let gaps = ledger.gaps("frames");
    let mut untold = ledger.missing(index);
    untold.retain(|window| !gaps.iter().any(|gap| gap.0 < window.1 && window.0 < gap.1));
    ensure!(
        untold.len() <= PASSED_OVER,
        "{untold:?} are missing besides {gaps:?}"
    );
    Ok(())
}

/// A slow machine that is busy takes its time to start a process and to open a camera; how soon it can be, the long story says.
#[tokio::test(flavor = "multi_thread")]
async fn a_drained_worker_hands_over_and_a_dead_one_is_followed() -> Result<()> {
    change_hands(Duration::from_secs(40), Duration::from_secs(60)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_spread_over_workers_as_each_has_room() -> Result<()> {
    let mut fleet = Fleet::new(ground().await?);
    fleet.begin_all(&ONE_EACH[..2]).await?;
    fleet.begin_told(FIRST, &["--capacity", "2"]).await?;
    let catalog = Catalog::open(&fleet.ground.bus).await?;
    let camera = RtspServer::start(&sample_clip())?;
    let mut client = fleet.client(0).await?;
    let mut streams = Vec::new();
    for _ in 0..9 {
        let stream = connect(&mut client, &camera.url(), Playback::RealTime).await?;
        streams.push(stream.id);
    }
    // A full worker takes no more: the third waits, until there is another worker.
    for stream in &streams[..3] {
        start(&mut client, stream).await?;
    }
    let holders = |fleet: &Fleet, streams: &[String]| -> Vec<Option<Who>> {
        let of = |stream: &String| fleet.holder(&catalog, stream);
        streams.iter().map(of).collect()
    };
    let count = |holders: &[Option<Who>], who| holders.iter().filter(|h| **h == Some(who)).count();
    until("two of three to be held", async || {
        let holders = holders(&fleet, &streams[..3]);
        Ok((count(&holders, FIRST) == 2).then_some(()))
    })
    .await?;
    fleet.begin(SECOND).await?;
    until("the third to be held", async || {
        let holders = holders(&fleet, &streams[..3]);
        Ok((count(&holders, SECOND) == 1).then_some(()))
    })
    .await?;

    // Two with room take turns.
    let third = ("ingest", 2);
    let probes = ["--admin-listen", "127.0.0.1:0"];
    fleet.begin_told(third, &probes).await?;
    ready(fleet.process(third)?).await?;
    for stream in &streams[3..] {
        start(&mut client, stream).await?;
        until("it to be held", async || Ok(fleet.holder(&catalog, stream))).await?;
    }
    let all = holders(&fleet, &streams);
    assert_eq!(count(&all, FIRST), 2, "{all:?}");
    for who in [SECOND, third] {
        let new = count(&all[3..], who);
        ensure!((1..=5).contains(&new), "{all:?}");
    }
    for stream in &streams {
        stop(&mut client, stream).await?;
    }
    fleet.end(&[]).await
}

/// Each role is told to stop while it has much to do, and another one goes on.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_stopped_under_load_ends_well_and_nothing_is_done_twice() -> Result<()> {
    let mut fleet = Fleet::new(ground().await?);
    fleet.begin_all(&ONE_EACH).await?;
    let receiver = Receiver::start().await?;
    let mut client = fleet.client(0).await?;
    let mut streams = Vec::new();
    for _ in 0..4 {
        let stream = connect(&mut client, &clip_url()?, Playback::Fast).await?;
        let index = index(&mut client, &stream.id, "Describe activity").await?;
        let prompt = "Detect when someone enters restricted area";
        alert(&mut client, &index.id, prompt, &receiver.url()).await?;
        start(&mut client, &stream.id).await?;
        streams.push((stream.id, index.id));
    }
    let described = async |fleet: &Fleet| {
        let mut windows = 0;
        for (stream, index) in &streams {
            let ledger = Ledger::read(&fleet.ground.bus, stream).await?;
            windows += ledger.windows(index).len();
        }
        anyhow::Ok(windows)
    };
    for role in ["ingest", "caption", "transcribe", "embeddings", "alerts"] {
        let before = described(&fleet).await?;
        until("more to be described", async || {
            let now = described(&fleet).await?;
            Ok((now > before || now == 4 * 18).then_some(()))
        })
        .await?;
        fleet.stop((role, 0)).await?;
        fleet.begin((role, 0)).await?;
    }
    let mut fired = Vec::new();
    for (stream, index) in &streams {
        state(&mut client, stream, State::Ended).await?;
        fleet.ground.drained().await?;
        let ledger = Ledger::read(&fleet.ground.bus, stream).await?;
        assert_eq!(ledger.windows(index), (0..18).collect::<Vec<u64>>());
        ledger.compare(&mut client, stream, &[index]).await?;
        fired.extend(ledger.firings());
    }
    let webhooks = receiver.webhooks(fired.len()).await?;
    fleet.end(&[]).await?;
    // No post was made a second time.
    let mut told: Vec<String> = webhooks.into_iter().map(|webhook| webhook.id).collect();
    told.sort();
    fired.sort();
    assert_eq!(told, fired);
    Ok(())
}
