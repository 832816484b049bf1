//! A server that answers as a test tells it, and jobs for describers.

use std::future::Future;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use sightline_inference::openai::{Client, Options};
use sightline_inference::{About, Answer, Answers, InferenceError, Job, Outcome, Prompt};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// A request: its path, with a count of those with this path before it, and its body.
#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    pub before: usize,
    pub body: Bytes,
}

type Answering = dyn Fn(Request) -> Response + Send + Sync;

#[derive(Clone)]
struct Shared {
    answer: Arc<Answering>,
    seen: Arc<Mutex<Vec<Request>>>,
    /// How many answers may go out.
    gate: Arc<Semaphore>,
}

/// Answers every request by a function; stops with the test.
pub struct Server {
    pub url: String,
    shared: Shared,
}

impl Server {
    /// `answer` is asked for everything but the list of models.
    pub async fn start(
        answer: impl Fn(Request) -> Response + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}/v1", listener.local_addr()?);
        let shared = Shared {
            answer: Arc::new(answer),
            seen: Arc::default(),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
        };
        let router = Router::new().fallback(handle).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { url, shared })
    }

    /// Holds answers back from now on.
    pub fn hold(&self) {
        self.shared.gate.forget_permits(Semaphore::MAX_PERMITS);
    }

    /// Lets all answers out.
    pub fn let_go(&self) {
        self.shared.gate.add_permits(1_000_000);
    }

    /// What was asked at `path`, in order.
    pub fn seen(&self, path: &str) -> Vec<Request> {
        let seen = self.shared.seen.lock().unwrap();
        seen.iter().filter(|r| r.path == path).cloned().collect()
    }

    pub async fn client(&self) -> Result<Client> {
        self.client_of(8).await
    }

    /// A client that asks so many things at once.
    pub async fn client_of(&self, concurrency: usize) -> Result<Client> {
        let options = Options {
            concurrency,
            ..Options::new(&self.url, "there")
        };
        Ok(Client::connect(options).await?)
    }
}

async fn handle(State(shared): State<Shared>, uri: Uri, body: Bytes) -> Response {
    let path = uri.path().trim_start_matches("/v1").to_owned();
    let request = {
        let mut seen = shared.seen.lock().unwrap();
        let before = seen.iter().filter(|r| r.path == path).count();
        let request = Request { path, before, body };
        seen.push(request.clone());
        request
    };
    if request.path == "/models" {
        return r#"{"data":[{"id":"there"},{"id":"other"}]}"#.into_response();
    }
    if let Ok(leave) = shared.gate.acquire().await {
        leave.forget();
    }
    (shared.answer)(request)
}

/// A job of one window.
pub fn look(questions: &[&str], prompts: &[&str]) -> Job {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let jpeg = |name| Bytes::from(std::fs::read(data.join(name)).unwrap());
    Job {
        stream: "rts-1".to_owned(),
        about: About::Window {
            jpegs: vec![jpeg("street.jpg"), jpeg("grey.jpg")],
            seconds: 10.0,
        },
        questions: questions.iter().map(|&q| q.to_owned()).collect(),
        prompts: prompts.iter().map(|&text| prompt(text)).collect(),
        expires_us: None,
    }
}

fn prompt(text: &str) -> Prompt {
    Prompt {
        text: text.to_owned(),
        max_new_tokens: 6,
    }
}

/// All that came of a job; verdicts have to come first.
pub struct Ended {
    pub verdicts: Vec<Result<f32, InferenceError>>,
    pub texts: Vec<Result<String, InferenceError>>,
    pub outcome: Outcome,
}

pub async fn ended(mut answers: Answers) -> Result<Ended> {
    let (mut verdicts, mut texts) = (Vec::new(), Vec::new());
    loop {
        let next = sightline_testkit::soon("an answer", answers.next()).await?;
        match next.context("the answers end with an outcome")? {
            Answer::Verdict {
                question,
                probability,
            } => {
                ensure!(texts.is_empty(), "a verdict came after a text");
                verdicts.push((question, probability));
            }
            Answer::Text { prompt, text } => texts.push((prompt, text)),
            Answer::Ended(outcome) => {
                verdicts.sort_by_key(|v| v.0);
                texts.sort_by_key(|t| t.0);
                return Ok(Ended {
                    verdicts: verdicts.into_iter().map(|v| v.1).collect(),
                    texts: texts.into_iter().map(|t| t.1).collect(),
                    outcome,
                });
            }
        }
    }
}

/// An error with its causes, which together have to name what they are about.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// Blocks as callers of the blocking traits do.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    Ok(tokio::task::spawn_blocking(work).await?)
}

/// The error that a start ends with.
pub async fn refused<T>(start: impl Future<Output = Result<T, InferenceError>>) -> Result<String> {
    match start.await {
        Ok(_) => bail!("it was not refused"),
        Err(error) => Ok(chain(&error)),
    }
}
