//! A cluster on one machine: three nats-servers and ten processes of roles. Each of them is killed and comes back while two streams
//! are watched, and nothing that was acknowledged is lost or doubled.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sightline_catalog::Catalog;
use sightline_proto::client::Client;
use sightline_proto::internal::RunRecord;
use sightline_proto::v1::rt_stream::State;
use sightline_testkit::nats::{Cluster, SERVERS};
use sightline_testkit::oracle::Ledger;
use sightline_testkit::platform::{Ground, KEY, start, state};
use sightline_testkit::process::Process;
use sightline_testkit::receiver::Receiver;
use sightline_testkit::until;

use crate::roles::prepared;

/// How soon another worker has a dead one's streams.
const TAKEOVER: Duration = Duration::from_secs(15);
/// Each with how many processes of it.
const ROLES: [(&str, usize); 6] = [
    ("embeddings", 1),
    ("gateway", 2),
    ("alerts", 1),
    ("ingest", 2),
    ("caption", 2),
    ("transcribe", 1),
];
const WINDOWS: u64 = 18;

/// A process of a role, and where it listens.
struct Running {
    process: Process,
    url: Option<String>,
}

struct Platform {
    ground: Ground,
    running: BTreeMap<(&'static str, usize), Running>,
}

impl Platform {
    async fn start(ground: Ground) -> Result<Self> {
        let mut platform = Self {
            ground,
            running: BTreeMap::new(),
        };
        for (role, count) in ROLES {
            for number in 0..count {
                platform.begin(role, number).await?;
            }
        }
        Ok(platform)
    }

    /// Starts a process of a role, where one of it listened before if there was one.
    async fn begin(&mut self, role: &'static str, number: usize) -> Result<()> {
        let url_of = |role, number| {
            let running = self.running.get(&(role, number))?;
            running.url.clone()
        };
        let before = url_of(role, number);
        let listen = before
            .as_deref()
            .map_or("127.0.0.1:0", |url| url.trim_start_matches("http://"));
        let replicas = SERVERS.to_string();
        let mut further = vec!["--nats-replicas", &*replicas];
        if ["embeddings", "gateway"].contains(&role) {
            further.extend(["--listen", listen]);
        }
        let embeddings = url_of("embeddings", 0).unwrap_or_default();
        if role == "gateway" {
            further.extend(["--embeddings-url", &embeddings]);
        }
        // One that does not reach the bus in time ends, and is started again, as supervisors do.
        let (process, url) = until(&format!("{role} to start"), async || {
            Ok(self.ground.role(role, &further).await.ok())
        })
        .await?;
        self.running
            .insert((role, number), Running { process, url });
        Ok(())
    }

    async fn client(&self, gateway: usize) -> Result<Client> {
        let running = self.running.get(&("gateway", gateway));
        let url = running.and_then(|running| running.url.clone());
        Ok(Client::connect(&url.context("it says where it listens")?, KEY).await?)
    }

    async fn kill(&mut self, role: &'static str, number: usize) -> Result<()> {
        let running = self.running.get_mut(&(role, number));
        running.context("it runs")?.process.kill().await
    }

    /// The number of the ingest process that holds a stream.
    fn holder(&self, catalog: &Catalog, stream: &str) -> Option<usize> {
        let holder = catalog.get::<RunRecord>(stream)?.value.holder.clone();
        (0..2).find(|number| {
            let running = self.running.get(&("ingest", *number));
            let pid = running.and_then(|running| running.process.pid());
            pid.is_some_and(|pid| holder.ends_with(&format!("-{}", pid.as_raw_nonzero())))
        })
    }
}

/// Waits until more windows are described than were.
async fn goes_on(platform: &Platform, streams: &[(String, String)], what: &str) -> Result<()> {
    let described = async || {
        let mut windows = 0;
        for (stream, index) in streams {
            let ledger = Ledger::read(&platform.ground.bus, stream).await?;
            windows += ledger.windows(index).len();
        }
        anyhow::Ok(windows)
    };
    let all = streams.len() * WINDOWS as usize;
    let before = until("what is described", async || Ok(described().await.ok())).await?;
    until(&format!("more to be described after {what}"), async || {
        let now = described().await.unwrap_or_default();
        Ok((now > before || now == all).then_some(()))
    })
    .await
}

#[tokio::test]
async fn every_part_of_a_cluster_may_die() -> Result<()> {
    let mut cluster = Cluster::start()?;
    let ground = Ground::over(env!("CARGO_BIN_EXE_sightline"), &cluster).await?;
    let receiver = Receiver::start().await?;
    let catalog = Catalog::open(&ground.bus).await?;
    let mut platform = Platform::start(ground).await?;
    let mut client = platform.client(0).await?;
    let streams = [
        prepared(&mut client, &receiver).await?,
        prepared(&mut client, &receiver).await?,
    ];
    for (stream, _) in &streams {
        start(&mut client, stream).await?;
    }
    goes_on(&platform, &streams, "the start").await?;

    // A worker dies and does not come back: the other one has its streams soon.
    let dead = platform.holder(&catalog, &streams[0].0).context("held")?;
    platform.kill("ingest", dead).await?;
    let killed = Instant::now();
    for (stream, _) in &streams {
        until("the other worker to hold it", async || {
            let holder = platform.holder(&catalog, stream);
            Ok(holder.filter(|holder| *holder != dead))
        })
        .await?;
    }
    ensure!(killed.elapsed() < TAKEOVER, "{:?}", killed.elapsed());
    platform.begin("ingest", dead).await?;
    goes_on(&platform, &streams, "ingest").await?;

    for (role, number) in [
        ("caption", 0),
        ("caption", 1),
        ("transcribe", 0),
        ("embeddings", 0),
        ("alerts", 0),
        ("gateway", 0),
        ("gateway", 1),
    ] {
        platform.kill(role, number).await?;
        platform.begin(role, number).await?;
        goes_on(&platform, &streams, role).await?;
    }
    for number in 0..SERVERS {
        cluster.kill(number)?;
        goes_on(&platform, &streams, "a nats-server was killed").await?;
        cluster.restart(number).await?;
    }

    // Either gateway tells how it ended.
    for gateway in 0..2 {
        let mut client = platform.client(gateway).await?;
        for (stream, index) in &streams {
            state(&mut client, stream, State::Ended).await?;
            platform.ground.drained().await?;
            let ledger = Ledger::read(&platform.ground.bus, stream).await?;
            assert_eq!(ledger.windows(index), (0..WINDOWS).collect::<Vec<_>>());
            ledger.compare(&mut client, stream, &[index]).await?;
        }
    }
    let mut fired = BTreeSet::new();
    for (stream, _) in &streams {
        fired.extend(Ledger::read(&platform.ground.bus, stream).await?.firings());
    }
    ensure!(!fired.is_empty());
    let told = receiver.webhooks(fired.len()).await?.into_iter();
    let told: BTreeSet<String> = told.map(|webhook| webhook.id).collect();
    assert_eq!(told, fired);
    for ((role, _), running) in &mut platform.running {
        let process = &mut running.process;
        ensure!(
            process.terminate().await?.success(),
            "{role}: {:#?}",
            process.log()
        );
    }
    Ok(())
}
