//! What holds when a worker is killed at any point, when two meet, and when the store does not answer.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::FutureExt;
use sightline_proto::internal::PlayerPage;
use tempfile::TempDir;

use crate::faulty::{Fault, faulty};
use crate::names::HOUR_US;
use crate::{Library, Retention, Segment, Store, StoreError, enforce};

const STREAM: &str = "rts-01900000-0000-7000-8000-000000000001";
const SLUG: &str = "some-page";
const EXPORT: &str = "exp-01900000-0000-7000-8000-000000000002";
/// Where the recording begins: on an hour.
const BEGIN_US: i64 = 490_000 * HOUR_US;
/// More than two hours after the last segment.
const END_US: i64 = BEGIN_US + 6 * HOUR_US;

/// In each of three hours two segments of 10 bytes and 4 s.
fn recorded() -> Vec<Segment> {
    let at = |hour: i64, second: i64| Segment {
        start_us: BEGIN_US + hour * HOUR_US + second * 1_000_000,
        duration_us: 4_000_000,
        bytes: 10,
    };
    (0..3).flat_map(|hour| [at(hour, 0), at(hour, 4)]).collect()
}

fn late() -> Segment {
    Segment {
        start_us: BEGIN_US + 8_000_000,
        duration_us: 4_000_000,
        bytes: 10,
    }
}

async fn local() -> Result<(Store, TempDir)> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(&format!("file://{}", dir.path().display()), [])?;
    for segment in recorded() {
        put(&store, segment).await?;
    }
    Ok((store, dir))
}

async fn put(store: &Store, segment: Segment) -> Result<(), StoreError> {
    let bytes = Bytes::from(vec![7; segment.bytes as usize]);
    store.put_segment(STREAM, segment, bytes).await
}

async fn round(store: &Store, retention: Retention) -> Result<crate::Kept, StoreError> {
    enforce(
        &Library::new(store.clone()),
        STREAM,
        retention,
        END_US,
        END_US,
    )
    .await
}

/// What a reader without anything cached finds.
async fn found(store: &Store) -> Result<Vec<Segment>, StoreError> {
    let library = Library::new(store.clone());
    library.segments(STREAM, 0, i64::MAX).await
}

/// What is there, by the names of files.
fn on_disk(dir: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    let recording = dir.join("recordings").join(STREAM);
    for hour in recording.read_dir()? {
        for file in hour?.path().read_dir()? {
            names.insert(file?.file_name().to_string_lossy().into_owned());
        }
    }
    names.remove("index");
    Ok(names)
}

/// Whatever call of a round is its last: readers find what is there and nothing else, and a later round ends as an undisturbed one.
#[tokio::test]
async fn a_round_may_be_cut_off_anywhere() -> Result<()> {
    let three = Retention {
        max_age_us: 0,
        max_bytes: 30,
    };
    let kept = recorded()[3..].to_vec();
    for at in 0.. {
        let (store, dir) = local().await?;
        // One hour has an index already when retention comes.
        round(&store, Retention::default()).await?;
        let (cut, fault) = faulty(&store, at, Fault::Cut);
        let ended = round(&cut, three).await;
        let names: BTreeSet<String> = found(&store)
            .await?
            .iter()
            .map(Segment::file_name)
            .collect();
        ensure!(names == on_disk(dir.path())?, "cut off at {at}: {names:?}");
        let left = round(&store, three).await?;
        ensure!(left.bytes == 30, "cut off at {at}: {left:?}");
        ensure!(found(&store).await? == kept, "cut off at {at}");
        if !fault.happened() {
            ended?;
            ensure!(at > 10, "it was never cut off in the middle");
            return Ok(());
        }
        ended.err().context("it was cut off")?;
    }
    Ok(())
}

/// A segment of an hour that is over comes while its index is being written, or the index is written while it comes.
#[tokio::test]
async fn a_late_segment_is_found_whenever_it_comes() -> Result<()> {
    for at in 0.. {
        let (store, _dir) = local().await?;
        let other = store.clone();
        let putting = async move { put(&other, late()).await.expect("it is put") };
        let meanwhile = Fault::Meanwhile(Mutex::new(Some(putting.boxed())));
        let (sealing, first) = faulty(&store, at, meanwhile);
        round(&sealing, Retention::default()).await?;
        if first.happened() {
            ensure!(
                found(&store).await?.contains(&late()),
                "put before call {at} of a round"
            );
        }

        let (store, _dir) = local().await?;
        let other = store.clone();
        let sealing = async move {
            round(&other, Retention::default()).await.expect("it seals");
        };
        let meanwhile = Fault::Meanwhile(Mutex::new(Some(sealing.boxed())));
        let (putting, second) = faulty(&store, at, meanwhile);
        put(&putting, late()).await?;
        ensure!(
            found(&store).await?.contains(&late()),
            "sealed before call {at} of putting"
        );
        if !first.happened() && !second.happened() {
            ensure!(at > 3, "they never met");
            return Ok(());
        }
    }
    Ok(())
}

/// A writer killed between the segment and the removal of the index leaves a segment out of the index.
#[tokio::test]
async fn a_later_round_finds_what_an_index_leaves_out() -> Result<()> {
    let (store, _dir) = local().await?;
    round(&store, Retention::default()).await?;
    let (cut, fault) = faulty(&store, 1, Fault::Cut);
    put(&cut, late()).await.err().context("it was cut off")?;
    ensure!(fault.happened() && found(&store).await?.len() == 6);
    let library = Library::new(store.clone());
    for chance in 0..3 {
        enforce(
            &library,
            STREAM,
            Retention::default(),
            END_US,
            END_US + chance,
        )
        .await?;
    }
    ensure!(found(&store).await?.len() == 7);
    Ok(())
}

#[tokio::test]
async fn files_of_killed_writers_go_after_an_hour() -> Result<()> {
    let (store, dir) = local().await?;
    let hour = dir
        .path()
        .join("recordings")
        .join(STREAM)
        .join("2025-11-24T16");
    ensure!(hour.is_dir());
    let staged = hour.join(format!("{}#1", late().file_name()));
    let export = dir.path().join("exports").join(format!("{EXPORT}.mp4#2"));
    std::fs::create_dir_all(dir.path().join("exports"))?;
    std::fs::write(&staged, "half")?;
    std::fs::write(&export, "half")?;
    let written = std::fs::metadata(&staged)?.modified()?;
    let written_us = written.duration_since(std::time::UNIX_EPOCH)?.as_micros() as i64;
    for (minutes, there) in [(59, true), (61, false)] {
        let library = Library::new(store.clone());
        let now_us = written_us + minutes * 60_000_000;
        enforce(&library, STREAM, Retention::default(), 0, now_us).await?;
        ensure!(found(&store).await?.len() == 6);
        ensure!(
            (staged.exists(), export.exists()) == (there, there),
            "after {minutes} min"
        );
    }
    Ok(())
}

/// Nobody waits for a store that does not answer.
#[tokio::test(start_paused = true)]
async fn every_call_has_a_deadline() -> Result<()> {
    let (store, dir) = local().await?;
    let (hanging, _) = faulty(&store, 0, Fault::Hang);
    let library = Library::new(hanging.clone());
    let page = PlayerPage::default();
    let file = dir.path().join("file");
    std::fs::write(&file, "small")?;
    let calls = [
        put(&hanging, late()).await,
        hanging.segment(STREAM, late()).await.map(drop),
        hanging.create_page(SLUG, &page).await,
        hanging.page(SLUG).await.map(drop),
        hanging.pages().await.map(drop),
        hanging.put_export(EXPORT, &file).await.map(drop),
        hanging.export(EXPORT, None).await.map(drop),
        hanging.export(EXPORT, Some(0..1)).await.map(drop),
        library.segments(STREAM, 0, i64::MAX).await.map(drop),
        library.extent(STREAM).await.map(drop),
        enforce(&library, STREAM, Retention::default(), 0, 0)
            .await
            .map(drop),
    ];
    for (call, ended) in calls.into_iter().enumerate() {
        ensure!(
            matches!(ended, Err(StoreError::Deadline { .. })),
            "call {call}: {ended:?}"
        );
    }
    Ok(())
}
