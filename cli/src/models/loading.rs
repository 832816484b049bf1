//! Loading what is configured: from files, onto a device, or by asking a server whether it has the model.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use sightline_inference::embed::TextEmbedder;
use sightline_inference::openai::{
    Client, Key, Options, RemoteDescriber, RemoteEmbedder, RemoteTranscriber,
};
use sightline_inference::vlm::engine::Engine;
use sightline_inference::vlm::{Vlm, VlmOptions};
use sightline_inference::whisper::{self, Whisper};
use sightline_inference::{Describer, Embedder, InferenceError, Placed, Transcriber, onnx};
use tokio::runtime::Handle;

use super::{Describe, Local, Models, Remote, Source};
use crate::roles::{Base, cores};

/// A model that is ready.
pub struct Loaded<M: ?Sized> {
    /// The model.
    pub model: Arc<M>,
    /// What people see of it: its name, and where it computes unless that is the CPU.
    pub shown: String,
}

/// Loads a describing model; those of this process share `cores`.
///
/// # Errors
/// When it can't be; the error names the file or the server.
pub async fn describer(
    base: &Base,
    models: &Models,
    model: &Describe,
    cores: usize,
) -> Result<Loaded<dyn Describer>> {
    let clock = Arc::clone(&base.clock);
    let now = move || clock.now_us();
    let loaded: Loaded<dyn Describer> = match &model.source {
        Source::Remote(remote) => {
            let client = connect(remote).await?;
            let describer = RemoteDescriber::new(client, model.reads_text, now, Handle::current());
            Loaded::new(Arc::new(describer), shown_remote(&model.name, remote))
        }
        Source::Local(local) => {
            let (runtime, files) = (models.runtime()?.to_owned(), local.path.clone());
            let (local, engine) = (local.clone(), local.engine(model.reads_text));
            let threads = bounded(local.threads.unwrap_or_else(|| models.threads(cores)));
            let on_step = sightline_caption::count_steps(&base.metrics);
            let load = move || {
                onnx::init(&runtime)?;
                let options = VlmOptions {
                    threads,
                    precision: local.precision,
                    device: onnx::place(local.device)?,
                };
                let vlm = Arc::new(Vlm::load(&files, &options)?);
                let engine = Engine::start(vlm, engine, Box::new(now), on_step)?;
                Ok((engine, options.device))
            };
            let (engine, device) = blocking(load).await?;
            Loaded::new(Arc::new(engine), shown_local(&model.name, device))
        }
    };
    tracing::info!(model = loaded.shown, "describes");
    Ok(loaded)
}

/// Loads the transcribing model.
///
/// # Errors
/// When it can't be; the error names the file or the server.
pub async fn transcriber(models: &Models) -> Result<Loaded<dyn Transcriber>> {
    let name = &models.transcribe.name;
    let loaded: Loaded<dyn Transcriber> = match &models.transcribe.source {
        Source::Remote(remote) => {
            let transcriber = RemoteTranscriber::new(connect(remote).await?, Handle::current());
            Loaded::new(Arc::new(transcriber), shown_remote(name, remote))
        }
        Source::Local(local) => {
            let load = |local: Local, threads| {
                let device = whisper::place(local.device)?;
                Ok((Whisper::load_on(&local.path, device, threads)?, device))
            };
            let (transcriber, device) = single(local, load).await?;
            Loaded::new(Arc::new(transcriber), shown_local(name, device))
        }
    };
    tracing::info!(model = loaded.shown, "transcribes");
    Ok(loaded)
}

/// Loads the embedding model.
///
/// # Errors
/// When it can't be; the error names the file or the server.
pub async fn embedder(models: &Models) -> Result<Loaded<dyn Embedder>> {
    let name = &models.embed.name;
    let loaded: Loaded<dyn Embedder> = match &models.embed.source {
        Source::Remote(remote) => {
            let (client, size) = (connect(remote).await?, models.embed.dimension);
            let embedder = RemoteEmbedder::connect(client, size, Handle::current()).await?;
            Loaded::new(Arc::new(embedder), shown_remote(name, remote))
        }
        Source::Local(local) => {
            let runtime: PathBuf = models.runtime()?.to_owned();
            let load = move |local: Local, threads| {
                onnx::init(&runtime)?;
                let device = onnx::place(local.device)?;
                Ok((TextEmbedder::load_on(&local.path, device, threads)?, device))
            };
            let (embedder, device) = single(local, load).await?;
            Loaded::new(Arc::new(embedder), shown_local(name, device))
        }
    };
    tracing::info!(model = loaded.shown, "embeds");
    Ok(loaded)
}

impl<M: ?Sized> Loaded<M> {
    fn new(model: Arc<M>, shown: String) -> Self {
        Self { model, shown }
    }
}

async fn connect(remote: &Remote) -> Result<Client> {
    let key = remote.key_file.as_deref().map(Key::read).transpose()?;
    let options = Options {
        key,
        timeout: remote.timeout,
        concurrency: remote.concurrency,
        ..Options::new(&remote.url, &remote.model)
    };
    Ok(Client::connect(options).await?)
}

/// Loads a model that one thread is enough for, unless the file says otherwise.
async fn single<T: Send + 'static>(
    local: &Local,
    load: impl FnOnce(Local, usize) -> Result<T, InferenceError> + Send + 'static,
) -> Result<T> {
    let (local, threads) = (local.clone(), bounded(local.threads.unwrap_or(1)));
    blocking(move || load(local, threads)).await
}

/// Loads on a thread that may block, one model at a time: each looks at the memory that the ones before left.
async fn blocking<T: Send + 'static>(
    load: impl FnOnce() -> Result<T, InferenceError> + Send + 'static,
) -> Result<T> {
    static LOADING: Mutex<()> = Mutex::new(());
    let load = move || {
        let _one = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
        load()
    };
    let loaded = tokio::task::spawn_blocking(load).await;
    Ok(loaded.context("loading a model failed")??)
}

/// More threads than cores only wait for each other.
fn bounded(threads: usize) -> usize {
    let cores = cores();
    if threads > cores {
        tracing::warn!(
            threads,
            cores,
            "a model gets as many threads as there are cores"
        );
    }
    threads.min(cores)
}

fn shown_local(name: &str, device: Placed) -> String {
    match device {
        Placed::Cpu => name.to_owned(),
        Placed::Cuda(_) => format!("{name} on {device}"),
    }
}

fn shown_remote(name: &str, remote: &Remote) -> String {
    let url = url::Url::parse(&remote.url).ok();
    let host = url
        .as_ref()
        .and_then(url::Url::host_str)
        .unwrap_or("a server");
    format!("{name} on {host}")
}
