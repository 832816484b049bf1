//! A job under way: what is left to ask about it, and what its answers mean.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::watch;

use super::chat::{self, Judged, Subject};
use super::client::{Client, Post, Slot};
use super::error::RemoteError;
use super::turns::passed;
use crate::describe::Reply;
use crate::{Answer, InferenceError, Job, Outcome, Prompt};

const PATH: &str = "/chat/completions";

/// What the jobs of a model share.
pub(super) struct Asker {
    pub(super) client: Client,
    now: Box<dyn Fn() -> i64 + Send + Sync>,
    /// Until the server refuses them.
    alternatives: AtomicBool,
}

/// A job.
pub(super) struct Asking {
    pub(super) stream: String,
    pub(super) expires_us: Option<i64>,
    pub(super) reply: Arc<Reply>,
    asker: Arc<Asker>,
    subject: Subject,
    left: Mutex<Left>,
    /// Questions without an answer.
    unjudged: AtomicUsize,
    over: watch::Sender<bool>,
}

/// What is not asked yet, with its number.
pub(super) struct Left {
    questions: VecDeque<(usize, String)>,
    prompts: VecDeque<(usize, Prompt)>,
}

/// What one request asks.
pub(super) enum What {
    Question(usize, String),
    Prompt(usize, Prompt),
}

/// The rest of the job is not asked: it is too late, nobody waits, or the server failed.
pub(super) struct Over;

impl Asker {
    pub(super) fn new(client: Client, now: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self {
            client,
            now: Box::new(now),
            alternatives: AtomicBool::new(true),
        }
    }

    pub(super) fn now_us(&self) -> i64 {
        (self.now)()
    }
}

impl Left {
    pub(super) fn has_questions(&self) -> bool {
        !self.questions.is_empty()
    }

    pub(super) fn has_prompts(&self) -> bool {
        !self.prompts.is_empty()
    }
}

impl Asking {
    pub(super) fn new(asker: Arc<Asker>, job: Job, reply: Arc<Reply>) -> Self {
        Self {
            subject: Subject::new(&job.about),
            stream: job.stream,
            expires_us: job.expires_us,
            unjudged: AtomicUsize::new(job.questions.len()),
            left: Mutex::new(Left {
                questions: job.questions.into_iter().enumerate().collect(),
                prompts: job.prompts.into_iter().enumerate().collect(),
            }),
            over: watch::Sender::new(false),
            reply,
            asker,
        }
    }

    pub(super) fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn next_question(&self) -> Option<What> {
        let next = self.left().questions.pop_front();
        next.map(|(number, question)| What::Question(number, question))
    }

    pub(super) fn next_prompt(&self) -> Option<What> {
        let next = self.left().prompts.pop_front();
        next.map(|(number, prompt)| What::Prompt(number, prompt))
    }

    /// Whether the question that was answered just now was the last.
    pub(super) fn is_judged(&self) -> bool {
        self.unjudged.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Returns when nobody wants further answers, or they come too late.
    pub(super) async fn is_over(&self) {
        let mut over = self.over.subscribe();
        tokio::select! {
            _ = over.wait_for(|over| *over) => {}
            () = self.reply.unwanted() => {}
            () = passed(&self.asker, self.expires_us) => self.end(Outcome::Expired),
        }
    }

    /// Asks for one answer, and passes it on.
    pub(super) async fn ask(&self, what: What, slot: &Slot) -> Result<(), Over> {
        match what {
            What::Question(number, question) => self.judge(number, &question, slot).await,
            What::Prompt(number, prompt) => self.describe(number, &prompt, slot).await,
        }
    }

    async fn judge(&self, question: usize, event: &str, slot: &Slot) -> Result<(), Over> {
        let alternatives = self.asker.alternatives.load(Ordering::Relaxed);
        let ask = |alternatives| {
            let model = self.asker.client.model();
            let request = self.subject.question(model, event, alternatives);
            self.post(request, slot, chat::judged)
        };
        let mut answer = ask(alternatives).await;
        if alternatives && refuses_alternatives(&answer) {
            if self.asker.alternatives.swap(false, Ordering::Relaxed) {
                tracing::warn!(
                    model = self.asker.client.model(),
                    "a remote model tells no log-probabilities, verdicts are 1 or 0"
                );
            }
            answer = ask(false).await;
        }
        let probability = self.or_end(answer)?.and_then(|judged| match judged {
            Judged::Probability(probability) => Ok(probability),
            Judged::Neither(word) => Err(InferenceError::InvalidInput(format!(
                "the remote model answered {word:?}, which is neither yes nor no: use a model that answers at once"
            ))),
        });
        self.reply.send(Answer::Verdict {
            question,
            probability,
        });
        Ok(())
    }

    async fn describe(&self, index: usize, prompt: &Prompt, slot: &Slot) -> Result<(), Over> {
        let model = self.asker.client.model();
        let request = self
            .subject
            .prompt(model, &prompt.text, prompt.max_new_tokens.max(1));
        let answer = self.post(request, slot, chat::described).await;
        let text = self.or_end(answer)?;
        self.reply.send(Answer::Text {
            prompt: index,
            text,
        });
        Ok(())
    }

    async fn post<T>(
        &self,
        request: Value,
        slot: &Slot,
        read: impl Fn(&Value) -> Result<T, String>,
    ) -> Result<T, RemoteError> {
        let client = &self.asker.client;
        let answer = client.post(&Post::json(PATH, &request), slot).await?;
        read(&answer).map_err(|problem| RemoteError::answer(&client.url(PATH), problem))
    }

    /// What the model refuses is answered so; any other error ends the job.
    fn or_end<T>(&self, answer: Result<T, RemoteError>) -> Result<Result<T, InferenceError>, Over> {
        match answer {
            Ok(answer) => Ok(Ok(answer)),
            Err(refused @ RemoteError::Refused { .. }) => Ok(Err(refused.into())),
            Err(error) => {
                self.end(Outcome::Failed(error.into()));
                Err(Over)
            }
        }
    }

    /// Ends the job: what is under way for it is let go of, and nothing more is asked.
    fn end(&self, outcome: Outcome) {
        self.reply.end(outcome);
        let mut left = self.left();
        left.questions.clear();
        left.prompts.clear();
        drop(left);
        self.over.send_replace(true);
    }
}

fn refuses_alternatives<T>(answer: &Result<T, RemoteError>) -> bool {
    matches!(answer, Err(RemoteError::Refused { message, .. }) if message.contains("logprob"))
}
