//! What a model is asked, and its answers as they come.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sightline_inference::{Answer, Answers, Describer, InferenceError, Job, Outcome, SubmitError};
use sightline_service::Shutdown;
use sightline_service::clock::Clock;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::Deps;
use crate::metrics::{CaptionMetrics, Stage};

/// How many jobs are handed over at the same time: pictures are decoded then, on the model's processors.
const AT_ONCE: usize = 2;
/// How long to hold back when the model is busy.
const PAUSE: Duration = Duration::from_millis(100);

/// Why answers are missing.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// The job got too old.
    Expired,
    /// The model can't take it, or failed.
    Failed(InferenceError),
    /// Something else than the model is missing, perhaps not for long.
    Stopped(String),
    /// The model has stopped: it answers nothing any more.
    Gone,
}

/// Hands jobs to the model; clones share it.
#[derive(Clone)]
pub(crate) struct Asking {
    pub(crate) describer: Arc<dyn Describer>,
    clock: Arc<dyn Clock>,
    submitting: Arc<Semaphore>,
    metrics: CaptionMetrics,
    gone: Shutdown,
}

impl Asking {
    /// `gone` is cancelled when the model turns out to have stopped.
    pub(crate) fn new(deps: &Deps, metrics: CaptionMetrics, gone: Shutdown) -> Self {
        Self {
            gone,
            describer: Arc::clone(&deps.describer),
            clock: Arc::clone(&deps.clock),
            submitting: Arc::new(Semaphore::new(AT_ONCE)),
            metrics,
        }
    }

    /// Hands a job over. While the model is busy it is held back until it expires.
    pub(crate) async fn submit(&self, job: Job) -> Result<Asked, Unanswered> {
        let started = Instant::now();
        let (questions, prompts) = (job.questions.len(), job.prompts.len());
        let answers = loop {
            if job.expires_us.is_some_and(|at| at < self.clock.now_us()) {
                return Err(Unanswered::Expired);
            }
            let (describer, job) = (Arc::clone(&self.describer), job.clone());
            let submitted = {
                let _permit = self.submitting.acquire().await;
                spawn_blocking(move || describer.submit(job)).await
            };
            match submitted {
                Ok(Ok(answers)) => break answers,
                Ok(Err(SubmitError::Busy)) => sleep(PAUSE).await,
                Ok(Err(SubmitError::Invalid(error))) => return Err(Unanswered::Failed(error)),
                Ok(Err(SubmitError::Stopped)) => {
                    self.gone.cancel();
                    return Err(Unanswered::Gone);
                }
                Err(panicked) => return Err(Unanswered::Stopped(panicked.to_string())),
            }
        };
        Ok(Asked {
            answers,
            metrics: self.metrics.clone(),
            gone: self.gone.clone(),
            started,
            verdicts: vec![None; questions],
            unjudged: questions,
            texts: vec![None; prompts],
            failure: None,
            outcome: None,
        })
    }
}

/// A job that the model has.
pub(crate) struct Asked {
    answers: Answers,
    metrics: CaptionMetrics,
    gone: Shutdown,
    started: Instant,
    verdicts: Vec<Option<f32>>,
    unjudged: usize,
    texts: Vec<Option<String>>,
    failure: Option<InferenceError>,
    outcome: Option<Outcome>,
}

/// What was described of a job.
pub(crate) struct Texts {
    /// In the order of the prompts; None where the model can't take the prompt, or it got too late.
    pub(crate) texts: Vec<Option<String>>,
    /// Whether some are missing because it got too late.
    pub(crate) expired: bool,
}

impl Asked {
    /// Waits for all verdicts, in the order of the questions; None where the model can't take the question.
    pub(crate) async fn verdicts(&mut self) -> Result<Vec<Option<f32>>, Unanswered> {
        while self.unjudged > 0 && self.outcome.is_none() {
            self.take().await;
        }
        if let Some(error) = self.failure.take() {
            return Err(Unanswered::Failed(error));
        }
        if self.unjudged > 0 {
            self.ended()?;
            return Err(Unanswered::Expired);
        }
        if !self.verdicts.is_empty() {
            self.started = self.metrics.took(Stage::Judge, self.started);
        }
        Ok(self.verdicts.clone())
    }

    /// Waits for the texts.
    pub(crate) async fn texts(mut self) -> Result<Texts, Unanswered> {
        while self.outcome.is_none() {
            self.take().await;
        }
        if let Some(error) = self.failure.take() {
            return Err(Unanswered::Failed(error));
        }
        let expired = self.ended()?;
        if !expired && !self.texts.is_empty() {
            self.metrics.took(Stage::Describe, self.started);
        }
        Ok(Texts {
            texts: self.texts,
            expired,
        })
    }

    async fn take(&mut self) {
        match self.answers.next().await {
            Some(Answer::Verdict {
                question,
                probability,
            }) => {
                self.unjudged = self.unjudged.saturating_sub(1);
                let answer = self.unless_refused(probability);
                if let Some(verdict) = self.verdicts.get_mut(question) {
                    *verdict = answer;
                }
            }
            Some(Answer::Text { prompt, text }) => {
                let answer = self.unless_refused(text);
                if let Some(text) = self.texts.get_mut(prompt) {
                    *text = answer;
                }
            }
            Some(Answer::Ended(outcome)) => self.outcome = Some(outcome),
            None => self.outcome = Some(Outcome::Stopped),
        }
    }

    /// A prompt that the model can't take (longer than its context) must not cost the others their answers.
    fn unless_refused<T>(&mut self, answer: Result<T, InferenceError>) -> Option<T> {
        match answer {
            Ok(answer) => return Some(answer),
            Err(InferenceError::InvalidInput(reason)) => {
                tracing::warn!(reason, "a prompt is not answered");
                self.metrics.prompts_refused.inc();
            }
            Err(error) => self.failure = self.failure.take().or(Some(error)),
        }
        None
    }

    /// Whether the job ended because it got too old.
    fn ended(&mut self) -> Result<bool, Unanswered> {
        match self.outcome.take() {
            Some(Outcome::Answered) => Ok(false),
            Some(Outcome::Expired) => Ok(true),
            Some(Outcome::Failed(error)) => Err(Unanswered::Failed(error)),
            Some(Outcome::Stopped) | None => {
                self.gone.cancel();
                Err(Unanswered::Gone)
            }
        }
    }
}
