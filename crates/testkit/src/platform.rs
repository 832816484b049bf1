//! The platform under test: a nats-server, the binary's processes over it, and a client.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use sightline_bus::embedded::EmbeddedServer;
use sightline_bus::{Bus, StreamName};
use sightline_proto::client::Client;
use sightline_proto::v1::rt_stream::{Playback, State};
use sightline_proto::v1::{self, Alert, Index, RtStream};
use tempfile::TempDir;

use crate::hosts::Host;
use crate::nats::Cluster;
use crate::process::Process;
use crate::proxy::Proxy;
use crate::{repository, sample_clip, until};

/// The key that clients of the tests send.
pub const KEY: &str = "test-key-1";

/// A nats-server of the test's own and a directory for everything else.
pub struct Ground {
    /// The binary under test.
    pub binary: PathBuf,
    /// The test's own view of the bus.
    pub bus: Bus,
    nats_url: String,
    // In this order: the server stops before its directory goes.
    nats: Option<EmbeddedServer>,
    dir: TempDir,
}

impl Ground {
    /// Starts the nats-server.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn prepare(binary: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let nats = EmbeddedServer::start(Path::new("nats-server"), &dir.path().join("nats"))?;
        let config = nats.config("test");
        let token = config.login.token().unwrap_or_default().to_owned();
        let nats_url = config.url.replace("nats://", &format!("nats://{token}@"));
        Ok(Self {
            binary: binary.into(),
            bus: Bus::connect(&config).await?,
            nats_url,
            nats: Some(nats),
            dir,
        })
    }

    /// Uses the nats-servers of `cluster`.
    ///
    /// # Errors
    /// When they do not come up.
    pub async fn over(binary: &str, cluster: &Cluster) -> Result<Self> {
        Self::at(binary, cluster.bus().await?, &cluster.url)
    }

    /// Uses the nats-server at `nats_url`, to which `bus` is connected.
    ///
    /// # Errors
    /// When there is no place for files.
    pub fn at(binary: &str, bus: Bus, nats_url: &str) -> Result<Self> {
        Ok(Self {
            binary: binary.into(),
            bus,
            nats_url: nats_url.to_owned(),
            nats: None,
            dir: tempfile::tempdir()?,
        })
    }

    /// A link to the nats-server, and the server's address by it.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn link(&self) -> Result<(Proxy, String)> {
        let (front, address) = self
            .nats_url
            .rsplit_once(['@', '/'])
            .context("an address")?;
        let proxy = Proxy::start(address.parse()?).await?;
        let parted = &self.nats_url[front.len()..=front.len()];
        let url = format!("{front}{parted}{}", proxy.address());
        Ok((proxy, url))
    }

    /// Kills the nats-server, which is then started again.
    ///
    /// # Errors
    /// When it is dead already, or not the test's own.
    pub fn kill_nats(&self) -> Result<()> {
        let pid = self.nats_pid().context("a server of the test's own")?;
        Ok(kill_process(pid, Signal::KILL)?)
    }

    /// The process id of the nats-server, while it runs.
    pub fn nats_pid(&self) -> Option<Pid> {
        let pid = self.nats.as_ref()?.pid()?;
        Pid::from_raw(pid.cast_signed())
    }

    /// A directory for data.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The nats-server's address with its token.
    pub fn nats_url(&self) -> &str {
        &self.nats_url
    }

    /// Starts the all-in-one over the nats-server, files allowed from the repository's media, and webhooks to this machine.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn up(&self, further: &[&str]) -> Result<(Process, Client)> {
        let data = self.dir.path().join("data").display().to_string();
        let media = media_root();
        let mut arguments = vec![
            "up",
            "--json",
            "--listen",
            "127.0.0.1:0",
            "--admin-listen",
            "127.0.0.1:0",
        ];
        arguments.extend(["--data-dir", &data]);
        if !further.contains(&"--nats-url") {
            arguments.extend(["--nats-url", &self.nats_url]);
        }
        if !further.contains(&"--media-root") {
            arguments.extend(["--media-root", &media]);
        }
        arguments.extend(["--allow-egress", "127.0.0.1", "--allow-source", "127.0.0.1"]);
        arguments.extend(further);
        let mut process = Process::start(&self.binary, arguments, &[("SIGHTLINE_API_KEY", KEY)])?;
        let line = process.line().await?;
        let said: serde_json::Value = serde_json::from_str(&line).with_context(|| line.clone())?;
        let listen = said["listen"]
            .as_str()
            .context("it says where it listens")?;
        let client = Client::connect(&format!("http://{listen}"), KEY).await?;
        Ok((process, client))
    }

    /// Starts one role alone.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn role(&self, role: &str, further: &[&str]) -> Result<(Process, Option<String>)> {
        self.role_of(&self.binary, None, role, further).await
    }

    /// The same with another release's binary, or on a host.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn role_of(
        &self,
        binary: &Path,
        host: Option<&Host>,
        role: &str,
        further: &[&str],
    ) -> Result<(Process, Option<String>)> {
        let mut arguments = vec![role];
        if !further.contains(&"--nats-url") {
            arguments.extend(["--nats-url", &self.nats_url]);
        }
        let (data, media) = (
            self.dir.path().join("data").display().to_string(),
            media_root(),
        );
        if ["gateway", "ingest", "embeddings", "alerts"].contains(&role) {
            arguments.extend(["--data-dir", &data]);
        }
        if ["gateway", "ingest"].contains(&role) && !further.contains(&"--media-root") {
            arguments.extend(["--media-root", &media]);
        }
        if ["gateway", "alerts"].contains(&role) {
            arguments.extend(["--allow-egress", "127.0.0.1"]);
        }
        // A release before knows no such option.
        if role == "ingest" && binary == self.binary {
            arguments.extend(["--allow-source", "127.0.0.1"]);
        }
        arguments.extend(further);
        let command = host.map_or_else(|| Command::new(binary), |host| host.command(binary));
        let mut process = Process::run(command, arguments, &[("SIGHTLINE_API_KEY", KEY)])?;
        let line = process.line().await?;
        let address = line
            .split_once(" on ")
            .map(|(_, address)| format!("http://{address}"));
        Ok((process, address))
    }

    /// Waits until nothing is left to do on the bus.
    ///
    /// # Errors
    /// When work is never done.
    pub async fn drained(&self) -> Result<()> {
        // What is worked off leaves these. A worker that still loads its model has no consumer, and thus no backlog.
        self.emptied(StreamName::Frames).await?;
        self.emptied(StreamName::Audio).await?;
        until("OBSERVATIONS to be worked off", async || {
            let backlog = self.bus.backlog(StreamName::Observations).await?;
            Ok((backlog == 0).then_some(()))
        })
        .await?;
        self.emptied(StreamName::Deliveries).await
    }

    /// The same where nats-server was killed: 2.9 may still keep what was settled just before, and gives it out to nobody, or count as
    /// given out what it keeps no more.
    ///
    /// # Errors
    /// When work is never done.
    pub async fn worked_off(&self) -> Result<()> {
        for stream in [
            StreamName::Frames,
            StreamName::Audio,
            StreamName::Observations,
            StreamName::Deliveries,
        ] {
            let mut places = None;
            let what = format!("{} to be worked off", stream.as_str());
            let working = until(&what, async || {
                let now = self.bus.places(stream).await?;
                let is_settled = now.values().all(|place| place.open == 0);
                places = Some(now);
                let is_done = is_settled || self.bus.subjects(stream, ">").await?.is_empty();
                Ok(is_done.then_some(()))
            });
            let worked = working.await;
            worked.with_context(|| format!("{places:?}"))?;
        }
        Ok(())
    }

    /// Waits until a stream holds nothing.
    ///
    /// # Errors
    /// When it always does.
    pub async fn emptied(&self, stream: StreamName) -> Result<()> {
        until(&format!("{} to be empty", stream.as_str()), async || {
            let left = self.bus.subjects(stream, ">").await?;
            Ok(left.is_empty().then_some(()))
        })
        .await
    }
}

/// The directory that file sources of tests come from.
fn media_root() -> String {
    repository().join("tests/media").display().to_string()
}

/// The sample clip as a source.
///
/// # Errors
/// When it is missing.
pub fn clip_url() -> Result<String> {
    Ok(format!(
        "file://{}",
        sample_clip().canonicalize()?.display()
    ))
}

/// Connects a source without starting it; its speech is transcribed.
///
/// # Errors
/// When it is refused.
pub async fn connect(client: &mut Client, url: &str, playback: Playback) -> Result<RtStream> {
    let request = source(url, playback);
    let answer = client.streams.connect_rt_stream(request).await?;
    answer.into_inner().rtstream.context("a stream")
}

/// The same, and it is recorded.
///
/// # Errors
/// When it is refused.
pub async fn connect_recorded(
    client: &mut Client,
    url: &str,
    playback: Playback,
) -> Result<RtStream> {
    let request = v1::ConnectRtStreamRequest {
        store: true,
        ..source(url, playback)
    };
    let answer = client.streams.connect_rt_stream(request).await?;
    answer.into_inner().rtstream.context("a stream")
}

fn source(url: &str, playback: Playback) -> v1::ConnectRtStreamRequest {
    v1::ConnectRtStreamRequest {
        url: url.to_owned(),
        transcribe: true,
        playback: playback.into(),
        start_stopped: true,
        ..Default::default()
    }
}

/// Describes a stream by a prompt, 2 frames of every 5 s.
///
/// # Errors
/// When it is refused.
pub async fn index(client: &mut Client, rtstream_id: &str, prompt: &str) -> Result<Index> {
    let request = v1::CreateVisualIndexRequest {
        rtstream_id: rtstream_id.to_owned(),
        prompt: prompt.to_owned(),
        ..Default::default()
    };
    let answer = client.indexes.create_visual_index(request).await?;
    answer.into_inner().index.context("an index")
}

/// Watches an index for an event.
///
/// # Errors
/// When it is refused.
pub async fn alert(
    client: &mut Client,
    index_id: &str,
    prompt: &str,
    callback_url: &str,
) -> Result<Alert> {
    let request = v1::CreateEventRequest {
        prompt: prompt.to_owned(),
        label: prompt.to_owned(),
        ..Default::default()
    };
    let event = client
        .events
        .create_event(request)
        .await?
        .into_inner()
        .event
        .context("an event")?;
    let request = v1::CreateAlertRequest {
        event_id: event.id,
        index_id: index_id.to_owned(),
        callback_url: callback_url.to_owned(),
        // One message for each firing.
        delivery: v1::DeliveryMode::First.into(),
        ..Default::default()
    };
    let answer = client.events.create_alert(request).await?;
    answer.into_inner().alert.context("an alert")
}

/// Starts a stream.
///
/// # Errors
/// When it is refused.
pub async fn start(client: &mut Client, rtstream_id: &str) -> Result<()> {
    let request = v1::StartRtStreamRequest {
        rtstream_id: rtstream_id.to_owned(),
    };
    client.streams.start_rt_stream(request).await?;
    Ok(())
}

/// Stops a stream, and waits until it is.
///
/// # Errors
/// When it is refused, or the stream never stops.
pub async fn stop(client: &mut Client, rtstream_id: &str) -> Result<RtStream> {
    let request = v1::StopRtStreamRequest {
        rtstream_id: rtstream_id.to_owned(),
    };
    client.streams.stop_rt_stream(request).await?;
    state(client, rtstream_id, State::Stopped).await
}

/// Waits until a stream is in this state.
///
/// # Errors
/// When it never is.
pub async fn state(client: &mut Client, rtstream_id: &str, state: State) -> Result<RtStream> {
    let request = v1::GetRtStreamRequest {
        rtstream_id: rtstream_id.to_owned(),
    };
    until(&format!("{rtstream_id} to be {state:?}"), async || {
        let answer = client.streams.get_rt_stream(request.clone()).await?;
        let stream = answer.into_inner().rtstream.context("a stream")?;
        Ok((stream.state() == state).then_some(stream))
    })
    .await
}

/// All scenes of an index, oldest first.
///
/// # Errors
/// When the call fails.
pub async fn scenes(client: &mut Client, index_id: &str) -> Result<Vec<v1::Scene>> {
    let request = v1::ListScenesRequest {
        index_id: index_id.to_owned(),
        page_size: 1000,
        ..Default::default()
    };
    let mut scenes = client
        .indexes
        .list_scenes(request)
        .await?
        .into_inner()
        .scenes;
    scenes.reverse();
    Ok(scenes)
}

/// The whole transcript of a stream, oldest first.
///
/// # Errors
/// When the call fails.
pub async fn transcript(
    client: &mut Client,
    rtstream_id: &str,
) -> Result<Vec<v1::TranscriptSegment>> {
    let request = v1::ListTranscriptRequest {
        rtstream_id: rtstream_id.to_owned(),
        page_size: 1000,
        ..Default::default()
    };
    Ok(client
        .streams
        .list_transcript(request)
        .await?
        .into_inner()
        .segments)
}
