//! A camera: a real RTSP server with H.264 and AAC, that goes away and comes back.

use anyhow::{Context, Result, ensure};
use sightline_proto::v1;
use sightline_proto::v1::rt_stream::{Playback, State};
use sightline_proto::v1::watch_response::Message;
use sightline_testkit::oracle::no_surprises;
use sightline_testkit::platform::{connect, index, start, state};
use sightline_testkit::rtsp::RtspServer;
use sightline_testkit::{sample_clip, soon};

use crate::ground;

#[tokio::test]
async fn a_camera_is_described_and_heard_lost_and_found_again() -> Result<()> {
    let ground = ground().await?;
    let camera = RtspServer::start(&sample_clip())?;
    let port = camera.port();
    let (mut up, mut client) = ground.up(&[]).await?;
    let stream = connect(&mut client, &camera.url(), Playback::RealTime).await?;
    let described = index(&mut client, &stream.id, "Describe the scene").await?;
    let watch = v1::WatchRequest {
        rtstream_ids: vec![stream.id.clone()],
        ..Default::default()
    };
    let mut watch = client.watch.watch(watch).await?.into_inner();
    start(&mut client, &stream.id).await?;
    let (mut scenes, mut words) = (Vec::new(), 0);
    while scenes.len() < 2 || words < 2 {
        let message = soon("a message of the watch", watch.message())
            .await??
            .context("it goes on")?;
        match message.message {
            Some(Message::Scene(scene)) => scenes.push(scene),
            Some(Message::Transcript(_)) => words += 1,
            _ => {}
        }
    }
    assert_eq!(scenes[0].index_id, described.id);
    // Two that are described side by side may come in any order.
    ensure!(scenes[0].window != scenes[1].window, "{scenes:?}");
    let last = scenes.iter().map(|scene| scene.window).max();
    let last = last.context("scenes")?;
    let before = state(&mut client, &stream.id, State::Active).await?;

    drop(camera);
    let lost = state(&mut client, &stream.id, State::Reconnecting).await?;
    ensure!(!lost.state_detail.is_empty(), "{lost:?}");
    let camera = RtspServer::start_on(&sample_clip(), port)?;
    let found = state(&mut client, &stream.id, State::Active).await?;
    assert_eq!(found.epoch, before.epoch, "the stream's times go on");
    loop {
        let message = soon("a scene after the gap", watch.message())
            .await??
            .context("it goes on")?;
        if let Some(Message::Scene(scene)) = message.message
            && scene.window > last + 1
        {
            break;
        }
    }
    let request = v1::StopRtStreamRequest {
        rtstream_id: stream.id.clone(),
    };
    client.streams.stop_rt_stream(request).await?;
    state(&mut client, &stream.id, State::Stopped).await?;
    drop(camera);
    ensure!(up.terminate().await?.success(), "{:#?}", up.log());
    no_surprises(&up, &["reconnect", "source"])
}
