//! Leases: one holder a stream, and another when that one is gone.

use std::time::Duration;

use anyhow::{Context, Result};
use sightline_bus::{Lease, LeaseConfig, Leases, Subject};
use tokio::time::timeout;

use crate::harness::{LONG, Platform};

/// Longer than a busy machine lets a holder wait that extends its lease often.
const ACK_WAIT: Duration = Duration::from_secs(3);

async fn leases(platform: &Platform, ack_wait: Duration) -> Result<Leases> {
    Ok(platform.bus.leases(LeaseConfig { ack_wait }).await?)
}

async fn next(leases: &mut Leases) -> Result<Lease> {
    let lease = timeout(LONG, leases.next()).await;
    Ok(lease.context("no lease came")??)
}

fn run(rtstream: &str) -> Subject {
    Subject::Run {
        rtstream: rtstream.to_owned(),
    }
}

#[tokio::test]
async fn asking_again_for_a_run_changes_nothing() -> Result<()> {
    let platform = Platform::start().await?;
    for rtstream in ["rts-1", "rts-1", "rts-2", "rts-1"] {
        platform.bus.request_run(rtstream).await?;
    }
    // Nobody extends them.
    let mut leases = leases(&platform, LONG).await?;
    let first = next(&mut leases).await?;
    let second = next(&mut leases).await?;
    let held = [first.rtstream_id(), second.rtstream_id()];
    assert_eq!(held, ["rts-1", "rts-2"]);
    // Nor does it while somebody runs it.
    platform.bus.request_run("rts-1").await?;
    for rtstream in ["rts-1", "rts-2"] {
        assert_eq!(platform.bus.outstanding(&run(rtstream)).await?, 1);
    }
    first.release().await?;
    platform.outstanding(&run("rts-1"), 0).await?;
    platform.bus.request_run("rts-1").await?;
    assert_eq!(next(&mut leases).await?.rtstream_id(), "rts-1");
    Ok(())
}

#[tokio::test]
async fn a_lease_that_is_handed_over_goes_on_at_once() -> Result<()> {
    let platform = Platform::start().await?;
    platform.bus.request_run("rts-1").await?;
    let (mut first, mut second) = (
        leases(&platform, LONG).await?,
        leases(&platform, LONG).await?,
    );
    let lease = next(&mut first).await?;
    lease.hand_over().await?;
    assert_eq!(next(&mut second).await?.rtstream_id(), "rts-1");
    Ok(())
}

#[tokio::test]
async fn a_lease_stays_while_it_is_extended_and_goes_on_after_silence() -> Result<()> {
    let platform = Platform::start().await?;
    platform.bus.request_run("rts-1").await?;
    let (mut first, mut second) = (
        leases(&platform, ACK_WAIT).await?,
        leases(&platform, ACK_WAIT).await?,
    );
    let lease = next(&mut first).await?;
    let mut beat = tokio::time::interval(ACK_WAIT / 10);
    let others = second.next();
    tokio::pin!(others);
    for _ in 0..25 {
        tokio::select! {
            _ = &mut others => panic!("somebody else got it"),
            _ = beat.tick() => lease.extend().await?,
        }
    }
    let taken = timeout(LONG, others).await.context("nobody got it")??;
    assert_eq!(taken.rtstream_id(), "rts-1");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_survives_the_server() -> Result<()> {
    let platform = Platform::start().await?;
    platform.bus.request_run("rts-1").await?;
    let mut leases = leases(&platform, ACK_WAIT).await?;
    let lease = next(&mut leases).await?;
    platform.freeze_server()?;
    let error = lease.extend().await;
    assert!(error.is_err(), "nobody confirms");
    platform.kill_server()?;
    // Extended or not in the end: the run is not lost.
    assert_eq!(next(&mut leases).await?.rtstream_id(), "rts-1");
    Ok(())
}
