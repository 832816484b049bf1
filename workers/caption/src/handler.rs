//! Handles one window: what is asked about it, the look at it, and what is published of it in which order.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::try_join_all;
use sightline_bus::{ObservationKind, Outgoing, Received, Refusal, Subject};
use sightline_inference::InferenceError;
use sightline_proto::internal::{FrameWindow, Observation, Sampling};
use sightline_service::{chain, failpoint};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::{JoinError, spawn_blocking};

use crate::look::{Look, Texts, Verdicts};
use crate::metrics::{CaptionMetrics, Outcome, Stage};
use crate::numbers::Numbers;
use crate::plan::Plan;
use crate::{Config, Deps, observations};

/// How long to wait before a window is tried again after a fault that may pass.
const PAUSE: Duration = Duration::from_secs(1);

/// Handles windows.
pub(crate) struct Handler {
    config: Config,
    deps: Deps,
    metrics: CaptionMetrics,
    numbers: Numbers,
    /// Bounds the threads that look, those that nobody waits for any more included.
    looking: Arc<Semaphore>,
}

impl Handler {
    pub(crate) fn new(config: Config, deps: Deps, looking: Arc<Semaphore>) -> Self {
        Self {
            metrics: CaptionMetrics::register(&deps.metrics),
            numbers: Numbers::default(),
            looking,
            config,
            deps,
        }
    }

    /// Looks at the window, publishes the verdicts and returns the scenes.
    async fn answer(
        &self,
        window: &FrameWindow,
        sampling: &Sampling,
        plan: &Plan,
    ) -> Result<Vec<Outgoing>, Refusal> {
        let look = self.look(window, sampling, plan).await?;
        let (verdicts_sent, verdicts) = oneshot::channel();
        let (publish, published) = oneshot::channel();
        let looking = spawn_blocking(move || look.run(verdicts_sent, published));
        // No verdicts come if the look failed; its own result says why.
        if let Ok(verdicts) = verdicts.await {
            self.publish(window, plan, verdicts).await?;
            failpoint::hit("caption.after_verdicts");
            let _ = publish.send(());
        }
        let texts = looking.await.map_err(panicked)?.map_err(refusal)?;
        Ok(self.scenes(window, plan, texts))
    }

    async fn look(
        &self,
        window: &FrameWindow,
        sampling: &Sampling,
        plan: &Plan,
    ) -> Result<Look, Refusal> {
        let permit = Arc::clone(&self.looking).acquire_owned().await;
        let permit = permit.map_err(|closed| retry(closed.to_string()))?;
        Ok(Look {
            describer: Arc::clone(&self.deps.describer),
            jpegs: window.frames.iter().map(|f| f.jpeg.clone()).collect(),
            seconds: sampling.window_us as f64 / 1e6,
            questions: plan.questions.keys().cloned().collect(),
            prompts: plan.descriptions.keys().cloned().collect(),
            max_new_tokens: self.config.max_new_tokens,
            metrics: self.metrics.clone(),
            _permit: permit,
        })
    }

    /// Publishes every verdict and waits until the bus has them.
    async fn publish(
        &self,
        window: &FrameWindow,
        plan: &Plan,
        verdicts: Verdicts,
    ) -> Result<(), Refusal> {
        let (revision, now) = (self.deps.describer.revision(), self.deps.clock.now_us());
        let subject = self.subject(window, ObservationKind::Verdict);
        let answered = plan.questions.values().zip(verdicts);
        let verdicts: Vec<Observation> = answered
            .filter_map(|(watched, probability)| Some((watched, probability?)))
            .flat_map(|(watched, probability)| watched.iter().map(move |w| (w, probability)))
            .map(|(watched, probability)| {
                observations::verdict(window, revision, watched, probability, now)
            })
            .collect();
        if verdicts.is_empty() {
            return Ok(());
        }
        let publishing = verdicts
            .iter()
            .map(|verdict| self.deps.bus.publish(&subject, &verdict.id, verdict));
        try_join_all(publishing)
            .await
            .map_err(|error| retry(chain(&error)))?;
        self.metrics.verdicts.inc_by(verdicts.len() as u64);
        self.metrics
            .lasted(Stage::Verdict, window.captured_us, self.deps.clock.now_us());
        Ok(())
    }

    fn scenes(&self, window: &FrameWindow, plan: &Plan, texts: Texts) -> Vec<Outgoing> {
        let revision = self.deps.describer.revision();
        let subject = self.subject(window, ObservationKind::Scene);
        let answered = plan.descriptions.values().zip(texts);
        let scenes: Vec<Outgoing> = answered
            .filter_map(|(described, text)| Some((described, text?)))
            .flat_map(|(described, text)| described.iter().map(move |d| (d, text.clone())))
            .map(|(described, text)| observations::scene(window, revision, described, text))
            .map(|scene| Outgoing::new(subject.clone(), scene.id.clone(), &scene))
            .collect();
        self.metrics.scenes.inc_by(scenes.len() as u64);
        scenes
    }

    fn subject(&self, window: &FrameWindow, kind: ObservationKind) -> Subject {
        Subject::Observation {
            partition: self.deps.catalog.partition_of(&window.rtstream_id),
            kind,
            rtstream: window.rtstream_id.clone(),
        }
    }
}

#[async_trait]
impl sightline_bus::Handler<FrameWindow> for Handler {
    async fn handle(&self, received: &Received<FrameWindow>) -> Result<Vec<Outgoing>, Refusal> {
        let window = &received.message;
        let now = self.deps.clock.now_us();
        self.metrics.lasted(Stage::Wait, window.captured_us, now);
        let sampling = window.sampling.as_ref().ok_or_else(|| Refusal::Reject {
            reason: "the window has no sampling".to_owned(),
        })?;
        let plan = Plan::of(&self.deps.catalog, window, &self.config.model);
        if plan.is_empty() {
            self.metrics.ended(Outcome::Unwanted);
            return Ok(Vec::new());
        }
        let superseded = self.numbers.see(window, sampling, plan.revision);
        self.metrics.superseded(superseded);
        let answered = self.answer(window, sampling, &plan).await;
        self.metrics.ended(match answered {
            Ok(_) => Outcome::Described,
            Err(_) => Outcome::Failed,
        });
        answered
    }
}

fn retry(reason: String) -> Refusal {
    Refusal::Retry {
        after: PAUSE,
        reason,
    }
}

/// What is wrong with the window itself stays wrong.
fn refusal(error: InferenceError) -> Refusal {
    let reason = chain(&error);
    match error {
        InferenceError::Image { .. } | InferenceError::InvalidInput(_) => {
            Refusal::Reject { reason }
        }
        _ => retry(reason),
    }
}

fn panicked(error: JoinError) -> Refusal {
    retry(format!("the model failed: {error}"))
}
