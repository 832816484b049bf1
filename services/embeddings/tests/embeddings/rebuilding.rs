//! What comes twice is stored once, what was published while the service was away is stored when it is back, and a deleted
//! store fills again from the bus.

use std::time::Duration;

use anyhow::{Context, Result};
use sightline_bus::StreamName;
use sightline_vectors::{EdgeStores, VectorError};
use tokio::time::{sleep, timeout};

use crate::support::{LONG, Platform, all, assert_records, scene, transcript};

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_again_is_stored_once() -> Result<()> {
    let platform = Platform::start().await?;
    let service = platform.serve().await?;
    let observation = scene("rts-1", "idx-1", 0, "a white car");
    // The bus takes these for different messages.
    for round in 0..5 {
        platform
            .publish_as(&format!("round {round}"), &observation)
            .await?;
        service.holds(all(), 1).await?;
    }
    let last = transcript("rts-1", 100, "over");
    platform.publish(std::slice::from_ref(&last)).await?;
    let records = service.holds(all(), 2).await?;
    assert_records(&records, &[observation.clone(), last.clone()])?;
    service.stop().await?;

    let away = scene("rts-1", "idx-1", 1, "published while nobody listened");
    platform.publish_as("again", &observation).await?;
    platform.publish(std::slice::from_ref(&away)).await?;
    let service = platform.serve().await?;
    let records = service.holds(all(), 3).await?;
    assert_records(&records, &[observation, away, last])?;
    service.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_store_fills_again_from_the_bus() -> Result<()> {
    let platform = Platform::start().await?;
    let service = platform.serve().await?;
    let mut observations: Vec<_> = (0..150)
        .map(|window| scene("rts-1", "idx-1", window, &format!("scene {window}")))
        .collect();
    observations.extend((0..50).map(|second| transcript("rts-2", second * 3, "so it was said")));
    platform.publish(&observations).await?;
    let before = service.holds(all(), 200).await?;
    assert_records(&before, &observations)?;
    let found_before = service.search("scene 42", all()).await?;

    // While it is open, nobody else can have or delete it.
    let second = EdgeStores::lock(&platform.store_dir());
    assert!(matches!(second, Err(VectorError::Locked { .. })));
    let deleted = EdgeStores::delete(&platform.store_dir());
    assert!(matches!(deleted, Err(VectorError::Locked { .. })));

    service.stop().await?;
    EdgeStores::delete(&platform.store_dir())?;
    let service = platform.serve().await?;
    assert_eq!(service.holds(all(), 200).await?, before);
    assert_eq!(service.search("scene 42", all()).await?, found_before);
    service.stop().await?;

    // The whole folder as well.
    std::fs::remove_dir_all(platform.store_dir())?;
    let service = platform.serve().await?;
    assert_eq!(service.holds(all(), 200).await?, before);

    // The deleted stores' consumers are gone: what comes now waits for nobody once it is stored.
    let late = scene("rts-1", "idx-1", 200, "late");
    platform.publish(std::slice::from_ref(&late)).await?;
    service.holds(all(), 201).await?;
    let settled = async {
        while platform.bus.backlog(StreamName::Observations).await? > 0 {
            sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    timeout(LONG, settled)
        .await
        .context("a consumer of a deleted store is left")??;
    service.stop().await
}
