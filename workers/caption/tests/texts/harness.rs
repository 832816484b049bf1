//! A worker on a real nats-server whose model reads by rule: what a real one would say is none of the worker's business.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sightline_bus::embedded::EmbeddedServer;
use sightline_bus::{Bus, BusConfig, StreamName, Subject};
use sightline_caption::{Config, Deps, Error};
use sightline_catalog::Catalog;
use sightline_inference::{
    About, Answer, Answers, Describer, InferenceError, Job, Outcome, SubmitError,
};
use sightline_proto::ids;
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{
    AlertRecord, AudioSceneBody, EventRecord, IndexRecord, Observation,
};
use sightline_proto::time::timestamp;
use sightline_proto::v1::{Alert, Event, Index, alert, index};
use sightline_service::Shutdown;
use sightline_service::admin::Readiness;
use sightline_service::clock::SystemClock;
use sightline_service::metrics::Metrics;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Far above what anything here takes.
pub const LONG: Duration = Duration::from_secs(120);
pub const STREAM: &str = "rts-1";
pub const MODEL: &str = "reader";
pub const REVISION: &str = "0123456789abcdef";
pub const EPOCH_US: i64 = 1_795_514_400_000_000;
pub const SECOND_US: i64 = 1_000_000;

/// A nats-server with a catalog.
pub struct Platform {
    pub bus: Bus,
    pub catalog: Catalog,
    // Dropped last, in this order: the server stops before its folder goes.
    pub server: EmbeddedServer,
    _dir: tempfile::TempDir,
}

/// A running worker.
pub struct Worker {
    pub metrics: Metrics,
    pub model: Arc<Rule>,
    shutdown: Shutdown,
    served: JoinHandle<Result<(), Error>>,
}

impl Platform {
    pub async fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let server = EmbeddedServer::start(Path::new("nats-server"), dir.path())?;
        let bus = Bus::connect(&server.config("texts-test")).await?;
        Ok(Self {
            catalog: Catalog::open(&bus).await?,
            bus,
            server,
            _dir: dir,
        })
    }

    pub async fn serve(&self) -> Result<Worker> {
        serve(&self.server.config("worker")).await
    }

    /// An audio index whose prompt is in its second revision.
    pub async fn index(&self, id: &str, prompt: &str) -> Result<()> {
        let index = Index {
            id: id.into(),
            rtstream_id: STREAM.into(),
            kind: index::Kind::Audio.into(),
            state: index::State::Running.into(),
            prompt: prompt.into(),
            prompt_revision: 2,
            model: MODEL.into(),
            ..Index::default()
        };
        let record = IndexRecord {
            index: Some(index),
            reads_text: true,
            ..IndexRecord::default()
        };
        self.catalog.create(id, &record).await?;
        Ok(())
    }

    /// An event, and an alert for it on an index, made this many seconds after the epoch.
    pub async fn watch(
        &self,
        index: &str,
        event: &str,
        prompt: &str,
        state: alert::State,
        second: i64,
    ) -> Result<()> {
        let record = EventRecord {
            event: Some(Event {
                id: event.into(),
                prompt: prompt.into(),
                prompt_revision: 3,
                ..Event::default()
            }),
            ..EventRecord::default()
        };
        self.catalog.create(event, &record).await?;
        let id = format!("alr-{index}-{event}");
        let record = AlertRecord {
            alert: Some(Alert {
                id: id.clone(),
                event_id: event.into(),
                index_id: index.into(),
                rtstream_id: STREAM.into(),
                state: state.into(),
                create_time: Some(timestamp(EPOCH_US + second * SECOND_US)),
                ..Alert::default()
            }),
            ..AlertRecord::default()
        };
        self.catalog.create(&id, &record).await?;
        Ok(())
    }

    /// Publishes a batch of 10 s as the transcribe role does.
    pub async fn say(&self, index: &str, number: u64, said: &str) -> Result<()> {
        let start_us = start_of(number);
        let batch = Observation {
            id: ids::observation_id("audio_scene", STREAM, EPOCH_US, start_us, index, 2, ""),
            rtstream_id: STREAM.into(),
            collection_id: "default".into(),
            epoch_us: EPOCH_US,
            start_us,
            end_us: start_us + 10 * SECOND_US,
            model_revision: String::new(),
            body: Some(Body::AudioScene(AudioSceneBody {
                index_id: index.into(),
                prompt_revision: 1,
                text: said.into(),
                transcript: said.into(),
                prompt_applied: false,
                batch: number,
            })),
        };
        let subject = Subject::Text {
            model: MODEL.into(),
            index: index.into(),
        };
        self.bus.publish(&subject, &batch.id, &batch).await?;
        Ok(())
    }

    /// Waits until the bus holds `count` observations of these kinds, and returns all of them in order.
    pub async fn observed(&self, kind: &str, count: usize) -> Result<Vec<Observation>> {
        let filter = format!("obs.*.{kind}.*");
        let waiting = async {
            loop {
                let name = StreamName::Observations;
                let held = self.bus.read::<Observation>(name, &filter, 10_000).await?;
                if held.len() >= count {
                    return Ok(held.into_iter().map(|r| r.message).collect());
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LONG, waiting)
            .await
            .with_context(|| format!("{filter} never held {count}"))?
    }

    /// Waits until nothing is left to be read.
    pub async fn done(&self) -> Result<()> {
        let waiting = async {
            while self.bus.backlog(StreamName::Texts).await? > 0 {
                sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        };
        timeout(LONG, waiting).await.context("batches are left")?
    }
}

impl Worker {
    /// Waits until so many batches had this outcome.
    pub async fn counted(&self, outcome: &str, count: u64) -> Result<()> {
        let line = format!("sightline_caption_batches_total{{outcome=\"{outcome}\"}} {count}");
        self.shows(&line).await
    }

    /// Waits until its metrics have this line.
    pub async fn shows(&self, line: &str) -> Result<()> {
        let waiting = async {
            while !self.metrics.encode().lines().any(|l| l == line) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, waiting)
            .await
            .with_context(|| format!("{line:?} is not in {}", self.metrics.encode()))
    }

    pub async fn stop(self) -> Result<()> {
        self.shutdown.cancel();
        Ok(timeout(LONG, self.served).await???)
    }
}

/// Serves with a connection and a view of its own, as another process would.
pub async fn serve(config: &BusConfig) -> Result<Worker> {
    let bus = Bus::connect(config).await?;
    let (metrics, model) = (Metrics::default(), Arc::new(Rule::default()));
    let deps = Deps {
        catalog: Catalog::open(&bus).await?,
        bus,
        clock: Arc::new(SystemClock),
        metrics: metrics.clone(),
        readiness: Readiness::default(),
        describer: model.clone(),
    };
    let config = Config {
        model: MODEL.into(),
        concurrency: 1,
        max_new_tokens: 96,
    };
    let shutdown = Shutdown::new();
    let served = tokio::spawn(sightline_caption::serve(config, deps, shutdown.clone()));
    Ok(Worker {
        metrics,
        model,
        shutdown,
        served,
    })
}

/// Says yes to questions whose last word was said, and answers prompts with what was said. Questions and prompts that are "too
/// long" are refused, and a text that is "unreadable" is too.
#[derive(Default)]
pub struct Rule {
    /// Whether it can't be had.
    pub away: AtomicBool,
    pub asked: AtomicUsize,
}

impl Describer for Rule {
    fn revision(&self) -> &str {
        REVISION
    }

    fn reads_text(&self) -> bool {
        true
    }

    fn submit(&self, job: Job) -> Result<Answers, SubmitError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let About::Text(said) = &job.about else {
            return Err(SubmitError::Stopped);
        };
        if said == "unreadable" {
            return Err(SubmitError::Invalid(too_long()));
        }
        if self.away.load(Ordering::SeqCst) {
            let failed = Outcome::Failed(InferenceError::Run {
                what: "asking",
                source: "nobody is there".into(),
            });
            return Ok(Answers::known(vec![Answer::Ended(failed)]));
        }
        let taken = |asked: &str| {
            (!asked.contains("too long"))
                .then_some(())
                .ok_or_else(too_long)
        };
        let verdicts = job.questions.iter().enumerate().map(|(question, asked)| {
            let word = asked.rsplit(' ').next().unwrap_or_default();
            let probability = if said.contains(word) { 0.9 } else { 0.1 };
            Answer::Verdict {
                question,
                probability: taken(asked).map(|()| probability),
            }
        });
        let texts = job.prompts.iter().enumerate().map(|(prompt, asked)| {
            let most = asked.max_new_tokens;
            Answer::Text {
                prompt,
                text: taken(&asked.text).map(|()| format!("{} {said} ({most})", asked.text)),
            }
        });
        let mut answers: Vec<Answer> = verdicts.chain(texts).collect();
        answers.push(Answer::Ended(Outcome::Answered));
        Ok(Answers::known(answers))
    }
}

fn too_long() -> InferenceError {
    InferenceError::InvalidInput("it is too long".into())
}

pub fn start_of(number: u64) -> i64 {
    EPOCH_US + number as i64 * 10 * SECOND_US
}

pub fn scene(observation: &Observation) -> Result<&AudioSceneBody> {
    match &observation.body {
        Some(Body::AudioScene(body)) => Ok(body),
        other => bail!("{other:?} is no batch"),
    }
}
