//! A gateway on a free port over a nats-server of its own, and clients for it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sightline_bus::embedded::EmbeddedServer;
use sightline_bus::{Bus, ObservationKind, Subject};
use sightline_catalog::Catalog;
use sightline_catalog::seal::SealKey;
use sightline_egress::Policy;
use sightline_gateway::{ACCESS_TOKEN, ApiKeys, Config, Deps, DescribingModel, Limits};
use sightline_proto::client::Client as PublicClient;
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{
    Observation, RtStreamRecord, SceneBody, TranscriptBody, VerdictBody,
};
use sightline_proto::v1;
use sightline_proto::v1::event_service_client::EventServiceClient;
use sightline_proto::v1::index_service_client::IndexServiceClient;
use sightline_proto::v1::recording_service_client::RecordingServiceClient;
use sightline_proto::v1::rt_stream_service_client::RtStreamServiceClient;
use sightline_proto::v1::watch_service_client::WatchServiceClient;
use sightline_recordings::links::Links;
use sightline_recordings::{Library, Retention, Store};
use sightline_service::Shutdown;
use sightline_service::admin::Readiness;
use sightline_service::clock::ManualClock;
use sightline_service::metrics::Metrics;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::codegen::InterceptedService;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_types::StatusExt;
use url::Url;

pub use sightline_testkit::LONG;

pub const KEY: &str = "test-key-1";
/// What the gateway's clock shows.
pub const NOW_US: i64 = 1_764_000_000_000_000;
/// How long links work.
pub const LIFETIME_US: i64 = 3_600_000_000;

type WithKey = InterceptedService<Channel, fn(Request<()>) -> Result<Request<()>, Status>>;

pub struct Gateway {
    pub bus: Bus,
    pub catalog: Catalog,
    pub seal: SealKey,
    pub metrics: Metrics,
    pub clock: Arc<ManualClock>,
    pub links: Links,
    pub store: Store,
    pub address: SocketAddr,
    pub dir: TempDir,
    pub shutdown: Shutdown,
    pub served: JoinHandle<Result<(), sightline_gateway::GatewayError>>,
    _nats: EmbeddedServer,
}

pub struct Client {
    pub streams: RtStreamServiceClient<WithKey>,
    pub indexes: IndexServiceClient<WithKey>,
    pub events: EventServiceClient<WithKey>,
    pub recordings: RecordingServiceClient<WithKey>,
    pub watch: WatchServiceClient<WithKey>,
}

impl Gateway {
    /// A gateway without an embeddings service: nothing listens on port 1.
    pub async fn start() -> Self {
        let records = Endpoint::from_static("http://127.0.0.1:1");
        Self::start_with(records, Limits::default()).await
    }

    pub async fn start_with(records: Endpoint, limits: Limits) -> Self {
        let change = |config: &mut Config| {
            config.limits = Limits {
                drain: Duration::from_secs(2),
                ..limits
            };
        };
        Self::start_at("127.0.0.1:0", records, change).await
    }

    /// A gateway that is told something else, or listens elsewhere.
    pub async fn start_at(
        listen: &str,
        records: Endpoint,
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let nats = EmbeddedServer::start(Path::new("nats-server"), &dir.path().join("nats"))
            .expect("nats-server starts");
        let bus = Bus::connect(&nats.config("test")).await.expect("bus");
        let catalog = Catalog::open(&bus).await.expect("catalog");
        let seal = SealKey::load_or_create(&dir.path().join("seal.key")).expect("seal key");
        let media = dir.path().join("media");
        std::fs::create_dir(&media).expect("media root");
        std::fs::write(media.join("clip.mp4"), b"not looked into here").expect("clip");
        std::fs::write(dir.path().join("outside.mp4"), b"outside").expect("clip");
        let metrics = Metrics::default();
        let listener = TcpListener::bind(listen).await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shutdown = Shutdown::new();
        let clock = Arc::new(ManualClock::at(NOW_US));
        let public = Url::parse(&format!("http://{address}/")).expect("an address");
        let links = Links::new(&public, &[7; 32], Some(LIFETIME_US));
        let recordings = format!("file://{}", dir.path().join("recordings").display());
        let store = Store::open(&recordings, []).expect("a store");
        let mut config = Config {
            api_keys: ApiKeys::new([KEY]),
            tls: None,
            allow_plain_keys: false,
            default_model: "demo-vlm".to_owned(),
            models: [("demo-vlm", false), ("other", false), ("reader", true)]
                .map(|(name, reads_text)| DescribingModel {
                    name: name.to_owned(),
                    reads_text,
                })
                .into(),
            engine: "whisper".to_owned(),
            multilingual: false,
            default_threshold: 0.6,
            media_root: Some(media),
            egress: Policy::default(),
            sinks: vec!["control-room".to_owned(), "duty".to_owned()],
            limits: Limits {
                drain: Duration::from_secs(2),
                ..Limits::default()
            },
            links: links.clone(),
            retention: Retention {
                max_age_us: 7 * 24 * 3_600_000_000,
                max_bytes: 0,
            },
        };
        change(&mut config);
        let deps = Deps {
            bus: bus.clone(),
            catalog: catalog.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            readiness: Readiness::default(),
            seal: seal.clone(),
            library: Library::new(store.clone()),
            records: records.connect_lazy(),
        };
        let served = tokio::spawn(sightline_gateway::serve(
            config,
            deps,
            listener,
            shutdown.clone(),
        ));
        Self {
            bus,
            catalog,
            seal,
            metrics,
            clock,
            links,
            store,
            address,
            dir,
            shutdown,
            served,
            _nats: nats,
        }
    }

    pub fn endpoint(&self) -> Endpoint {
        Endpoint::from_shared(format!("http://{}", self.address)).expect("an address")
    }

    pub async fn client(&self) -> Client {
        let channel = self.endpoint().connect().await.expect("connects");
        Client::on(channel)
    }

    /// A client whose key is of this tenant.
    pub async fn of_tenant(&self, tenant: &str) -> PublicClient {
        let request = v1::CreateKeyRequest {
            name: "a test".to_owned(),
            tenant: tenant.to_owned(),
            operator: false,
        };
        let created = self.operator().await.keys.create_key(request).await;
        self.with_key(&created.expect("created").into_inner().secret)
            .await
    }

    /// A client with a key that the gateway was started with.
    pub async fn operator(&self) -> PublicClient {
        self.with_key(KEY).await
    }

    pub async fn with_key(&self, key: &str) -> PublicClient {
        let channel = self.endpoint().connect().await.expect("connects");
        PublicClient::on(channel, key).expect("a key")
    }

    /// A URL of the file in the media root.
    pub fn clip(&self) -> String {
        format!(
            "file://{}",
            self.dir.path().join("media/clip.mp4").display()
        )
    }

    /// Has a stream of this id in the catalog, so that watchers hear of it.
    pub async fn stream(&self, id: &str) {
        let record = RtStreamRecord {
            rtstream: Some(v1::RtStream {
                id: id.to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        self.catalog.create(id, &record).await.expect("created");
    }

    /// Puts an observation on the bus and returns its id.
    pub async fn observe(&self, observation: &Observation) -> String {
        let kind = match observation.body {
            Some(Body::Scene(_)) => ObservationKind::Scene,
            Some(Body::Transcript(_)) => ObservationKind::Transcript,
            Some(Body::AudioScene(_)) => ObservationKind::AudioScene,
            Some(Body::Verdict(_)) => ObservationKind::Verdict,
            Some(Body::Firing(_)) => ObservationKind::Firing,
            Some(Body::Status(_)) => ObservationKind::Status,
            Some(Body::Gap(_)) | None => ObservationKind::Gap,
        };
        let subject = Subject::Observation {
            partition: self.catalog.partition_of(&observation.rtstream_id),
            kind,
            rtstream: observation.rtstream_id.clone(),
        };
        self.bus
            .publish(&subject, &observation.id, observation)
            .await
            .expect("the bus takes it");
        observation.id.clone()
    }
}

fn add_key(mut request: Request<()>) -> Result<Request<()>, Status> {
    let key = AsciiMetadataValue::from_static(KEY);
    request.metadata_mut().insert(ACCESS_TOKEN, key);
    Ok(request)
}

impl Client {
    pub fn on(channel: Channel) -> Self {
        let with_key = InterceptedService::new(channel, add_key as fn(_) -> _);
        Self {
            streams: RtStreamServiceClient::new(with_key.clone()),
            indexes: IndexServiceClient::new(with_key.clone()),
            events: EventServiceClient::new(with_key.clone()),
            recordings: RecordingServiceClient::new(with_key.clone()),
            watch: WatchServiceClient::new(with_key),
        }
    }

    /// Connects a camera that nobody runs.
    pub async fn camera(&mut self) -> v1::RtStream {
        let request = v1::ConnectRtStreamRequest {
            url: "rtsp://camera.example/1".to_owned(),
            ..Default::default()
        };
        let answer = self.streams.connect_rt_stream(request).await;
        let connected = answer.expect("connected").into_inner();
        connected.rtstream.expect("a stream")
    }

    /// Starts a stream.
    pub async fn start(&mut self, rtstream: &str) {
        let rtstream_id = rtstream.to_owned();
        let request = v1::StartRtStreamRequest { rtstream_id };
        let started = self.streams.start_rt_stream(request).await;
        started.expect("started");
    }

    /// Connects a camera that is recorded and does not run.
    pub async fn recorded(&mut self) -> v1::RtStream {
        let request = v1::ConnectRtStreamRequest {
            url: "rtsp://camera.example/1".to_owned(),
            name: "Front door".to_owned(),
            start_stopped: true,
            store: true,
            ..Default::default()
        };
        let answer = self.streams.connect_rt_stream(request).await;
        let connected = answer.expect("connected").into_inner();
        connected.rtstream.expect("a stream")
    }

    pub async fn index(&mut self, rtstream_id: &str) -> v1::Index {
        let request = v1::CreateVisualIndexRequest {
            rtstream_id: rtstream_id.to_owned(),
            prompt: "What is going on?".to_owned(),
            ..Default::default()
        };
        let answer = self.indexes.create_visual_index(request).await;
        let created = answer.expect("created").into_inner();
        created.index.expect("an index")
    }

    pub async fn event(&mut self) -> v1::Event {
        let request = v1::CreateEventRequest {
            prompt: "Detect pedestrians crossing the zebra".to_owned(),
            label: "crossing".to_owned(),
            ..Default::default()
        };
        let answer = self.events.create_event(request).await;
        let created = answer.expect("created").into_inner();
        created.event.expect("an event")
    }

    pub async fn alert(&mut self, event_id: &str, index_id: &str) -> v1::Alert {
        let request = v1::CreateAlertRequest {
            event_id: event_id.to_owned(),
            index_id: index_id.to_owned(),
            callback_url: "https://hooks.example/a".to_owned(),
            ..Default::default()
        };
        let answer = self.events.create_alert(request).await;
        let created = answer.expect("created").into_inner();
        created.alert.expect("an alert")
    }
}

/// The stable reason of an error, its first faulty field ("" without one) and its message.
pub fn reason_of(status: &Status) -> (String, String, String) {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| {
        assert_eq!(info.domain, "sightline");
        info.reason.clone()
    });
    let field = details
        .bad_request()
        .and_then(|bad| bad.field_violations.first())
        .map(|violation| violation.field.clone());
    (
        reason.unwrap_or_default(),
        field.unwrap_or_default(),
        status.message().to_owned(),
    )
}

pub fn scene(rtstream: &str, index: &str, number: u64, text: &str) -> Observation {
    Observation {
        id: format!("{rtstream}-{index}-scene-{number}"),
        rtstream_id: rtstream.to_owned(),
        start_us: NOW_US + number as i64 * 5_000_000,
        end_us: NOW_US + (number as i64 + 1) * 5_000_000,
        model_revision: "model-1".to_owned(),
        body: Some(Body::Scene(SceneBody {
            index_id: index.to_owned(),
            prompt_revision: 1,
            text: text.to_owned(),
            window: number,
            ..Default::default()
        })),
        ..Default::default()
    }
}

pub fn transcript(rtstream: &str, number: u64) -> Observation {
    Observation {
        id: format!("{rtstream}-transcript-{number}"),
        rtstream_id: rtstream.to_owned(),
        body: Some(Body::Transcript(TranscriptBody {
            text: "a white car".to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    }
}

/// A line of a stream that is not over, as transcribe workers tell it.
pub fn interim(rtstream: &str, start_us: i64) -> Observation {
    let line = transcript(rtstream, 0);
    let Some(Body::Transcript(body)) = line.body else {
        panic!("{line:?}");
    };
    Observation {
        id: String::new(),
        start_us,
        end_us: start_us + 1_000_000,
        body: Some(Body::Transcript(TranscriptBody {
            interim: true,
            language: "en".to_owned(),
            ..body
        })),
        ..line
    }
}

pub fn verdict(rtstream: &str, number: u64) -> Observation {
    Observation {
        id: format!("{rtstream}-verdict-{number}"),
        rtstream_id: rtstream.to_owned(),
        body: Some(Body::Verdict(VerdictBody::default())),
        ..Default::default()
    }
}
