//! The bus is away, silent, or full: work waits, and goes on where it was.

use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sightline_bus::{Bus, Handler, Outgoing, Received, Refusal, StreamName, Subject, Work, work};
use sightline_catalog::Catalog;
use sightline_proto::client::Client;
use sightline_proto::internal::AudioChunk;
use sightline_proto::v1::rt_stream::{Playback, State};
use sightline_service::Shutdown;
use sightline_testkit::nats::Small;
use sightline_testkit::oracle::{Ledger, no_surprises};
use sightline_testkit::platform::{Ground, start, state, stop};
use sightline_testkit::proxy::Link;
use sightline_testkit::receiver::Receiver;
use sightline_testkit::rtsp::RtspServer;
use sightline_testkit::{LONG, sample_clip, until};
use tokio::time::{Instant, sleep};

use super::fleet::{Fleet, ONE_EACH};
use crate::ground;
use crate::roles::prepared;

/// What may be said while the bus is away.
pub const AWAY: [(&str, &str); 15] = [
    (
        "results were not taken, trying again",
        "a worker holds what it has made",
    ),
    (
        "message will be delivered again",
        "it could not be acknowledged",
    ),
    ("the lease is lost", "it could not be extended for 6 s"),
    ("the lease runs out by itself", "it could not be given back"),
    (
        "the stream is given up for now",
        "how far it has come could not be stored",
    ),
    (
        "the source is opened again",
        "its child ended with the lease",
    ),
    (
        "the embeddings service failed a call",
        "asked while it waited for the bus",
    ),
    (
        "following observations is interrupted",
        "a gateway goes on where it was",
    ),
    (
        "async_nats::connector",
        "the library tells of each try to connect",
    ),
    (
        "windows are held until the model answers",
        "a verdict could not be published",
    ),
    ("evaluating again", "a firing could not be published"),
    (
        "time is told again",
        "a firing that is over could not be closed",
    ),
    (
        "deliveries are interrupted, starting again",
        "an endpoint's consumer could not be made",
    ),
    (
        "the vector stores stay as they are for now",
        "a service that starts could not read which are in use",
    ),
    (
        "firings are explained later",
        "the enricher's consumer could not be made",
    ),
];

fn away() -> [&'static str; 15] {
    AWAY.map(|(text, _)| text)
}

/// Waits until some windows of an index are described.
async fn some(bus: &Bus, stream: &str, index: &str) -> Result<()> {
    until("some windows", async || {
        let ledger = Ledger::read(bus, stream).await?;
        Ok((ledger.windows(index).len() >= 3).then_some(()))
    })
    .await
}

/// A clip was played to its end, and what came of it is there once; how many of its windows are described.
async fn finished(
    ground: &Ground,
    client: &mut Client,
    (stream, index): &(String, String),
    receiver: &Receiver,
) -> Result<usize> {
    state(client, stream, State::Ended).await?;
    ground.drained().await?;
    let ledger = Ledger::read(&ground.bus, stream).await?;
    ledger.compare(client, stream, &[index]).await?;
    let fired = ledger.firings();
    ensure!(!fired.is_empty(), "nothing was fired");
    receiver.told(&fired).await?;
    Ok(ledger.windows(index).len())
}

/// Waits until every role of a platform has taken up its work: what does not reach the bus when it starts ends, and is to be
/// started again.
async fn works(ground: &Ground, client: &mut Client) -> Result<()> {
    let receiver = Receiver::start().await?;
    let watched = prepared(client, &receiver).await?;
    start(client, &watched.0).await?;
    finished(ground, client, &watched, &receiver).await?;
    Ok(())
}

/// The link between the platform and its bus is like this for so long, in mid-run.
pub async fn check(link: Link, length: Duration) -> Result<()> {
    let ground = ground().await?;
    let receiver = Receiver::start().await?;
    let (proxy, url) = ground.link().await?;
    let (mut up, mut client) = ground.up(&["--nats-url", &url]).await?;
    works(&ground, &mut client).await?;
    let watched = prepared(&mut client, &receiver).await?;
    start(&mut client, &watched.0).await?;
    some(&ground.bus, &watched.0, &watched.1).await?;
    proxy.set(link);
    sleep(length).await;
    proxy.set(Link::Passes);
    let described = finished(&ground, &mut client, &watched, &receiver)
        .await
        .with_context(|| format!("{link:?} {:#?}", up.log()))?;
    assert_eq!(described, 18);
    ensure!(up.terminate().await?.success(), "{:#?}", up.log());
    no_surprises(&up, &away())
}

/// How soon another worker has the streams of one that is cut off: 15 s, on a machine that has time.
const TAKEOVER: Duration = Duration::from_secs(40);

/// Longer than a lease lasts.
const SHORT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_is_away_costs_nothing() -> Result<()> {
    check(Link::Cut, SHORT).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_falls_silent_costs_nothing() -> Result<()> {
    check(Link::Swallows, SHORT).await
}

/// One of two workers hears nothing any more, and nobody hears it: the other one has its stream soon, and what both do is one.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_behind_a_half_open_link_loses_its_streams() -> Result<()> {
    let mut fleet = Fleet::new(ground().await?);
    let (proxy, url) = fleet.ground.link().await?;
    let (first, second) = (("ingest", 0), ("ingest", 1));
    fleet.begin_all(&ONE_EACH[..3]).await?;
    fleet.begin_all(&ONE_EACH[4..]).await?;
    fleet.begin_told(first, &["--nats-url", &url]).await?;
    let catalog = Catalog::open(&fleet.ground.bus).await?;
    let receiver = Receiver::start().await?;
    let camera = RtspServer::start(&sample_clip())?;
    let mut client = fleet.client(0).await?;
    let (stream, index) = camera_of(&mut client, &camera, &receiver).await?;
    some(&fleet.ground.bus, &stream, &index).await?;
    fleet.begin(second).await?;

    proxy.set(Link::Swallows);
    let silent = Instant::now();
    until("the other worker to hold it", async || {
        let holder = fleet.holder(&catalog, &stream);
        Ok((holder == Some(second)).then_some(()))
    })
    .await?;
    let took = silent.elapsed();
    ensure!(took < TAKEOVER, "{took:?}");
    until("the first one to give up its child", async || {
        let children = fleet.process(first)?.children()?;
        Ok(children.is_empty().then_some(()))
    })
    .await?;
    state(&mut client, &stream, State::Active).await?;
    // It is of use again.
    proxy.set(Link::Passes);
    fleet.stop(second).await?;
    until("the first one to hold it again", async || {
        let holder = fleet.holder(&catalog, &stream);
        Ok((holder == Some(first)).then_some(()))
    })
    .await?;
    state(&mut client, &stream, State::Active).await?;
    stop(&mut client, &stream).await?;
    fleet.ground.drained().await?;
    let ledger = Ledger::read(&fleet.ground.bus, &stream).await?;
    ledger.compare(&mut client, &stream, &[&index]).await?;
    drop(camera);
    fleet.end(&away()).await
}

async fn camera_of(
    client: &mut Client,
    camera: &RtspServer,
    receiver: &Receiver,
) -> Result<(String, String)> {
    use sightline_testkit::platform::{alert, connect, index};
    let stream = connect(client, &camera.url(), Playback::RealTime).await?;
    let index = index(client, &stream.id, "Describe activity").await?;
    let prompt = "Detect when someone enters restricted area";
    alert(client, &index.id, prompt, &receiver.url()).await?;
    start(client, &stream.id).await?;
    Ok((stream.id, index.id))
}

/// A server's disk: what the dead letters reserve, and as much again.
const DISK: u64 = 320 << 20;
/// What fills it: utterances for an engine that nobody runs.
const CHUNK: usize = 900_000;

fn filler() -> Subject {
    Subject::Audio {
        engine: "filler".to_owned(),
        rtstream: "rts-filler".to_owned(),
    }
}

/// Fills the bus until it takes no more.
async fn fill(bus: &Bus) -> Result<()> {
    let chunk = AudioChunk {
        pcm: vec![0; CHUNK].into(),
        ..AudioChunk::default()
    };
    for number in 0..2 * DISK / CHUNK as u64 {
        let taken = bus
            .publish(&filler(), &format!("filler-{number}"), &chunk)
            .await;
        if taken.is_err() {
            return Ok(());
        }
    }
    anyhow::bail!("it is never full")
}

/// Takes everything.
struct Taking;

impl Handler<AudioChunk> for Taking {
    fn handle<'a, 'b, 'c>(
        &'a self,
        _: &'b Received<AudioChunk>,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<Outgoing>, Refusal>> + Send + 'c>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        Box::pin(async { Ok(Vec::new()) })
    }
}

/// Takes away what filled it.
async fn empty(bus: &Bus) -> Result<()> {
    let shutdown = Shutdown::new();
    let taken = Work {
        stream: StreamName::Audio,
        durable: "filler".to_owned(),
        filter: "audio.filler.*".to_owned(),
        concurrency: 4,
        ack_wait: LONG,
        deadline: LONG,
        max_deliver: -1,
    };
    let (working, stopped) = (bus.clone(), shutdown.clone());
    let taking = tokio::spawn(async move { work(&working, taken, Taking, stopped).await });
    // Asked for one subject, nats-server 2.9 may not tell of what a file holds.
    until("the disk to be emptied", async || {
        let places = bus.places(StreamName::Audio).await.unwrap_or_default();
        let filler = places.get("filler");
        let is_empty = filler.is_some_and(|place| place.taken > 0 && place.open == 0);
        Ok(is_empty.then_some(()))
    })
    .await?;
    shutdown.cancel();
    taking.await??;
    // Nobody counts what it was told any more.
    until("whoever emptied it to be gone", async || {
        let removed = bus.remove_idle_consumers(StreamName::Audio, "filler", &[]);
        Ok((!removed.await?.is_empty()).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_whose_disk_is_full_holds_everything_back() -> Result<()> {
    let nats = Small::start(DISK)?;
    let bus = nats.bus().await?;
    let ground = Ground::at(env!("CARGO_BIN_EXE_sightline"), bus, &nats.url)?;
    let receiver = Receiver::start().await?;
    let (mut up, mut client) = ground.up(&[]).await?;
    let watched = prepared(&mut client, &receiver).await?;
    start(&mut client, &watched.0).await?;
    some(&ground.bus, &watched.0, &watched.1).await?;
    fill(&ground.bus).await?;
    sleep(SHORT).await;
    empty(&ground.bus).await?;
    let described = finished(&ground, &mut client, &watched, &receiver)
        .await
        .with_context(|| format!("{:#?}", up.log()))?;
    ensure!(described > 3, "{described}");
    ensure!(up.terminate().await?.success(), "{:#?}", up.log());
    no_surprises(&up, &away())
}
