//! The measuring half of `make bench-gateway`. Prints one JSON object.
//!
//! `measure_gateway idle URL KEY PID COUNT SECONDS`: what so many idle watches and WebSockets cost the gateway process PID.
//! `measure_gateway calls URL KEY CLIP SECONDS ROUNDS`: how long calls take while the clip is played.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Value, json};
use sightline_proto::client::Client;
use sightline_proto::v1;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use url::Url;

/// Connections that are opened at once.
const OPENING: usize = 50;
/// Callers of each kind of call whose rate is measured.
const CALLERS: usize = 8;
/// Searches that are sent at once.
const SEARCHERS: usize = 100;
/// Queries that people ask again and again: dashboards, and pages that many look at.
const KNOWN: usize = 20;
/// The longest wait for the first scenes.
const LONG: Duration = Duration::from_secs(120);
/// Clock ticks of /proc a second.
const TICKS: f64 = 100.0;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let measured = match arguments[..] {
        ["idle", url, key, pid, count, seconds] => {
            idle(url, key, pid, count.parse()?, seconds.parse()?).await?
        }
        ["calls", url, key, clip, seconds, rounds] => {
            calls(url, key, clip, seconds.parse()?, rounds.parse()?).await?
        }
        _ => bail!("see the first lines of this file"),
    };
    println!("{measured}");
    Ok(())
}

async fn idle(url: &str, key: &str, pid: &str, count: usize, seconds: u64) -> Result<Value> {
    // What the first of each makes for all later ones does not count.
    let ended = Arc::new(AtomicUsize::new(0));
    drop((
        watch(url, key, &ended).await?,
        socket(url, key, &ended).await?,
    ));
    let before = Usage::of(pid, seconds).await?;
    let watches = open(count, || watch(url, key, &ended)).await?;
    let with_watches = Usage::of(pid, seconds).await?;
    let sockets = open(count, || socket(url, key, &ended)).await?;
    let with_both = Usage::of(pid, seconds).await?;
    // The first two were dropped, and end nothing.
    ensure!(
        ended.load(Ordering::Relaxed) == 0,
        "some ended by themselves"
    );
    ensure!(
        watches.len() == count && sockets.len() == count,
        "all are open"
    );
    Ok(json!({
        "count": count,
        "memory_mb": before.memory_mb,
        "watches_more_mb": with_watches.memory_mb - before.memory_mb,
        "sockets_more_mb": with_both.memory_mb - with_watches.memory_mb,
        "more_mb": with_both.memory_mb - before.memory_mb,
        "cores_before": before.cores,
        "cores": with_both.cores,
        "more_cores": with_both.cores - before.cores,
    }))
}

async fn open<T, F: Future<Output = Result<T>>>(
    count: usize,
    one: impl Fn() -> F,
) -> Result<Vec<T>> {
    let opening = stream::iter(0..count).map(|_| one());
    opening.buffer_unordered(OPENING).try_collect().await
}

/// Ends with the connection that it drives; one that ends by itself is counted.
type Driven = JoinSet<()>;

/// A watch on a connection of its own.
async fn watch(url: &str, key: &str, ended: &Arc<AtomicUsize>) -> Result<Driven> {
    let mut client = Client::connect(url, key).await?;
    let answer = client.watch.watch(v1::WatchRequest::default()).await?;
    let mut messages = answer.into_inner();
    messages.message().await?.context("Ready")?;
    let ended = Arc::clone(ended);
    let mut driven = JoinSet::new();
    driven.spawn(async move {
        while let Ok(Some(_)) = messages.message().await {}
        ended.fetch_add(1, Ordering::Relaxed);
    });
    Ok(driven)
}

/// A WebSocket, at the address that the gateway gives out.
async fn socket(url: &str, key: &str, ended: &Arc<AtomicUsize>) -> Result<Driven> {
    let url = Url::parse(url)?;
    let at = url.socket_addrs(|| None)?;
    let at = at.first().context("an address")?;
    let mut asking = TcpStream::connect(at).await?;
    let request = format!(
        "GET /collection/default/websocket HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\nx-access-token: {key}\r\n\r\n"
    );
    asking.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    asking.read_to_string(&mut answer).await?;
    let (_, body) = answer.split_once("\r\n\r\n").context("a head")?;
    let body: Value = serde_json::from_str(body).with_context(|| answer.clone())?;
    let address = body["data"]["websocket_url"].as_str().context("a URL")?;
    let stream = TcpStream::connect(at).await?;
    let (mut socket, _) = tokio_tungstenite::client_async(address, stream).await?;
    socket.next().await.context("the first frame")??;
    let ended = Arc::clone(ended);
    let mut driven = JoinSet::new();
    driven.spawn(async move {
        // Reading answers the pings too.
        while let Some(Ok(_)) = socket.next().await {}
        ended.fetch_add(1, Ordering::Relaxed);
    });
    Ok(driven)
}

/// What a process takes.
struct Usage {
    /// Memory, shared pages by their part, in MB.
    memory_mb: f64,
    /// Processor cores that it kept busy.
    cores: f64,
}

impl Usage {
    /// Over the next seconds.
    async fn of(pid: &str, seconds: u64) -> Result<Self> {
        let (started, ticks) = (Instant::now(), ticks(pid)?);
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let busy = (self::ticks(pid)? - ticks) / TICKS;
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let pss = pss.and_then(|rest| rest.split_whitespace().next());
        let kb: f64 = pss.context("Pss")?.parse()?;
        Ok(Self {
            memory_mb: kb / 1024.0,
            cores: busy / started.elapsed().as_secs_f64(),
        })
    }
}

/// Clock ticks that a process has taken.
fn ticks(pid: &str) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("a name")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    Ok(fields[11].parse::<f64>()? + fields[12].parse::<f64>()?)
}

async fn calls(url: &str, key: &str, clip: &str, seconds: u64, rounds: usize) -> Result<Value> {
    let mut client = Client::connect(url, key).await?;
    let scene = play(&mut client, clip).await?;
    let (rtstream_id, index_id) = (scene.rtstream_id, scene.index_id);
    let request = v1::GetRtStreamRequest {
        rtstream_id: rtstream_id.clone(),
    };
    let get = rate(url, key, seconds, async |client, _| {
        client.streams.get_rt_stream(request.clone()).await?;
        Ok(())
    });
    let get = get.await?;
    let request = v1::ListScenesRequest {
        index_id: index_id.clone(),
        ..Default::default()
    };
    let list = rate(url, key, seconds, async |client, _| {
        client.indexes.list_scenes(request.clone()).await?;
        Ok(())
    });
    let list = list.await?;
    let search = rate(url, key, seconds, async |client, n| search(client, n).await);
    let search = search.await?;
    let new = together(url, key, rounds, |n| n).await?;
    let known = together(url, key, rounds, |n| n % KNOWN).await?;
    let request = v1::GetRtStreamRequest { rtstream_id };
    let stream = client.streams.get_rt_stream(request).await?.into_inner();
    let state = stream.rtstream.context("a stream")?.state();
    ensure!(
        state == v1::rt_stream::State::Active,
        "the clip was over before the measuring was: {state:?}; measure for shorter"
    );
    Ok(json!({"get": get, "list": list, "search": search, "new_together": new, "together": known}))
}

/// Plays the clip in real time as the demo does, and waits for its first scene.
async fn play(client: &mut Client, clip: &str) -> Result<v1::Scene> {
    let request = v1::ConnectRtStreamRequest {
        url: clip.to_owned(),
        transcribe: true,
        store: true,
        playback: v1::rt_stream::Playback::RealTime.into(),
        start_stopped: true,
        ..Default::default()
    };
    let connected = client.streams.connect_rt_stream(request).await?;
    let stream = connected.into_inner().rtstream.context("a stream")?;
    let request = v1::CreateVisualIndexRequest {
        rtstream_id: stream.id.clone(),
        prompt: "Describe the street and who is on it.".to_owned(),
        ..Default::default()
    };
    let created = client.indexes.create_visual_index(request).await?;
    let index = created.into_inner().index.context("an index")?;
    let request = v1::StartRtStreamRequest {
        rtstream_id: stream.id,
    };
    client.streams.start_rt_stream(request).await?;
    let started = Instant::now();
    loop {
        let request = v1::ListScenesRequest {
            index_id: index.id.clone(),
            ..Default::default()
        };
        let scenes = client.indexes.list_scenes(request).await?.into_inner();
        if let Some(scene) = scenes.scenes.into_iter().next() {
            return Ok(scene);
        }
        ensure!(started.elapsed() < LONG, "the clip is not described");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// A query that was not asked before.
async fn search(client: &mut Client, n: usize) -> Result<()> {
    const WORDS: [&str; 10] = [
        "white", "red", "parked", "moving", "crossing", "empty", "busy", "wet", "dark", "quiet",
    ];
    const THINGS: [&str; 10] = [
        "car",
        "bus",
        "cyclist",
        "pedestrian",
        "street",
        "zebra",
        "truck",
        "dog",
        "crowd",
        "light",
    ];
    let query = format!("a {} {} number {n}", WORDS[n % 10], THINGS[n / 10 % 10]);
    let request = v1::SearchRequest {
        query,
        collection_id: "default".to_owned(),
        ..Default::default()
    };
    client.indexes.search(request).await?;
    Ok(())
}

/// Calls from several callers, each with a connection of its own, one after another.
async fn rate(
    url: &str,
    key: &str,
    seconds: u64,
    call: impl AsyncFn(&mut Client, usize) -> Result<()>,
) -> Result<Value> {
    let clients = open(CALLERS, || async { Ok(Client::connect(url, key).await?) }).await?;
    let numbers = AtomicUsize::new(0);
    let started = Instant::now();
    let end = started + Duration::from_secs(seconds);
    let calling = clients.into_iter().map(|mut client| {
        let (call, numbers) = (&call, &numbers);
        async move {
            let mut took = Vec::new();
            while Instant::now() < end {
                let started = Instant::now();
                call(&mut client, numbers.fetch_add(1, Ordering::Relaxed)).await?;
                took.push(started.elapsed());
            }
            anyhow::Ok(took)
        }
    });
    let took = futures::future::try_join_all(calling).await?.concat();
    let a_second = took.len() as f64 / started.elapsed().as_secs_f64();
    let mut figures = percentiles(took);
    figures["a_second"] = json!(a_second);
    Ok(figures)
}

/// Searches from many callers at the same moment, in several rounds; `query` gives the number of what the nth call asks.
async fn together(
    url: &str,
    key: &str,
    rounds: usize,
    query: impl Fn(usize) -> usize + Copy,
) -> Result<Value> {
    let mut clients = open(SEARCHERS, || async { Ok(Client::connect(url, key).await?) }).await?;
    let (mut took, mut errors) = (Vec::new(), 0);
    for round in 0..rounds {
        let searching = clients
            .iter_mut()
            .enumerate()
            .map(|(n, client)| async move {
                let started = Instant::now();
                let found = search(client, 1_000_000 + query(round * SEARCHERS + n)).await;
                (started.elapsed(), found)
            });
        for (elapsed, found) in futures::future::join_all(searching).await {
            took.push(elapsed);
            if let Err(error) = found {
                errors += 1;
                eprintln!("a search failed: {error:#}");
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let mut figures = percentiles(took);
    figures["errors"] = json!(errors);
    Ok(figures)
}

fn percentiles(mut took: Vec<Duration>) -> Value {
    took.sort_unstable();
    let at = |percent: usize| took.get(took.len() * percent / 100).or(took.last());
    let ms = |percent| at(percent).map(|t| t.as_secs_f64() * 1000.0);
    json!({"calls": took.len(), "p50_ms": ms(50), "p99_ms": ms(99)})
}
