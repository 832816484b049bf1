//! Batches of a transcript, for models that read: what was said is judged for the alerts on its index, then the index's prompt is
//! applied to it.
//!
//! While the model can't be had, which a remote one may not be for hours, batches are held and none is given up for it. Those of
//! one index are read one after the other, as nearly in the order in which they came as tasks start: alerts wait for a missing one
//! only so long.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sightline_bus::{
    Bus, BusError, Handler, ObservationKind, Outgoing, Received, Refusal, StreamName, Subject,
    Work, work_side_by_side,
};
use sightline_catalog::Catalog;
use sightline_inference::{About, InferenceError, Job, Prompt};
use sightline_proto::ids;
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{
    AlertRecord, AudioSceneBody, EventRecord, IndexRecord, Observation, VerdictBody,
};
use sightline_proto::time::micros;
use sightline_proto::v1::{Index, alert};
use sightline_service::clock::Clock;
use sightline_service::{Shutdown, chain, failpoint};
use tokio::time::sleep;

use crate::asking::{Asking, Unanswered};
use crate::metrics::CaptionMetrics;
use crate::plan::Watched;
use crate::publishing::publish;
use crate::{Config, Deps};

/// Batches under way side by side: a remote model takes several, and one that comes waits for none that is held.
const AT_ONCE: usize = 16;
/// How long after a crash a batch goes to another worker.
const ACK_WAIT: Duration = Duration::from_secs(6);
/// How long a batch is held in hand before it goes back to the bus.
const DEADLINE: Duration = Duration::from_secs(600);
/// So often, held for so long, a batch is taken until it expires on the bus. One that kills whoever reads it is given up sooner.
const MAX_DELIVER: i64 = 40;
/// How long to hold back when the model can't be had, doubled with each further try …
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// … up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often a description is tried whose verdicts are out, before the scene goes with what was said alone: it may be one that
/// this model never ends.
const DESCRIBING: u32 = 10;
/// How long batches under way are waited for at shutdown; others are given back.
const DRAIN: Duration = Duration::from_secs(20);

/// Reads batches.
pub(crate) struct Reader {
    bus: Bus,
    catalog: Catalog,
    clock: Arc<dyn Clock>,
    asking: Asking,
    metrics: CaptionMetrics,
    config: Config,
    shutdown: Shutdown,
    lanes: Lanes,
}

/// Who reads a batch of an index has its lane; lanes nobody wants are forgotten.
#[derive(Default)]
struct Lanes(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Lanes {
    async fn enter(&self, index_id: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let lane = {
            let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            lanes.retain(|_, lane| Arc::strong_count(lane) > 1);
            Arc::clone(lanes.entry(index_id.to_owned()).or_default())
        };
        lane.lock_owned().await
    }
}

/// Reads batches until shutdown, those under way are finished; nothing where the model reads no text.
///
/// # Errors
/// When the consumer can't be made.
pub(crate) async fn run(reader: Reader) -> Result<(), BusError> {
    let (bus, shutdown) = (reader.bus.clone(), reader.shutdown.clone());
    if !reader.asking.describer.reads_text() {
        shutdown.cancelled().await;
        return Ok(());
    }
    let model = &reader.config.model;
    let work = Work {
        stream: StreamName::Texts,
        durable: format!("texts-{model}"),
        filter: format!("texts.{model}.*"),
        concurrency: AT_ONCE,
        ack_wait: ACK_WAIT,
        deadline: DEADLINE,
        max_deliver: MAX_DELIVER,
    };
    work_side_by_side(&bus, work, reader, shutdown).await
}

/// A batch with all that is asked about it.
struct Reading<'a> {
    batch: &'a Observation,
    scene: &'a AudioSceneBody,
    index: &'a Index,
    questions: BTreeMap<String, BTreeSet<Watched>>,
}

impl Reader {
    pub(crate) fn new(
        config: &Config,
        deps: &Deps,
        asking: Asking,
        metrics: CaptionMetrics,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            bus: deps.bus.clone(),
            catalog: deps.catalog.clone(),
            clock: Arc::clone(&deps.clock),
            asking,
            metrics,
            config: config.clone(),
            shutdown,
            lanes: Lanes::default(),
        }
    }

    /// Tries until the model has answered.
    async fn hold(&self, reading: &Reading<'_>) -> Result<Vec<Outgoing>, Refusal> {
        let _turn = self.lanes.enter(&reading.index.id).await;
        let (mut pause, mut judged, mut described) = (FIRST_PAUSE, false, 0);
        loop {
            described += u32::from(judged);
            let reason = match self.read(reading, &mut judged).await {
                Ok(scene) => return Ok(scene.into_iter().collect()),
                Err(Unanswered::Failed(InferenceError::InvalidInput(reason))) => {
                    tracing::warn!(reason, index = reading.index.id, "a batch is not read");
                    self.metrics.prompts_refused.inc();
                    return Ok(vec![self.scene(reading, None)]);
                }
                Err(Unanswered::Failed(error)) if described >= DESCRIBING => {
                    let reason = chain(&error);
                    tracing::warn!(reason, index = reading.index.id, "a batch is not described");
                    return Ok(vec![self.scene(reading, None)]);
                }
                Err(Unanswered::Failed(error)) => chain(&error),
                Err(Unanswered::Stopped(reason)) => reason,
                Err(Unanswered::Expired) => "the model gave it up".to_owned(),
                Err(Unanswered::Gone) => "the model has stopped".to_owned(),
            };
            if pause == FIRST_PAUSE {
                tracing::warn!(
                    reason,
                    index = reading.index.id,
                    "a batch is held until the model answers"
                );
                self.metrics.batch("held");
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = self.shutdown.cancelled() => {
                    let after = FIRST_PAUSE;
                    return Err(Refusal::Retry { after, reason });
                }
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Has the batch judged and described, publishes the verdicts and returns the scene. In silence nothing happens, and there is
    /// no scene.
    async fn read(
        &self,
        reading: &Reading<'_>,
        judged: &mut bool,
    ) -> Result<Option<Outgoing>, Unanswered> {
        if reading.scene.transcript.is_empty() {
            let verdicts = vec![Some(0.0); reading.questions.len()];
            self.publish(reading, verdicts).await?;
            return Ok(None);
        }
        let mut job = self.job(reading);
        if *judged {
            job.questions.clear();
        }
        if job.questions.is_empty() && job.prompts.is_empty() {
            return Ok(Some(self.scene(reading, None)));
        }
        let mut asked = self.asking.submit(job).await?;
        if !*judged {
            let verdicts = asked.verdicts().await?;
            self.publish(reading, verdicts).await?;
            failpoint::hit("texts.after_verdicts");
            *judged = true;
        }
        let described = asked.texts().await?;
        if described.expired {
            return Err(Unanswered::Expired);
        }
        let answer = described.texts.into_iter().next().flatten();
        Ok(Some(self.scene(reading, answer)))
    }

    fn job(&self, reading: &Reading<'_>) -> Job {
        let index = reading.index;
        let prompt = Some(&index.prompt).filter(|prompt| !prompt.is_empty());
        let given = index.model_config.as_ref().map_or(0, |c| c.max_new_tokens);
        Job {
            stream: reading.batch.rtstream_id.clone(),
            about: About::Text(reading.scene.transcript.clone()),
            questions: reading.questions.keys().cloned().collect(),
            prompts: prompt
                .map(|prompt| Prompt {
                    text: prompt.clone(),
                    max_new_tokens: match given {
                        0 => self.config.max_new_tokens,
                        given => given as usize,
                    },
                })
                .into_iter()
                .collect(),
            expires_us: None,
        }
    }

    /// Publishes every verdict and waits until the bus has them.
    async fn publish(
        &self,
        reading: &Reading<'_>,
        verdicts: Vec<Option<f32>>,
    ) -> Result<(), Unanswered> {
        let subject = self.subject(reading, ObservationKind::Verdict);
        let verdict = |watched: &Watched, probability| self.verdict(reading, watched, probability);
        let (bus, questions) = (&self.bus, &reading.questions);
        let published = publish(bus, &subject, questions, verdicts, verdict).await?;
        self.metrics.verdicts.inc_by(published);
        Ok(())
    }

    fn verdict(&self, reading: &Reading<'_>, watched: &Watched, probability: f32) -> Observation {
        let judged_us = self.clock.now_us();
        let answers = format!("{}:{}", watched.index_id, watched.event_id);
        let body = VerdictBody {
            index_id: watched.index_id.clone(),
            event_id: watched.event_id.clone(),
            probability,
            window: reading.scene.batch,
            // A file that is played fast is ahead of the clock.
            captured_us: reading.batch.end_us.min(judged_us),
            judged_us,
            by_similarity: false,
            sampled_us: 0,
        };
        self.observation(
            reading,
            &answers,
            watched.prompt_revision,
            Body::Verdict(body),
        )
    }

    /// The scene with the model's answer, or with what was said where there is none.
    fn scene(&self, reading: &Reading<'_>, answer: Option<String>) -> Outgoing {
        let revision = reading.index.prompt_revision;
        let body = AudioSceneBody {
            prompt_revision: revision,
            prompt_applied: answer.is_some(),
            text: answer.unwrap_or_else(|| reading.scene.transcript.clone()),
            ..reading.scene.clone()
        };
        let scene = self.observation(reading, &reading.index.id, revision, Body::AudioScene(body));
        self.metrics.scenes.inc();
        let subject = self.subject(reading, ObservationKind::AudioScene);
        Outgoing::new(subject, scene.id.clone(), &scene)
    }

    fn observation(
        &self,
        reading: &Reading<'_>,
        answers: &str,
        prompt_revision: u32,
        body: Body,
    ) -> Observation {
        let (batch, model_revision) = (reading.batch, self.asking.describer.revision());
        let kind = match body {
            Body::Verdict(_) => ObservationKind::Verdict,
            _ => ObservationKind::AudioScene,
        };
        let id = ids::observation_id(
            kind.as_str(),
            &batch.rtstream_id,
            batch.epoch_us,
            batch.start_us,
            answers,
            prompt_revision,
            model_revision,
        );
        Observation {
            id,
            model_revision: model_revision.to_owned(),
            body: Some(body),
            ..batch.clone()
        }
    }

    fn subject(&self, reading: &Reading<'_>, kind: ObservationKind) -> Subject {
        let rtstream = reading.batch.rtstream_id.clone();
        Subject::Observation {
            partition: self.catalog.partition_of(&rtstream),
            kind,
            rtstream,
        }
    }

    /// What the enabled alerts on an index ask. A batch from before an alert is none of its business: it may have been held.
    fn questions(&self, index_id: &str, end_us: i64) -> BTreeMap<String, BTreeSet<Watched>> {
        let mut questions: BTreeMap<String, BTreeSet<Watched>> = BTreeMap::new();
        for (_, record) in self.catalog.list::<AlertRecord>() {
            let Some(alert) = &record.value.alert else {
                continue;
            };
            let asks = alert.index_id == index_id
                && alert.state() == alert::State::Enabled
                && alert.create_time.as_ref().map_or(0, micros) <= end_us;
            let event = asks.then(|| self.catalog.get::<EventRecord>(&alert.event_id));
            if let Some(event) = event.flatten().and_then(|found| found.value.event.clone()) {
                questions.entry(event.prompt).or_default().insert(Watched {
                    index_id: index_id.to_owned(),
                    event_id: event.id,
                    prompt_revision: event.prompt_revision,
                });
            }
        }
        questions
    }

    /// An index's record. The view may trail what others wrote, so the server has the last word on what it lacks.
    async fn index(&self, id: &str) -> Result<Option<Index>, Refusal> {
        let mut record = self.catalog.get::<IndexRecord>(id);
        if record.is_none() {
            let fetched = self.catalog.fetch::<IndexRecord>(id).await;
            record = fetched.map_err(|error| Refusal::Retry {
                after: FIRST_PAUSE,
                reason: chain(&error),
            })?;
        }
        Ok(record.and_then(|record| record.value.index.clone()))
    }

    /// Waits until batches under way are waited for no longer.
    async fn given_back(&self) {
        self.shutdown.cancelled().await;
        sleep(DRAIN).await;
    }
}

#[async_trait]
impl Handler<Observation> for Reader {
    async fn handle(&self, received: &Received<Observation>) -> Result<Vec<Outgoing>, Refusal> {
        let batch = &received.message;
        let Some(Body::AudioScene(scene)) = &batch.body else {
            self.metrics.batch("failed");
            let reason = "this is no batch of a transcript".to_owned();
            return Err(Refusal::Reject { reason });
        };
        let Some(index) = self.index(&scene.index_id).await? else {
            self.metrics.batch("unwanted");
            return Ok(Vec::new());
        };
        let reading = Reading {
            questions: self.questions(&index.id, batch.end_us),
            batch,
            scene,
            index: &index,
        };
        let read = tokio::select! {
            read = self.hold(&reading) => read,
            () = self.given_back() => Err(Refusal::Retry {
                after: FIRST_PAUSE,
                reason: "the worker stops".to_owned(),
            }),
        };
        if read.is_ok() {
            self.metrics.batch("answered");
        }
        read
    }
}
