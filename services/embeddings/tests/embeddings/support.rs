//! A running service and what is published to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use prost::Message;
use sightline_bus::embedded::EmbeddedServer;
use sightline_bus::{Bus, ObservationKind, StreamName, Subject};
use sightline_catalog::{Catalog, Entry};
use sightline_embeddings::{Config, Deps, Error, Loader};
use sightline_inference::embed::TextEmbedder;
use sightline_inference::{Embedder, onnx};
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::records_service_client::RecordsServiceClient;
use sightline_proto::internal::{
    AlertRecord, AudioSceneBody, DeadLetter, DeleteRecordsRequest, EventRecord, IndexRecord,
    ListRecordsRequest, Observation, Record, RecordFilter, RtStreamRecord, SceneBody,
    SearchRecordsRequest, TranscriptBody, Word,
};
use sightline_proto::time::timestamp;
use sightline_proto::v1::{Alert, Event, alert};
use sightline_service::Shutdown;
use sightline_service::admin::Readiness;
use sightline_service::clock::SystemClock;
use sightline_service::metrics::Metrics;
use sightline_testkit::until;
use sightline_vectors::{EdgeStores, Stores};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tonic::transport::{Channel, Endpoint};
use uuid::Uuid;

pub use sightline_testkit::LONG;

pub const EPOCH_US: i64 = 1_795_514_400_000_000;
pub const SECOND_US: i64 = 1_000_000;

/// The streams and indexes that every catalog here has.
const STREAMS: [&str; 2] = ["rts-1", "rts-2"];
const INDEXES: [&str; 3] = ["idx-1", "idx-2", "idx-3"];

/// A nats-server, a folder for the store, and the model.
pub struct Platform {
    pub bus: Bus,
    pub catalog: Catalog,
    pub embedder: Arc<dyn Embedder>,
    pub server: EmbeddedServer,
    dir: TempDir,
}

/// The service on them.
pub struct Service {
    pub records: RecordsServiceClient<Channel>,
    pub metrics: Metrics,
    pub readiness: Readiness,
    shutdown: Shutdown,
    served: JoinHandle<Result<(), Error>>,
}

impl Platform {
    pub async fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let server = EmbeddedServer::start(Path::new("nats-server"), &dir.path().join("nats"))?;
        let bus = Bus::connect(&server.config("embeddings-test")).await?;
        let catalog = Catalog::open(&bus).await?;
        for stream in STREAMS {
            catalog.create(stream, &RtStreamRecord::default()).await?;
        }
        for index in INDEXES {
            catalog.create(index, &IndexRecord::default()).await?;
        }
        Ok(Self {
            bus,
            catalog,
            embedder: Arc::new(embedder()?),
            server,
            dir,
        })
    }

    pub fn store_dir(&self) -> PathBuf {
        self.dir.path().join("vectors")
    }

    pub async fn serve(&self) -> Result<Service> {
        serve(
            self.bus.clone(),
            Arc::clone(&self.embedder),
            &self.store_dir(),
        )
        .await
    }

    pub async fn publish(&self, observations: &[Observation]) -> Result<()> {
        for observation in observations {
            self.publish_as(&observation.id, observation).await?;
        }
        Ok(())
    }

    /// Publishes under a de-duplication id of its own.
    pub async fn publish_as(&self, id: &str, observation: &Observation) -> Result<()> {
        let kind = match observation.body {
            Some(Body::Transcript(_)) => ObservationKind::Transcript,
            Some(Body::AudioScene(_)) => ObservationKind::AudioScene,
            _ => ObservationKind::Scene,
        };
        let subject = Subject::Observation {
            partition: 3,
            kind,
            rtstream: observation.rtstream_id.clone(),
        };
        self.bus.publish(&subject, id, observation).await?;
        Ok(())
    }

    /// Deletes a record of the catalog.
    pub async fn delete<T: Entry>(&self, id: &str) -> Result<()> {
        let found = self.catalog.fetch::<T>(id).await?.context("a record")?;
        Ok(self.catalog.delete::<T>(id, found.revision).await?)
    }

    /// Makes an event, and alerts on it: each with its index, its state and the second at which it was made.
    pub async fn watch(
        &self,
        event_id: &str,
        prompt: &str,
        alerts: &[(&str, &str, &str, alert::State, i64)],
    ) -> Result<()> {
        let event = Event {
            id: event_id.to_owned(),
            prompt: prompt.to_owned(),
            ..Event::default()
        };
        let record = EventRecord {
            event: Some(event),
            ..EventRecord::default()
        };
        self.catalog.create(event_id, &record).await?;
        for (id, index, event, state, created) in alerts {
            let alert = Alert {
                id: (*id).to_owned(),
                index_id: (*index).to_owned(),
                event_id: (*event).to_owned(),
                state: (*state).into(),
                create_time: Some(timestamp(EPOCH_US + created * SECOND_US)),
                ..Alert::default()
            };
            let record = AlertRecord {
                alert: Some(alert),
                ..AlertRecord::default()
            };
            self.catalog.create(id, &record).await?;
        }
        Ok(())
    }

    /// The verdicts on the bus in the order of their start, once there are as many: those of one batch are published at the
    /// same time.
    pub async fn verdicts(&self, count: usize) -> Result<Vec<Observation>> {
        let mut verdicts: Vec<Observation> = self
            .held(StreamName::Observations, "obs.*.verdict.*", count)
            .await?;
        verdicts.sort_by_key(|verdict| verdict.start_us);
        Ok(verdicts)
    }

    /// What consumers gave up, once there is as much of it.
    pub async fn dead_letters(&self, count: usize) -> Result<Vec<String>> {
        let letters: Vec<DeadLetter> = self.held(StreamName::Dlq, "dlq.*", count).await?;
        Ok(letters.into_iter().map(|letter| letter.reason).collect())
    }

    async fn held<M: Message + Default>(
        &self,
        stream: StreamName,
        filter: &str,
        count: usize,
    ) -> Result<Vec<M>> {
        until(&format!("{count} of {filter}"), async || {
            let held = self.bus.read::<M>(stream, filter, 100).await?;
            let enough = held.len() >= count;
            Ok(enough.then(|| held.into_iter().map(|r| r.message).collect()))
        })
        .await
    }
}

/// Serves from a store in `dir` on a free port.
pub async fn serve(bus: Bus, embedder: Arc<dyn Embedder>, dir: &Path) -> Result<Service> {
    serve_with(bus, embedder, dir, Arc::new(|_| None)).await
}

/// The same with a loader of models that stores were made with.
pub async fn serve_with(
    bus: Bus,
    embedder: Arc<dyn Embedder>,
    dir: &Path,
    loader: Loader,
) -> Result<Service> {
    serve_at(bus, embedder, Arc::new(EdgeStores::lock(dir)?), loader).await
}

/// The same with the place of its stores.
pub async fn serve_at(
    bus: Bus,
    embedder: Arc<dyn Embedder>,
    stores: Arc<dyn Stores>,
    loader: Loader,
) -> Result<Service> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (metrics, readiness) = (Metrics::default(), Readiness::default());
    let shutdown = Shutdown::new();
    let deps = Deps {
        catalog: Catalog::open(&bus).await?,
        clock: Arc::new(SystemClock),
        bus,
        metrics: metrics.clone(),
        readiness: readiness.clone(),
        embedder,
        source: String::new(),
        loader,
        stores,
    };
    let serving = sightline_embeddings::serve(Config::default(), deps, listener, shutdown.clone());
    let served = tokio::spawn(serving);
    let channel = Endpoint::from_shared(format!("http://{address}"))?.connect_lazy();
    Ok(Service {
        records: RecordsServiceClient::new(channel),
        metrics,
        readiness,
        shutdown,
        served,
    })
}

impl Service {
    /// Stops the service; the store is free then.
    pub async fn stop(self) -> Result<()> {
        self.shutdown.cancel();
        timeout(LONG, self.served).await.context("it hangs")???;
        Ok(())
    }

    pub async fn list(&self, request: ListRecordsRequest) -> Result<(Vec<Record>, bool)> {
        let answer = self.records.clone().list_records(request).await?;
        let answer = answer.into_inner();
        Ok((answer.records, answer.more))
    }

    /// Everything that matches, once it is as much.
    pub async fn holds(&self, filter: RecordFilter, count: usize) -> Result<Vec<Record>> {
        let request = ListRecordsRequest {
            filter: Some(filter),
            limit: 1000,
            ..ListRecordsRequest::default()
        };
        let mut last = 0;
        let waiting = async {
            loop {
                // The service may not answer yet.
                if let Ok((records, _)) = self.list(request.clone()).await {
                    last = records.len();
                    if last >= count {
                        return records;
                    }
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        let found = timeout(LONG, waiting).await;
        found.with_context(|| format!("{last} records instead of {count}"))
    }

    /// The texts that a search finds with their scores, best first.
    pub async fn search(&self, query: &str, filter: RecordFilter) -> Result<Vec<(String, f32)>> {
        let request = SearchRecordsRequest {
            query: query.to_owned(),
            filter: Some(filter),
            limit: 10,
            min_score: 0.0,
        };
        let answer = self.records.clone().search_records(request).await?;
        let hits = answer.into_inner().hits.into_iter();
        hits.map(|hit| Ok((hit.record.context("a record")?.text, hit.score)))
            .collect()
    }

    /// Has all deleted that is stored of a stream or an index.
    pub async fn delete(&self, stream: &str, index: &str) -> Result<(), tonic::Status> {
        let request = DeleteRecordsRequest {
            rtstream_id: stream.to_owned(),
            index_id: index.to_owned(),
        };
        self.records.clone().delete_records(request).await?;
        Ok(())
    }

    /// Waits until readiness says so.
    pub async fn misses(&self, parts: &[&str]) -> Result<()> {
        let waiting = async {
            while self.readiness.missing() != parts {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(LONG, waiting)
            .await
            .with_context(|| format!("{:?} is missing", self.readiness.missing()))
    }
}

pub fn embedder() -> Result<TextEmbedder> {
    let library = variable("SIGHTLINE_ONNXRUNTIME")
        .context("no ONNX Runtime: set SIGHTLINE_ONNXRUNTIME, as `make test` does")?;
    onnx::init(Path::new(&library))?;
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models");
    Ok(TextEmbedder::load(&models.join("all-minilm-l6-v2"), 1)?)
}

#[expect(clippy::disallowed_methods, reason = "a test's only configuration")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The scene of a window of 5 s.
pub fn scene(stream: &str, index: &str, window: u64, text: &str) -> Observation {
    let start_us = EPOCH_US + window as i64 * 5 * SECOND_US;
    Observation {
        id: id_of(&format!("{stream} {index} {window}")),
        rtstream_id: stream.to_owned(),
        collection_id: "default".to_owned(),
        epoch_us: EPOCH_US,
        start_us,
        end_us: start_us + 5 * SECOND_US,
        model_revision: "vlm-1".to_owned(),
        body: Some(Body::Scene(SceneBody {
            index_id: index.to_owned(),
            prompt_revision: 1,
            text: text.to_owned(),
            frame_times_us: vec![start_us + SECOND_US, start_us + 4 * SECOND_US],
            window,
            reused: false,
        })),
    }
}

/// What was said from this second on.
pub fn transcript(stream: &str, second: i64, text: &str) -> Observation {
    let start_us = EPOCH_US + second * SECOND_US;
    let words = text.split(' ').map(|word| Word {
        text: word.to_owned(),
        start_us,
        end_us: start_us + SECOND_US,
        probability: 0.9,
    });
    Observation {
        id: id_of(&format!("{stream} said {second}")),
        rtstream_id: stream.to_owned(),
        collection_id: "default".to_owned(),
        epoch_us: EPOCH_US,
        start_us,
        end_us: start_us + 2 * SECOND_US,
        model_revision: "whisper-1".to_owned(),
        body: Some(Body::Transcript(TranscriptBody {
            engine: "demo".to_owned(),
            language: "en".to_owned(),
            interim: false,
            text: text.to_owned(),
            words: words.collect(),
        })),
    }
}

/// A batch of the transcript, of 10 s.
pub fn batch(stream: &str, index: &str, batch: u64, text: &str) -> Observation {
    let start_us = EPOCH_US + batch as i64 * 10 * SECOND_US;
    Observation {
        id: id_of(&format!("{stream} {index} batch {batch}")),
        end_us: start_us + 10 * SECOND_US,
        model_revision: String::new(),
        body: Some(Body::AudioScene(AudioSceneBody {
            index_id: index.to_owned(),
            prompt_revision: 1,
            text: text.to_owned(),
            transcript: text.to_owned(),
            prompt_applied: false,
            batch,
        })),
        start_us,
        ..scene(stream, index, 0, "")
    }
}

fn id_of(name: &str) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, name.as_bytes()).to_string()
}

pub fn text(observation: &Observation) -> &str {
    match &observation.body {
        Some(Body::Scene(scene)) => &scene.text,
        Some(Body::AudioScene(scene)) => &scene.text,
        Some(Body::Transcript(transcript)) => &transcript.text,
        _ => "",
    }
}

/// Holds when the records are those of these observations, each once, in the order of their start.
pub fn assert_records(records: &[Record], observations: &[Observation]) -> Result<()> {
    let mut expected: Vec<_> = observations.iter().collect();
    expected.sort_by_key(|o| (o.start_us, &o.id));
    let ids: Vec<_> = records.iter().map(|record| &record.id).collect();
    let expected_ids: Vec<_> = expected.iter().map(|o| &o.id).collect();
    assert_eq!(ids, expected_ids);
    for (record, observation) in records.iter().zip(expected) {
        assert_eq!(
            &Observation::decode(record.observation.as_ref())?,
            observation
        );
        assert_eq!(record.text, text(observation));
        assert_eq!(record.start_us, observation.start_us);
        assert_eq!(record.end_us, observation.end_us);
        assert_eq!(record.rtstream_id, observation.rtstream_id);
        assert_eq!(record.collection_id, observation.collection_id);
    }
    Ok(())
}

pub fn all() -> RecordFilter {
    RecordFilter::default()
}
