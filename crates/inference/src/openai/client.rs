//! Requests to one model of one server: bounded in number, time and size, tried again where that may help.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sightline_egress::{Answer, Egress, Policy, Question, Timeouts};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::breaker::Breaker;
use super::error::RemoteError;
use super::options::{Key, Options};
use super::said;
use crate::InferenceError;

/// How often a request is tried again.
const RETRIES: u32 = 2;
/// How long to wait before the first of these; twice as long before the second.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// A server that asks for more patience than this is given up for now.
const MAX_PAUSE: Duration = Duration::from_secs(20);
/// How long resolving, connecting and the TLS handshake may take.
const CONNECT: Duration = Duration::from_secs(5);
/// Most bytes of an answer: 32 vectors of 4,096 numbers are 2 MB.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// A model of an OpenAI-compatible server. Clones share its limits.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    egress: Egress,
    options: Options,
    /// Requests under way, and those among them that may take long.
    slots: Arc<Semaphore>,
    long: Arc<Semaphore>,
    /// Of short answers …
    breaker: Breaker,
    /// … and of long ones.
    patient: Breaker,
    /// What the server says about the model, as far as it stays the same.
    about: String,
}

/// How long a request is expected to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// A word.
    Short,
    /// Sentences: these leave some of the slots to the short ones.
    Long,
}

/// Leave to have one request under way.
pub(super) struct Slot {
    _slot: OwnedSemaphorePermit,
    long: Option<OwnedSemaphorePermit>,
}

/// What is posted.
pub(super) struct Post {
    pub(super) path: &'static str,
    pub(super) content_type: String,
    pub(super) body: Bytes,
}

impl Post {
    pub(super) fn json(path: &'static str, body: &Value) -> Self {
        Self {
            path,
            content_type: "application/json".to_owned(),
            body: body.to_string().into(),
        }
    }
}

impl Client {
    /// Asks the server which models it has. One that cannot tell (it has no page `/models`) is believed to have the model.
    ///
    /// # Errors
    /// When the server cannot be reached, does not let us in, is none of this kind, or does not have the model: then with
    /// the names of those that it has.
    pub async fn connect(mut options: Options) -> Result<Self, InferenceError> {
        check_url(&mut options.url)?;
        let timeouts = Timeouts {
            connect: CONNECT.min(options.timeout),
            total: options.timeout,
        };
        let concurrency = options.concurrency.clamp(1, Semaphore::MAX_PERMITS);
        let mut inner = Inner {
            egress: Egress::new(Policy::anywhere(), timeouts),
            slots: Arc::new(Semaphore::new(concurrency)),
            long: Arc::new(Semaphore::new(
                (concurrency - concurrency.div_ceil(4)).max(1),
            )),
            breaker: Breaker::default(),
            patient: Breaker::default(),
            about: String::new(),
            options,
        };
        if let Some(models) = inner.models().await? {
            inner.about = said::about(&models, &inner.options.model)
                .ok_or_else(|| inner.unknown_model(&models))?;
        }
        Ok(Self(Arc::new(inner)))
    }

    /// The model's name.
    pub(super) fn model(&self) -> &str {
        &self.0.options.model
    }

    /// 16 hexadecimal digits over where the model is, its name, what the server says about it, and what `label` names.
    pub(super) fn revision(&self, label: &str) -> String {
        let Options { url, model, .. } = &self.0.options;
        let mut hash = Sha256::new();
        for part in [label, url, model, &self.0.about] {
            hash.update(part);
            hash.update([0]);
        }
        let digits = hash.finalize();
        digits[..8].iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Waits until one more request for a short answer may be under way.
    pub(super) async fn slot(&self) -> Slot {
        let slot = Arc::clone(&self.0.slots).acquire_owned().await;
        Slot {
            _slot: slot.expect("nobody closes it"),
            long: None,
        }
    }

    /// Leave for one more request, if it may be under way now.
    pub(super) fn try_slot(&self, length: Length) -> Option<Slot> {
        let take = |from: &Arc<Semaphore>| Arc::clone(from).try_acquire_owned().ok();
        let long = match length {
            Length::Short => None,
            Length::Long => Some(take(&self.0.long)?),
        };
        Some(Slot {
            _slot: take(&self.0.slots)?,
            long,
        })
    }

    /// Posts while `slot` is held.
    pub(super) async fn post(&self, post: &Post, slot: &Slot) -> Result<Value, RemoteError> {
        let url = self.url(post.path);
        let mut headers = self.0.headers();
        let content_type = HeaderValue::from_str(&post.content_type);
        headers.insert(CONTENT_TYPE, content_type.expect("ours are visible ASCII"));
        let question = Question {
            method: Method::POST,
            url,
            headers,
            body: post.body.clone(),
        };
        // Long answers that time out say little about short ones.
        let breaker = match slot.long {
            Some(_) => &self.0.patient,
            None => &self.0.breaker,
        };
        self.0.ask(question, breaker).await
    }

    /// The address that a path of the API has.
    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.0.options.url)
    }
}

impl Inner {
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(key) = &self.options.key {
            headers.insert(AUTHORIZATION, key.header());
        }
        headers
    }

    /// What the server says about its models; None if it cannot say.
    async fn models(&self) -> Result<Option<Vec<Value>>, RemoteError> {
        let url = format!("{}/models", self.options.url);
        let question = Question {
            method: Method::GET,
            url: url.clone(),
            headers: self.headers(),
            body: Bytes::new(),
        };
        let mut answer = match self.repeat(question, &self.breaker).await {
            Ok(answer) => answer,
            Err(
                RemoteError::Missing { .. }
                | RemoteError::Model { .. }
                | RemoteError::Refused { .. },
            ) => return Ok(None),
            Err(error) => return Err(error),
        };
        let listed = match &mut answer {
            Value::Object(fields) => fields.remove("data"),
            _ => None,
        };
        match listed {
            Some(Value::Array(models)) => Ok(Some(models)),
            _ => Err(RemoteError::answer(&url, "it lists no models (field data)")),
        }
    }

    fn unknown_model(&self, models: &[Value]) -> RemoteError {
        RemoteError::Model {
            url: self.options.url.clone(),
            model: self.options.model.clone(),
            known: said::names(models),
        }
    }

    async fn ask(&self, question: Question, breaker: &Breaker) -> Result<Value, RemoteError> {
        let answer = self.repeat(question, breaker).await;
        let Err(RemoteError::Model { url, model, .. }) = answer else {
            return answer;
        };
        let models = self.models().await.ok().flatten().unwrap_or_default();
        let known = said::names(&models);
        Err(RemoteError::Model { url, model, known })
    }

    async fn repeat(&self, question: Question, breaker: &Breaker) -> Result<Value, RemoteError> {
        let mut pause = FIRST_PAUSE;
        for left in (0..=RETRIES).rev() {
            let error = match self.once(question.clone(), breaker).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let wait = error.retry_after().unwrap_or(pause);
            if left == 0 || !error.may_pass() || wait > MAX_PAUSE {
                return Err(error);
            }
            tracing::debug!(%error, ?wait, "a remote model is asked again");
            tokio::time::sleep(wait).await;
            pause *= 2;
        }
        unreachable!("the last try returns")
    }

    async fn once(&self, question: Question, breaker: &Breaker) -> Result<Value, RemoteError> {
        let url = question.url.clone();
        let leave = breaker.ask().map_err(|again| RemoteError::Paused {
            url: url.clone(),
            again,
        })?;
        let timeout = self.options.timeout;
        let answered = self.egress.exchange(question, MAX_ANSWER, timeout).await;
        let read = match answered {
            Ok(answer) => self.read(&url, &answer),
            Err(error) => Err(RemoteError::from_egress(&url, error)),
        };
        match &read {
            Err(error) if error.is_failure() => leave.failed(),
            _ => leave.answered(),
        }
        read
    }

    fn read(&self, url: &str, answer: &Answer) -> Result<Value, RemoteError> {
        let status = StatusCode::from_u16(answer.status).unwrap_or_default();
        let url = url.to_owned();
        let number = answer.status;
        if status.is_success() {
            return said::json(&url, answer);
        }
        let key = self.options.key.as_ref().map(Key::as_str);
        let message = said::complaint(answer, key);
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RemoteError::Forbidden {
                url,
                status: number,
            },
            StatusCode::NOT_FOUND if message.to_lowercase().contains("model") => {
                RemoteError::Model {
                    url,
                    model: self.options.model.clone(),
                    known: String::new(),
                }
            }
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => RemoteError::Missing { url },
            StatusCode::NOT_IMPLEMENTED => refused(url, number, message),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
                unavailable(url, answer, message)
            }
            // llama.cpp calls an input that it will never take a fault of its own.
            StatusCode::INTERNAL_SERVER_ERROR if message.contains("too large to process") => {
                refused(url, number, message)
            }
            _ if status.is_server_error() => unavailable(url, answer, message),
            _ if status.is_redirection() => {
                let problem =
                    format!("it leads elsewhere (status {number}), which is not followed");
                RemoteError::Answer { url, problem }
            }
            _ => refused(url, number, message),
        })
    }
}

fn refused(url: String, status: u16, message: String) -> RemoteError {
    RemoteError::Refused {
        url,
        status,
        message,
    }
}

fn unavailable(url: String, answer: &Answer, message: String) -> RemoteError {
    RemoteError::Unavailable {
        url,
        status: answer.status,
        message,
        retry_after: answer.retry_after,
    }
}

/// Takes the slashes off its end. What could hold a secret is refused, so that addresses may stand in errors.
fn check_url(url: &mut String) -> Result<(), RemoteError> {
    url.truncate(url.trim_end_matches('/').len());
    let bad = |url: &str, problem: &str| RemoteError::Url {
        url: url.to_owned(),
        problem: problem.to_owned(),
    };
    if let Some((_, rest)) = url.rsplit_once('@') {
        let problem = "it must not contain a user name or password; a key goes into key_file";
        return Err(bad(rest, problem));
    }
    if let Some((rest, _)) = url.split_once(['?', '#']) {
        return Err(bad(rest, "it must not contain a query or fragment"));
    }
    Ok(())
}
