//! The service with a real nats-server, and receivers of webhooks.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use prost::Message;
use sightline_alerts::{Config, Deps, Schedule, Sink};
use sightline_bus::embedded::EmbeddedServer;
use sightline_bus::{Ask, Bus, BusError, ObservationKind, StreamName, Subject};
use sightline_catalog::seal::SealKey;
use sightline_catalog::{Catalog, Entry};
use sightline_egress::{Egress, Policy, Timeouts};
use sightline_proto::ids;
use sightline_proto::internal::{
    AlertRecord, EventRecord, Observation, RtStreamRecord, VerdictBody, observation,
};
use sightline_proto::v1::{Alert, DeliveryMode, Event, RtStream, alert, firing};
use sightline_recordings::links::Links;
use sightline_service::Shutdown;
use sightline_service::clock::{Clock, SystemClock};
use sightline_service::metrics::Metrics;
use sightline_testkit::until;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub use sightline_testkit::LONG;

pub const STREAM: &str = "rts-019ac3d0-0000-7000-8000-000000000001";
pub const EPOCH_US: i64 = 1_795_514_400_000_000;

/// What stops a service, and what waits for it.
pub type Running = (Shutdown, JoinHandle<Result<(), sightline_alerts::Error>>);

/// The machine's clock, ahead by so many microseconds.
#[derive(Clone, Default)]
pub struct Ahead(pub Arc<AtomicI64>);

impl Clock for Ahead {
    fn now_us(&self) -> i64 {
        SystemClock.now_us() + self.0.load(Ordering::Relaxed)
    }
}

/// A running service with the parts around it.
pub struct Platform {
    pub bus: Bus,
    pub catalog: Catalog,
    pub metrics: Metrics,
    pub seal: SealKey,
    pub clock: Ahead,
    /// What the operator names; from the next start on.
    pub sinks: Vec<Sink>,
    shutdown: Shutdown,
    service: JoinHandle<Result<(), sightline_alerts::Error>>,
    pub window_us: i64,
    // Dropped last, in this order: the server stops before its folder goes.
    _server: EmbeddedServer,
    _dir: tempfile::TempDir,
}

impl Platform {
    pub async fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let server = EmbeddedServer::start(Path::new("nats-server"), dir.path())?;
        let bus = Bus::connect(&server.config("alerts-test")).await?;
        let catalog = Catalog::open(&bus).await?;
        let stream = RtStream {
            id: STREAM.into(),
            ..RtStream::default()
        };
        let record = RtStreamRecord {
            rtstream: Some(stream),
            ..RtStreamRecord::default()
        };
        catalog.create(STREAM, &record).await?;
        let metrics = Metrics::default();
        let seal = SealKey::load_or_create(&dir.path().join("seal.key"))?;
        let clock = Ahead::default();
        let (shutdown, service) = serve(&bus, &catalog, &metrics, &seal, &clock, &[]);
        Ok(Self {
            bus,
            catalog,
            metrics,
            seal,
            clock,
            sinks: Vec::new(),
            shutdown,
            service,
            window_us: 5_000_000,
            _server: server,
            _dir: dir,
        })
    }

    /// Stops the service and waits until it has drained.
    pub async fn stop(&mut self) -> Result<()> {
        self.shutdown.cancel();
        timeout(LONG, &mut self.service).await???;
        Ok(())
    }

    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.begin();
        Ok(())
    }

    /// After a stop.
    pub fn begin(&mut self) {
        self.metrics = Metrics::default();
        let Self {
            bus,
            catalog,
            metrics,
            seal,
            clock,
            sinks,
            ..
        } = &*self;
        (self.shutdown, self.service) = serve(bus, catalog, metrics, seal, clock, sinks);
    }

    /// What the service answers, once it takes questions.
    pub async fn ask<A: Message + Default>(
        &self,
        ask: Ask<'_>,
        question: &impl Message,
    ) -> Result<A> {
        until("the service to take questions", async || {
            match self.bus.ask(ask, question, LONG).await {
                Ok(answer) => Ok(Some(answer)),
                // It begins to listen in its own time.
                Err(BusError::Unanswered { .. }) => Ok(None),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    /// Another process of the service beside it.
    pub fn beside(&self) -> Running {
        serve(
            &self.bus,
            &self.catalog,
            &Metrics::default(),
            &self.seal,
            &self.clock,
            &self.sinks,
        )
    }

    /// An alert on an event and index of its own, with the same suffix.
    pub async fn alert(&self, suffix: &str, callback_url: &str) -> Result<()> {
        self.alert_of("", suffix, callback_url).await
    }

    /// The same, of a tenant.
    pub async fn alert_of(&self, tenant: &str, suffix: &str, callback_url: &str) -> Result<()> {
        let event = Event {
            id: format!("evt-{suffix}"),
            prompt: "Detect smoke".into(),
            label: "smoke".into(),
            ..Event::default()
        };
        let alert = Alert {
            id: format!("alr-{suffix}"),
            event_id: event.id.clone(),
            index_id: format!("idx-{suffix}"),
            rtstream_id: STREAM.into(),
            callback_url: callback_url.into(),
            state: alert::State::Enabled.into(),
            threshold: 0.5,
            // One message of each firing, at once.
            delivery: DeliveryMode::First.into(),
            ..Alert::default()
        };
        let event_record = EventRecord {
            event: Some(event),
            ..EventRecord::default()
        };
        let alert_record = AlertRecord {
            alert: Some(alert),
            tenant: tenant.to_owned(),
        };
        self.create(&format!("evt-{suffix}"), event_record).await?;
        self.create(&format!("alr-{suffix}"), alert_record).await
    }

    /// The stream is recorded from now on.
    pub async fn record(&self) -> Result<()> {
        self.change::<RtStreamRecord>(STREAM, |record| {
            record.rtstream.get_or_insert_default().store = true;
        })
        .await
    }

    pub async fn change<T: Entry>(&self, id: &str, change: impl Fn(&mut T)) -> Result<()> {
        let changed = self.catalog.modify::<T>(id, |record| {
            change(record);
            true
        });
        changed.await?;
        Ok(())
    }

    pub async fn delete<T: Entry>(&self, id: &str) -> Result<()> {
        let found = self.catalog.fetch::<T>(id).await?.context("there")?;
        self.catalog.delete::<T>(id, found.revision).await?;
        Ok(())
    }

    async fn create<T: Entry>(&self, id: &str, record: T) -> Result<()> {
        self.catalog.create(id, &record).await?;
        Ok(())
    }

    pub async fn verdict(&self, suffix: &str, window: i64, probability: f32) -> Result<()> {
        self.verdict_as("m1", suffix, window, probability).await
    }

    pub async fn verdict_as(
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
                by_similarity: false,
                ..VerdictBody::default()
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
    pub async fn held<M: Message + Default + 'static>(
        &self,
        stream: StreamName,
        filter: &str,
        count: usize,
    ) -> Result<Vec<M>> {
        until(&format!("{count} of {filter}"), async || {
            let held = self.read(stream, filter).await?;
            Ok((held.len() >= count).then_some(held))
        })
        .await
    }

    /// The messages that match and that the bus holds now.
    pub async fn read<M: Message + Default + 'static>(
        &self,
        stream: StreamName,
        filter: &str,
    ) -> Result<Vec<M>> {
        let read = Box::pin(self.bus.read::<M>(stream, filter, 10_000)).await?;
        Ok(read.into_iter().map(|received| received.message).collect())
    }

    /// Waits until so much is counted: what is seen elsewhere may be counted a moment later.
    pub async fn counted(&self, metric: &str, count: u64) -> Result<()> {
        until(&format!("{metric} {count}"), async || {
            let exported = self.metrics.encode();
            let line = exported.lines().find_map(|line| line.strip_prefix(metric));
            let counted = line.and_then(|rest| rest.trim().parse::<u64>().ok());
            Ok(counted.filter(|counted| *counted >= count).map(drop))
        })
        .await
    }

    /// Id, first and last window of each firing, by the observations of it before it closed.
    pub async fn firings(&self, observations: usize) -> Result<Vec<(String, i64, i64)>> {
        let found = self
            .observed(firing::State::Open, observations)
            .await
            .context("windows of firings")?;
        assert_eq!(found.len(), observations);
        let mut firings: Vec<(String, i64, i64)> = Vec::new();
        for (id, first, last) in found {
            match firings.iter_mut().find(|f| f.0 == id) {
                Some(firing) => firing.2 = last,
                None => firings.push((id, first, last)),
            }
        }
        Ok(firings)
    }

    /// Id, first and last window of each firing that closed.
    pub async fn closings(&self, count: usize) -> Result<Vec<(String, i64, i64)>> {
        let found = self.observed(firing::State::Closed, count).await?;
        assert_eq!(found.len(), count);
        Ok(found)
    }

    /// Waits until so many observations of firings in this state are held.
    async fn observed(
        &self,
        state: firing::State,
        count: usize,
    ) -> Result<Vec<(String, i64, i64)>> {
        until(&format!("{count} observations, {state:?}"), async || {
            let all: Vec<Observation> = self
                .read(StreamName::Observations, "obs.*.firing.*")
                .await?;
            let of_state: Vec<_> = all
                .into_iter()
                .filter_map(|observation| {
                    let first = (observation.start_us - EPOCH_US) / self.window_us;
                    let last = (observation.end_us - EPOCH_US) / self.window_us - 1;
                    match observation.body {
                        Some(observation::Body::Firing(body)) if body.state() == state => {
                            Some((body.firing_id, first, last))
                        }
                        _ => None,
                    }
                })
                .collect();
            Ok((of_state.len() >= count).then_some(of_state))
        })
        .await
    }
}

fn serve(
    bus: &Bus,
    catalog: &Catalog,
    metrics: &Metrics,
    seal: &SealKey,
    clock: &Ahead,
    sinks: &[Sink],
) -> Running {
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
        sinks: sinks.to_vec(),
    };
    let deps = Deps {
        bus: bus.clone(),
        catalog: catalog.clone(),
        clock: Arc::new(clock.clone()),
        metrics: metrics.clone(),
        egress: Egress::new(policy, timeouts),
        seal: seal.clone(),
    };
    let shutdown = Shutdown::new();
    let service = tokio::spawn(sightline_alerts::serve(config, deps, shutdown.clone()));
    (shutdown, service)
}

/// They work for a minute, so that a body made twice would differ.
pub fn links() -> Links {
    let public = "https://video.example/".parse().expect("a URL");
    Links::new(&public, &[7; 32], Some(60_000_000))
}

/// What a receiver does with the next webhook.
pub enum Answer {
    Status(u16),
    /// 429, and asks to be left alone for so many seconds.
    Later(u64),
    Hang,
}

#[derive(Clone)]
struct Receiving {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    seen: mpsc::Sender<(HeaderMap, serde_json::Value)>,
}

/// A webhook receiver that answers as it is told, then with 204.
pub struct Receiver {
    pub url: String,
    pub seen: mpsc::Receiver<(HeaderMap, serde_json::Value)>,
}

impl Receiver {
    pub async fn start(answers: impl IntoIterator<Item = Answer>) -> Result<Self> {
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

    pub async fn next(&mut self) -> Result<(HeaderMap, serde_json::Value)> {
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
        Some(Answer::Later(seconds)) => {
            let after = [("retry-after", seconds.to_string())];
            (StatusCode::TOO_MANY_REQUESTS, after).into_response()
        }
        Some(Answer::Status(status)) => StatusCode::from_u16(status)
            .expect("a status")
            .into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}
