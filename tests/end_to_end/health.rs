//! Alerts on a stream's health: no index, no prompt, and no model that would judge.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use sightline_proto::client::Client;
use sightline_proto::time::micros;
use sightline_proto::v1::rt_stream::{Playback, State};
use sightline_proto::v1::{self, Alert, DeliveryMode, Firing, RtStream, firing};
use sightline_testkit::oracle::no_surprises;
use sightline_testkit::platform::{start, state, stop};
use sightline_testkit::receiver::{Receiver, Webhook};
use sightline_testkit::rtsp::RtspServer;
use sightline_testkit::{sample_clip, until};
use tokio::process::Command;

use crate::ground;

/// A minute: pictures that move, stand still from 10 to 20 s, and are black with noise from 30 to 40 s; a tone that is silent
/// from 40 to 50 s and a little around.
const STORY: &str = "testsrc2=s=320x240:r=10:d=10[a];\
    testsrc2=s=320x240:r=10:d=0.1,loop=99:1[still];\
    testsrc2=s=320x240:r=10:d=10[b];\
    color=black:s=320x240:r=10:d=10,noise=alls=10:allf=t[black];\
    testsrc2=s=320x240:r=10:d=20[c];\
    [a][still][b][black][c]concat=n=5[out0];\
    sine=d=60,volume='if(between(t,39.8,50.2),0,1)':eval=frame[out1]";

async fn clip(path: &Path) -> Result<()> {
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-f", "lavfi", "-i", STORY])
        .args(["-c:v", "libx264", "-crf", "12", "-g", "20", "-c:a", "aac"])
        .arg(path)
        .status()
        .await?;
    ensure!(made.success(), "{made}");
    Ok(())
}

/// A stream that is neither described nor transcribed nor recorded.
async fn connect(client: &mut Client, url: String, playback: Playback) -> Result<RtStream> {
    let request = v1::ConnectRtStreamRequest {
        url,
        playback: playback.into(),
        start_stopped: true,
        ..Default::default()
    };
    let answer = client.streams.connect_rt_stream(request).await?;
    answer.into_inner().rtstream.context("a stream")
}

async fn alert(
    client: &mut Client,
    stream: &RtStream,
    event_id: &str,
    receiver: &Receiver,
    delivery: DeliveryMode,
) -> Result<Alert> {
    let request = v1::CreateAlertRequest {
        event_id: event_id.to_owned(),
        rtstream_id: stream.id.clone(),
        callback_url: receiver.url(),
        delivery: delivery.into(),
        ..Default::default()
    };
    let answer = client.events.create_alert(request).await?;
    answer.into_inner().alert.context("an alert")
}

/// The firings of an alert, once there are so many and all are closed.
async fn closed(client: &mut Client, alert: &Alert, count: usize) -> Result<Vec<Firing>> {
    let request = v1::ListFiringsRequest {
        alert_id: alert.id.clone(),
        ..Default::default()
    };
    until(&format!("{} to close", alert.event_id), async || {
        let answer = client.events.list_firings(request.clone()).await?;
        let firings = answer.into_inner().firings;
        let closed = |firing: &Firing| firing.state() == firing::State::Closed;
        let all = firings.len() >= count && firings.iter().all(closed);
        Ok(all.then_some(firings))
    })
    .await
}

/// Label and phase of each.
fn told(webhooks: &[Webhook]) -> Vec<(String, String)> {
    let text = |webhook: &Webhook, field: &str| {
        let text = webhook.body[field].as_str();
        text.unwrap_or_default().to_owned()
    };
    let told = webhooks.iter();
    told.map(|webhook| (text(webhook, "label"), text(webhook, "phase")))
        .collect()
}

fn of<const N: usize>(expected: [(&str, &str); N]) -> BTreeSet<(String, String)> {
    let owned = expected.map(|(label, phase)| (label.to_owned(), phase.to_owned()));
    owned.into_iter().collect()
}

#[tokio::test]
async fn a_picture_that_stands_still_or_is_black_and_silence_fire_once_each_and_close() -> Result<()>
{
    let ground = ground().await?;
    let clips = ground.dir().join("clips");
    std::fs::create_dir(&clips)?;
    let path = clips.join("story.mp4").display().to_string();
    clip(Path::new(&path)).await?;
    let receiver = Receiver::start().await?;
    let root = clips.display().to_string();
    let (mut up, mut client) = ground.up(&["--media-root", &root]).await?;
    let stream = connect(&mut client, format!("file://{path}"), Playback::Fast).await?;
    let expected = [
        ("evt-frozen", "The picture did not change between ", 10..20),
        ("evt-black", "The picture was black between ", 30..40),
        ("evt-silent", "The sound was silent between ", 40..50),
    ];
    let mut alerts = Vec::new();
    for (event, ..) in &expected {
        alerts.push(alert(&mut client, &stream, event, &receiver, DeliveryMode::All).await?);
    }
    start(&mut client, &stream.id).await?;
    let ended = state(&mut client, &stream.id, State::Ended).await?;
    let epoch_us = micros(&ended.epoch.context("media arrived")?);
    for (alert, (event, happened, seconds)) in alerts.iter().zip(&expected) {
        let firings = closed(&mut client, alert, 1).await?;
        ensure!(firings.len() == 1, "{firings:?}");
        let firing = &firings[0];
        let second = |time: &Option<prost_types::Timestamp>| {
            let us = time.as_ref().map(micros).unwrap_or_default();
            (us - epoch_us) / 1_000_000
        };
        let times = second(&firing.start_time)..second(&firing.end_time);
        assert_eq!(times, *seconds, "{event}");
        assert!(firing.explanation.starts_with(happened), "{firing:?}");
        assert_eq!(firing.basis(), firing::Basis::Health);
        assert!(firing.index_id.is_empty() && firing.confidence == 1.0);
        let request = v1::GetEventRequest {
            event_id: (*event).to_owned(),
        };
        let event = client.events.get_event(request).await?.into_inner().event;
        assert_eq!(firing.label, event.context("it is built in")?.label);
    }
    receiver.webhooks(6).await?;
    ground.drained().await?;
    let told = told(&receiver.webhooks(6).await?);
    let phases = |label| [(label, "fired"), (label, "closed")];
    let [a, b, c] = ["frozen picture", "black picture", "silent audio"].map(phases);
    let all = of([a[0], a[1], b[0], b[1], c[0], c[1]]);
    assert_eq!(told.len(), 6, "{told:?}");
    assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), all);
    ensure!(up.terminate().await?.success(), "{:#?}", up.log());
    no_surprises(&up, &[])
}

#[tokio::test]
async fn a_camera_that_dies_and_comes_back_is_told_as_offline_and_then_recovered() -> Result<()> {
    let ground = ground().await?;
    let receiver = Receiver::start().await?;
    let camera = RtspServer::start(&sample_clip())?;
    let port = camera.port();
    let (mut up, mut client) = ground.up(&[]).await?;
    let stream = connect(&mut client, camera.url(), Playback::RealTime).await?;
    let (all, first) = (DeliveryMode::All, DeliveryMode::First);
    let offline = alert(&mut client, &stream, "evt-offline", &receiver, all).await?;
    let recovered = alert(&mut client, &stream, "evt-recovered", &receiver, first).await?;
    // It lives and is kept up with.
    for event in ["evt-behind", "evt-frozen", "evt-black"] {
        alert(&mut client, &stream, event, &receiver, all).await?;
    }
    start(&mut client, &stream.id).await?;
    state(&mut client, &stream.id, State::Active).await?;
    drop(camera);
    state(&mut client, &stream.id, State::Reconnecting).await?;
    let webhooks = receiver.webhooks(1).await?;
    assert_eq!(
        told(&webhooks),
        [("offline".to_owned(), "fired".to_owned())]
    );
    let camera = RtspServer::start_on(&sample_clip(), port)?;
    state(&mut client, &stream.id, State::Active).await?;
    let [offline, recovered] = [
        closed(&mut client, &offline, 1).await?,
        closed(&mut client, &recovered, 1).await?,
    ];
    ensure!(offline.len() == 1 && recovered.len() == 1);
    assert_eq!(offline[0].end_time, recovered[0].start_time);
    let came_back = &recovered[0].explanation;
    assert!(came_back.starts_with("The camera came back"), "{came_back}");
    stop(&mut client, &stream.id).await?;
    receiver.webhooks(3).await?;
    ground.drained().await?;
    let told = told(&receiver.webhooks(3).await?);
    let expected = of([
        ("offline", "fired"),
        ("offline", "closed"),
        ("recovered", "fired"),
    ]);
    assert_eq!(told.len(), 3, "{told:?}");
    assert_eq!(told.into_iter().collect::<BTreeSet<_>>(), expected);
    drop(camera);
    ensure!(up.terminate().await?.success(), "{:#?}", up.log());
    no_surprises(&up, &["reconnect", "source"])
}
