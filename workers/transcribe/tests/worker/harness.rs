//! A running worker, its model behind a gate, and utterances.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sightline_bus::embedded::EmbeddedServer;
use sightline_bus::{Bus, StreamName, Subject};
use sightline_catalog::Catalog;
use sightline_inference::whisper::Whisper;
use sightline_inference::{InferenceError, Speech, Transcriber, Transcript};
use sightline_proto::ids;
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{AudioChunk, DeadLetter, Observation, TranscriptBody};
use sightline_service::Shutdown;
use sightline_service::admin::Readiness;
use sightline_service::clock::SystemClock;
use sightline_service::metrics::Metrics;
use sightline_transcribe::{Config, Deps, Error};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Far above what anything here takes.
pub const LONG: Duration = Duration::from_secs(120);
pub const STREAM: &str = "rts-1";
pub const ENGINE: &str = "demo-whisper";
pub const EPOCH_US: i64 = 1_795_514_400_000_000;

/// A running worker with the parts around it.
pub struct Platform {
    pub bus: Bus,
    pub catalog: Catalog,
    pub metrics: Metrics,
    pub model: Arc<Gated>,
    pub shutdown: Shutdown,
    pub worker: JoinHandle<Result<(), Error>>,
    // Dropped last, in this order: the server stops before its folder goes.
    _server: EmbeddedServer,
    _dir: tempfile::TempDir,
}

impl Platform {
    pub async fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let server = EmbeddedServer::start(Path::new("nats-server"), dir.path())?;
        let bus = Bus::connect(&server.config("transcribe-test")).await?;
        let catalog = Catalog::open(&bus).await?;
        let metrics = Metrics::default();
        let model = Arc::new(Gated::load()?);
        let (shutdown, worker) = serve(ENGINE, &bus, &catalog, &metrics, &model);
        Ok(Self {
            bus,
            catalog,
            metrics,
            model,
            shutdown,
            worker,
            _server: server,
            _dir: dir,
        })
    }

    /// Stops the worker and waits until it has drained.
    pub async fn stop(self) -> Result<()> {
        self.shutdown.cancel();
        Ok(timeout(LONG, self.worker).await???)
    }

    pub async fn publish(&self, chunk: &AudioChunk) -> Result<()> {
        self.publish_as(&chunk.id, chunk).await
    }

    pub async fn publish_as(&self, id: &str, chunk: &AudioChunk) -> Result<()> {
        let subject = Subject::Audio {
            engine: ENGINE.into(),
            rtstream: STREAM.into(),
        };
        self.bus.publish(&subject, id, chunk).await?;
        Ok(())
    }

    /// Waits until the bus holds `count` transcripts, and returns all of them in order.
    pub async fn transcripts(&self, count: usize) -> Result<Vec<Observation>> {
        self.read(StreamName::Observations, "obs.*.transcript.*", count)
            .await
    }

    pub async fn letters(&self, count: usize) -> Result<Vec<DeadLetter>> {
        self.read(StreamName::Dlq, "dlq.*", count).await
    }

    pub async fn read<M: prost::Message + Default + 'static>(
        &self,
        stream: StreamName,
        filter: &str,
        count: usize,
    ) -> Result<Vec<M>> {
        let waiting = async {
            loop {
                let held = self.bus.read::<M>(stream, filter, 10_000).await?;
                if held.len() >= count {
                    return Ok(held.into_iter().map(|r| r.message).collect());
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LONG, waiting)
            .await
            .with_context(|| format!("{filter} never held {count}"))?
    }

    /// Waits until the model was asked so often.
    pub async fn called(&self, times: usize) -> Result<()> {
        let waiting = async {
            while self.model.called.load(Ordering::SeqCst) < times {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, waiting).await.context("it was never taken")
    }

    /// How many questions for what is still being said had this outcome.
    pub fn interim(&self, outcome: &str) -> usize {
        let start = format!("sightline_transcribe_interim_total{{outcome=\"{outcome}\"}} ");
        let text = self.metrics.encode();
        let count = text.lines().find_map(|line| line.strip_prefix(&start));
        count.and_then(|count| count.parse().ok()).unwrap_or(0)
    }

    /// Waits until the exported metrics have this line.
    pub async fn counted(&self, line: &str) -> Result<()> {
        let waiting = async {
            while !self.metrics.encode().lines().any(|l| l == line) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, waiting)
            .await
            .with_context(|| format!("{line:?} is not in {}", self.metrics.encode()))
    }
}

pub fn serve(
    engine: &str,
    bus: &Bus,
    catalog: &Catalog,
    metrics: &Metrics,
    model: &Arc<Gated>,
) -> (Shutdown, JoinHandle<Result<(), Error>>) {
    let config = Config {
        engine: engine.into(),
        concurrency: 1,
    };
    let deps = Deps {
        bus: bus.clone(),
        catalog: catalog.clone(),
        clock: Arc::new(SystemClock),
        metrics: metrics.clone(),
        readiness: Readiness::default(),
        transcriber: model.clone(),
    };
    let shutdown = Shutdown::new();
    let worker = tokio::spawn(sightline_transcribe::serve(config, deps, shutdown.clone()));
    (shutdown, worker)
}

/// The demo model behind a gate that a test may close, counting the calls. A test may also have it fail at what is longer.
pub struct Gated {
    pub model: Whisper,
    pub longest: AtomicUsize,
    open: Mutex<bool>,
    moved: Condvar,
    pub called: AtomicUsize,
    pub speech: Mutex<Vec<Speech>>,
}

impl Gated {
    pub fn load() -> Result<Self> {
        Ok(Self {
            model: Whisper::load(&models().join("ggml-demo.en-q5_1.bin"), 1)?,
            longest: AtomicUsize::new(usize::MAX),
            open: Mutex::new(true),
            moved: Condvar::new(),
            called: AtomicUsize::new(0),
            speech: Mutex::default(),
        })
    }

    pub fn set_gate(&self, open: bool) {
        *self.open.lock().unwrap() = open;
        self.moved.notify_all();
    }
}

impl Transcriber for Gated {
    fn revision(&self) -> &str {
        self.model.revision()
    }

    fn transcribe(&self, pcm: &[f32], speech: &Speech) -> Result<Transcript, InferenceError> {
        self.speech.lock().unwrap().push(speech.clone());
        self.called.fetch_add(1, Ordering::SeqCst);
        if pcm.len() > self.longest.load(Ordering::SeqCst) {
            return Err(InferenceError::Run {
                what: "asking the remote model",
                source: "nobody listens there".into(),
            });
        }
        let open = self.open.lock().unwrap();
        drop(self.moved.wait_while(open, |open| !*open).unwrap());
        self.model.transcribe(pcm, speech)
    }
}

fn models() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo-whisper")
}

/// The samples of an example: 16 kHz mono 16 bit with the usual 44 byte header.
pub fn example(name: &str) -> Result<Vec<u8>> {
    let bytes = std::fs::read(models().join("examples").join(name))?;
    ensure!(&bytes[36..40] == b"data", "{name} has another header");
    Ok(bytes[44..].to_vec())
}

pub fn chunk(start_us: i64, pcm: Vec<u8>) -> AudioChunk {
    AudioChunk {
        id: ids::chunk_id(STREAM, EPOCH_US, start_us),
        rtstream_id: STREAM.into(),
        collection_id: "default".into(),
        epoch_us: EPOCH_US,
        start_us,
        pcm: pcm.into(),
        generation: 1,
        session: 0,
    }
}

pub fn transcript(observation: &Observation) -> Result<&TranscriptBody> {
    match &observation.body {
        Some(Body::Transcript(body)) => Ok(body),
        other => anyhow::bail!("{other:?} is no transcript"),
    }
}
