//! One look at a window: the part that computes, on a thread that may block.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use sightline_inference::{Describer, InferenceError, RgbImage, WindowSession};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::metrics::{CaptionMetrics, Stage};

/// Probabilities in the order of the questions; None where the model can't take the question.
pub(crate) type Verdicts = Vec<Option<f32>>;
/// Texts in the order of the prompts; None where the model can't take the prompt.
pub(crate) type Texts = Vec<Option<String>>;

/// A window to look at, with what is asked about it.
pub(crate) struct Look {
    pub(crate) describer: Arc<dyn Describer>,
    pub(crate) jpegs: Vec<Bytes>,
    /// Length of the window.
    pub(crate) seconds: f64,
    pub(crate) questions: Vec<String>,
    pub(crate) prompts: Vec<String>,
    pub(crate) max_new_tokens: usize,
    pub(crate) metrics: CaptionMetrics,
    /// Held for as long as the thread runs, which may be longer than anybody waits for it.
    pub(crate) _permit: OwnedSemaphorePermit,
}

impl Look {
    /// Judges the questions and hands the verdicts over; describes once `published` says so. Nothing is described if
    /// nobody waits any more.
    pub(crate) fn run(
        self,
        verdicts: oneshot::Sender<Verdicts>,
        published: oneshot::Receiver<()>,
    ) -> Result<Texts, InferenceError> {
        let started = Instant::now();
        let frames = self
            .jpegs
            .iter()
            .map(|jpeg| RgbImage::from_jpeg(jpeg))
            .collect::<Result<Vec<_>, _>>()?;
        let mut session = self.describer.open_window(&frames, self.seconds)?;
        drop(frames);
        let encoded = self.metrics.took(Stage::Encode, started);
        let judged = self.judge(session.as_mut())?;
        self.metrics.took(Stage::Judge, encoded);
        if verdicts.send(judged).is_err() || published.blocking_recv().is_err() {
            return Ok(Texts::new());
        }
        let started = Instant::now();
        let texts = self.describe(session.as_mut());
        self.metrics.took(Stage::Describe, started);
        texts
    }

    fn judge(&self, session: &mut dyn WindowSession) -> Result<Verdicts, InferenceError> {
        self.questions
            .iter()
            .map(|question| self.unless_refused(session.judge(question)))
            .collect()
    }

    fn describe(&self, session: &mut dyn WindowSession) -> Result<Texts, InferenceError> {
        self.prompts
            .iter()
            .map(|prompt| self.unless_refused(session.describe(prompt, self.max_new_tokens)))
            .collect()
    }

    /// A prompt that the model can't take (longer than its context) must not cost the others their answers.
    fn unless_refused<T>(
        &self,
        answer: Result<T, InferenceError>,
    ) -> Result<Option<T>, InferenceError> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(InferenceError::InvalidInput(reason)) => {
                tracing::warn!(reason, "a prompt is not answered");
                self.metrics.prompts_refused.inc();
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
