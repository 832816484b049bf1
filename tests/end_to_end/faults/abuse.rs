//! Those who cost much and ask for nothing: watchers that sit there, and bodies that are larger than they look.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use rustix::process::Pid;
use sightline_proto::v1::WatchRequest;
use sightline_proto::v1::rt_stream::{Playback, State};
use sightline_testkit::platform::{KEY, clip_url, connect, start, state};
use sightline_testkit::{soon, until};
use tokio::process::Command;

use super::fleet::{Fleet, ONE_EACH};
use crate::ground;

/// Watches of one connection: the gateway lets no more than 1,024 calls be in flight on one.
const A_CONNECTION: usize = 500;
/// What an idle watch may cost the gateway, in bytes.
const A_WATCH: u64 = 32 << 10;
/// What the gateway's memory may do meanwhile for other reasons, in bytes.
const NOISE: u64 = 64 << 20;
/// How large a body gets when it is inflated, in MiB.
const INFLATED: u64 = 100;

fn resident(pid: Option<Pid>) -> Result<u64> {
    let pid = pid.context("it runs")?.as_raw_nonzero();
    let pages = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages = pages.split(' ').nth(1).context("resident pages")?;
    Ok(pages.parse::<u64>()? * 4096)
}

/// So many watch a stream of which there is nothing to tell; then something happens, and each is told.
pub async fn idle_watchers(count: usize) -> Result<()> {
    let mut fleet = Fleet::new(ground().await?);
    fleet.begin_all(&ONE_EACH[..4]).await?;
    let gateway = ("gateway", 0);
    let mut client = fleet.client(0).await?;
    let quiet = connect(&mut client, &clip_url()?, Playback::RealTime).await?;
    let before = resident(fleet.process(gateway)?.pid())?;
    let request = WatchRequest {
        rtstream_ids: vec![quiet.id.clone()],
        ..WatchRequest::default()
    };
    let (mut connections, mut watches) = (Vec::new(), Vec::new());
    while watches.len() < count {
        let connection = fleet.client(0).await?;
        let opening = (0..A_CONNECTION.min(count - watches.len())).map(|_| {
            let (mut calls, request) = (connection.watch.clone(), request.clone());
            async move {
                let mut watch = calls.watch(request).await?.into_inner();
                // That it is ready.
                watch.message().await?.context("it goes on")?;
                anyhow::Ok(watch)
            }
        });
        watches.extend(soon("watches", try_join_all(opening)).await??);
        connections.push(connection);
    }
    let more = resident(fleet.process(gateway)?.pid())?.saturating_sub(before);
    println!(
        "{count} idle watchers: {} kB each",
        more / 1024 / count as u64
    );
    ensure!(more < count as u64 * A_WATCH + NOISE, "{more} bytes more");

    // Others are served.
    let other = connect(&mut client, &clip_url()?, Playback::Fast).await?;
    start(&mut client, &other.id).await?;
    state(&mut client, &other.id, State::Ended).await?;
    start(&mut client, &quiet.id).await?;
    let told = try_join_all(watches.iter_mut().map(|watch| async move {
        let message = watch.message().await?.context("it goes on")?;
        anyhow::Ok(message.message.is_some())
    }));
    let told = soon("everybody to be told", told).await??;
    ensure!(told.into_iter().all(|told| told));
    drop((watches, connections));
    fleet.end(&[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_idle_watchers_cost_little() -> Result<()> {
    idle_watchers(1_000).await
}

async fn shell(script: &str) -> Result<String> {
    let output = Command::new("bash")
        .args(["-ec", script])
        .stderr(Stdio::inherit())
        .output()
        .await?;
    ensure!(output.status.success(), "{script}: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

#[tokio::test]
async fn compressed_bodies_are_refused_and_not_inflated() -> Result<()> {
    let mut fleet = Fleet::new(ground().await?);
    fleet.begin_all(&ONE_EACH[..2]).await?;
    let gateway = ("gateway", 0);
    let url = fleet.url(gateway).context("it listens")?;
    let dir = fleet.ground.dir().display().to_string();
    let (bomb, call) = (format!("{dir}/bomb"), format!("{dir}/call"));
    shell(&format!("head -c {INFLATED}M /dev/zero | gzip -9 >{bomb}")).await?;
    let bytes = std::fs::read(&bomb)?;
    // One message, marked as compressed.
    let head = [&[1][..], &u32::try_from(bytes.len())?.to_be_bytes()].concat();
    std::fs::write(&call, [head, bytes].concat())?;
    let before = resident(fleet.process(gateway)?.pid())?;
    let key = format!("-H 'x-access-token: {KEY}'");
    let answers = [
        (
            format!(
                "-H 'content-type: application/json' -H 'content-encoding: gzip' \
                 --data-binary @{bomb} {url}/rtstream"
            ),
            "HTTP/1.1 4",
        ),
        (
            format!(
                "--http2-prior-knowledge -H 'content-type: application/grpc' -H 'te: trailers' \
                 -H 'grpc-encoding: gzip' --data-binary @{call} \
                 {url}/sightline.v1.RtStreamService/ListRtStreams"
            ),
            // UNIMPLEMENTED, as gRPC says of an encoding that a server does not know.
            "grpc-status: 12",
        ),
    ];
    for (call, expected) in answers {
        // The gateway answers before it has read the body: curl, which is still sending, sometimes loses the answer.
        until(expected, async || {
            let answer = shell(&format!("curl -sS -i -m 60 {key} {call} || true")).await?;
            Ok(answer.contains(expected).then_some(()))
        })
        .await?;
    }
    let more = resident(fleet.process(gateway)?.pid())?.saturating_sub(before);
    ensure!(more < INFLATED << 19, "{more} bytes more");
    fleet.client(0).await?;
    fleet.end(&[]).await
}
