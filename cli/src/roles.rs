//! Each role, built from what the command line says: the same functions for the all-in-one and for a role alone.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use ipnet::IpNet;
use rustix::process::{Resource, getrlimit, setrlimit};
use sightline_alerts::Sink;
use sightline_bus::{Bus, BusConfig};
use sightline_catalog::Catalog;
use sightline_catalog::seal::SealKey;
use sightline_egress::{Egress, Policy, Timeouts};
use sightline_gateway::Tls;
use sightline_proto::internal::Presence;
use sightline_recordings::links::Links;
use sightline_recordings::{Library, Retention};
use sightline_service::Shutdown;
use sightline_service::admin::Readiness;
use sightline_service::clock::{Clock, SystemClock};
use sightline_service::metrics::Metrics;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::transport::Endpoint;

use crate::models::{self, Models};
use crate::nats;
use crate::vectors::{self, VectorArgs};

/// How many streams one ingest worker runs unless told otherwise.
pub const STREAMS: usize = 64;
/// The engine that transcribes: the name of the durable consumer and of the subjects.
const ENGINE: &str = "whisper";
/// The probability at which an alert's window counts unless the alert says otherwise. Chosen for the demo model on clips of
/// other generator seeds: see models/demo-vlm/README.md.
const DEFAULT_THRESHOLD: f32 = 0.8;
/// The longest side of a sampled frame in pixels: what the models make use of, and tens of kB as JPEG.
const FRAME_EDGE: u32 = 640;
/// Tokens of a description at most.
const DESCRIPTION_TOKENS: usize = 128;
/// How often one ingest worker removes old recordings.
const UPKEEP_EVERY: Duration = Duration::from_secs(60);
/// How long the gateway waits for a connection to the embeddings service.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// What every role stands on.
#[derive(Clone)]
pub struct Base {
    /// The bus.
    pub bus: Bus,
    /// The catalog.
    pub catalog: Catalog,
    /// The machine's clock.
    pub clock: Arc<dyn Clock>,
    /// The process's metrics.
    pub metrics: Metrics,
    /// What the process still lacks.
    pub readiness: Readiness,
    /// Ends everything.
    pub shutdown: Shutdown,
}

impl Base {
    /// Connects to the bus and reads the catalog.
    ///
    /// # Errors
    /// When the bus does not answer.
    pub async fn connect(config: &BusConfig, shutdown: Shutdown) -> Result<Self> {
        let bus = Bus::connect(config).await?;
        let catalog = Catalog::open(&bus)
            .await
            .context("cannot read the catalog")?;
        nats::compare(&bus).await;
        Ok(Self {
            bus,
            catalog,
            clock: Arc::new(SystemClock),
            metrics: Metrics::default(),
            readiness: Readiness::default(),
            shutdown,
        })
    }

    /// Says from now on who works here, whenever somebody asks. `model` is a model's name and revision, for roles that have one.
    fn be_present(&self, role: &str, model: Option<(&str, &str)>) {
        let (name, revision) = model.unwrap_or_default();
        let presence = Presence {
            role: role.to_owned(),
            name: format!("{}-{}", host_name(), std::process::id()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            model: name.to_owned(),
            model_revision: revision.to_owned(),
            started_us: self.clock.now_us(),
        };
        let (bus, shutdown) = (self.bus.clone(), self.shutdown.clone());
        tokio::spawn(async move {
            if let Err(error) = bus.be_present(&presence, &shutdown).await {
                tracing::warn!(%error, role = presence.role, "nobody is told that this role works");
            }
        });
    }
}

/// What the gateway is told.
pub struct GatewayOptions {
    /// Where it listens; bound already.
    pub listener: TcpListener,
    /// The keys that may call.
    pub api_key: String,
    /// What encrypts connections.
    pub tls: Option<Tls>,
    /// Whether keys are taken over plain connections from other machines.
    pub allow_plain_keys: bool,
    /// The models that can be named, the default first.
    pub models: Vec<sightline_gateway::DescribingModel>,
    /// Whether speech is transcribed in other languages than English.
    pub multilingual: bool,
    /// The one directory of file sources.
    pub media_root: Option<PathBuf>,
    /// Where webhooks may go.
    pub egress: Policy,
    /// The further receivers that alerts may name.
    pub sinks: Vec<String>,
    /// The embeddings service's address.
    pub embeddings_url: String,
    /// The key that seals sources' credentials.
    pub seal: SealKey,
    /// What is recorded.
    pub library: Library,
    /// How much of it is kept by default.
    pub retention: Retention,
    /// Makes and checks links to it.
    pub links: Links,
}

/// Runs the gateway.
///
/// # Errors
/// When it can't start.
pub async fn gateway(base: Base, options: GatewayOptions) -> Result<()> {
    raise_file_limit();
    let endpoint = Endpoint::from_shared(options.embeddings_url.clone()).with_context(|| {
        format!(
            "{:?} is not an address of the embeddings service",
            options.embeddings_url
        )
    })?;
    let config = sightline_gateway::Config {
        api_keys: sightline_gateway::ApiKeys::new([options.api_key.as_str()]),
        tls: options.tls,
        allow_plain_keys: options.allow_plain_keys,
        default_model: options
            .models
            .first()
            .map_or_else(String::new, |model| model.name.clone()),
        models: options.models,
        engine: ENGINE.to_owned(),
        multilingual: options.multilingual,
        default_threshold: DEFAULT_THRESHOLD,
        media_root: options.media_root,
        egress: options.egress,
        sinks: options.sinks,
        limits: sightline_gateway::Limits::default(),
        links: options.links,
        retention: options.retention,
    };
    base.be_present("gateway", None);
    let deps = sightline_gateway::Deps {
        bus: base.bus,
        catalog: base.catalog,
        clock: base.clock,
        metrics: base.metrics,
        readiness: base.readiness,
        seal: options.seal,
        library: options.library,
        records: endpoint.connect_timeout(CONNECT_DEADLINE).connect_lazy(),
    };
    // Boxed: what it holds would make the futures of all that wait for it large.
    let serving = sightline_gateway::serve(config, deps, options.listener, base.shutdown);
    Ok(Box::pin(serving).await?)
}

/// Runs the embeddings service, its vectors on a Qdrant server or in `dir`.
///
/// # Errors
/// When its model or store can't be opened.
pub async fn embeddings(
    base: Base,
    models: &Models,
    kept: &VectorArgs,
    dir: &Path,
    listener: TcpListener,
) -> Result<()> {
    let loaded = models::embedder(models).await?;
    let embedder = loaded.model;
    let stores = kept.stores(dir)?;
    base.be_present("embeddings", Some((&loaded.shown, embedder.revision())));
    let deps = sightline_embeddings::Deps {
        bus: base.bus,
        catalog: base.catalog,
        clock: base.clock,
        metrics: base.metrics,
        readiness: base.readiness,
        embedder,
        source: vectors::source(&models.embed.source),
        loader: vectors::loader(models.runtime().ok().map(Path::to_owned)),
        stores,
    };
    let config = sightline_embeddings::Config::default();
    Ok(sightline_embeddings::serve(config, deps, listener, base.shutdown).await?)
}

/// Runs the alerts service.
///
/// # Errors
/// When a partition can't be evaluated.
pub async fn alerts(
    base: Base,
    egress: Policy,
    links: Links,
    seal: SealKey,
    sinks: Vec<Sink>,
) -> Result<()> {
    base.be_present("alerts", None);
    let deps = sightline_alerts::Deps {
        bus: base.bus,
        catalog: base.catalog,
        clock: base.clock,
        metrics: base.metrics,
        egress: Egress::new(egress, Timeouts::default()),
        seal,
    };
    let config = sightline_alerts::Config {
        sinks,
        ..sightline_alerts::Config::new(links)
    };
    Ok(sightline_alerts::serve(config, deps, base.shutdown).await?)
}

/// What an ingest worker is told.
pub struct IngestOptions {
    /// How many streams it runs at most.
    pub capacity: usize,
    /// The one directory of file sources.
    pub media_root: Option<PathBuf>,
    /// What is not public, and where sources may be nevertheless.
    pub reach: Vec<IpNet>,
    /// Opens sources' credentials.
    pub seal: SealKey,
    /// Where recordings go.
    pub library: Library,
    /// How much of them is kept by default.
    pub retention: Retention,
    /// A directory for files under way.
    pub scratch: PathBuf,
}

/// Runs an ingest worker.
///
/// # Errors
/// When leases can't be taken.
pub async fn ingest(base: Base, options: IngestOptions) -> Result<()> {
    let program = std::env::current_exe().context("cannot tell where this program is")?;
    let config = sightline_ingest::Config {
        worker: format!("{}-{}", host_name(), std::process::id()),
        capacity: options.capacity,
        child: child(program.into_os_string(), &options.reach),
        media_root: options.media_root,
        frame_edge: FRAME_EDGE,
        engine: ENGINE.to_owned(),
        retention: options.retention,
        scratch: options.scratch,
        upkeep_every: UPKEEP_EVERY,
    };
    base.be_present("ingest", None);
    let deps = sightline_ingest::Deps {
        bus: base.bus,
        catalog: base.catalog,
        clock: base.clock,
        metrics: base.metrics,
        readiness: base.readiness,
        seal: options.seal,
        library: options.library,
    };
    Ok(sightline_ingest::serve(config, deps, base.shutdown).await?)
}

/// The program that reads one stream, and what it is told.
fn child(program: OsString, reach: &[IpNet]) -> Vec<OsString> {
    let ranges = reach
        .iter()
        .map(|net| format!("--allow-source={net}").into());
    [program, "ingest-child".into()]
        .into_iter()
        .chain(ranges)
        .collect()
}

/// Runs a caption worker for each describing model; together they get `cores`.
///
/// # Errors
/// When a model can't be loaded.
pub async fn caption(base: Base, models: &Models, cores: usize) -> Result<()> {
    // All are loaded before one takes work: who is ready is ready for every model.
    let mut loaded = Vec::new();
    for model in &models.describe {
        let one = models::describer(&base, models, model, cores).await;
        loaded.push((
            model.name.clone(),
            one.with_context(|| format!("the model {}", model.name))?,
        ));
    }
    let mut workers = JoinSet::new();
    for (model, loaded) in loaded {
        base.be_present("caption", Some((&loaded.shown, loaded.model.revision())));
        let config = sightline_caption::Config {
            model,
            concurrency: sightline_caption::UNDER_WAY,
            max_new_tokens: DESCRIPTION_TOKENS,
        };
        let deps = sightline_caption::Deps {
            bus: base.bus.clone(),
            catalog: base.catalog.clone(),
            clock: base.clock.clone(),
            metrics: base.metrics.clone(),
            readiness: base.readiness.clone(),
            describer: loaded.model,
        };
        workers.spawn(sightline_caption::serve(
            config,
            deps,
            base.shutdown.clone(),
        ));
    }
    let mut result = Ok(());
    while let Some(ended) = workers.join_next().await {
        // One that fails ends the others.
        let ended = ended
            .context("a caption worker panicked")
            .and_then(|r| Ok(r?));
        if ended.is_err() {
            base.shutdown.cancel();
        }
        result = result.and(ended);
    }
    result
}

/// Runs a transcribe worker.
///
/// # Errors
/// When its model can't be loaded.
pub async fn transcribe(base: Base, models: &Models) -> Result<()> {
    let loaded = models::transcriber(models).await?;
    let transcriber = loaded.model;
    base.be_present("transcribe", Some((&loaded.shown, transcriber.revision())));
    let config = sightline_transcribe::Config {
        engine: ENGINE.to_owned(),
        concurrency: (cores() / 2).max(1),
    };
    let deps = sightline_transcribe::Deps {
        bus: base.bus,
        catalog: base.catalog,
        clock: base.clock,
        metrics: base.metrics,
        readiness: base.readiness,
        transcriber,
    };
    Ok(sightline_transcribe::serve(config, deps, base.shutdown).await?)
}

/// Every connection is an open file, and the usual soft limit is 1024: the hard one is what the operator means.
fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files stays as it is");
    }
}

/// How many cores this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// This machine's name.
pub fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}
