//! The service on a real nats-server and real sockets: verdicts in, webhooks out.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use prost::Message;
use sightline_alerts::{Config, Deps, Schedule};
use sightline_bus::embedded::EmbeddedServer;
use sightline_bus::{Bus, ObservationKind, StreamName, Subject};
use sightline_catalog::{Catalog, Entry};
use sightline_egress::{Egress, Policy, Timeouts};
use sightline_proto::ids;
use sightline_proto::internal::{
    AlertRecord, Attempt, DeadLetter, EvaluationRecord, EventRecord, Observation, RtStreamRecord,
    VerdictBody, observation,
};
use sightline_proto::v1::{Alert, Event, RtStream, alert};
use sightline_recordings::links::{Links, PADDING_US};
use sightline_service::Shutdown;
use sightline_service::clock::{Clock, SystemClock};
use sightline_service::metrics::Metrics;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Far above what anything here takes.
const LONG: Duration = Duration::from_secs(30);
const STREAM: &str = "rts-019ac3d0-0000-7000-8000-000000000001";
const EPOCH_US: i64 = 1_795_514_400_000_000;

/// A running service with the parts around it.
struct Platform {
    bus: Bus,
    catalog: Catalog,
    metrics: Metrics,
    shutdown: Shutdown,
    service: JoinHandle<Result<(), sightline_alerts::Error>>,
    window_us: i64,
    // Dropped last, in this order: the server stops before its folder goes.
    _server: EmbeddedServer,
    _dir: tempfile::TempDir,
}

impl Platform {
    async fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let server = EmbeddedServer::start(Path::new("nats-server"), dir.path())?;
        let bus = Bus::connect(&server.config("alerts-test")).await?;
        let catalog = Catalog::open(&bus).await?;
        let metrics = Metrics::default();
        let (shutdown, service) = serve(&bus, &catalog, &metrics);
        Ok(Self {
            bus,
            catalog,
            metrics,
            shutdown,
            service,
            window_us: 5_000_000,
            _server: server,
            _dir: dir,
        })
    }

    /// Stops the service and waits until it has drained.
    async fn stop(&mut self) -> Result<()> {
        self.shutdown.cancel();
        timeout(LONG, &mut self.service).await???;
        Ok(())
    }

    async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.metrics = Metrics::default();
        (self.shutdown, self.service) = serve(&self.bus, &self.catalog, &self.metrics);
        Ok(())
    }

    /// An alert on an event and index of its own, with the same suffix.
    async fn alert(&self, suffix: &str, callback_url: &str) -> Result<()> {
        let event = Event {
            id: format!("evt-{suffix}"),
            prompt: "Detect smoke".into(),
            label: "smoke".into(),
            create_time: None,
        };
        let alert = Alert {
            id: format!("alr-{suffix}"),
            event_id: event.id.clone(),
            index_id: format!("idx-{suffix}"),
            rtstream_id: STREAM.into(),
            callback_url: callback_url.into(),
            state: alert::State::Enabled.into(),
            threshold: 0.5,
            create_time: None,
        };
        self.create(&event.id.clone(), EventRecord { event: Some(event) })
            .await?;
        self.create(&alert.id.clone(), AlertRecord { alert: Some(alert) })
            .await
    }

    /// The stream is recorded from now on.
    async fn record(&self) -> Result<()> {
        let stream = RtStream {
            id: STREAM.into(),
            store: true,
            ..RtStream::default()
        };
        let record = RtStreamRecord {
            rtstream: Some(stream),
            ..RtStreamRecord::default()
        };
        self.create(STREAM, record).await
    }

    async fn create<T: Entry>(&self, id: &str, record: T) -> Result<()> {
        self.catalog.create(id, &record).await?;
        Ok(())
    }

    async fn verdict(&self, suffix: &str, window: i64, probability: f32) -> Result<()> {
        self.verdict_as("m1", suffix, window, probability).await
    }

    async fn verdict_as(
        &self,
        model: &str,
        suffix: &str,
        window: i64,
        probability: f32,
    ) -> Result<()> {
        let start_us = EPOCH_US + window * self.window_us;
        let event_id = format!("evt-{suffix}");
        let verdict = Observation {
            id: ids::observation_id("verdict", STREAM, EPOCH_US, start_us, &event_id, 0, model),
            rtstream_id: STREAM.into(),
            collection_id: "default".into(),
            epoch_us: EPOCH_US,
            start_us,
            end_us: start_us + self.window_us,
            model_revision: model.into(),
            body: Some(observation::Body::Verdict(VerdictBody {
                index_id: format!("idx-{suffix}"),
                event_id,
                probability,
                window: u64::try_from(window)?,
                captured_us: SystemClock.now_us(),
                judged_us: SystemClock.now_us(),
            })),
        };
        let subject = Subject::Observation {
            partition: self.catalog.partition_of(STREAM),
            kind: ObservationKind::Verdict,
            rtstream: STREAM.into(),
        };
        self.bus.publish(&subject, &verdict.id, &verdict).await?;
        Ok(())
    }

    /// Waits until the bus holds `count` messages that match, and returns them.
    async fn held<M: Message + Default + 'static>(
        &self,
        stream: StreamName,
        filter: &str,
        count: usize,
    ) -> Result<Vec<M>> {
        let waiting = async {
            loop {
                let held = self.bus.read::<M>(stream, filter, 10_000).await?;
                if held.len() >= count {
                    return Ok(held.into_iter().map(|r| r.message).collect());
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LONG, waiting)
            .await
            .context("the bus never held that many")?
    }

    /// Id, first and last window of each firing, by its observations.
    async fn firings(&self, observations: usize) -> Result<Vec<(String, i64, i64)>> {
        let found: Vec<Observation> = self
            .held(StreamName::Observations, "obs.*.firing.*", observations)
            .await?;
        assert_eq!(found.len(), observations);
        let mut firings: Vec<(String, i64, i64)> = Vec::new();
        for observation in found {
            let Some(observation::Body::Firing(body)) = observation.body else {
                anyhow::bail!("not a firing");
            };
            let first = (observation.start_us - EPOCH_US) / self.window_us;
            let last = (observation.end_us - EPOCH_US) / self.window_us - 1;
            match firings.iter_mut().find(|f| f.0 == body.firing_id) {
                Some(firing) => firing.2 = last,
                None => firings.push((body.firing_id, first, last)),
            }
        }
        Ok(firings)
    }
}

fn serve(
    bus: &Bus,
    catalog: &Catalog,
    metrics: &Metrics,
) -> (Shutdown, JoinHandle<Result<(), sightline_alerts::Error>>) {
    let policy = Policy {
        allow: vec!["127.0.0.0/8".parse().expect("a range")],
    };
    let timeouts = Timeouts {
        connect: Duration::from_secs(2),
        total: Duration::from_millis(2500),
    };
    let config = Config {
        schedule: Schedule {
            delays: vec![Duration::from_millis(100), Duration::from_millis(200)],
            seed: 1,
        },
        links: links(),
    };
    let deps = Deps {
        bus: bus.clone(),
        catalog: catalog.clone(),
        clock: Arc::new(SystemClock),
        metrics: metrics.clone(),
        egress: Egress::new(policy, timeouts),
    };
    let shutdown = Shutdown::new();
    let service = tokio::spawn(sightline_alerts::serve(config, deps, shutdown.clone()));
    (shutdown, service)
}

/// They work for a minute, so that a body made twice would differ.
fn links() -> Links {
    let public = "https://video.example/".parse().expect("a URL");
    Links::new(&public, &[7; 32], Some(60_000_000))
}

/// What a receiver does with the next webhook.
enum Answer {
    Status(u16),
    Hang,
}

#[derive(Clone)]
struct Receiving {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    seen: mpsc::Sender<(HeaderMap, serde_json::Value)>,
}

/// A webhook receiver that answers as it is told, then with 204.
struct Receiver {
    url: String,
    seen: mpsc::Receiver<(HeaderMap, serde_json::Value)>,
}

impl Receiver {
    async fn start(answers: impl IntoIterator<Item = Answer>) -> Result<Self> {
        let (sender, seen) = mpsc::channel(1000);
        let receiving = Receiving {
            answers: Arc::new(Mutex::new(answers.into_iter().collect())),
            seen: sender,
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/hook", listener.local_addr()?);
        let router = Router::new().fallback(receive).with_state(receiving);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { url, seen })
    }

    async fn next(&mut self) -> Result<(HeaderMap, serde_json::Value)> {
        let next = timeout(LONG, self.seen.recv())
            .await
            .context("no webhook came")?;
        next.context("the receiver is gone")
    }
}

async fn receive(State(to): State<Receiving>, headers: HeaderMap, body: Bytes) -> Response {
    let body = serde_json::from_slice(&body).unwrap_or(serde_json::Value::Null);
    to.seen.send((headers, body)).await.expect("the test waits");
    let answer = to.answers.lock().expect("no panic").pop_front();
    match answer {
        Some(Answer::Hang) => std::future::pending().await,
        Some(Answer::Status(status)) => StatusCode::from_u16(status)
            .expect("a status")
            .into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn consecutive_windows_become_one_webhook() -> Result<()> {
    let platform = Platform::start().await?;
    let mut receiver = Receiver::start([]).await?;
    platform.alert("a", &receiver.url).await?;
    // Window 3 comes before window 2; somebody else's event and a repeated verdict of another model change nothing.
    for (suffix, window, probability) in [
        ("a", 0, 0.1),
        ("a", 1, 0.9),
        ("b", 1, 0.9),
        ("a", 3, 0.2),
        ("a", 2, 0.5),
        ("a", 4, 0.97),
        ("a", 5, 0.0),
    ] {
        platform.verdict(suffix, window, probability).await?;
    }
    platform.verdict_as("m2", "a", 4, 0.99).await?;
    let firings = platform.firings(3).await?;
    let spans: Vec<_> = firings.iter().map(|f| (f.1, f.2)).collect();
    assert_eq!(spans, [(1, 2), (4, 4)]);
    let first_us = EPOCH_US + 5_000_000;
    assert_eq!(firings[0].0, ids::firing_id("alr-a", EPOCH_US, first_us));
    // Firings that are told at the same time come in any order.
    let mut told = [receiver.next().await?, receiver.next().await?];
    told.sort_by_key(|(_, body)| body["start_time"].to_string());
    let [(headers, first), (_, second)] = told;
    assert_eq!(first["firing_id"], firings[0].0.as_str());
    assert_eq!(second["firing_id"], firings[1].0.as_str());
    assert_eq!(headers["webhook-id"], firings[0].0.as_str());
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(first["label"], "smoke");
    assert_eq!(first["start_time"], "2026-11-24T10:00:05.000000+00:00");
    let attempts: Vec<Attempt> = platform.held(StreamName::Attempts, "attempt.*", 2).await?;
    let statuses: Vec<_> = attempts
        .iter()
        .map(|a| (a.attempt, a.status_code))
        .collect();
    assert_eq!(statuses, [(1, 204), (1, 204)]);
    let exported = platform.metrics.encode();
    assert!(
        exported.contains("sightline_alert_decision_to_2xx_seconds_count 2"),
        "{exported}"
    );
    assert!(
        exported.contains("sightline_alert_firings_total 2"),
        "{exported}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_reaches_its_receiver_in_time() -> Result<()> {
    let platform = Platform::start().await?;
    let mut receiver = Receiver::start([]).await?;
    platform.alert("a", &receiver.url).await?;
    for firing in 0..100 {
        platform.verdict("a", 2 * firing, 0.9).await?;
        platform.verdict("a", 2 * firing + 1, 0.1).await?;
        receiver.next().await?;
    }
    let attempts: Vec<Attempt> = platform
        .held(StreamName::Attempts, "attempt.*", 100)
        .await?;
    assert_eq!(attempts.len(), 100);
    let percentiles = |pick: fn(&Attempt) -> i64| {
        let mut took: Vec<i64> = attempts.iter().map(pick).collect();
        took.sort_unstable();
        (took[50], took[98])
    };
    let (p50, p99) = percentiles(|attempt| attempt.decision_to_2xx_us);
    println!("decision to 2xx: p50 {p50} us, p99 {p99} us");
    let (frame_p50, frame_p99) = percentiles(|attempt| attempt.last_frame_to_2xx_us);
    println!("verdict to 2xx: p50 {frame_p50} us, p99 {frame_p99} us");
    assert!(p50 <= 50_000, "p50 {p50} us");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_tried_again_and_delays_nobody_else() -> Result<()> {
    let platform = Platform::start().await?;
    let mut bad = Receiver::start([Answer::Hang, Answer::Status(500), Answer::Status(204)]).await?;
    let mut good = Receiver::start([]).await?;
    platform.alert("bad", &bad.url).await?;
    platform.alert("good", &good.url).await?;
    platform.verdict("good", 0, 0.9).await?;
    let (_, body) = good.next().await?;
    assert!(body["stream_url"].is_null() && body["player_url"].is_null());
    platform.record().await?;
    platform.verdict("bad", 0, 0.9).await?;
    let (headers, body) = bad.next().await?;
    let stream_url = body["stream_url"].as_str().context("a link")?;
    let token = stream_url
        .strip_prefix(&format!("https://video.example/manifests/{STREAM}/"))
        .and_then(|rest| rest.strip_suffix("/stream.m3u8"))
        .context("a playlist")?;
    let clip = links().check_clip(STREAM, token, SystemClock.now_us())?;
    let padded = EPOCH_US - PADDING_US..EPOCH_US + platform.window_us + PADDING_US;
    assert_eq!(
        (clip.start_us, clip.end_us),
        (padded.start, Some(padded.end))
    );
    let player_url = body["player_url"].as_str().context("a link")?;
    assert!(player_url.starts_with("https://video.example/watch?v="));
    // While the one hangs, the other is served.
    platform.verdict("good", 1, 0.1).await?;
    platform.verdict("good", 2, 0.9).await?;
    good.next().await?;
    for _ in 0..2 {
        let (again, same) = bad.next().await?;
        assert_eq!(again["webhook-id"], headers["webhook-id"]);
        assert_eq!(same, body);
    }
    let subject = format!("attempt.{}", ids::endpoint_id(&bad.url));
    let attempts: Vec<Attempt> = platform.held(StreamName::Attempts, &subject, 3).await?;
    let seen: Vec<_> = attempts
        .iter()
        .map(|a| (a.attempt, a.status_code))
        .collect();
    assert_eq!(seen, [(1, 0), (2, 500), (3, 204)]);
    assert_eq!(attempts[0].error, "no answer within 2.5s");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_delivered_is_kept_as_a_dead_letter() -> Result<()> {
    let platform = Platform::start().await?;
    let mut gone = Receiver::start([Answer::Status(410)]).await?;
    let down = Receiver::start((0..9).map(|_| Answer::Status(503))).await?;
    platform.alert("gone", &gone.url).await?;
    platform
        .alert("refused", "http://169.254.169.254/latest")
        .await?;
    platform.alert("down", &down.url).await?;
    for suffix in ["gone", "refused", "down"] {
        platform.verdict(suffix, 0, 0.9).await?;
    }
    let letters: Vec<DeadLetter> = platform.held(StreamName::Dlq, "dlq.*", 3).await?;
    for reason in [
        "410",
        "169.254.169.254",
        "given up after 3 attempts: HTTP status 503",
    ] {
        let found = letters
            .iter()
            .filter(|letter| letter.reason.contains(reason))
            .count();
        assert_eq!(found, 1, "{reason}: {letters:?}");
    }
    gone.next().await?;
    assert!(gone.seen.try_recv().is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_where_it_stopped() -> Result<()> {
    let mut platform = Platform::start().await?;
    let mut receiver = Receiver::start([]).await?;
    platform.alert("a", &receiver.url).await?;
    platform.verdict("a", 0, 0.1).await?;
    platform.verdict("a", 1, 0.9).await?;
    receiver.next().await?;
    platform.firings(1).await?;
    platform.restart().await?;
    platform.verdict("a", 2, 0.9).await?;
    platform.firings(2).await?;
    platform.verdict("a", 3, 0.1).await?;
    platform.restart().await?;
    // Neither is the firing of 1 and 2 told again, nor has 4 to wait for 3.
    platform.verdict("a", 4, 0.9).await?;
    receiver.next().await?;
    let spans: Vec<_> = platform
        .firings(3)
        .await?
        .iter()
        .map(|f| (f.1, f.2))
        .collect();
    assert_eq!(spans, [(1, 2), (4, 4)]);
    platform.stop().await?;
    assert!(receiver.seen.try_recv().is_err());
    let record = platform
        .catalog
        .get::<EvaluationRecord>("alr-a")
        .context("stored")?;
    assert_eq!(record.value.next_window, 5);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_window_of_a_stream_fires_although_one_is_missing_before_it() -> Result<()> {
    let mut platform = Platform::start().await?;
    platform.window_us = 200_000;
    let mut receiver = Receiver::start([]).await?;
    platform.alert("a", &receiver.url).await?;
    platform.verdict("a", 0, 0.1).await?;
    platform.verdict("a", 2, 0.9).await?;
    // It waits in the catalog: stopping and starting does not lose it.
    platform.restart().await?;
    let (_, body) = receiver.next().await?;
    assert_eq!(body["start_time"], "2026-11-24T10:00:00.400000+00:00");
    assert_eq!(platform.firings(1).await?.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_process_that_went_further_is_followed() -> Result<()> {
    let platform = Platform::start().await?;
    let mut receiver = Receiver::start([]).await?;
    platform.alert("a", &receiver.url).await?;
    platform.verdict("a", 0, 0.9).await?;
    receiver.next().await?;
    let stored = async {
        while platform.catalog.get::<EvaluationRecord>("alr-a").is_none() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, stored).await.context("the record")?;
    // The other one saw 1 and 2, and 2 closed the firing.
    let further = |record: &mut EvaluationRecord| {
        record.next_window = 3;
        record.open = None;
        true
    };
    platform.catalog.modify("alr-a", further).await?;
    for window in [1, 2, 3] {
        platform.verdict("a", window, 0.9).await?;
    }
    let (_, body) = receiver.next().await?;
    assert_eq!(body["start_time"], "2026-11-24T10:00:15.000000+00:00");
    Ok(())
}
