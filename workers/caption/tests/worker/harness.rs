//! A worker with the real parts around it: nats-server, catalog and the demo model behind a gate.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use sightline_bus::embedded::EmbeddedServer;
use sightline_bus::{Bus, StreamName, Subject};
use sightline_caption::{Config, Deps, Error};
use sightline_catalog::{Catalog, Entry};
use sightline_inference::vlm::engine::{Engine, EngineOptions, Step};
use sightline_inference::vlm::{Vlm, VlmOptions};
use sightline_inference::{Answers, Describer, Job, SubmitError, onnx};
use sightline_proto::ids;
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{
    AlertRecord, EventRecord, Frame, FrameWindow, IndexRecord, Observation, Sampling, SceneBody,
    VerdictBody,
};
use sightline_proto::time::duration;
use sightline_proto::v1::{Alert, Event, Index, TimeSampling, alert, index};
use sightline_service::Shutdown;
use sightline_service::admin::Readiness;
use sightline_service::clock::{Clock, SystemClock};
use sightline_service::metrics::Metrics;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Far above what anything here takes.
const LONG: Duration = Duration::from_secs(120);
pub const STREAM: &str = "rts-1";
const MODEL: &str = "demo-vlm";
pub const EPOCH_US: i64 = 1_795_514_400_000_000;
const SAMPLING: Sampling = Sampling {
    window_us: 5_000_000,
    frame_count: 2,
};
pub const CALM: [&str; 2] = ["calm-1.jpg", "calm-2.jpg"];
pub const RESTRICTED: [&str; 2] = ["restricted-1.jpg", "restricted-2.jpg"];
pub const ENTERS: &str = "Detect when someone enters restricted area";
pub const CROSSES: &str = "Detect pedestrians crossing the zebra";

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
        let bus = Bus::connect(&server.config("caption-test")).await?;
        let catalog = Catalog::open(&bus).await?;
        let metrics = Metrics::default();
        let model = Arc::new(Gated::load()?);
        let (shutdown, worker) = serve(&bus, &catalog, &metrics, &model);
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

    pub async fn index(&self, id: &str, prompt: &str) -> Result<()> {
        self.index_with(id, prompt, |_| {}).await
    }

    pub async fn index_with(
        &self,
        id: &str,
        prompt: &str,
        change: impl FnOnce(&mut Index),
    ) -> Result<()> {
        let mut index = Index {
            id: id.into(),
            rtstream_id: STREAM.into(),
            prompt: prompt.into(),
            prompt_revision: 1,
            model: MODEL.into(),
            sampling: Some(TimeSampling {
                window: Some(duration(SAMPLING.window_us)),
                frame_count: SAMPLING.frame_count,
            }),
            state: index::State::Running.into(),
            ..Index::default()
        };
        change(&mut index);
        self.create(
            id,
            IndexRecord {
                index: Some(index),
                ..Default::default()
            },
        )
        .await
    }

    /// Changes an index, as its user would.
    pub async fn change(&self, id: &str, change: impl Fn(&mut Index)) -> Result<()> {
        let changed = |record: &mut IndexRecord| record.index.as_mut().map(&change).is_some();
        self.catalog.modify(id, changed).await?;
        Ok(())
    }

    pub async fn event(&self, id: &str, prompt: &str) -> Result<()> {
        let event = Event {
            id: id.into(),
            prompt: prompt.into(),
            prompt_revision: 2,
            ..Event::default()
        };
        self.create(
            id,
            EventRecord {
                event: Some(event),
                ..Default::default()
            },
        )
        .await
    }

    pub async fn alert(
        &self,
        id: &str,
        index: &str,
        event: &str,
        state: alert::State,
    ) -> Result<()> {
        let alert = Alert {
            id: id.into(),
            event_id: event.into(),
            index_id: index.into(),
            rtstream_id: STREAM.into(),
            state: state.into(),
            ..Alert::default()
        };
        self.create(
            id,
            AlertRecord {
                alert: Some(alert),
                ..Default::default()
            },
        )
        .await
    }

    pub async fn create<T: Entry>(&self, id: &str, record: T) -> Result<()> {
        self.catalog.create(id, &record).await?;
        Ok(())
    }

    pub async fn publish(&self, window: &FrameWindow) -> Result<()> {
        self.publish_as(&window.id, window).await
    }

    pub async fn publish_as(&self, id: &str, window: &FrameWindow) -> Result<()> {
        let subject = Subject::Frames {
            model: MODEL.into(),
            rtstream: STREAM.into(),
            sampling: ids::sampling_key(&SAMPLING),
        };
        self.bus.publish(&subject, id, window).await?;
        Ok(())
    }

    /// Waits until the bus holds `count` observations of a kind, and returns all of them in order.
    pub async fn held(&self, kind: &str, count: usize) -> Result<Vec<Observation>> {
        self.read(StreamName::Observations, &format!("obs.*.{kind}.*"), count)
            .await
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

    /// Publishes a window and waits until the bus holds `count` scenes; gives the last one's.
    pub async fn described(&self, window: &FrameWindow, count: usize) -> Result<SceneBody> {
        self.publish(window).await?;
        let scenes = self.held("scene", count).await?;
        Ok(scene(scenes.last().context("no scene")?)?.clone())
    }

    /// Waits until so many descriptions have begun.
    pub async fn begun(&self, count: usize) -> Result<()> {
        let waiting = async {
            while self.model.asked()[2] < count {
                sleep(Duration::from_millis(5)).await;
            }
        };
        Ok(timeout(LONG, waiting).await?)
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
    bus: &Bus,
    catalog: &Catalog,
    metrics: &Metrics,
    model: &Arc<Gated>,
) -> (Shutdown, JoinHandle<Result<(), Error>>) {
    let config = Config {
        model: MODEL.into(),
        concurrency: 16,
        max_new_tokens: 96,
    };
    let deps = Deps {
        bus: bus.clone(),
        catalog: catalog.clone(),
        clock: Arc::new(SystemClock),
        metrics: metrics.clone(),
        readiness: Readiness::default(),
        describer: model.clone(),
    };
    let shutdown = Shutdown::new();
    let worker = tokio::spawn(sightline_caption::serve(config, deps, shutdown.clone()));
    (shutdown, worker)
}

/// The demo model behind a gate that a test may close once descriptions have begun, counting what is asked of it.
pub struct Gated {
    engine: Engine,
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    closed: Mutex<bool>,
    moved: Condvar,
    opened: AtomicUsize,
    judged: AtomicUsize,
    described: AtomicUsize,
}

impl Gated {
    #[expect(clippy::disallowed_methods, reason = "a test's only configuration")]
    fn load() -> Result<Self> {
        let library = std::env::var_os("SIGHTLINE_ONNXRUNTIME")
            .context("SIGHTLINE_ONNXRUNTIME is not set: run `make test`")?;
        onnx::init(Path::new(&library))?;
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo-vlm");
        let model = Arc::new(Vlm::load(&directory, &VlmOptions::default())?);
        let gate = Arc::new(Gate::default());
        let passed = Arc::clone(&gate);
        let on_step = Box::new(move |step| passed.pass(step));
        let now = Box::new(|| SystemClock.now_us());
        let engine = Engine::start(model, EngineOptions::default(), now, on_step)?;
        Ok(Self { engine, gate })
    }

    pub fn set_gate(&self, open: bool) {
        *self.gate.closed.lock().unwrap() = !open;
        self.gate.moved.notify_all();
    }

    /// How many windows were prefilled, questions judged and descriptions begun.
    pub fn asked(&self) -> [usize; 3] {
        let gate = &self.gate;
        [&gate.opened, &gate.judged, &gate.described].map(|n| n.load(Ordering::SeqCst))
    }
}

impl Gate {
    fn pass(&self, step: Step) {
        let counted = match step {
            Step::Prefill => &self.opened,
            Step::Judge => &self.judged,
            Step::Begin => &self.described,
            _ => return,
        };
        counted.fetch_add(1, Ordering::SeqCst);
        if step == Step::Begin {
            let closed = self.closed.lock().unwrap();
            drop(self.moved.wait_while(closed, |closed| *closed).unwrap());
        }
    }
}

impl Describer for Gated {
    fn revision(&self) -> &str {
        self.engine.revision()
    }

    fn reads_text(&self) -> bool {
        self.engine.reads_text()
    }

    fn submit(&self, job: Job) -> Result<Answers, SubmitError> {
        self.engine.submit(job)
    }
}

fn jpeg(name: &str) -> Result<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name);
    std::fs::read(&path).with_context(|| path.display().to_string())
}

pub fn window(number: u64, jpegs: [&str; 2]) -> Result<FrameWindow> {
    let start_us = EPOCH_US + i64::try_from(number)? * SAMPLING.window_us;
    let frames = jpegs.iter().zip([0, 2_000_000]).map(|(name, offset)| {
        anyhow::Ok(Frame {
            time_us: start_us + offset,
            jpeg: jpeg(name)?.into(),
        })
    });
    let now = SystemClock.now_us();
    Ok(FrameWindow {
        id: ids::window_id(STREAM, EPOCH_US, &SAMPLING, number),
        rtstream_id: STREAM.into(),
        collection_id: "default".into(),
        epoch_us: EPOCH_US,
        window: number,
        start_us,
        end_us: start_us + SAMPLING.window_us,
        sampling: Some(SAMPLING),
        frames: frames.collect::<Result<_>>()?,
        generation: 1,
        captured_us: now,
        sampled_us: now,
    })
}

pub fn verdict(observation: &Observation) -> Result<&VerdictBody> {
    match &observation.body {
        Some(Body::Verdict(body)) => Ok(body),
        other => anyhow::bail!("{other:?} is no verdict"),
    }
}

pub fn scene(observation: &Observation) -> Result<&SceneBody> {
    match &observation.body {
        Some(Body::Scene(body)) => Ok(body),
        other => anyhow::bail!("{other:?} is no scene"),
    }
}
