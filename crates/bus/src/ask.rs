//! Questions that any one of several workers answers at once (NATS request and reply): nothing is kept of them, and who asks
//! asks again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_nats::client::Request;
use async_nats::{HeaderMap, Message as Raw, Subscriber};
use futures::StreamExt;
use prost::Message;
use sightline_service::Shutdown;
use sightline_service::trace::{self, TraceContext};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tracing::Instrument;

use crate::connection::{Bus, DEADLINE};
use crate::error::BusError;
use crate::traced;

/// Questions that wait for a free place; more are dropped, and their askers' deadlines tell them.
const WAITING: usize = 64;
/// How long the asker waits, in milliseconds: nobody works for one who has gone.
const PATIENCE: &str = "Sightline-Patience-Ms";

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask<'a> {
    /// A picture of a moment of a recording, of an ingest worker.
    Thumbnail,
    /// A sample posted to a webhook's endpoint, of an alerts service.
    EndpointTest,
    /// Firings delivered once more, of an alerts service.
    Redelivery,
    /// The frames of a recorded window, of an ingest worker.
    Frames,
    /// How likely something is in a window, of a caption worker with this model: a name that can be part of a subject.
    Judge(&'a str),
    /// What is heard so far of an utterance, of a transcribe worker with this engine: a name that can be part of a subject. The
    /// line goes to whoever listens; the answer only says that no more comes of it.
    Interim(&'a str),
    /// Whether anybody listens to interim lines, of a gateway: only those that have somebody answer.
    Listening,
}

impl Ask<'_> {
    /// Where it is asked; the workers' queue group has the same name.
    fn subject(self) -> String {
        match self {
            Ask::Thumbnail => "ask.thumbnail".to_owned(),
            Ask::EndpointTest => "ask.endpoint_test".to_owned(),
            Ask::Redelivery => "ask.redelivery".to_owned(),
            Ask::Frames => "ask.frames".to_owned(),
            Ask::Judge(model) => format!("ask.judge.{model}"),
            Ask::Interim(engine) => format!("ask.interim.{engine}"),
            Ask::Listening => "ask.listening".to_owned(),
        }
    }
}

impl Bus {
    /// Asks, and returns the answer of whichever worker got the question.
    ///
    /// # Errors
    /// At once when no worker is there; when none answers before `deadline`, or with something that can't be decoded.
    pub async fn ask<A: Message + Default>(
        &self,
        ask: Ask<'_>,
        question: &impl Message,
        deadline: Duration,
    ) -> Result<A, BusError> {
        let subject = ask.subject();
        let span = traced::asking(&subject);
        let asking = self.ask_at(subject, question, deadline);
        asking.instrument(span).await
    }

    async fn ask_at<A: Message + Default>(
        &self,
        subject: String,
        question: &impl Message,
        deadline: Duration,
    ) -> Result<A, BusError> {
        let unanswered = |source: crate::error::Cause| BusError::Unanswered {
            subject: subject.clone(),
            source,
        };
        let mut headers = HeaderMap::new();
        headers.insert(PATIENCE, deadline.as_millis().to_string());
        if let Some(header) = TraceContext::current().header() {
            headers.insert(trace::HEADER, header);
        }
        let request = Request::new()
            .payload(question.encode_to_vec().into())
            .headers(headers)
            .timeout(None);
        // The library bounds the wait for the answer, but not the one for room to send in.
        let client = self.context.client();
        let asked = timeout(deadline, client.send_request(subject.clone(), request));
        let answer = match asked.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(source)) => return Err(unanswered(source.into())),
            Err(source) => return Err(unanswered(source.into())),
        };
        A::decode(answer.payload).map_err(|source| BusError::Message {
            subject: subject.clone(),
            action: "decoded",
            source: source.into(),
        })
    }

    /// Answers questions until shutdown, `concurrency` at a time; those being answered then are finished. What can't be decoded
    /// is left unanswered, and so is what has waited for a place for longer than its asker.
    ///
    /// # Errors
    /// When the bus does not take the subscription. Once it has, it is renewed with every connection.
    pub async fn answer<Q, A, F, Fut>(
        &self,
        ask: Ask<'_>,
        concurrency: usize,
        shutdown: &Shutdown,
        answer: F,
    ) -> Result<(), BusError>
    where
        Q: Message + Default,
        A: Message,
        F: Fn(Q) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = A> + Send,
    {
        let subject = ask.subject();
        let mut questions = self.questions(&subject).await?;
        let subject: Arc<str> = subject.into();
        let places = Arc::new(Semaphore::new(concurrency.max(1)));
        let answer = Arc::new(answer);
        let mut waiting = VecDeque::with_capacity(WAITING);
        let mut answering = JoinSet::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(question) = questions.next() => {
                    if waiting.len() < WAITING {
                        waiting.push_back((question, Instant::now()));
                    }
                }
                Ok(place) = Arc::clone(&places).acquire_owned(), if !waiting.is_empty() => {
                    let Some((question, since)) = waiting.pop_front() else { continue };
                    if since.elapsed() >= patience(&question) {
                        continue;
                    }
                    let (bus, answer) = (self.clone(), Arc::clone(&answer));
                    let subject = Arc::clone(&subject);
                    let span = traced::answering(&subject, question.headers.as_ref());
                    let replying = async move {
                        bus.reply(&subject, question, &*answer).await;
                        drop(place);
                    };
                    answering.spawn(replying.instrument(span));
                }
                Some(_) = answering.join_next() => {}
            }
        }
        // New questions go to the others.
        let _ = timeout(DEADLINE, questions.unsubscribe()).await;
        answering.join_all().await;
        self.flush().await;
        Ok(())
    }

    async fn questions(&self, subject: &str) -> Result<Subscriber, BusError> {
        let failed = |source: crate::error::Cause| BusError::Consumer {
            consumer: subject.to_owned(),
            source,
        };
        let client = self.context.client();
        let subscribing = client.queue_subscribe(subject.to_owned(), subject.to_owned());
        match timeout(DEADLINE, subscribing).await {
            Ok(Ok(questions)) => Ok(questions),
            Ok(Err(source)) => Err(failed(source.into())),
            Err(source) => Err(failed(source.into())),
        }
    }

    async fn reply<Q, A, F, Fut>(&self, subject: &str, question: Raw, answer: &F)
    where
        Q: Message + Default,
        A: Message,
        F: Fn(Q) -> Fut,
        Fut: Future<Output = A>,
    {
        let Some(to) = question.reply else { return };
        let question = match Q::decode(question.payload) {
            Ok(question) => question,
            Err(error) => {
                tracing::warn!(%error, subject, "a question is not understood");
                return;
            }
        };
        let payload = answer(question).await.encode_to_vec().into();
        let client = self.context.client();
        let sent = timeout(DEADLINE, client.publish(to, payload)).await;
        if !matches!(sent, Ok(Ok(()))) {
            tracing::debug!(subject, "an answer is lost: whoever asked asks again");
        }
    }
}

fn patience(question: &Raw) -> Duration {
    let told = question.headers.as_ref().and_then(|h| h.get(PATIENCE));
    let told = told.and_then(|value| value.as_str().parse().ok());
    told.map_or(Duration::MAX, Duration::from_millis)
}
