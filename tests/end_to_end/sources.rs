//! Sources beside RTSP and files: RTMP, SRT, HLS and HTTP on real servers, that go away and come back.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use sightline_proto::client::Client;
use sightline_proto::v1::rt_stream::{Playback, RecordingState, State};
use sightline_proto::v1::{self, Index, RtStream};
use sightline_testkit::nginx::{Nginx, free_port};
use sightline_testkit::oracle::no_surprises;
use sightline_testkit::platform::{
    connect_recorded, index, scenes, start, state, stop, transcript,
};
use sightline_testkit::receiver::Receiver;
use sightline_testkit::sender::Sender;
use sightline_testkit::{sample_clip, until};
use tokio::process::Command;

use crate::ground;
use crate::playback::{links, probed, recorded};

/// What encrypts SRT here, and must be seen nowhere.
const SECRET: &str = "correct-horse-battery";

/// What is said of sources that went away, and of a child that is slow to complete a recording.
const EXPECTED: [&str; 2] = [
    "the source is opened again",
    "the child did not end in time",
];

/// What sends: a publisher to the server, which also cuts HLS of it, an SRT encoder, and an HTTP server of its own.
struct Senders {
    server: Nginx,
    publisher: Option<Sender>,
    encoder: Option<Sender>,
    endless: Option<Sender>,
    hevc: PathBuf,
    ports: (u16, u16),
}

impl Senders {
    async fn start(dir: &Path) -> Result<Self> {
        let mut senders = Self {
            server: Nginx::start()?,
            publisher: None,
            encoder: None,
            endless: None,
            hevc: hevc(dir).await?,
            ports: (free_port()?, free_port()?),
        };
        let early = ["-i", "", "-c", "copy", "-t", "14", "-f", "mp4"];
        let file = senders.server.folder().join("clip.mp4");
        ffmpeg(&early, &sample_clip(), &file).await?;
        senders.on()?;
        Ok(senders)
    }

    fn on(&mut self) -> Result<()> {
        let clip = sample_clip();
        let publish = self.server.rtmp_url("door");
        self.publisher = Some(Sender::start(&clip, &["-f", "flv"], &publish)?);
        let (srt, http) = self.ports;
        let ts = ["-f", "mpegts"];
        let call = format!("srt://127.0.0.1:{srt}?mode=listener&passphrase={SECRET}");
        self.encoder = Some(Sender::start(&self.hevc, &ts, &call)?);
        let listen = format!("http://127.0.0.1:{http}/live.ts");
        let ts = ["-f", "mpegts", "-listen", "1"];
        self.endless = Some(Sender::start(&self.hevc, &ts, &listen)?);
        Ok(())
    }

    fn off(&mut self) {
        self.server.kill();
        (self.publisher, self.encoder, self.endless) = (None, None, None);
    }

    /// The sources that have no end.
    fn urls(&self) -> [String; 4] {
        let (srt, http) = self.ports;
        [
            self.server.rtmp_url("door"),
            format!("srt://127.0.0.1:{srt}?passphrase={SECRET}"),
            self.server.http_url("live/door.m3u8"),
            format!("http://127.0.0.1:{http}/live.ts"),
        ]
    }
}

async fn ffmpeg(arguments: &[&str], from: &Path, to: &Path) -> Result<()> {
    let arguments = arguments.iter().map(|a| match *a {
        "" => from.as_os_str(),
        argument => argument.as_ref(),
    });
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-y"])
        .args(arguments)
        .arg(to)
        .status()
        .await?;
    ensure!(made.success(), "{made}");
    Ok(())
}

async fn hevc(dir: &Path) -> Result<PathBuf> {
    let path = dir.join("hevc.mp4");
    #[rustfmt::skip]
    let arguments = [
        "-i", "", "-t", "14", "-c:v", "libx265", "-preset", "ultrafast",
        "-x265-params", "keyint=20:bframes=0:log-level=error", "-c:a", "copy",
    ];
    ffmpeg(&arguments, &sample_clip(), &path).await?;
    Ok(path)
}

/// A stream that is described, heard and recorded.
async fn watched(client: &mut Client, url: &str) -> Result<(RtStream, Index)> {
    let stream = connect_recorded(client, url, Playback::RealTime).await?;
    ensure!(!stream.url.contains(SECRET), "{}", stream.url);
    let described = index(client, &stream.id, "Describe the scene").await?;
    start(client, &stream.id).await?;
    Ok((stream, described))
}

/// It is described, heard and recorded, beyond so many scenes and segments.
async fn works(
    client: &mut Client,
    (stream, index): &(RtStream, Index),
    (described, kept): (usize, i64),
) -> Result<()> {
    until(&format!("scenes of {}", stream.url), async || {
        Ok((scenes(client, &index.id).await?.len() > described).then_some(()))
    })
    .await?;
    until(&format!("words of {}", stream.url), async || {
        Ok((!transcript(client, &stream.id).await?.is_empty()).then_some(()))
    })
    .await?;
    until(&format!("segments of {}", stream.url), async || {
        Ok((recorded(client, &stream.id).await?.1 > kept).then_some(()))
    })
    .await
}

/// What was recorded plays, and says so.
async fn plays(client: &mut Client, stream: &RtStream) -> Result<()> {
    // What is stored is known a second later.
    let (from_us, to_us) = until("a stretch of two seconds", async || {
        let (stretches, _) = recorded(client, &stream.id).await?;
        let last = stretches.last().copied();
        Ok(last.filter(|(from_us, to_us)| to_us - from_us > 2_000_000))
    })
    .await?;
    let links = links(client, &stream.id, from_us, Some(to_us), None).await?;
    let (from, to) = probed(&links.stream_url).await?;
    ensure!(to - from > 1.0, "{from} to {to} s");
    Ok(())
}

#[tokio::test]
async fn every_kind_of_source_is_watched_lost_and_found_again() -> Result<()> {
    let ground = ground().await?;
    let mut senders = Senders::start(ground.dir()).await?;
    let (mut up, mut client) = ground.up(&[]).await?;
    let mut watching = Vec::new();
    for url in senders.urls() {
        watching.push(watched(&mut client, &url).await?);
    }
    let file = watched(&mut client, &senders.server.http_url("moved/clip.mp4")).await?;
    let receiver = Receiver::start().await?;
    let offline = v1::CreateAlertRequest {
        event_id: "evt-offline".to_owned(),
        rtstream_id: watching[0].0.id.clone(),
        callback_url: receiver.url(),
        ..Default::default()
    };
    client.events.create_alert(offline).await?;
    let mut before = Vec::new();
    for one in &watching {
        works(&mut client, one, (0, 0)).await?;
        before.push(state(&mut client, &one.0.id, State::Active).await?);
    }
    // A file ends, wherever it is.
    let ended = state(&mut client, &file.0.id, State::Ended).await?;
    assert_eq!(ended.recording_state(), RecordingState::Stopped);
    works(&mut client, &file, (1, 0)).await?;

    senders.off();
    for (stream, _) in &watching {
        let lost = state(&mut client, &stream.id, State::Reconnecting).await?;
        ensure!(
            !lost.state_detail.is_empty() && !lost.state_detail.contains(SECRET),
            "{lost:?}"
        );
    }
    let told = receiver.webhooks(1).await?;
    assert_eq!(told[0].body["event_id"], "evt-offline");
    ground.drained().await?;
    let mut seen = Vec::new();
    for (stream, index) in &watching {
        let (_, segments) = recorded(&mut client, &stream.id).await?;
        seen.push((scenes(&mut client, &index.id).await?.len(), segments));
    }
    senders.server.restart()?;
    senders.on()?;
    for ((one, before), seen) in watching.iter().zip(before).zip(seen) {
        let found = state(&mut client, &one.0.id, State::Active).await?;
        assert_eq!(
            found.epoch, before.epoch,
            "the times of {} go on",
            one.0.url
        );
        works(&mut client, one, seen).await?;
    }
    for (stream, _) in &watching {
        stop(&mut client, &stream.id).await?;
        plays(&mut client, stream).await?;
    }
    senders.off();
    ensure!(up.terminate().await?.success(), "{:#?}", up.log());
    let log = up.log().join("\n");
    ensure!(!log.contains(SECRET), "the passphrase is in the log");
    no_surprises(&up, &EXPECTED)
}
