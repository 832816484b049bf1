//! kill -9 of anything at random, the nats-server included, while cameras and files are watched and alerts fire: nothing that was
//! acknowledged is lost or doubled, every missing window is counted, and nothing grows.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use rustix::process::{Pid, Signal, kill_process};
use sightline_bus::{Bus, Start, StreamName};
use sightline_proto::client::Client;
use sightline_proto::internal::Observation;
use sightline_proto::v1::GetIndexRequest;
use sightline_proto::v1::rt_stream::{Playback, State};
use sightline_testkit::dice::Dice;
use sightline_testkit::oracle::Ledger;
use sightline_testkit::platform::{alert, connect, index, start, state, stop};
use sightline_testkit::receiver::Receiver;
use sightline_testkit::resources::Usage;
use sightline_testkit::rtsp::RtspServer;
use sightline_testkit::{sample_clip, until};
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval};

use super::fleet::{Fleet, Who};
pub use super::growing::more;
use super::growing::recovers;
use super::outages::AWAY;
use crate::ground;
use crate::recording::is_ingest_child;

/// Those that may be killed, besides the nats-server and the children of ingest workers.
const ROLES: [(&str, usize); 6] = [
    ("embeddings", 1),
    ("gateway", 1),
    ("alerts", 1),
    ("ingest", 2),
    ("caption", 2),
    ("transcribe", 1),
];
/// Windows of a stream that one kill of a nats-server or a caption worker may cost at most: what was in memory, and what was
/// superseded until the next one had loaded its model.
const WINDOWS_A_KILL: usize = 4;
/// Where the logs of a story that went wrong are.
const LOGS: &str = env!("CARGO_TARGET_TMPDIR");
/// The sample clip, in seconds.
const CLIP: u64 = 90;
/// What survivors say of those that were killed, besides what is said while the bus is away.
pub const EXPECTED: [(&str, &str); 2] = [
    (
        "the source is opened again",
        "a child was killed, or began before its camera",
    ),
    (
        "delivered again and again, and never settled",
        "two workers that had a window were killed",
    ),
];

/// How long it goes on, and with how much.
pub struct Story {
    pub seed: u64,
    pub length: Duration,
    /// Every second one is a camera.
    pub streams: usize,
    /// Longest pause between two kills, in seconds.
    pub pause: usize,
}

/// Everything that the bus showed to have taken, while it took it.
pub struct Witness {
    seen: Arc<Mutex<BTreeSet<String>>>,
    watching: JoinHandle<()>,
}

impl Witness {
    pub async fn start(bus: &Bus) -> Result<Self> {
        let seen: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let all = StreamName::Observations;
        let mut tail = bus
            .tail::<Observation>(all, "obs.>", Start::Beginning)
            .await?;
        let noting = Arc::clone(&seen);
        let watching = tokio::spawn(async move {
            while let Some(next) = tail.next().await {
                if let Ok(received) = next {
                    let mut seen = noting.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.insert(received.message.id);
                }
            }
        });
        Ok(Self { seen, watching })
    }

    pub fn seen(self) -> BTreeSet<String> {
        self.watching.abort();
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.clone()
    }
}

/// Kills, starts again, and looks at what is used meanwhile.
struct Killer {
    dice: Dice,
    usage: Usage,
    /// How many kills may have cost windows.
    costly: usize,
}

impl Killer {
    async fn goes_on(&mut self, fleet: &mut Fleet, story: &Story) -> Result<()> {
        let started = Instant::now();
        while started.elapsed() < story.length {
            self.kill(fleet).await?;
            let mut seconds = interval(Duration::from_secs(1));
            for _ in 0..=self.dice.below(story.pause) {
                seconds.tick().await;
                fleet.supervise().await?;
                self.look(fleet);
            }
        }
        Ok(())
    }

    async fn kill(&mut self, fleet: &mut Fleet) -> Result<()> {
        let running = fleet.running();
        let chosen = self.dice.below(running.len() + 2);
        match running.get(chosen) {
            Some(&(who, _)) => {
                self.costly += usize::from(who.0 == "caption");
                kill_and_begin(fleet, who).await
            }
            None if chosen == running.len() => {
                self.costly += 1;
                // One that is being started again already cannot be killed.
                let _ = fleet.ground.kill_nats();
                Ok(())
            }
            None => {
                let children = children(fleet)?;
                if !children.is_empty() {
                    let child = children[self.dice.below(children.len())];
                    let _ = kill_process(child, Signal::KILL);
                }
                Ok(())
            }
        }
    }

    fn look(&mut self, fleet: &Fleet) {
        for ((role, _), pid) in fleet.running() {
            self.usage.look(role, pid);
        }
        if let Some(pid) = fleet.ground.nats_pid() {
            self.usage.look("nats-server", pid);
        }
        for pid in children(fleet).unwrap_or_default() {
            self.usage.look("ingest child", pid);
        }
    }
}

/// The children of an ingest worker end with it.
async fn kill_and_begin(fleet: &mut Fleet, who: Who) -> Result<()> {
    let orphans = children_of(fleet, who)?;
    fleet.kill(who).await?;
    fleet.begin(who).await?;
    until("a dead worker's children to end", async || {
        let left = orphans.iter().any(|pid| is_ingest_child(*pid));
        Ok((!left).then_some(()))
    })
    .await
}

fn children(fleet: &Fleet) -> Result<Vec<Pid>> {
    let workers = [("ingest", 0), ("ingest", 1)];
    let mut all = Vec::new();
    for who in workers {
        all.extend(children_of(fleet, who)?);
    }
    Ok(all)
}

fn children_of(fleet: &Fleet, who: Who) -> Result<Vec<Pid>> {
    let children = fleet.process(who)?.children()?.into_iter();
    Ok(children.filter(|pid| is_ingest_child(*pid)).collect())
}

/// The sample clip as often as it takes, in one file.
pub async fn long_clip(dir: &Path, length: Duration) -> Result<PathBuf> {
    let path = dir.join("long.mp4");
    let times = (length.as_secs() / CLIP + 4).to_string();
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-stream_loop", &times, "-i"])
        .arg(sample_clip())
        .args(["-c", "copy"])
        .arg(&path)
        .status()
        .await?;
    ensure!(made.success(), "{made}");
    Ok(path)
}

/// A stream and its index, with an alert on it, running.
pub async fn watched(
    client: &mut Client,
    url: &str,
    playback: Playback,
    receiver: &Receiver,
) -> Result<(String, String)> {
    let stream = connect(client, url, playback).await?;
    let index = index(client, &stream.id, "Describe activity").await?;
    let prompt = "Detect when someone enters restricted area";
    alert(client, &index.id, prompt, &receiver.url()).await?;
    start(client, &stream.id).await?;
    Ok((stream.id, index.id))
}

/// What is played, and to whom it is told.
struct Stage {
    fleet: Fleet,
    camera: RtspServer,
    receiver: Receiver,
    /// The sample clip as often as the story takes, and once.
    long: String,
    short: String,
}

impl Stage {
    async fn prepare(story: &Story) -> Result<Self> {
        let ground = ground().await?;
        let clips = ground.dir().join("clips");
        std::fs::create_dir(&clips)?;
        let long = long_clip(&clips, story.length).await?;
        let short = clips.join("short.mp4");
        std::fs::copy(sample_clip(), &short)?;
        let root = clips.display().to_string();
        let mut fleet = Fleet::new(ground);
        for role in ["gateway", "ingest"] {
            fleet.tell(role, &["--media-root", &root]);
        }
        fleet.begin_all(&ROLES).await?;
        Ok(Self {
            fleet,
            camera: RtspServer::start(&long)?,
            receiver: Receiver::start().await?,
            long: format!("file://{}", long.display()),
            short: format!("file://{}", short.display()),
        })
    }

    async fn streams(&self, story: &Story) -> Result<Vec<(String, String)>> {
        let mut client = self.fleet.client(0).await?;
        let urls = [self.camera.url(), self.long.clone()];
        let mut streams = Vec::new();
        for url in urls.iter().cycle().take(story.streams) {
            let playback = Playback::RealTime;
            streams.push(watched(&mut client, url, playback, &self.receiver).await?);
        }
        more(&self.fleet, &streams, 1).await?;
        Ok(streams)
    }

    /// It goes on, and a fresh event passes; then everything is stopped. The stream of that event and its index.
    async fn finish(&mut self, streams: &[(String, String)]) -> Result<(String, String)> {
        recovers(&mut self.fleet, streams, 2).await?;
        let mut client = self.fleet.client(0).await?;
        let fresh = watched(&mut client, &self.short, Playback::Fast, &self.receiver).await?;
        state(&mut client, &fresh.0, State::Ended).await?;
        until("a fresh event", async || {
            let fired = Ledger::read(&self.fleet.ground.bus, &fresh.0)
                .await?
                .firings();
            Ok((!fired.is_empty()).then_some(()))
        })
        .await?;
        for (stream, _) in streams {
            stop(&mut client, stream).await?;
        }
        self.fleet.ground.worked_off().await?;
        Ok(fresh)
    }
}

/// Tells the story, and compares at its end what was acknowledged with what came out.
pub async fn check(story: Story) -> Result<()> {
    let mut stage = Stage::prepare(&story).await?;
    let witness = Witness::start(&stage.fleet.ground.bus).await?;
    let mut streams = stage.streams(&story).await?;
    let mut killer = Killer {
        dice: Dice::new(story.seed),
        usage: Usage::default(),
        costly: 0,
    };
    let told = async {
        killer.goes_on(&mut stage.fleet, &story).await?;
        streams.push(stage.finish(&streams).await?);
        let seen = witness.seen();
        accounted(
            &stage.fleet,
            &stage.receiver,
            &streams,
            &seen,
            killer.costly,
        )
        .await
    }
    .await;
    if told.is_err() {
        stage.fleet.write_logs(&Path::new(LOGS).join("kills"))?;
    }
    told.context(LOGS)?;
    println!("{}", killer.usage.told());
    if story.length > Duration::from_secs(300) {
        killer.usage.is_flat()?;
    }
    let expected = [&EXPECTED[..], &AWAY].concat();
    let expected: Vec<&str> = expected.iter().map(|(text, _)| *text).collect();
    stage.fleet.end(&expected).await
}

/// Compares what was `seen` to be acknowledged with what came out, after so many faults that may have cost windows.
pub async fn accounted(
    fleet: &Fleet,
    receiver: &Receiver,
    streams: &[(String, String)],
    seen: &BTreeSet<String>,
    costly: usize,
) -> Result<()> {
    let mut client = fleet.client(0).await?;
    let mut kept = BTreeSet::new();
    let mut fired = BTreeSet::new();
    for (stream, index) in streams {
        let ledger = Ledger::read(&fleet.ground.bus, stream).await?;
        ledger.compare(&mut client, stream, &[index]).await?;
        let missing = ledger.missing(index);
        until("every missing window to be counted", async || {
            let request = GetIndexRequest {
                index_id: index.clone(),
            };
            let counted = client.indexes.get_index(request).await?.into_inner().index;
            let counted = counted.and_then(|index| index.stats).context("it counts")?;
            Ok((counted.missing == missing.len() as u64).then_some(()))
        })
        .await?;
        let gaps = ledger.gaps("frames");
        let told = |window: &&(i64, i64)| {
            let overlaps = |gap: &(i64, i64)| gap.0 < window.1 && window.0 < gap.1;
            gaps.iter().any(overlaps)
        };
        let untold = missing.len() - missing.iter().filter(told).count();
        ensure!(
            untold <= (costly + 1) * WINDOWS_A_KILL,
            "{missing:?} besides {gaps:?}"
        );
        fired.extend(ledger.firings());
        kept.extend(ledger.ids().map(ToOwned::to_owned));
    }
    let lost: Vec<&String> = seen.difference(&kept).collect();
    ensure!(lost.is_empty(), "taken by the bus and lost: {lost:?}");
    until("every firing to be told", async || {
        let told = receiver.webhooks(0).await?.into_iter();
        let told: BTreeSet<String> = told.map(|webhook| webhook.id).collect();
        ensure!(told.is_subset(&fired), "{told:?} besides {fired:?}");
        Ok((told == fired).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_seconds_of_kills_lose_and_double_nothing() -> Result<()> {
    check(Story {
        seed: 7,
        length: Duration::from_secs(40),
        streams: 3,
        pause: 3,
    })
    .await
}
