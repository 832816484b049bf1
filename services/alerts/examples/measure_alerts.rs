//! The measuring half of `make bench-alerts`. Prints one JSON object.
//!
//! `measure_alerts prepare NATS_URL STREAMS ALERTS CALLBACK_URL` writes so many streams with so many alerts each to the catalog.
//! `measure_alerts run NATS_URL PID STREAMS ALERTS SECONDS RECEIVER_PORT` puts verdicts on the bus as caption workers would, one
//! window a second of each stream with a verdict for each of its alerts, receives the webhooks, and says what the alerts service
//! PID took meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::{Value, json};
use sightline_bus::{Bus, BusConfig, ObservationKind, StreamName, Subject};
use sightline_catalog::Catalog;
use sightline_proto::ids;
use sightline_proto::internal::{
    AlertRecord, Attempt, EventRecord, Observation, RtStreamRecord, VerdictBody, observation,
};
use sightline_proto::v1::{Alert, DeliveryMode, Event, RtStream, alert};
use sightline_service::clock::{Clock, SystemClock};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

/// Writes to the catalog, or verdicts to the bus, that are under way at the same time.
const SIDE_BY_SIDE: usize = 256;
/// Of so many windows of an alert, one counts: a firing of its own.
const ONE_IN: usize = 100;
/// Seconds before measuring, in which the service reads the catalog and opens its connections.
const WARM: u64 = 3;
/// Clock ticks of /proc a second.
const TICKS: f64 = 100.0;
const WINDOW_US: i64 = 1_000_000;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let said = match arguments[..] {
        ["prepare", url, streams, alerts, callback] => {
            prepare(url, streams.parse()?, alerts.parse()?, callback).await?
        }
        ["run", url, pid, streams, alerts, seconds, port] => {
            let load = Load {
                streams: streams.parse()?,
                alerts: alerts.parse()?,
                epoch_us: SystemClock.now_us() / WINDOW_US * WINDOW_US,
            };
            run(url, pid, load, seconds.parse()?, port.parse()?).await?
        }
        _ => bail!("see the first lines of this file"),
    };
    println!("{said}");
    Ok(())
}

async fn connect(url: &str) -> Result<Bus> {
    let config = BusConfig {
        url: url.to_owned(),
        name: "measure-alerts".to_owned(),
        ..BusConfig::default()
    };
    Ok(Bus::connect(&config).await?)
}

fn stream_id(stream: usize) -> String {
    format!("rts-019ac3d0-0000-7000-8000-{stream:012}")
}

async fn prepare(url: &str, streams: usize, alerts: usize, callback: &str) -> Result<Value> {
    let bus = connect(url).await?;
    let catalog = Catalog::open(&bus).await?;
    let writing = stream::iter(0..streams).map(|stream| {
        let catalog = catalog.clone();
        async move { write(&catalog, stream, alerts, callback).await }
    });
    let written: Vec<()> = writing.buffer_unordered(SIDE_BY_SIDE).try_collect().await?;
    Ok(json!({"streams": written.len(), "alerts": streams * alerts}))
}

async fn write(catalog: &Catalog, stream: usize, alerts: usize, callback: &str) -> Result<()> {
    let id = stream_id(stream);
    let record = RtStreamRecord {
        rtstream: Some(RtStream {
            id: id.clone(),
            collection_id: "default".to_owned(),
            ..RtStream::default()
        }),
        ..RtStreamRecord::default()
    };
    catalog.create(&id, &record).await?;
    for number in 0..alerts {
        let event = Event {
            id: format!("evt-{stream}-{number}"),
            prompt: "Detect smoke".to_owned(),
            label: "smoke".to_owned(),
            ..Event::default()
        };
        let alert = Alert {
            id: format!("alr-{stream}-{number}"),
            event_id: event.id.clone(),
            index_id: format!("idx-{stream}"),
            rtstream_id: id.clone(),
            callback_url: callback.to_owned(),
            state: alert::State::Enabled.into(),
            threshold: 0.5,
            delivery: DeliveryMode::First.into(),
            ..Alert::default()
        };
        let event_id = event.id.clone();
        let event = EventRecord {
            event: Some(event),
            ..EventRecord::default()
        };
        catalog.create(&event_id, &event).await?;
        let alert_id = alert.id.clone();
        let alert = AlertRecord {
            alert: Some(alert),
            ..AlertRecord::default()
        };
        catalog.create(&alert_id, &alert).await?;
    }
    Ok(())
}

/// What is put on the bus.
#[derive(Clone, Copy)]
struct Load {
    streams: usize,
    alerts: usize,
    epoch_us: i64,
}

async fn run(url: &str, pid: &str, load: Load, seconds: u64, port: u16) -> Result<Value> {
    let bus = connect(url).await?;
    let catalog = Catalog::open(&bus).await?;
    let received = receive(port).await?;
    let running = inject(&bus, &catalog, load, WARM, 0).await?;
    let (started, before) = (Instant::now(), ticks(pid)?);
    let fired = running + inject(&bus, &catalog, load, seconds, WARM).await?;
    let behind = bus.backlog(StreamName::Observations).await?;
    let cores = (ticks(pid)? - before) / TICKS / started.elapsed().as_secs_f64();
    let waiting = async {
        while received.load(Ordering::Relaxed) < fired {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let complete = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    let attempts = bus.read::<Attempt>(StreamName::Attempts, "attempt.*", 100_000);
    let mut took: Vec<f64> = attempts
        .await?
        .into_iter()
        .map(|attempt| attempt.message.decision_to_2xx_us as f64 / 1000.0)
        .collect();
    took.sort_by(f64::total_cmp);
    let at = |part: f64| took.get((took.len() as f64 * part) as usize).copied();
    Ok(json!({
        "cores": cores,
        "verdicts_a_second": load.streams * load.alerts,
        "verdicts_behind": behind,
        "firings": fired,
        "webhooks": received.load(Ordering::Relaxed),
        "complete": complete.is_ok(),
        "decision_to_2xx_p50_ms": at(0.5).context("attempts")?,
        "decision_to_2xx_p99_ms": at(0.99).context("attempts")?,
        "memory_mb": memory_mb(pid)?,
    }))
}

/// Puts the windows of so many seconds on the bus, evenly, and returns how many of them fire.
async fn inject(
    bus: &Bus,
    catalog: &Catalog,
    load: Load,
    seconds: u64,
    after: u64,
) -> Result<usize> {
    // A hundredth of the streams every 10 ms.
    let mut beat = interval(Duration::from_millis(10));
    beat.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut publishing = JoinSet::new();
    let mut fired = 0;
    for step in 0..seconds * 100 {
        beat.tick().await;
        let window = after + step / 100;
        let slot = usize::try_from(step % 100)?;
        for stream in (slot..load.streams).step_by(100) {
            for number in 0..load.alerts {
                let counts = (stream * load.alerts + number + usize::try_from(window)? * 37)
                    .is_multiple_of(ONE_IN);
                fired += usize::from(counts);
                let verdict = verdict(load, stream, number, window, counts);
                let subject = Subject::Observation {
                    partition: catalog.partition_of(&verdict.rtstream_id),
                    kind: ObservationKind::Verdict,
                    rtstream: verdict.rtstream_id.clone(),
                };
                let bus = bus.clone();
                publishing.spawn(async move { bus.publish(&subject, &verdict.id, &verdict).await });
            }
        }
        while publishing.len() > SIDE_BY_SIDE * 16 {
            publishing.join_next().await.context("publishing")???;
        }
        while let Some(published) = publishing.try_join_next() {
            published??;
        }
    }
    while let Some(published) = publishing.join_next().await {
        published??;
    }
    Ok(fired)
}

fn verdict(load: Load, stream: usize, number: usize, window: u64, counts: bool) -> Observation {
    let start_us = load.epoch_us + i64::try_from(window).unwrap_or(0) * WINDOW_US;
    let (rtstream_id, event_id) = (stream_id(stream), format!("evt-{stream}-{number}"));
    let now_us = SystemClock.now_us();
    Observation {
        id: ids::observation_id(
            "verdict",
            &rtstream_id,
            load.epoch_us,
            start_us,
            &event_id,
            0,
            "m",
        ),
        rtstream_id,
        collection_id: "default".to_owned(),
        epoch_us: load.epoch_us,
        start_us,
        end_us: start_us + WINDOW_US,
        model_revision: "m".to_owned(),
        body: Some(observation::Body::Verdict(VerdictBody {
            index_id: format!("idx-{stream}"),
            event_id,
            probability: if counts { 0.9 } else { 0.1 },
            window,
            captured_us: now_us,
            sampled_us: now_us,
            judged_us: now_us,
            by_similarity: false,
        })),
    }
}

/// Takes webhooks, and counts them.
async fn receive(port: u16) -> Result<Arc<AtomicUsize>> {
    let received = Arc::new(AtomicUsize::new(0));
    let take = async |State(received): State<Arc<AtomicUsize>>| {
        received.fetch_add(1, Ordering::Relaxed);
        StatusCode::NO_CONTENT
    };
    let router = Router::new()
        .fallback(take)
        .with_state(Arc::clone(&received));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(received)
}

/// Clock ticks that a process has taken.
fn ticks(pid: &str) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("a name")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    Ok(fields[11].parse::<f64>()? + fields[12].parse::<f64>()?)
}

/// Memory of a process, shared pages by their part, in MB.
fn memory_mb(pid: &str) -> Result<f64> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kb: f64 = pss
        .and_then(|rest| rest.split_whitespace().next())
        .context("Pss")?
        .parse()?;
    Ok(kb / 1024.0)
}
