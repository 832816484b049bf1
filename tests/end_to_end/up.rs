//! `sightline up`: a platform that stays, stops when told, and goes on where it was.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use sightline_proto::client::Client;
use sightline_proto::v1;
use sightline_proto::v1::rt_stream::{Playback, State};
use sightline_proto::v1::watch_response::Message;
use sightline_testkit::oracle::{Ledger, no_surprises};
use sightline_testkit::platform::{alert, clip_url, connect, index, start, state};
use sightline_testkit::process::Process;
use sightline_testkit::receiver::Receiver;
use sightline_testkit::{soon, until};

use crate::ground;
use crate::operated::exposes_what_the_page_lists;
use crate::truth::{Line, Truth};

#[tokio::test]
async fn a_clip_is_described_searched_alerted_and_still_there_after_a_restart() -> Result<()> {
    let ground = ground().await?;
    let receiver = Receiver::start().await?;
    let (mut up, mut client) = ground.up(&[]).await?;
    let stream = connect(&mut client, &clip_url()?, Playback::Fast).await?;
    let activity = index(
        &mut client,
        &stream.id,
        "Describe activity and detect unusual behavior",
    )
    .await?;
    let prompt = "Detect when someone enters restricted area";
    alert(&mut client, &activity.id, prompt, &receiver.url()).await?;
    let watch = v1::WatchRequest {
        rtstream_ids: vec![stream.id.clone()],
        ..Default::default()
    };
    let mut watch = client.watch.watch(watch).await?.into_inner();
    start(&mut client, &stream.id).await?;
    let (mut scenes, mut words, mut ended) = (0, 0, false);
    while !(ended && scenes == 18 && words >= 6) {
        let message = soon("a message of the watch", watch.message())
            .await??
            .context("it goes on")?;
        match message.message {
            Some(Message::Scene(_)) => scenes += 1,
            Some(Message::Transcript(_)) => words += 1,
            Some(Message::StreamStatus(status)) => ended |= status.state() == State::Ended,
            _ => {}
        }
    }
    receiver.webhooks(1).await?;
    ground.drained().await?;
    let ledger = Ledger::read(&ground.bus, &stream.id).await?;
    ledger
        .compare(&mut client, &stream.id, &[&activity.id])
        .await?;
    let webhooks = receiver.webhooks(ledger.firings().len()).await?;
    assert_eq!(
        webhooks.iter().map(|w| w.id.clone()).collect::<Vec<_>>(),
        ledger.firings()
    );
    exposes_what_the_page_lists(&up).await?;
    let body = &webhooks[0].body;
    for field in [
        "event_id",
        "label",
        "explanation",
        "timestamp",
        "start_time",
        "end_time",
        "alert_id",
        "rtstream_id",
    ] {
        ensure!(
            body[field].as_str().is_some_and(|text| !text.is_empty()),
            "{field}: {body}"
        );
    }
    ensure!(up.terminate().await?.success(), "{:#?}", up.log());
    no_surprises(&up, &[])?;

    let (mut up, mut client) = ground.up(&[]).await?;
    let again = state(&mut client, &stream.id, State::Ended).await?;
    assert_eq!(
        again.epoch,
        state(&mut client, &stream.id, State::Ended).await?.epoch
    );
    ground.drained().await?;
    let after = Ledger::read(&ground.bus, &stream.id).await?;
    after
        .compare(&mut client, &stream.id, &[&activity.id])
        .await?;
    assert_eq!(after.firings(), ledger.firings());
    let request = v1::SearchRequest {
        query: "someone in the restricted area".to_owned(),
        rtstream_id: stream.id.clone(),
        ..Default::default()
    };
    let hits = client.indexes.search(request).await?.into_inner().hits;
    ensure!(
        !hits.is_empty() && hits.is_sorted_by(|a, b| a.score >= b.score),
        "{hits:?}"
    );
    ensure!(up.terminate().await?.success(), "{:#?}", up.log());
    no_surprises(&up, &[])?;
    assert_eq!(receiver.webhooks(1).await?.len(), webhooks.len());
    Ok(())
}

#[tokio::test]
async fn stopped_in_mid_run_it_goes_on_where_it_was() -> Result<()> {
    let ground = ground().await?;
    let (mut up, mut client) = ground.up(&[]).await?;
    let stream = connect(&mut client, &clip_url()?, Playback::Fast).await?;
    let activity = index(&mut client, &stream.id, "Describe the scene").await?;
    start(&mut client, &stream.id).await?;
    until("some windows", async || {
        let ledger = Ledger::read(&ground.bus, &stream.id).await?;
        Ok((ledger.windows(&activity.id).len() >= 4).then_some(()))
    })
    .await?;
    ensure!(up.terminate().await?.success(), "{:#?}", up.log());
    no_surprises(&up, &[])?;

    let (mut up, mut client) = ground.up(&[]).await?;
    state(&mut client, &stream.id, State::Ended).await?;
    ground.drained().await?;
    let ledger = Ledger::read(&ground.bus, &stream.id).await?;
    assert_eq!(ledger.windows(&activity.id), (0..18).collect::<Vec<u64>>());
    ledger
        .compare(&mut client, &stream.id, &[&activity.id])
        .await?;
    ensure!(up.terminate().await?.success(), "{:#?}", up.log());
    no_surprises(&up, &[])
}

#[tokio::test]
async fn a_clip_in_real_time_is_heard_in_place() -> Result<()> {
    let ground = ground().await?;
    let (mut up, mut client) = ground.up(&[]).await?;
    let stream = connect(&mut client, &clip_url()?, Playback::RealTime).await?;
    let watch = v1::WatchRequest {
        rtstream_ids: vec![stream.id.clone()],
        ..Default::default()
    };
    let mut watch = client.watch.watch(watch).await?.into_inner();
    start(&mut client, &stream.id).await?;
    let epoch = state(&mut client, &stream.id, State::Active)
        .await?
        .epoch
        .context("media arrived")?;
    let seconds = |time: Option<prost_types::Timestamp>| {
        time.map_or(0.0, |t| {
            (t.seconds - epoch.seconds) as f64 + f64::from(t.nanos - epoch.nanos) / 1e9
        })
    };
    let mut heard = Vec::new();
    while heard.len() < 2 {
        let message = soon("a message of the watch", watch.message())
            .await??
            .context("it goes on")?;
        if let Some(Message::Transcript(segment)) = message.message {
            heard.push(Line {
                start: seconds(segment.start_time),
                end: seconds(segment.end_time),
                text: segment.text,
            });
        }
    }
    // Of the seven sentences, the first two.
    Truth::of_sample()?.check_speech(&heard, 5)?;
    let request = v1::StopRtStreamRequest {
        rtstream_id: stream.id.clone(),
    };
    client.streams.stop_rt_stream(request).await?;
    state(&mut client, &stream.id, State::Stopped).await?;
    ensure!(up.terminate().await?.success(), "{:#?}", up.log());
    no_surprises(&up, &[])
}

#[tokio::test]
async fn without_any_option_it_brings_its_own_bus_and_key() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data").display().to_string();
    let binary = Path::new(env!("CARGO_BIN_EXE_sightline"));
    let arguments = [
        "up",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
        "--data-dir",
        &data,
    ];
    let mut keys = Vec::new();
    for _ in 0..2 {
        let mut up = Process::start(binary, arguments, &[])?;
        let (address, key) = announced(&mut up).await?;
        let mut client = Client::connect(&address, &key).await?;
        let streams = client
            .streams
            .list_rt_streams(v1::ListRtStreamsRequest::default())
            .await?;
        ensure!(streams.into_inner().rtstreams.is_empty());
        ensure!(
            !up.log().iter().any(|line| line.contains(&key)),
            "the key is in the log"
        );
        let nats = up.children()?;
        ensure!(nats.len() == 1, "one nats-server: {nats:?}");
        ensure!(up.terminate().await?.success(), "{:#?}", up.log());
        no_surprises(&up, &[])?;
        let nats = format!("/proc/{}", nats[0].as_raw_nonzero());
        ensure!(!Path::new(&nats).exists(), "the nats-server is left over");
        keys.push(key);
    }
    assert_eq!(keys[0], keys[1]);
    Ok(())
}

/// The address and the key that people are shown.
async fn announced(up: &mut Process) -> Result<(String, String)> {
    let (mut address, mut key) = (None, None);
    while key.is_none() {
        let line = up.line().await?;
        let mut parts = line.split_whitespace();
        match (parts.next(), parts.next(), parts.next()) {
            (Some("API"), Some("key"), Some(shown)) => key = Some(shown.to_owned()),
            (Some("API"), Some(shown), _) => address = Some(shown.to_owned()),
            _ => {}
        }
    }
    Ok((address.context("an address")?, key.context("a key")?))
}
