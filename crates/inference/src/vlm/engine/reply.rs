//! The way back to who submitted a window: every answer as it is known, and how it ended.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::InferenceError;

/// What is known of a window. Verdicts come before texts; [`Answer::Ended`] comes last.
#[derive(Debug)]
pub enum Answer {
    /// A question was judged.
    Verdict {
        /// Which of the job's questions.
        question: usize,
        /// Probability (0 to 1) of "Yes", or why the model cannot take this question.
        probability: Result<f32, InferenceError>,
    },
    /// A prompt was answered.
    Text {
        /// Which of the job's prompts.
        prompt: usize,
        /// The answer, or why the model cannot take this prompt.
        text: Result<String, InferenceError>,
    },
    /// Nothing more follows.
    Ended(Outcome),
}

/// How a job ended.
#[derive(Debug)]
pub enum Outcome {
    /// Every question and prompt has its answer.
    Answered,
    /// The job was older than its budget before all of it had begun: what is missing was left out.
    Expired,
    /// The model failed while it computed.
    Failed(InferenceError),
    /// The engine stopped.
    Stopped,
}

/// The answers to one job, in order. Dropping it gives the job up.
#[derive(Debug)]
pub struct Answers(Receiver<Answer>);

impl Answers {
    /// The next answer; None after [`Answer::Ended`].
    pub async fn next(&mut self) -> Option<Answer> {
        self.0.recv().await
    }

    /// The next answer if it is known already.
    pub fn try_next(&mut self) -> Option<Answer> {
        self.0.try_recv().ok()
    }

    /// [`Self::next`] for threads that may block.
    pub fn blocking_next(&mut self) -> Option<Answer> {
        self.0.blocking_recv()
    }
}

/// Where the answers to a job go. When the last part of the job lets go of it, the end is told.
pub(super) struct Reply {
    answers: Sender<Answer>,
    missing: AtomicUsize,
    outcome: Mutex<Option<Outcome>>,
    jobs: Arc<AtomicUsize>,
}

impl Reply {
    /// For a job with `expected` questions and prompts; `jobs` counts those that have not ended.
    pub(super) fn new(expected: usize, jobs: Arc<AtomicUsize>) -> (Arc<Self>, Answers) {
        // Room for every answer and the end: sending never waits.
        let (answers, receiver) = channel(expected + 1);
        let reply = Self {
            answers,
            missing: AtomicUsize::new(expected),
            outcome: Mutex::new(None),
            jobs,
        };
        (Arc::new(reply), Answers(receiver))
    }

    pub(super) fn send(&self, answer: Answer) {
        self.missing.fetch_sub(1, Ordering::Relaxed);
        // Nobody waits any more: then there is nobody to tell.
        let _ = self.answers.try_send(answer);
    }

    /// Why the answers that are missing will not come; the first reason counts.
    pub(super) fn end(&self, outcome: Outcome) {
        let mut kept = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get_or_insert(outcome);
    }

    /// Whether anybody waits for answers.
    pub(super) fn is_wanted(&self) -> bool {
        !self.answers.is_closed()
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let kept = self
            .outcome
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        let outcome = match kept.take() {
            _ if *self.missing.get_mut() == 0 => Outcome::Answered,
            Some(outcome) => outcome,
            None => Outcome::Stopped,
        };
        self.jobs.fetch_sub(1, Ordering::Relaxed);
        let _ = self.answers.try_send(Answer::Ended(outcome));
    }
}
