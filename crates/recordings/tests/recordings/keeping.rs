//! What is found of a recording, and what is kept of it.

use anyhow::{Result, ensure};
use bytes::Bytes;
use sightline_recordings::{Kept, Library, Retention, Segment, Store, enforce};

use crate::{BEGIN_US, EXPORT, HOUR_US, OTHER_STREAM, SECOND_US, STREAM, on_each, put, segment};

/// Three hours: one that is reached into from before, one with two segments of one start, and one with a gap.
fn recorded() -> Vec<Segment> {
    vec![
        segment(0, 4, 10),
        segment(3599, 100, 20),
        segment(3700, 4, 30),
        segment(3700, 6, 40),
        segment(7300, 4, 50),
        segment(7400, 4, 60),
    ]
}

/// An index for every hour that is over by then.
async fn seal(store: &Store, hours: i64) -> Result<Kept> {
    let library = Library::new(store.clone());
    let up_to_us = BEGIN_US + hours * HOUR_US;
    Ok(enforce(&library, STREAM, Retention::default(), up_to_us, up_to_us).await?)
}

#[tokio::test]
async fn ranges_are_found_with_and_without_indexes() -> Result<()> {
    on_each(async |store| {
        let library = Library::new(store.clone());
        ensure!(library.segments(STREAM, 0, i64::MAX).await?.is_empty());
        ensure!(library.extent(STREAM).await?.is_none());
        ensure!(library.segments("rts-1", 0, 1).await.is_err());
        let mut all = recorded();
        put(&store, &all).await?;
        all.remove(2);
        for sealed_hours in [0, 2, 3, 4] {
            let kept = seal(&store, sealed_hours).await?;
            ensure!(kept.bytes == 210, "{kept:?}");
            let library = Library::new(store.clone());
            let ranges = [
                (0, i64::MAX, 0..5),
                (i64::MIN, i64::MAX, 0..5),
                (0, 7300, 0..3),
                (4, 3599, 0..0),
                (3, 3599, 0..1),
                // In the second hour, of a segment of the first.
                (3650, 3660, 1..2),
                (3698, 3701, 1..3),
                (7304, 7400, 0..0),
                (7303, 7401, 3..5),
                (8000, i64::MAX, 0..0),
            ];
            for (from, to, found) in ranges {
                let us = |second: i64| second.saturating_mul(SECOND_US).saturating_add(BEGIN_US);
                let segments = library.segments(STREAM, us(from), us(to)).await?;
                ensure!(
                    segments == all[found],
                    "{from} to {to}, {sealed_hours} h sealed: {segments:?}"
                );
            }
            let extent = library.extent(STREAM).await?;
            ensure!(
                extent == Some((BEGIN_US, BEGIN_US + 7404 * SECOND_US)),
                "{extent:?}"
            );
            ensure!(
                library
                    .segments(OTHER_STREAM, 0, i64::MAX)
                    .await?
                    .is_empty()
            );
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_oldest_goes_first() -> Result<()> {
    let end_us = BEGIN_US + 7404 * SECOND_US;
    let age = |seconds: i64| Retention {
        max_age_us: seconds * SECOND_US,
        max_bytes: 0,
    };
    let size = |max_bytes| Retention {
        max_age_us: 0,
        max_bytes,
    };
    let both = Retention {
        max_age_us: 7404 * SECOND_US,
        max_bytes: 110,
    };
    // Which of the six are left.
    let cases = [
        (Retention::default(), 0),
        (age(7401), 0),
        (age(7400), 1),
        (age(3706), 1),
        (age(3705), 2),
        (age(3700), 2),
        (age(3698), 4),
        (age(1), 5),
        (age(-1), 6),
        (size(210), 0),
        (size(209), 1),
        (size(110), 4),
        (size(1), 6),
        (both, 4),
    ];
    on_each(async |store| {
        for sealed_hours in [0, 4] {
            for (retention, removed) in cases {
                let case = format!("{retention:?} with {sealed_hours} h sealed");
                put(&store, &recorded()).await?;
                seal(&store, sealed_hours).await?;
                let library = Library::new(store.clone());
                let by_start = by_start();
                let left = &by_start[removed..];
                let kept = enforce(&library, STREAM, retention, BEGIN_US, end_us).await?;
                let expected = Kept {
                    removed: removed as u64,
                    removed_bytes: by_start[..removed].iter().map(|s| s.bytes).sum(),
                    bytes: left.iter().map(|s| s.bytes).sum(),
                };
                ensure!(kept == expected, "{case}: {kept:?}");
                let again = enforce(&library, STREAM, retention, BEGIN_US, end_us).await?;
                ensure!(
                    again.removed == 0 && again.bytes == kept.bytes,
                    "{case}: {again:?}"
                );
                let found = library.segments(STREAM, 0, i64::MAX).await?;
                let mut left = left.to_vec();
                left.dedup_by_key(|s| s.start_us);
                ensure!(found == left, "{case}: {found:?}");
            }
        }
        Ok(())
    })
    .await
}

/// In the order in which they are removed: of one start, the longer first.
fn by_start() -> Vec<Segment> {
    let mut all = recorded();
    all.swap(2, 3);
    all
}

#[tokio::test]
async fn a_late_segment_is_found_in_an_hour_with_an_index() -> Result<()> {
    on_each(async |store| {
        put(&store, &recorded()).await?;
        seal(&store, 4).await?;
        let late = segment(100, 4, 5);
        put(&store, &[late]).await?;
        for _ in 0..2 {
            let library = Library::new(store.clone());
            let found = library.segments(STREAM, 0, i64::MAX).await?;
            ensure!(found.len() == 6 && found[1] == late, "{found:?}");
            ensure!(seal(&store, 4).await?.bytes == 215);
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn hours_without_segments_leave_no_folder() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(&format!("file://{}", dir.path().display()), [])?;
    put(&store, &recorded()).await?;
    seal(&store, 4).await?;
    let library = Library::new(store.clone());
    let only_last = Retention {
        max_age_us: 0,
        max_bytes: 60,
    };
    enforce(&library, STREAM, only_last, BEGIN_US, BEGIN_US).await?;
    let hours = dir.path().join("recordings").join(STREAM).read_dir()?;
    let hours: Vec<_> = hours
        .map(|hour| Ok(hour?.file_name()))
        .collect::<Result<_>>()?;
    ensure!(hours == ["2025-11-24T18"], "{hours:?}");
    Ok(())
}

#[tokio::test]
async fn a_removed_stream_leaves_nothing_and_others_everything() -> Result<()> {
    on_each(async |store| {
        ensure!(store.streams().await?.is_empty());
        put(&store, &recorded()).await?;
        seal(&store, 2).await?;
        let other = segment(0, 4, 10);
        store
            .put_segment(OTHER_STREAM, other, Bytes::from_static(b"0123456789"))
            .await?;
        ensure!(store.streams().await? == [STREAM, OTHER_STREAM]);
        // Again is harmless.
        for _ in 0..2 {
            store.remove_stream(STREAM).await?;
            ensure!(store.streams().await? == [OTHER_STREAM]);
        }
        let library = Library::new(store.clone());
        ensure!(library.segments(STREAM, 0, i64::MAX).await?.is_empty());
        ensure!(library.segments(OTHER_STREAM, 0, i64::MAX).await? == [other]);
        for none in ["", ".", "..", "rts-", "recordings", EXPORT] {
            ensure!(store.remove_stream(none).await.is_err(), "{none:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_a_killed_writer_left_of_a_removed_stream_goes_too() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(&format!("file://{}", dir.path().display()), [])?;
    put(&store, &recorded()).await?;
    let stream = dir.path().join("recordings").join(STREAM);
    std::fs::write(stream.join("2025-11-24T16").join("1-1.ts#7"), "half")?;
    store.remove_stream(STREAM).await?;
    ensure!(!stream.exists());
    Ok(())
}

#[tokio::test]
async fn damaged_indexes_are_not_believed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(&format!("file://{}", dir.path().display()), [])?;
    put(&store, &recorded()).await?;
    seal(&store, 4).await?;
    let hour = dir
        .path()
        .join("recordings")
        .join(STREAM)
        .join("2025-11-24T17");
    let good = std::fs::read(hour.join("index"))?;
    let other_hour = std::fs::read(hour.with_file_name("2025-11-24T16").join("index"))?;
    let damages = [
        vec![0xff; 3],
        good[..good.len() - 1].to_vec(),
        [&good[..], &other_hour[..]].concat(),
        vec![0; 5_000_000],
    ];
    for damage in damages {
        std::fs::write(hour.join("index"), &damage)?;
        let found = Library::new(store.clone())
            .segments(STREAM, 0, i64::MAX)
            .await?;
        ensure!(found.len() == 5, "{found:?}");
        seal(&store, 4).await?;
        ensure!(std::fs::read(hour.join("index"))? == good);
    }
    Ok(())
}
