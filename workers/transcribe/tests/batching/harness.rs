//! A worker on a real nats-server, and the transcripts that it is given. Nothing here is heard: the transcripts are
//! published as if another worker had made them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use sightline_bus::embedded::EmbeddedServer;
use sightline_bus::{
    Bus, BusConfig, Handler, ObservationKind, Outgoing, Received, Refusal, StreamName, Subject,
    Work,
};
use sightline_catalog::{Catalog, Entry};
use sightline_inference::{InferenceError, Speech, Transcriber, Transcript};
use sightline_proto::ids;
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{
    AudioSceneBody, BatchingRecord, IndexRecord, Observation, RtStreamRecord, TranscriptBody, Word,
};
use sightline_proto::time::{duration, timestamp};
use sightline_proto::v1::audio_batching::Batch;
use sightline_proto::v1::{AudioBatching, Index, RtStream, index};
use sightline_service::Shutdown;
use sightline_service::admin::Readiness;
use sightline_service::clock::{Clock, ManualClock};
use sightline_service::metrics::Metrics;
use sightline_transcribe::{Config, Deps, Error};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Far above what anything here takes.
pub const LONG: Duration = Duration::from_secs(120);
pub const STREAM: &str = "rts-1";
pub const EPOCH_US: i64 = 1_795_514_400_000_000;
pub const SECOND_US: i64 = 1_000_000;

/// A nats-server with a catalog that knows the stream, and a clock that stands at its epoch.
pub struct Platform {
    pub bus: Bus,
    pub catalog: Catalog,
    pub clock: Arc<ManualClock>,
    // Dropped last, in this order: the server stops before its folder goes.
    pub server: EmbeddedServer,
    _dir: tempfile::TempDir,
}

/// A worker.
pub struct Worker {
    catalog: Catalog,
    shutdown: Shutdown,
    served: JoinHandle<Result<(), Error>>,
}

impl Platform {
    pub async fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let server = EmbeddedServer::start(Path::new("nats-server"), dir.path())?;
        let bus = Bus::connect(&server.config("batching-test")).await?;
        let catalog = Catalog::open(&bus).await?;
        let stream = RtStream {
            id: STREAM.into(),
            collection_id: "default".into(),
            transcribe: true,
            ..RtStream::default()
        };
        let record = RtStreamRecord {
            rtstream: Some(stream),
            ..RtStreamRecord::default()
        };
        catalog.create(STREAM, &record).await?;
        Ok(Self {
            bus,
            catalog,
            clock: Arc::new(ManualClock::at(EPOCH_US)),
            server,
            _dir: dir,
        })
    }

    pub async fn serve(&self) -> Result<Worker> {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        serve(&self.server.config("worker"), clock).await
    }

    /// A running audio index, made this many seconds after the epoch.
    pub async fn index(&self, id: &str, batch: Batch, second: i64) -> Result<()> {
        let index = Index {
            id: id.into(),
            rtstream_id: STREAM.into(),
            kind: index::Kind::Audio.into(),
            state: index::State::Running.into(),
            prompt_revision: 1,
            batching: Some(AudioBatching { batch: Some(batch) }),
            create_time: Some(timestamp(EPOCH_US + second * SECOND_US)),
            ..Index::default()
        };
        let record = IndexRecord {
            index: Some(index),
            ..IndexRecord::default()
        };
        self.catalog.create(id, &record).await?;
        Ok(())
    }

    /// Has an index's batches read by a model.
    pub async fn read_by(&self, index: &str, model: &str) -> Result<()> {
        let changed = self.catalog.modify::<IndexRecord>(index, |record| {
            record.reads_text = true;
            if let Some(index) = &mut record.index {
                model.clone_into(&mut index.model);
            }
            true
        });
        changed.await?;
        Ok(())
    }

    pub async fn change_index(&self, id: &str, change: fn(&mut Index)) -> Result<()> {
        let changed = self.catalog.modify::<IndexRecord>(id, |record| {
            record.index.as_mut().map(change);
            true
        });
        changed.await?;
        Ok(())
    }

    /// Waits until this many words wait for an index's next batch.
    pub async fn waits(&self, index: &str, words: usize) -> Result<()> {
        let so = |state: &BatchingRecord| state.waiting.len() == words && state.emitting.is_empty();
        settled(&self.catalog, index, so).await
    }

    /// One segment, a word a second from this second of the epoch on.
    pub async fn say(&self, second: i64, text: &str) -> Result<()> {
        self.say_in(EPOCH_US, second, text).await
    }

    pub async fn say_in(&self, epoch_us: i64, second: i64, text: &str) -> Result<()> {
        let transcript = transcript(epoch_us, second, text);
        self.publish(&transcript.id, &transcript).await
    }

    pub async fn publish(&self, id: &str, transcript: &Observation) -> Result<()> {
        let subject = Subject::Observation {
            partition: self.catalog.partition_of(STREAM),
            kind: ObservationKind::Transcript,
            rtstream: STREAM.into(),
        };
        self.bus.publish(&subject, id, transcript).await?;
        Ok(())
    }

    /// All batches of an index, once there are as many, in the order in which they came.
    pub async fn batches(&self, index: &str, count: usize) -> Result<Vec<Observation>> {
        let waiting = async {
            loop {
                let found = self
                    .bus
                    .read::<Observation>(StreamName::Observations, "obs.*.audio_scene.*", 10_000)
                    .await?;
                let found = found.into_iter().map(|received| received.message);
                let found: Vec<_> = found
                    .filter(|o| body(o).is_ok_and(|body| body.index_id == index))
                    .collect();
                if found.len() >= count {
                    return Ok(found);
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LONG, waiting)
            .await
            .with_context(|| format!("{index} never had {count} batches"))?
    }

    /// Takes the batches of an index that this model is to read, until there were as many.
    pub async fn texts(
        &self,
        model: &str,
        index: &str,
        enough: impl Fn(&[Observation]) -> bool,
    ) -> Result<Vec<Observation>> {
        let work = Work {
            stream: StreamName::Texts,
            durable: format!("texts-{model}"),
            filter: format!("texts.{model}.{index}"),
            concurrency: 1,
            ack_wait: LONG,
            deadline: LONG,
            max_deliver: -1,
        };
        let (sender, mut taken) = mpsc::channel(100);
        let working = sightline_bus::work(&self.bus, work, Taking(sender), Shutdown::new());
        let mut found = Vec::new();
        let taking = async {
            while !enough(&found) {
                found.extend(taken.recv().await);
            }
        };
        tokio::select! {
            worked = working => worked?,
            taken = timeout(LONG, taking) => taken
                .with_context(|| format!("{index} never had all that is to be read"))?,
        }
        Ok(found)
    }

    /// Lets time pass, ten seconds at a time, until an index has as many batches.
    pub async fn passes_until(&self, index: &str, count: usize) -> Result<()> {
        let passing = async {
            loop {
                self.clock.set(self.clock.now_us() + 10 * SECOND_US);
                sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            found = self.batches(index, count) => found.map(drop),
            () = passing => Ok(()),
        }
    }

    /// `number@start-end text` of each batch of an index, times in seconds of the epoch.
    pub async fn shown(&self, index: &str, count: usize) -> Result<Vec<String>> {
        let second = |us: i64| (us - EPOCH_US) as f64 / 1e6;
        let found = self.batches(index, count).await?;
        let shown = found.iter().map(|observed| {
            let body = body(observed)?;
            let (start, end) = (second(observed.start_us), second(observed.end_us));
            Ok(format!("{}@{start}-{end} {}", body.batch, body.text))
        });
        shown.collect()
    }
}

impl Worker {
    /// Waits until its view of an index is so.
    pub async fn sees(&self, index: &str, so: fn(&Index) -> bool) -> Result<()> {
        let so = |record: &IndexRecord| record.index.as_ref().is_some_and(so);
        settled(&self.catalog, index, so).await
    }

    pub async fn stop(self) -> Result<()> {
        self.shutdown.cancel();
        Ok(timeout(LONG, self.served).await???)
    }
}

/// Waits until a view has a record that is so.
async fn settled<T: Entry>(catalog: &Catalog, id: &str, so: impl Fn(&T) -> bool) -> Result<()> {
    let waiting = async {
        while !catalog.get::<T>(id).is_some_and(|found| so(&found.value)) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, waiting)
        .await
        .with_context(|| format!("{} {id} never was as it should be", T::KIND))
}

/// Serves with a connection and a view of its own, as another process would.
pub async fn serve(config: &BusConfig, clock: Arc<dyn Clock>) -> Result<Worker> {
    let bus = Bus::connect(config).await?;
    let catalog = Catalog::open(&bus).await?;
    let deps = Deps {
        catalog: catalog.clone(),
        bus,
        clock,
        metrics: Metrics::default(),
        readiness: Readiness::default(),
        transcriber: Arc::new(Deaf),
    };
    let config = Config {
        engine: "demo".into(),
        concurrency: 1,
    };
    let shutdown = Shutdown::new();
    let served = tokio::spawn(sightline_transcribe::serve(config, deps, shutdown.clone()));
    Ok(Worker {
        catalog,
        shutdown,
        served,
    })
}

/// Takes batches in place of a model.
struct Taking(mpsc::Sender<Observation>);

#[async_trait]
impl Handler<Observation> for Taking {
    async fn handle(&self, received: &Received<Observation>) -> Result<Vec<Outgoing>, Refusal> {
        let _ = self.0.send(received.message.clone()).await;
        Ok(Vec::new())
    }
}

/// There is no speech here.
struct Deaf;

impl Transcriber for Deaf {
    fn revision(&self) -> &str {
        "deaf"
    }

    fn transcribe(&self, _: &[f32], _: &Speech) -> Result<Transcript, InferenceError> {
        Ok(Transcript::default())
    }
}

pub fn words(count: u32) -> Batch {
    Batch::Words(count)
}

pub fn time(seconds: i64) -> Batch {
    Batch::Time(duration(seconds * SECOND_US))
}

pub fn transcript(epoch_us: i64, second: i64, text: &str) -> Observation {
    let start_us = epoch_us + second * SECOND_US;
    let words: Vec<Word> = text
        .split(' ')
        .zip(0..)
        .map(|(word, n)| Word {
            text: word.into(),
            start_us: start_us + n * SECOND_US,
            end_us: start_us + n * SECOND_US + SECOND_US / 2,
            probability: 0.9,
        })
        .collect();
    Observation {
        id: ids::observation_id("transcript", STREAM, epoch_us, start_us, "demo", 0, "m1"),
        rtstream_id: STREAM.into(),
        collection_id: "default".into(),
        epoch_us,
        start_us,
        end_us: words.last().map_or(start_us, |word| word.end_us),
        model_revision: "m1".into(),
        body: Some(Body::Transcript(TranscriptBody {
            engine: "demo".into(),
            text: text.into(),
            words,
            ..TranscriptBody::default()
        })),
    }
}

pub fn body(observation: &Observation) -> Result<&AudioSceneBody> {
    match &observation.body {
        Some(Body::AudioScene(body)) => Ok(body),
        other => bail!("{other:?} is no batch"),
    }
}
