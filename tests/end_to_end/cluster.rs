//! A cluster on one machine: three nats-servers and ten processes of roles. Each of them is killed and comes back while two streams
//! are watched, and nothing that was acknowledged is lost or doubled.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sightline_catalog::Catalog;
use sightline_proto::v1::rt_stream::State;
use sightline_testkit::nats::{Cluster, SERVERS};
use sightline_testkit::oracle::Ledger;
use sightline_testkit::platform::{Ground, start, state};
use sightline_testkit::receiver::Receiver;
use sightline_testkit::until;

use crate::faults::fleet::Fleet;
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

/// Waits until more windows are described than were.
async fn goes_on(fleet: &Fleet, streams: &[(String, String)], what: &str) -> Result<()> {
    let described = async || {
        let mut windows = 0;
        for (stream, index) in streams {
            let ledger = Ledger::read(&fleet.ground.bus, stream).await?;
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
    let mut fleet = Fleet::new(ground);
    for (role, _) in ROLES {
        fleet.tell(role, &["--nats-replicas", &SERVERS.to_string()]);
    }
    fleet.begin_all(&ROLES).await?;
    let mut client = fleet.client(0).await?;
    let streams = [
        prepared(&mut client, &receiver).await?,
        prepared(&mut client, &receiver).await?,
    ];
    for (stream, _) in &streams {
        start(&mut client, stream).await?;
    }
    goes_on(&fleet, &streams, "the start").await?;

    // A worker dies and does not come back: the other one has its streams soon.
    let dead = fleet.holder(&catalog, &streams[0].0).context("held")?;
    fleet.kill(dead).await?;
    let killed = Instant::now();
    for (stream, _) in &streams {
        until("the other worker to hold it", async || {
            let holder = fleet.holder(&catalog, stream);
            Ok(holder.filter(|holder| *holder != dead))
        })
        .await?;
    }
    ensure!(killed.elapsed() < TAKEOVER, "{:?}", killed.elapsed());
    fleet.begin(dead).await?;
    goes_on(&fleet, &streams, "ingest").await?;

    for (role, number) in [
        ("caption", 0),
        ("caption", 1),
        ("transcribe", 0),
        ("embeddings", 0),
        ("alerts", 0),
        ("gateway", 0),
        ("gateway", 1),
    ] {
        fleet.kill((role, number)).await?;
        fleet.begin((role, number)).await?;
        goes_on(&fleet, &streams, role).await?;
    }
    for number in 0..SERVERS {
        cluster.kill(number)?;
        goes_on(&fleet, &streams, "a nats-server was killed").await?;
        cluster.restart(number).await?;
    }

    // Either gateway tells how it ended.
    for gateway in 0..2 {
        let mut client = fleet.client(gateway).await?;
        for (stream, index) in &streams {
            state(&mut client, stream, State::Ended).await?;
            fleet.ground.drained().await?;
            let ledger = Ledger::read(&fleet.ground.bus, stream).await?;
            assert_eq!(ledger.windows(index), (0..WINDOWS).collect::<Vec<_>>());
            ledger.compare(&mut client, stream, &[index]).await?;
        }
    }
    let mut fired = BTreeSet::new();
    for (stream, _) in &streams {
        fired.extend(Ledger::read(&fleet.ground.bus, stream).await?.firings());
    }
    ensure!(!fired.is_empty());
    let told = receiver.webhooks(fired.len()).await?.into_iter();
    let told: BTreeSet<String> = told.map(|webhook| webhook.id).collect();
    assert_eq!(told, fired);
    for (who, _) in fleet.running() {
        fleet.stop(who).await?;
    }
    Ok(())
}
