//! Windows and texts judged and described by a remote model.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::chat::{self, Judged, Subject};
use super::client::{Client, Length, Post};
use super::error::RemoteError;
use crate::describe::Reply;
use crate::{About, Answer, Answers, Describer, InferenceError, Job, Outcome, Prompt, SubmitError};

/// Most jobs that have not ended; more are refused.
const MAX_JOBS: usize = 256;
const PATH: &str = "/chat/completions";

/// A chat model that looks at pictures. Dropping it ends what is under way as [`Outcome::Stopped`].
///
/// A job's questions are asked at once, as far as the client's limit allows, and its prompts when they are answered. A
/// quarter of the limit is kept for questions, so that those of one window do not wait for the descriptions of others. A
/// verdict is the probability of "yes" against "no" where the server tells log-probabilities, else 1 or 0.
pub struct RemoteDescriber {
    asker: Arc<Asker>,
    reads_text: bool,
    revision: String,
    handle: Handle,
    /// Jobs that have not ended.
    jobs: Arc<AtomicUsize>,
    /// Tells those that they end now, when it is dropped.
    alive: watch::Sender<()>,
}

struct Asker {
    client: Client,
    now: Box<dyn Fn() -> i64 + Send + Sync>,
    /// Until the server refuses them.
    alternatives: AtomicBool,
}

/// A job under way: what it is about, and who waits for the answers.
struct Asking {
    asker: Arc<Asker>,
    subject: Subject,
    expires_us: Option<i64>,
    reply: Arc<Reply>,
}

impl RemoteDescriber {
    /// `now` tells the time in microseconds, by whatever clock `expires_us` of jobs is in. Requests run on `handle`.
    pub fn new(
        client: Client,
        reads_text: bool,
        now: impl Fn() -> i64 + Send + Sync + 'static,
        handle: Handle,
    ) -> Self {
        Self {
            revision: client.revision("describe 1"),
            asker: Arc::new(Asker {
                client,
                now: Box::new(now),
                alternatives: AtomicBool::new(true),
            }),
            reads_text,
            handle,
            jobs: Arc::default(),
            alive: watch::Sender::new(()),
        }
    }

    fn check(&self, about: &About) -> Result<(), InferenceError> {
        match about {
            About::Text(_) if !self.reads_text => Err(InferenceError::InvalidInput(
                "this model is not configured to read text: set reads_text".to_owned(),
            )),
            About::Window { jpegs, .. } if jpegs.is_empty() => Err(InferenceError::InvalidInput(
                "a window needs at least one frame".to_owned(),
            )),
            // What is no JPEG would be refused by the server, once for every question.
            About::Window { jpegs, .. } if jpegs.iter().any(|j| !j.starts_with(&[0xff, 0xd8])) => {
                Err(InferenceError::Image {
                    problem: "it does not begin as one".to_owned(),
                })
            }
            _ => Ok(()),
        }
    }
}

impl Describer for RemoteDescriber {
    fn revision(&self) -> &str {
        &self.revision
    }

    fn reads_text(&self) -> bool {
        self.reads_text
    }

    fn submit(&self, job: Job) -> Result<Answers, SubmitError> {
        self.check(&job.about).map_err(SubmitError::Invalid)?;
        if self.jobs.fetch_add(1, Ordering::Relaxed) >= MAX_JOBS {
            self.jobs.fetch_sub(1, Ordering::Relaxed);
            return Err(SubmitError::Busy);
        }
        let expected = job.questions.len() + job.prompts.len();
        let (reply, answers) = Reply::new(expected, Arc::clone(&self.jobs));
        let asking = Arc::new(Asking {
            asker: Arc::clone(&self.asker),
            subject: Subject::new(&job.about),
            expires_us: job.expires_us,
            reply,
        });
        let mut stopped = self.alive.subscribe();
        self.handle.spawn(async move {
            let asked = run(Arc::clone(&asking), job.questions, job.prompts);
            tokio::select! {
                () = asked => {}
                _ = stopped.changed() => {}
                () = asking.reply.unwanted() => {}
                () = asking.late() => asking.reply.end(Outcome::Expired),
            }
        });
        Ok(answers)
    }
}

/// Verdicts first; a description is not begun before all of them are there.
async fn run(asking: Arc<Asking>, questions: Vec<String>, prompts: Vec<Prompt>) {
    let mut judging = JoinSet::new();
    for (index, question) in questions.into_iter().enumerate() {
        let asking = Arc::clone(&asking);
        judging.spawn(async move { asking.judge(index, &question).await });
    }
    // The first failure ends the others: dropping the set does.
    while let Some(judged) = judging.join_next().await {
        if !matches!(judged, Ok(Ok(()))) {
            return;
        }
    }
    let mut describing = JoinSet::new();
    for (index, prompt) in prompts.into_iter().enumerate() {
        let asking = Arc::clone(&asking);
        describing.spawn(async move { asking.describe(index, &prompt).await });
    }
    while let Some(described) = describing.join_next().await {
        if !matches!(described, Ok(Ok(()))) {
            return;
        }
    }
}

/// The rest of the job is not asked: it is too late, nobody waits, or the server failed.
struct Over;

impl Asking {
    /// Returns when the answers come too late.
    async fn late(&self) {
        let Some(expires_us) = self.expires_us else {
            return std::future::pending().await;
        };
        loop {
            let left = expires_us.saturating_sub((self.asker.now)());
            match u64::try_from(left) {
                Ok(left) if left > 0 => sleep(Duration::from_micros(left)).await,
                _ => return,
            }
        }
    }

    async fn judge(&self, question: usize, event: &str) -> Result<(), Over> {
        let alternatives = self.asker.alternatives.load(Ordering::Relaxed);
        let ask = |alternatives| {
            let model = self.asker.client.model();
            let request = self.subject.question(model, event, alternatives);
            self.ask(request, Length::Short, chat::judged)
        };
        let mut answer = ask(alternatives).await?;
        if alternatives && refuses_alternatives(&answer) {
            if self.asker.alternatives.swap(false, Ordering::Relaxed) {
                tracing::warn!(
                    model = self.asker.client.model(),
                    "a remote model tells no log-probabilities, verdicts are 1 or 0"
                );
            }
            answer = ask(false).await?;
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

    async fn describe(&self, index: usize, prompt: &Prompt) -> Result<(), Over> {
        let model = self.asker.client.model();
        let request = self
            .subject
            .prompt(model, &prompt.text, prompt.max_new_tokens.max(1));
        let answer = self.ask(request, Length::Long, chat::described).await?;
        let text = self.or_end(answer)?;
        self.reply.send(Answer::Text {
            prompt: index,
            text,
        });
        Ok(())
    }

    /// Waits for its turn, and asks if that is not too late then.
    async fn ask<T>(
        &self,
        request: Value,
        length: Length,
        read: impl Fn(&Value) -> Result<T, String>,
    ) -> Result<Result<T, RemoteError>, Over> {
        let client = &self.asker.client;
        let slot = client.slot(length).await;
        if !self.reply.is_wanted() {
            return Err(Over);
        }
        if self.expires_us.is_some_and(|us| us <= (self.asker.now)()) {
            self.reply.end(Outcome::Expired);
            return Err(Over);
        }
        let answered = client.post(&Post::json(PATH, &request), &slot).await;
        Ok(answered.and_then(|answer| {
            read(&answer).map_err(|problem| RemoteError::answer(&client.url(PATH), problem))
        }))
    }

    /// What the model refuses is answered so; any other error ends the job.
    fn or_end<T>(&self, answer: Result<T, RemoteError>) -> Result<Result<T, InferenceError>, Over> {
        match answer {
            Ok(answer) => Ok(Ok(answer)),
            Err(refused @ RemoteError::Refused { .. }) => Ok(Err(refused.into())),
            Err(error) => {
                self.reply.end(Outcome::Failed(error.into()));
                Err(Over)
            }
        }
    }
}

fn refuses_alternatives<T>(answer: &Result<T, RemoteError>) -> bool {
    matches!(answer, Err(RemoteError::Refused { message, .. }) if message.contains("logprob"))
}
