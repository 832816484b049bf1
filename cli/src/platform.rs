//! The all-in-one: a nats-server of its own (or a named one) and every role in this process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Error, Result, anyhow};
use ipnet::IpNet;
use sightline_alerts::Sink;
use sightline_bus::BusConfig;
use sightline_bus::embedded::EmbeddedServer;
use sightline_catalog::seal::SealKey;
use sightline_egress::Policy;
use sightline_gateway::Tls;
use sightline_service::admin::Readiness;
use sightline_service::{Shutdown, admin, telemetry};
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};

use crate::args::{LinkArgs, RecordingArgs};
use crate::models::Models;
use crate::nats::NatsArgs;
use crate::recordings;
use crate::roles::{self, Base, GatewayOptions, IngestOptions};
use crate::vectors::VectorArgs;

/// What the all-in-one is told.
pub struct Options {
    /// Where the public API listens.
    pub listen: SocketAddr,
    /// Where metrics and probes listen.
    pub admin_listen: SocketAddr,
    /// A running nats-server; `None` starts one.
    pub nats_url: Option<String>,
    /// Who asks it.
    pub nats: NatsArgs,
    /// The program to start then.
    pub nats_server: PathBuf,
    /// The one directory of file sources.
    pub media_root: Option<PathBuf>,
    /// What is not public, and where sources may be nevertheless.
    pub reach: Vec<IpNet>,
    /// Where webhooks may go.
    pub egress: Policy,
    /// Receivers of alerts beside webhooks.
    pub sinks: Vec<Sink>,
    /// The key that clients send.
    pub api_key: String,
    /// What encrypts connections to the public API.
    pub tls: Option<Tls>,
    /// Whether keys are taken over plain connections from other machines.
    pub allow_plain_keys: bool,
    /// Where the models are.
    pub models: Models,
    /// Where recordings are kept.
    pub recordings: RecordingArgs,
    /// How links to them are made.
    pub links: LinkArgs,
}

/// A running all-in-one.
pub struct Platform {
    /// Where the public API listens.
    pub address: SocketAddr,
    /// Where metrics and probes listen.
    pub admin_address: SocketAddr,
    /// Whether the public API speaks TLS.
    encrypted: bool,
    /// What the roles stand on.
    pub base: Base,
    roles: JoinSet<(&'static str, Result<()>)>,
    // Stopped last: what the roles finish at the end goes through it.
    _nats: Option<EmbeddedServer>,
}

impl Platform {
    /// Binds the ports, starts the bus and every role. `data` is this process's own.
    ///
    /// # Errors
    /// When a port is taken, or the bus can't be started.
    pub async fn start(options: Options, data: &Path, shutdown: Shutdown) -> Result<Self> {
        let listener = bind(options.listen, "--listen").await?;
        let admin_listener = bind(options.admin_listen, "--admin-listen").await?;
        let records = bind(SocketAddr::from(([127, 0, 0, 1], 0)), "loopback").await?;
        let address = listener.local_addr()?;
        let (nats, bus) = start_bus(&options, data).await?;
        let mut base = Base::connect(&bus, shutdown).await?;
        base.readiness = lacking();
        telemetry::export(&base.metrics, Arc::clone(&base.clock));
        let seal = SealKey::load_or_create(&data.join("seal.key"))?;
        let library = recordings::library(&options.recordings, data)?;
        let retention = recordings::retention(&options.recordings);
        let encrypted = options.tls.is_some();
        let links = recordings::links(&options.links, address, encrypted, &seal);
        let gateway = GatewayOptions {
            library: library.clone(),
            retention,
            links: links.clone(),
            api_key: options.api_key,
            tls: options.tls,
            allow_plain_keys: options.allow_plain_keys,
            models: options.models.describing(),
            multilingual: options.models.transcribe.multilingual(),
            media_root: options.media_root.clone(),
            egress: options.egress.clone(),
            sinks: options.sinks.iter().map(|s| s.name().to_owned()).collect(),
            embeddings_url: format!("http://{}", records.local_addr()?),
            seal: seal.clone(),
            listener,
        };
        let admin_address = admin_listener.local_addr()?;
        let key = seal.clone();
        let ingest = IngestOptions {
            capacity: roles::STREAMS,
            media_root: options.media_root,
            reach: options.reach,
            seal,
            library,
            retention,
            scratch: data.join("scratch"),
        };
        let vectors = data.join("vectors");
        let models = options.models;
        let mut roles = JoinSet::new();
        let serving = admin::serve(
            admin_listener,
            base.metrics.clone(),
            base.readiness.clone(),
            base.shutdown.clone(),
        );
        roles.spawn(async move { ("metrics and probes", serving.await.map_err(Error::from)) });
        let b = base.clone();
        roles.spawn(async move { ("gateway", roles::gateway(b, gateway).await) });
        let (b, m) = (base.clone(), models.clone());
        roles.spawn(async move {
            (
                "embeddings",
                roles::embeddings(b, &m, &VectorArgs::default(), &vectors, records).await,
            )
        });
        let (b, egress, sinks) = (base.clone(), options.egress, options.sinks);
        roles.spawn(async move {
            let serving = roles::alerts(b, egress, links, key, sinks);
            ("alerts", serving.await)
        });
        let b = base.clone();
        roles.spawn(async move { ("ingest", roles::ingest(b, ingest).await) });
        let (b, m) = (base.clone(), models.clone());
        roles.spawn(async move { ("caption", roles::caption(b, &m, roles::cores() / 2).await) });
        let b = base.clone();
        roles.spawn(async move { ("transcribe", roles::transcribe(b, &models).await) });
        Ok(Self {
            address,
            admin_address,
            encrypted,
            base,
            roles,
            _nats: nats,
        })
    }

    /// The public API's URL on this machine.
    pub fn url(&self) -> String {
        let scheme = recordings::scheme(self.encrypted);
        format!("{scheme}://{}", self.address)
    }

    /// Waits until every role has ended; the first that fails ends the others.
    ///
    /// # Errors
    /// When a role failed, or ended without being told to.
    pub async fn run(&mut self) -> Result<()> {
        let mut result = Ok(());
        while let Some(ended) = self.roles.join_next().await {
            let ended = judge(ended, self.base.shutdown.is_cancelled());
            self.base.shutdown.cancel();
            result = result.and(ended);
        }
        result
    }
}

/// What all roles together need before they take work.
fn lacking() -> Readiness {
    let parts = [
        &sightline_gateway::PARTS[..],
        &sightline_embeddings::PARTS,
        &sightline_ingest::PARTS,
        &sightline_caption::PARTS,
        &sightline_transcribe::PARTS,
    ];
    Readiness::lacking(parts.concat().iter())
}

fn judge(ended: Result<(&'static str, Result<()>), JoinError>, stopping: bool) -> Result<()> {
    let (role, result) = ended.map_err(|error| anyhow!("a role panicked: {error}"))?;
    match result {
        Err(error) => Err(error.context(format!("{role} failed"))),
        Ok(()) if !stopping => Err(anyhow!("{role} ended by itself")),
        Ok(()) => Ok(()),
    }
}

/// Binds an address that the option `named` chose.
///
/// # Errors
/// When it is taken or not this machine's; the error says what to do.
pub async fn bind(address: SocketAddr, named: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address}: stop what uses it, or choose another address with {named}"
        )
    })
}

async fn start_bus(options: &Options, data: &Path) -> Result<(Option<EmbeddedServer>, BusConfig)> {
    if let Some(url) = &options.nats_url {
        return Ok((None, options.nats.config(url, "up")?));
    }
    let (program, dir) = (options.nats_server.clone(), data.join("nats"));
    let starting = tokio::task::spawn_blocking(move || EmbeddedServer::start(&program, &dir));
    let server = starting.await.context("starting nats-server failed")??;
    let config = server.config("up");
    Ok((Some(server), config))
}
