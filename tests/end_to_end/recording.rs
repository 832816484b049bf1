//! Recording and playback: everything found can be watched, and what was lost is told.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::process::{Signal, kill_process};
use sightline_proto::client::Client;
use sightline_proto::time::micros;
use sightline_proto::v1;
use sightline_proto::v1::rt_stream::{Playback, RecordingState, State};
use sightline_testkit::oracle::{Ledger, no_surprises};
use sightline_testkit::platform::{
    Ground, KEY, alert, clip_url, connect_recorded, index, scenes, start, state, stop, transcript,
};
use sightline_testkit::process::Process;
use sightline_testkit::receiver::Receiver;
use sightline_testkit::rtsp::RtspServer;
use sightline_testkit::s3::S3Server;
use sightline_testkit::{python, sample_clip, until};

use crate::ground;
use crate::playback::{get, links, pictures, probed, recorded, recorded_whole};

/// What is said of a child that was killed, and of the camera being opened again.
const KILLED: [&str; 2] = ["the source is opened again", "child"];

#[tokio::test]
async fn everything_found_can_be_watched() -> Result<()> {
    let ground = ground().await?;
    let receiver = Receiver::start().await?;
    let (mut up, mut client) = ground.up(&[]).await?;
    let stream = connect_recorded(&mut client, &clip_url()?, Playback::Fast).await?;
    let activity = index(&mut client, &stream.id, "Describe activity").await?;
    let prompt = "Detect when someone enters restricted area";
    alert(&mut client, &activity.id, prompt, &receiver.url()).await?;
    start(&mut client, &stream.id).await?;
    let ended = state(&mut client, &stream.id, State::Ended).await?;
    assert_eq!(ended.recording_state(), RecordingState::Stopped);
    let webhooks = receiver.webhooks(1).await?;
    ground.drained().await?;
    recorded_whole(&mut client, &stream.id, &sample_clip()).await?;

    let told = &webhooks[0].body;
    let clip = told["stream_url"]
        .as_str()
        .context("a webhook has a clip")?;
    let found = found(&mut client, &stream.id, &activity.id).await?;
    for stream_url in found.iter().map(String::as_str).chain([clip]) {
        let (from, to) = probed(stream_url).await?;
        ensure!(
            to - from >= 4.0 && to - from <= 18.0,
            "{stream_url} plays {from} to {to} s"
        );
    }
    let player_url = told["player_url"]
        .as_str()
        .context("a webhook has a page")?;
    assert_eq!(get(player_url).await?.0, 200);
    let (base_url, _) = player_url.split_once("/watch").context("a page")?;
    let epoch = ended.epoch.context("an epoch")?;
    the_official_client(base_url, &stream.id, epoch.seconds).await?;
    a_page_a_picture_and_a_file(&mut client, &stream.id, micros(&epoch)).await?;
    ensure!(up.terminate().await?.success(), "{:#?}", up.log());
    no_surprises(&up, &[])
}

/// The clips of a scene, of speech and of what is searched for, once all of them are stored.
async fn found(client: &mut Client, id: &str, index_id: &str) -> Result<[String; 3]> {
    let search = v1::SearchRequest {
        query: "white car moving fast".to_owned(),
        rtstream_id: id.to_owned(),
        ..Default::default()
    };
    until("scenes, speech and what is searched for", async || {
        let scenes = scenes(client, index_id).await?;
        let heard = transcript(client, id).await?;
        let answer = client.indexes.search(search.clone()).await?.into_inner();
        let scene = scenes.get(3).map(|scene| scene.stream_url.clone());
        let line = heard.first().map(|line| line.stream_url.clone());
        let hit = answer.hits.first().map(|hit| hit.stream_url.clone());
        Ok(scene.zip(line).zip(hit).map(|((a, b), c)| [a, b, c]))
    })
    .await
}

/// The official VideoDB client, from PyPI, plays what it finds.
async fn the_official_client(base_url: &str, id: &str, epoch: i64) -> Result<()> {
    let (from, to) = ((epoch + 10).to_string(), (epoch + 20).to_string());
    let told = python::run("videodb/playback.py", &[base_url, KEY, id, &from, &to]).await?;
    let told: serde_json::Value = serde_json::from_str(&told)?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    for one in told["shots"]
        .as_array()
        .into_iter()
        .flatten()
        .chain([&told])
    {
        probed(&text(&one["stream_url"])).await?;
        let (watch, embed) = (text(&one["player_url"]), text(&one["embed"]));
        assert_eq!(get(&watch).await?.0, 200, "{watch}");
        ensure!(
            embed.contains(&watch.replace("/watch?", "/embed?")),
            "{embed}"
        );
    }
    assert_eq!(told["shots"].as_array().map(Vec::len), Some(3), "{told}");
    ensure!(
        text(&told["player_url"]).contains("/watch?v=white-car-"),
        "{told}"
    );
    ensure!(
        text(&told["refused"]).contains("there is no stream"),
        "{told}"
    );
    ensure!(text(&told["unauthenticated"]).contains("API key"), "{told}");
    Ok(())
}

/// A page with a title of its own, the picture of a moment, and an MP4 file of it all.
async fn a_page_a_picture_and_a_file(client: &mut Client, id: &str, epoch_us: i64) -> Result<()> {
    let config = v1::PlayerConfig {
        title: "The <b>white</b> car".to_owned(),
        description: "Five seconds of it".to_owned(),
        slug: "../white car".to_owned(),
    };
    let from_us = epoch_us + 20_000_000;
    let links = links(client, id, from_us, Some(from_us + 5_000_000), Some(config)).await?;
    ensure!(
        links.player_url.contains("/watch?v=white-car-"),
        "{links:?}"
    );
    let (status, page) = get(&links.player_url).await?;
    let page = String::from_utf8(page)?;
    ensure!(
        status == 200 && page.contains("The &lt;b&gt;white&lt;/b&gt; car"),
        "{page}"
    );
    let (status, picture) = get(&links.thumbnail_url).await?;
    ensure!(
        status == 200 && picture.starts_with(&[0xff, 0xd8]),
        "{status}: {}",
        String::from_utf8_lossy(&picture)
    );

    let request = v1::CreateExportRequest {
        rtstream_id: id.to_owned(),
        ..Default::default()
    };
    let export = client
        .recordings
        .create_export(request.clone())
        .await?
        .into_inner()
        .export;
    let again = client
        .recordings
        .create_export(request)
        .await?
        .into_inner()
        .export;
    let (export, again) = (export.context("an export")?, again.context("an export")?);
    assert_eq!(export.id, again.id);
    let done = until("the export to be done", async || {
        let request = v1::GetExportRequest {
            export_id: export.id.clone(),
        };
        let export = client
            .recordings
            .get_export(request)
            .await?
            .into_inner()
            .export;
        let export = export.context("an export")?;
        ensure!(export.state() != v1::export::State::Failed, "{export:?}");
        Ok((export.state() == v1::export::State::Done).then_some(export))
    })
    .await?;
    let clip = sample_clip();
    assert_eq!(
        pictures(&done.download_url).await?,
        pictures(clip.to_str().context("a name")?).await?
    );
    Ok(())
}

/// A camera that records, in an all-in-one.
async fn recording_camera(
    ground: &Ground,
    further: &[&str],
) -> Result<(RtspServer, Process, Client, String)> {
    let camera = RtspServer::start(&sample_clip())?;
    let (up, mut client) = ground.up(further).await?;
    let stream = connect_recorded(&mut client, &camera.url(), Playback::RealTime).await?;
    start(&mut client, &stream.id).await?;
    Ok((camera, up, client, stream.id))
}

/// Waits until so many more segments are recorded.
async fn more(client: &mut Client, id: &str, segments: i64) -> Result<()> {
    let (_, before) = recorded(client, id).await?;
    until("segments", async || {
        let (_, now) = recorded(client, id).await?;
        Ok((now >= before + segments).then_some(()))
    })
    .await
}

/// The stretches that are recorded, once so many segments are known: what is stored is known a second later.
async fn all_recorded(client: &mut Client, id: &str, segments: usize) -> Result<Vec<(i64, i64)>> {
    until(&format!("{segments} segments to be known"), async || {
        let (stretches, known) = recorded(client, id).await?;
        Ok((known as usize == segments).then_some(stretches))
    })
    .await
}

/// The gaps that are told, once there are so many.
async fn told(ground: &Ground, id: &str, count: usize) -> Result<Vec<(i64, i64)>> {
    until("every gap to be told", async || {
        let gaps = Ledger::read(&ground.bus, id).await?.recording_gaps();
        Ok((gaps.len() >= count).then_some(gaps))
    })
    .await
}

/// kill -9 of the ingest child, again and again: what is missing is what the kills explain, and everything else can be played.
async fn killed(times: usize, apart: Duration) -> Result<()> {
    let ground = ground().await?;
    let (camera, mut up, mut client, id) = recording_camera(&ground, &[]).await?;
    for kill in 0..times {
        more(&mut client, &id, 1).await?;
        tokio::time::sleep(apart).await;
        for child in up
            .children()?
            .into_iter()
            .filter(|pid| is_ingest_child(*pid))
        {
            kill_process(child, Signal::KILL)?;
        }
        // What the next child records lies behind the hole.
        until("the next stretch", async || {
            let (stretches, _) = recorded(&mut client, &id).await?;
            Ok((stretches.len() > kill + 1).then_some(()))
        })
        .await?;
    }
    more(&mut client, &id, 2).await?;
    stop(&mut client, &id).await?;
    let files = segment_files(&ground.dir().join("data/recordings"))?;
    let stretches = all_recorded(&mut client, &id, files.len()).await?;
    let holes: Vec<_> = stretches
        .windows(2)
        .map(|two| (two[0].1, two[1].0))
        .collect();
    assert_eq!(holes.len(), times, "{stretches:?}");
    assert_eq!(told(&ground, &id, holes.len()).await?, holes);
    for file in &files {
        probed(file).await?;
    }
    let (start_us, end_us) = (stretches[0].0, stretches[times].1);
    let links = links(&mut client, &id, start_us, Some(end_us), None).await?;
    let (from, to) = probed(&links.stream_url).await?;
    let played_us = ((to - from) * 1e6) as i64;
    ensure!(
        (played_us - (end_us - start_us)).abs() <= 100_000,
        "{played_us} of {}",
        end_us - start_us
    );
    drop(camera);
    ensure!(up.terminate().await?.success(), "{:#?}", up.log());
    no_surprises(&up, &KILLED)
}

#[tokio::test]
async fn a_killed_child_leaves_only_the_gap_that_it_explains() -> Result<()> {
    killed(3, Duration::ZERO).await
}

/// Not run by default (.config/nextest.toml): `make endurance`.
#[tokio::test]
async fn ten_minutes_with_a_kill_each_minute() -> Result<()> {
    killed(10, Duration::from_secs(55)).await
}

#[tokio::test]
async fn a_store_that_is_down_stops_nothing_and_is_told() -> Result<()> {
    let ground = ground().await?;
    let dir = ground.dir().join("data/recordings");
    let (camera, mut up, mut client, id) = recording_camera(&ground, &[]).await?;
    let described = index(&mut client, &id, "Describe the scene").await?;
    more(&mut client, &id, 2).await?;
    // In one go: a worker would make the folder anew.
    let aside = ground.dir().join("aside");
    std::fs::write(&aside, "in the way")?;
    let swap = || renameat_with(CWD, &aside, CWD, &dir, RenameFlags::EXCHANGE);
    swap()?;
    let failing = recording_state(&mut client, &id, RecordingState::Failing).await?;
    ensure!(
        !failing.recording_detail.is_empty() && failing.state() == State::Active,
        "{failing:?}"
    );
    let before = scenes(&mut client, &described.id).await?.len();
    until("scenes while nothing can be stored", async || {
        Ok((scenes(&mut client, &described.id).await?.len() >= before + 2).then_some(()))
    })
    .await?;
    swap()?;
    recording_state(&mut client, &id, RecordingState::Active).await?;
    more(&mut client, &id, 1).await?;
    stop(&mut client, &id).await?;
    let stretches = all_recorded(&mut client, &id, segment_files(&dir)?.len()).await?;
    let holes: Vec<_> = stretches
        .windows(2)
        .map(|two| (two[0].1, two[1].0))
        .collect();
    assert_eq!(told(&ground, &id, holes.len()).await?, holes);
    drop(camera);
    ensure!(up.terminate().await?.success(), "{:#?}", up.log());
    no_surprises(&up, &["store", "segment", "recording"])
}

#[tokio::test]
async fn a_stream_is_watched_while_it_goes_on_and_has_an_end_when_it_is_stopped() -> Result<()> {
    let ground = ground().await?;
    let (camera, mut up, mut client, id) = recording_camera(&ground, &[]).await?;
    more(&mut client, &id, 1).await?;
    let (stretches, _) = recorded(&mut client, &id).await?;
    let live = links(&mut client, &id, stretches[0].0, None, None).await?;
    let (status, playlist) = get(&live.stream_url).await?;
    let playlist = String::from_utf8(playlist)?;
    ensure!(
        status == 200
            && playlist.contains("#EXT-X-PLAYLIST-TYPE:EVENT")
            && !playlist.contains("#EXT-X-ENDLIST"),
        "{playlist}"
    );
    more(&mut client, &id, 1).await?;
    stop(&mut client, &id).await?;
    let files = segment_files(&ground.dir().join("data/recordings"))?;
    let stretches = all_recorded(&mut client, &id, files.len()).await?;
    let (from, to) = probed(&live.stream_url).await?;
    let (start_us, end_us) = stretches[0];
    ensure!(
        ((to - from) * 1e6 - (end_us - start_us) as f64).abs() <= 100_000.0,
        "{from} to {to}"
    );
    let seen = pictures(&live.stream_url).await?;
    let sent = pictures(sample_clip().to_str().context("a name")?).await?;
    ensure!(
        sent.windows(seen.len()).any(|some| some == seen),
        "what is played is not what was sent"
    );
    drop(camera);
    ensure!(up.terminate().await?.success(), "{:#?}", up.log());
    // On a slow machine its last segment is late.
    no_surprises(&up, &["the child did not end in time"])
}

#[tokio::test]
async fn recordings_are_kept_in_s3() -> Result<()> {
    let ground = ground().await?;
    let s3 = S3Server::start().await?;
    let data = ground.dir().join("data").display().to_string();
    let nats = ground.nats_url().to_owned();
    let media = sightline_testkit::repository()
        .join("tests/media")
        .display()
        .to_string();
    let arguments = [
        "up",
        "--json",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
        "--nats-url",
        &nats,
        "--data-dir",
        &data,
        "--media-root",
        &media,
        "--recordings",
        &s3.address(),
    ];
    let mut environment = s3.options();
    environment.push(("SIGHTLINE_API_KEY".to_owned(), KEY.to_owned()));
    let environment: Vec<_> = environment
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let mut up = Process::start(&ground.binary, arguments, &environment)?;
    let said: serde_json::Value = serde_json::from_str(&up.line().await?)?;
    let listen = said["listen"]
        .as_str()
        .context("it says where it listens")?;
    let mut client = Client::connect(&format!("http://{listen}"), KEY).await?;
    let stream = connect_recorded(&mut client, &clip_url()?, Playback::Fast).await?;
    start(&mut client, &stream.id).await?;
    state(&mut client, &stream.id, State::Ended).await?;
    recorded_whole(&mut client, &stream.id, &sample_clip()).await?;
    ensure!(
        !ground.dir().join("data/recordings").exists(),
        "nothing is kept on this machine"
    );
    ensure!(up.terminate().await?.success(), "{:#?}", up.log());
    no_surprises(&up, &[])
}

async fn recording_state(
    client: &mut Client,
    id: &str,
    wanted: RecordingState,
) -> Result<v1::RtStream> {
    let request = v1::GetRtStreamRequest {
        rtstream_id: id.to_owned(),
    };
    until(&format!("recording to be {wanted:?}"), async || {
        let stream = client
            .streams
            .get_rt_stream(request.clone())
            .await?
            .into_inner()
            .rtstream;
        let stream = stream.context("a stream")?;
        Ok((stream.recording_state() == wanted).then_some(stream))
    })
    .await
}

/// Whether a process reads one stream for an ingest worker.
pub fn is_ingest_child(pid: rustix::process::Pid) -> bool {
    let command =
        std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
    String::from_utf8_lossy(&command).contains("ingest-child")
}

fn segment_files(dir: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(segment_files(&path)?);
        } else if path.extension().is_some_and(|e| e == "ts") {
            files.push(path.display().to_string());
        }
    }
    Ok(files)
}
