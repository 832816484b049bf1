//! One role alone in its process, over a nats-server that others share.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use sightline_catalog::seal::SealKey;
use sightline_egress::Policy;
use sightline_service::admin::{self, Readiness};
use sightline_service::clock::SystemClock;
use sightline_service::metrics::Metrics;
use sightline_service::telemetry;

use crate::args::{
    AlertsArgs, CaptionArgs, DataArgs, EgressArgs, EmbeddingsArgs, GatewayArgs, IngestArgs,
    RoleArgs, TranscribeArgs,
};
use crate::files::{self, DataDir};
use crate::models::Models;
use crate::platform::bind;
use crate::recordings;
use crate::roles::{self, Base, GatewayOptions, IngestOptions};
use crate::signals::shutdown_on_signal;
use crate::up;

/// Where the gateway listens unless it is told otherwise: in links that the alerts service makes.
const GATEWAY: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7700));

/// The public API.
///
/// # Errors
/// When it can't start; the error says what to do.
pub async fn gateway(args: GatewayArgs) -> Result<ExitCode> {
    up::refuse_open_door(args.listen, &args.key)?;
    let models = Models::named(args.models_file.as_deref(), &args.model_names)?;
    let tls = args.tls.load()?;
    let listener = bind(args.listen, "--listen").await?;
    let api_key = args.key.api_key.context(
        "a gateway alone has no key of its own to print: set SIGHTLINE_API_KEY to the key that clients send",
    )?;
    let (dir, seal) = shared_dir(&args.data)?;
    let address = listener.local_addr()?;
    let links = recordings::links(&args.links, address, tls.is_some(), &seal);
    let base = base("gateway", &args.role, &sightline_gateway::PARTS).await?;
    announce("gateway", Some(address));
    let options = GatewayOptions {
        listener,
        api_key: api_key.0,
        tls,
        allow_plain_keys: args.tls.allow_plain_keys,
        models: models.describing(),
        multilingual: models.transcribe.multilingual(),
        media_root: args.sources.media_root,
        egress: policy(args.egress),
        sinks: args.sinks.names(),
        embeddings_url: args.embeddings_url,
        library: recordings::library(&args.recordings, &dir)?,
        retention: recordings::retention(&args.recordings),
        links,
        seal,
    };
    done(roles::gateway(base, options).await)
}

/// Storing and searching.
///
/// # Errors
/// When it can't start; the error says what to do.
pub async fn embeddings(args: EmbeddingsArgs) -> Result<ExitCode> {
    let listener = bind(args.listen, "--listen").await?;
    let data = DataDir::lock(files::data_dir(&args.data)?.join("embeddings"))?;
    let models = Models::locate(&args.models)?;
    let base = base("embeddings", &args.role, &sightline_embeddings::PARTS).await?;
    announce("embeddings", Some(listener.local_addr()?));
    let vectors = data.path().join("vectors");
    done(roles::embeddings(base, &models, &args.vectors, &vectors, listener).await)
}

/// Evaluating and delivering alerts.
///
/// # Errors
/// When it can't start; the error says what to do.
pub async fn alerts(args: AlertsArgs) -> Result<ExitCode> {
    let sinks = args.sinks.load()?;
    let (_, seal) = shared_dir(&args.data)?;
    let links = recordings::links(&args.links, GATEWAY, false, &seal);
    let base = base("alerts", &args.role, &[]).await?;
    announce("alerts", None);
    done(roles::alerts(base, policy(args.egress), links, seal, sinks).await)
}

/// Reading, sampling and cutting.
///
/// # Errors
/// When it can't start; the error says what to do.
pub async fn ingest(args: IngestArgs) -> Result<ExitCode> {
    let (dir, seal) = shared_dir(&args.data)?;
    let options = IngestOptions {
        capacity: args.capacity,
        media_root: args.sources.media_root,
        reach: args.reach.allow_source,
        seal,
        library: recordings::library(&args.recordings, &dir)?,
        retention: recordings::retention(&args.recordings),
        scratch: dir.join("scratch"),
    };
    let base = base("ingest", &args.role, &sightline_ingest::PARTS).await?;
    announce("ingest", None);
    done(roles::ingest(base, options).await)
}

/// Describing and judging.
///
/// # Errors
/// When it can't start; the error says what to do.
pub async fn caption(args: CaptionArgs) -> Result<ExitCode> {
    let mut models = Models::locate(&args.models)?;
    if let Some(name) = &args.model {
        models = models.only(name)?;
    }
    let base = base("caption", &args.role, &sightline_caption::PARTS).await?;
    announce("caption", None);
    done(roles::caption(base, &models, roles::cores()).await)
}

/// Transcribing.
///
/// # Errors
/// When it can't start; the error says what to do.
pub async fn transcribe(args: TranscribeArgs) -> Result<ExitCode> {
    let models = Models::locate(&args.models)?;
    let base = base("transcribe", &args.role, &sightline_transcribe::PARTS).await?;
    announce("transcribe", None);
    done(roles::transcribe(base, &models).await)
}

/// The part of a role that is there once the bus was reached and the catalog is read.
const BUS: &str = "bus";

/// Serves metrics and probes if they have an address, then connects. `parts` are what the role needs besides.
async fn base(role: &'static str, args: &RoleArgs, parts: &[&'static str]) -> Result<Base> {
    let shutdown = shutdown_on_signal()?;
    let (metrics, readiness) = (
        Metrics::default(),
        Readiness::lacking(parts.iter().chain([&BUS])),
    );
    telemetry::export(&metrics, Arc::new(SystemClock));
    if let Some(address) = args.admin_listen {
        let listener = bind(address, "--admin-listen").await?;
        let serving = admin::serve(
            listener,
            metrics.clone(),
            readiness.clone(),
            shutdown.clone(),
        );
        tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "metrics and probes are gone");
            }
        });
    }
    let config = args.nats.config(&args.nats_url, role)?;
    let connected = Base::connect(&config, shutdown).await?;
    readiness.set(BUS, true);
    Ok(Base {
        metrics,
        readiness,
        ..connected
    })
}

fn announce(role: &str, address: Option<SocketAddr>) {
    match address {
        Some(address) => println!("sightline {role} is up on {address}"),
        None => println!("sightline {role} is up"),
    }
}

/// The data directory that roles on one machine share, with its key.
fn shared_dir(data: &DataArgs) -> Result<(PathBuf, SealKey)> {
    let dir = files::data_dir(data)?;
    files::make_private(&dir)?;
    let seal = SealKey::load_or_create(&dir.join("seal.key"))?;
    Ok((dir, seal))
}

fn policy(args: EgressArgs) -> Policy {
    Policy {
        allow: args.allow_egress,
    }
}

fn done(result: Result<()>) -> Result<ExitCode> {
    result.map(|()| ExitCode::SUCCESS)
}
