//! The view: complete when the catalog opens, as new as one's own writes, and there again after the server died.

use std::time::Duration;

use anyhow::{Context, Result};
use sightline_catalog::Catalog;
use sightline_proto::internal::{EventRecord, RunRecord};
use tokio::time::timeout;

use crate::records::{Platform, run};

/// Longest wait for anything in these tests.
const LONG: Duration = Duration::from_secs(120);

/// Waits until the view holds this generation.
async fn sees(catalog: &Catalog, id: &str, generation: u64) -> Result<()> {
    let mut changes = catalog.changes();
    let waiting = async {
        loop {
            changes.mark_unchanged();
            let held = catalog.get::<RunRecord>(id);
            if held.is_some_and(|held| held.value.generation == generation) {
                return anyhow::Ok(());
            }
            changes.changed().await?;
        }
    };
    let waited = timeout(LONG, waiting).await;
    waited.with_context(|| format!("generation {generation} of {id}"))?
}

#[tokio::test]
async fn the_view_is_complete_when_the_catalog_opens() -> Result<()> {
    let platform = Platform::start().await?;
    let writer = platform.catalog("writer").await?;
    let writing = (0..500).map(async |number| writer.create(&format!("r{number}"), &run(1)).await);
    futures::future::try_join_all(writing).await?;
    for number in 0..500 {
        let id = format!("r{number}");
        let revision = writer.get::<RunRecord>(&id).context("own")?.revision;
        writer.update(&id, &run(2), revision).await?;
        if number % 100 == 99 {
            let opened = platform.catalog("reader").await?;
            let generations = opened.list::<RunRecord>();
            let new = generations
                .iter()
                .filter(|(_, held)| held.value.generation == 2);
            assert_eq!((generations.len(), new.count()), (500, number + 1));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn own_writes_are_seen_at_once_and_never_taken_back() -> Result<()> {
    let platform = Platform::start().await?;
    let (ours, theirs) = (
        platform.catalog("ours").await?,
        platform.catalog("theirs").await?,
    );
    let mut revision = ours.create("r", &run(0)).await?;
    for generation in 1..=300 {
        revision = ours.update("r", &run(generation), revision).await?;
        let held = ours.get::<RunRecord>("r").context("own")?;
        assert_eq!(
            (held.value.generation, held.revision),
            (generation, revision)
        );
        // The watch brings older revisions meanwhile.
        tokio::task::yield_now().await;
        let held = ours.get::<RunRecord>("r").context("own")?;
        assert_eq!(held.value.generation, generation);
    }
    sees(&theirs, "r", 300).await
}

#[tokio::test]
async fn others_changes_wake() -> Result<()> {
    let platform = Platform::start().await?;
    let (ours, theirs) = (
        platform.catalog("ours").await?,
        platform.catalog("theirs").await?,
    );
    let mut changes = ours.changes();
    changes.mark_unchanged();
    let revision = theirs.create("r", &run(1)).await?;
    timeout(LONG, changes.changed()).await??;
    assert!(*changes.borrow() >= revision);
    sees(&ours, "r", 1).await
}

#[tokio::test]
async fn what_is_deleted_by_hand_or_cannot_be_read_is_left_out() -> Result<()> {
    let platform = Platform::start().await?;
    let ours = platform.catalog("ours").await?;
    ours.create("gone", &run(1)).await?;
    ours.create("broken", &run(1)).await?;
    let bucket = platform.bus.key_value("CATALOG").await?;
    bucket.delete("run.gone").await?;
    bucket.put("run.broken", "\u{1}".into()).await?;
    bucket.put("later.release", "anything".into()).await?;
    ours.create("last", &run(1)).await?;
    for catalog in [&ours, &platform.catalog("new").await?] {
        let mut changes = catalog.changes();
        let left = async {
            while catalog.get::<RunRecord>("broken").is_some() {
                changes.changed().await?;
            }
            anyhow::Ok(())
        };
        timeout(LONG, left).await.context("the view")??;
        sees(catalog, "last", 1).await?;
        let ids: Vec<_> = catalog
            .list::<RunRecord>()
            .into_iter()
            .map(|(id, _)| id)
            .collect();
        assert_eq!(ids, ["last"]);
        assert!(catalog.fetch::<RunRecord>("gone").await?.is_none());
        let broken = catalog.fetch::<RunRecord>("broken").await;
        assert!(broken.is_err_and(|error| error.to_string().contains("run.broken")));
    }
    // Made anew after it was deleted.
    ours.create("gone", &run(2)).await?;
    sees(&ours, "gone", 2).await?;
    assert!(ours.list::<EventRecord>().is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_view_goes_on_after_the_server_died() -> Result<()> {
    let platform = Platform::start().await?;
    let (ours, theirs) = (
        platform.catalog("ours").await?,
        platform.catalog("theirs").await?,
    );
    ours.create("r", &run(1)).await?;
    sees(&theirs, "r", 1).await?;
    for generation in 2..=3 {
        let pid = platform.server.pid().context("it runs")?.cast_signed();
        let pid = rustix::process::Pid::from_raw(pid).context("a process")?;
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)?;
        assert!(theirs.get::<RunRecord>("r").is_some(), "reads go on");
        let writing = async {
            while ours
                .modify::<RunRecord>("r", |run| {
                    std::mem::replace(&mut run.generation, generation) != generation
                })
                .await
                .is_err()
            {}
        };
        timeout(LONG, writing).await.context("writing")?;
        sees(&theirs, "r", generation).await?;
    }
    Ok(())
}
