//! What is asked of a model that looks at windows or reads, and how its answers come back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::InferenceError;

/// A model that looks at the frames of a window, or reads a text, and judges and describes.
pub trait Describer: Send + Sync {
    /// Stable identifier of the loaded model: 16 hexadecimal digits over all that its answers depend on.
    fn revision(&self) -> &str;

    /// Whether it answers about a text alone.
    fn reads_text(&self) -> bool;

    /// Takes a job on. May be busy for some milliseconds, because it decodes pictures: call it where a thread may block. A
    /// question or prompt that the model cannot take is answered so; the others are not touched by it.
    fn submit(&self, job: Job) -> Result<Answers, SubmitError>;
}

/// Something to look at or read, with all that is asked about it.
#[derive(Debug, Clone)]
pub struct Job {
    /// Whose it is: streams take turns.
    pub stream: String,
    /// What is asked about.
    pub about: About,
    /// Events to judge.
    pub questions: Vec<String>,
    /// What to describe.
    pub prompts: Vec<Prompt>,
    /// When nobody wants the answers any more, in microseconds of the backend's clock. Of two jobs of a stream the one that expires
    /// later is the newer: of those that wait the newest two are kept. Jobs without it are never left out.
    pub expires_us: Option<i64>,
}

/// What a job is about.
#[derive(Debug, Clone)]
pub enum About {
    /// A window of pictures.
    Window {
        /// Its frames as JPEG, in order of time.
        jpegs: Vec<Bytes>,
        /// Length of the window.
        seconds: f64,
    },
    /// What was said.
    Text(String),
}

/// What to describe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// In whose words.
    pub text: String,
    /// Most tokens of the answer.
    pub max_new_tokens: usize,
}

/// What is known of a job. Verdicts come before texts; [`Answer::Ended`] comes last.
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
    /// The model was stopped.
    Stopped,
}

/// Why a job was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// As many jobs wait as may.
    #[error("the model is busy with as many windows as it may take on: try again later")]
    Busy,
    /// The model has stopped.
    #[error("the model has stopped")]
    Stopped,
    /// The model cannot take this job, now or later.
    #[error("the model cannot take this window")]
    Invalid(#[source] InferenceError),
}

/// The answers to one job, in order. Dropping it gives the job up.
#[derive(Debug)]
pub struct Answers(Receiver<Answer>);

impl Answers {
    /// Answers that are known at once; [`Answer::Ended`] has to be the last of them.
    pub fn known(answers: Vec<Answer>) -> Self {
        let (sender, receiver) = channel(answers.len().max(1));
        for answer in answers {
            // There is room for each.
            let _ = sender.try_send(answer);
        }
        Self(receiver)
    }

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
pub(crate) struct Reply {
    answers: Sender<Answer>,
    missing: AtomicUsize,
    outcome: Mutex<Option<Outcome>>,
    jobs: Arc<AtomicUsize>,
}

impl Reply {
    /// For a job with `expected` questions and prompts; `jobs` counts those that have not ended.
    pub(crate) fn new(expected: usize, jobs: Arc<AtomicUsize>) -> (Arc<Self>, Answers) {
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

    pub(crate) fn send(&self, answer: Answer) {
        self.missing.fetch_sub(1, Ordering::Relaxed);
        // Nobody waits any more: then there is nobody to tell.
        let _ = self.answers.try_send(answer);
    }

    /// Why the answers that are missing will not come; the first reason counts.
    pub(crate) fn end(&self, outcome: Outcome) {
        let mut kept = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get_or_insert(outcome);
    }

    /// Returns when nobody waits for answers any more.
    pub(crate) async fn unwanted(&self) {
        self.answers.closed().await;
    }

    /// Whether anybody waits for answers.
    pub(crate) fn is_wanted(&self) -> bool {
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
