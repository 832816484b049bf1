//! A cluster on one machine: three nats-servers and ten processes of roles, each on a host of its own. One after the other is cut off and
//! joined again, killed and started again while two streams are watched, and nothing that was acknowledged is lost or doubled.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sightline_catalog::Catalog;
use sightline_proto::v1::rt_stream::{Playback, State};
use sightline_testkit::hosts::Hosts;
use sightline_testkit::nats::{Cluster, SERVERS};
use sightline_testkit::platform::{Ground, state, stop};
use sightline_testkit::receiver::Receiver;
use sightline_testkit::until;

use crate::faults::fleet::{Fleet, Who};
use crate::faults::kills::{EXPECTED, Witness, accounted, long_clip, more, watched};
use crate::faults::outages::AWAY;

/// How soon another worker has the streams of one that is dead or cut off.
const TAKEOVER: Duration = Duration::from_secs(15);
/// Longer than everything takes.
const CLIP: Duration = Duration::from_secs(1800);
/// Each with how many processes of it.
const ROLES: [(&str, usize); 6] = [
    ("embeddings", 1),
    ("gateway", 2),
    ("alerts", 1),
    ("ingest", 2),
    ("caption", 2),
    ("transcribe", 1),
];
/// Those of which another one goes on meanwhile, or which what is described does not wait for.
const OTHERS: [Who; 7] = [
    ("caption", 0),
    ("caption", 1),
    ("transcribe", 0),
    ("embeddings", 0),
    ("alerts", 0),
    ("gateway", 0),
    ("gateway", 1),
];

/// Streams, each with its index.
type Streams = [(String, String)];

/// Each process on its host, the first hosts being those of the nats-servers.
fn placed(fleet: &mut Fleet, hosts: &Hosts) -> Result<()> {
    let processes = ROLES.iter();
    let processes = processes.flat_map(|&(role, count)| (0..count).map(move |n| (role, n)));
    for (who, host) in processes.zip(SERVERS..) {
        fleet.place(who, hosts.host(host)?);
    }
    Ok(())
}

/// A worker that runs a stream is gone: the other one has them all soon.
async fn taken_over(fleet: &Fleet, catalog: &Catalog, streams: &Streams, gone: Who) -> Result<()> {
    let since = Instant::now();
    for (stream, _) in streams {
        until("the other worker to hold it", async || {
            let holder = fleet.holder(catalog, stream);
            Ok(holder.filter(|holder| *holder != gone))
        })
        .await?;
    }
    ensure!(since.elapsed() < TAKEOVER, "{:?}", since.elapsed());
    more(fleet, streams, 1).await
}

async fn ingest_workers(
    fleet: &mut Fleet,
    hosts: &Hosts,
    catalog: &Catalog,
    streams: &Streams,
) -> Result<()> {
    let holder = |fleet: &Fleet| fleet.holder(catalog, &streams[0].0).context("held");
    let dead = holder(fleet)?;
    fleet.kill(dead).await?;
    taken_over(fleet, catalog, streams, dead).await?;
    fleet.begin(dead).await?;
    let lost = holder(fleet)?;
    let host = hosts.host(SERVERS + place_of(lost)?)?;
    if host.cut()? {
        taken_over(fleet, catalog, streams, lost).await?;
        host.mend()?;
    }
    more(fleet, streams, 1).await
}

/// Which of the hosts behind the nats-servers' is a process's.
fn place_of(who: Who) -> Result<usize> {
    let (role, number) = who;
    let before = ROLES.iter().take_while(|(of, _)| *of != role);
    let before: usize = before.map(|(_, count)| count).sum();
    ensure!(ROLES.iter().any(|(of, _)| *of == role), "no role {role}");
    Ok(before + number)
}

async fn other_roles(fleet: &mut Fleet, hosts: &Hosts, streams: &Streams) -> Result<()> {
    for who in OTHERS {
        let host = hosts.host(SERVERS + place_of(who)?)?;
        if host.cut()? {
            let going = more(fleet, streams, 1).await;
            going.with_context(|| format!("{who:?} is cut off"))?;
            host.mend()?;
        }
        fleet.kill(who).await?;
        fleet.begin(who).await?;
        let going = more(fleet, streams, 1).await;
        going.with_context(|| format!("{who:?} was killed"))?;
    }
    Ok(())
}

async fn nats_servers(
    fleet: &Fleet,
    cluster: &mut Cluster,
    hosts: &Hosts,
    streams: &Streams,
) -> Result<()> {
    for number in 0..SERVERS {
        let host = hosts.host(number)?;
        if host.cut()? {
            let going = more(fleet, streams, 1).await;
            going.with_context(|| format!("nats-server {number} is cut off"))?;
            host.mend()?;
            cluster.caught_up(number).await?;
        }
        cluster.kill(number)?;
        let going = more(fleet, streams, 1).await;
        going.with_context(|| format!("nats-server {number} is dead"))?;
        cluster.restart(number).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_part_of_a_cluster_may_be_cut_off_and_die() -> Result<()> {
    let processes: usize = ROLES.iter().map(|(_, count)| count).sum();
    let hosts = Hosts::start(u8::try_from(SERVERS + processes)?)?;
    let mut cluster = Cluster::start(&hosts)?;
    let ground = Ground::over(env!("CARGO_BIN_EXE_sightline"), &cluster).await?;
    let clip = long_clip(ground.dir(), CLIP).await?;
    let root = ground.dir().display().to_string();
    let receiver = Receiver::start_at(hosts.address).await?;
    let catalog = Catalog::open(&ground.bus).await?;
    let mut fleet = Fleet::new(ground);
    placed(&mut fleet, &hosts)?;
    for (role, _) in ROLES {
        fleet.tell(role, &["--nats-replicas", &SERVERS.to_string()]);
    }
    for role in ["gateway", "ingest"] {
        fleet.tell(role, &["--media-root", &root]);
    }
    for role in ["gateway", "alerts"] {
        fleet.tell(role, &["--allow-egress", &hosts.address.to_string()]);
    }
    // The network between them is the test's own.
    fleet.tell("gateway", &["--allow-plain-keys"]);
    fleet.begin_all(&ROLES).await?;
    let witness = Witness::start(&fleet.ground.bus).await?;
    let mut client = fleet.client(0).await?;
    let url = format!("file://{}", clip.display());
    let mut streams = Vec::new();
    for _ in 0..2 {
        streams.push(watched(&mut client, &url, Playback::RealTime, &receiver).await?);
    }
    more(&fleet, &streams, 1).await?;

    let told = async {
        ingest_workers(&mut fleet, &hosts, &catalog, &streams).await?;
        other_roles(&mut fleet, &hosts, &streams).await?;
        nats_servers(&fleet, &mut cluster, &hosts, &streams).await?;
        // Either gateway tells of them.
        for gateway in 0..2 {
            let mut client = fleet.client(gateway).await?;
            for (stream, _) in &streams {
                state(&mut client, stream, State::Active).await?;
            }
        }
        let mut client = fleet.client(0).await?;
        for (stream, _) in &streams {
            stop(&mut client, stream).await?;
        }
        fleet.ground.worked_off().await?;
        let costly = 2 * (SERVERS + OTHERS.len());
        accounted(&fleet, &receiver, &streams, &witness.seen(), costly).await
    }
    .await;
    let logs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cluster");
    if told.is_err() {
        fleet.write_logs(&logs)?;
    }
    told.with_context(|| format!("logs are in {}", logs.display()))?;
    let expected = [&EXPECTED[..], &AWAY].concat();
    let expected: Vec<&str> = expected.iter().map(|(text, _)| *text).collect();
    fleet.end(&expected).await
}
