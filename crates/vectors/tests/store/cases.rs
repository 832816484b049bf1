//! The conformance suite: each case gets an empty store.

use anyhow::{Result, bail, ensure};
use sightline_proto::internal::{RecordFilter, RecordKind};
use sightline_vectors::{ListQuery, Point, Position, VectorError, VectorStore, WindowCounts};

use crate::owned;
use crate::support::{EPOCH_US, found, holds, id, listed, number, scene, second, transcript};

/// Every case by its name.
pub const CASES: [&str; 11] = [
    "an empty store answers",
    "filters leave what they say, in both orders",
    "pages cover everything once, in order",
    "searches find the nearest in meaning",
    "a point without text is listed and never found",
    "storing again replaces",
    "windows are counted by index and epoch",
    "batches are filtered by kind, and none is missing",
    "what belongs to an owner is deleted",
    "what is held is told and counted",
    "what can't be stored is refused as a whole",
];

pub async fn run(case: &str, store: &dyn VectorStore) -> Result<()> {
    match case {
        "an empty store answers" => empty(store).await,
        "filters leave what they say, in both orders" => filters(store).await,
        "pages cover everything once, in order" => pages(store).await,
        "searches find the nearest in meaning" => searches(store).await,
        "a point without text is listed and never found" => without_text(store).await,
        "storing again replaces" => replaces(store).await,
        "windows are counted by index and epoch" => windows(store).await,
        "batches are filtered by kind, and none is missing" => owned::batches(store).await,
        "what belongs to an owner is deleted" => owned::deletes(store).await,
        "what is held is told and counted" => held(store).await,
        "what can't be stored is refused as a whole" => refused(store).await,
        _ => bail!("no such case"),
    }
}

async fn empty(store: &dyn VectorStore) -> Result<()> {
    ensure!(!store.identity().is_empty());
    store.upsert(Vec::new()).await?;
    holds(store, &[]).await?;
    ensure!(listed(store, in_index("idx-1"), true).await?.is_empty());
    ensure!(found(store, [1.0, 0.0, 0.0], all(), 0.0).await?.is_empty());
    ensure!(store.count_windows("idx-1").await? == WindowCounts::default());
    Ok(())
}

async fn held(store: &dyn VectorStore) -> Result<()> {
    ensure!(store.count().await? == 0);
    ensure!(store.holds(&[]).await?.is_empty());
    store
        .upsert(vec![scene(1, 0), scene(2, 1), transcript(3, 2)])
        .await?;
    ensure!(store.count().await? == 3);
    let asked = [1, 3, 9].map(id);
    ensure!(store.holds(&asked).await? == [1, 3].map(id).into());
    let refused = store.holds(&["no id".to_owned()]).await;
    ensure!(matches!(refused, Err(VectorError::Invalid(_))));
    Ok(())
}

async fn filters(store: &dyn VectorStore) -> Result<()> {
    let mut points = vec![
        scene(1, 0),
        scene(2, 1),
        scene(3, 2),
        scene(4, 1),
        transcript(5, 3),
        transcript(6, 12),
    ];
    points[3].record.index_id = "idx-2".to_owned();
    points[3].record.rtstream_id = "rts-2".to_owned();
    points[5].record.rtstream_id = "rts-3".to_owned();
    points[5].record.collection_id = "other".to_owned();
    store.upsert(points.clone()).await?;
    holds(store, &points).await?;

    let streams = |ids: &[&str]| RecordFilter {
        rtstream_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        ..all()
    };
    let kind = |kind: RecordKind| RecordFilter {
        kinds: vec![kind.into()],
        ..all()
    };
    let within = |start_us, end_us| RecordFilter {
        start_us,
        end_us,
        ..all()
    };
    let table: Vec<(RecordFilter, &[u128])> = vec![
        (all(), &[1, 5, 2, 4, 3, 6]),
        (streams(&["rts-1"]), &[1, 5, 2, 3]),
        (streams(&["rts-2", "rts-3"]), &[4, 6]),
        (streams(&["rts-9"]), &[]),
        (in_index("idx-1"), &[1, 2, 3]),
        (kind(RecordKind::Scene), &[1, 2, 4, 3]),
        (kind(RecordKind::Transcript), &[5, 6]),
        // Both bounds are open: what ends at the first or starts at the second is not in between.
        (within(second(5), 0), &[2, 4, 3, 6]),
        (within(second(5) - 1, 0), &[1, 2, 4, 3, 6, 5]),
        (within(0, second(5)), &[1, 5]),
        (within(0, second(5) + 1), &[1, 5, 2, 4]),
        (within(second(6), second(11)), &[2, 4, 3]),
        (
            RecordFilter {
                collection_id: "other".to_owned(),
                ..all()
            },
            &[6],
        ),
        (
            RecordFilter {
                rtstream_ids: vec!["rts-1".to_owned()],
                collection_id: "default".to_owned(),
                index_id: "idx-1".to_owned(),
                kinds: vec![RecordKind::Scene.into()],
                start_us: second(6),
                end_us: second(11),
            },
            &[2, 3],
        ),
    ];
    for (filter, expected) in table {
        let mut expected = expected.to_vec();
        // As points come: by start, then by id.
        expected.sort_by_key(|n| {
            let point = &points[*n as usize - 1];
            (point.record.start_us, *n)
        });
        let oldest = listed(store, filter.clone(), false).await?;
        ensure!(oldest == expected, "{filter:?}: {oldest:?}");
        expected.reverse();
        let newest = listed(store, filter.clone(), true).await?;
        ensure!(newest == expected, "newest first, {filter:?}: {newest:?}");
    }
    Ok(())
}

async fn pages(store: &dyn VectorStore) -> Result<()> {
    // Many records with one start, their ids in another order than they are stored.
    let starts: [u64; 24] = [
        3, 3, 3, 3, 3, 3, 3, 1, 1, 0, 2, 7, 7, 7, 7, 7, 5, 6, 4, 4, 4, 9, 9, 8,
    ];
    let points: Vec<Point> = starts
        .iter()
        .enumerate()
        .map(|(n, window)| scene((n as u128 * 7) % 24 + 1, *window))
        .collect();
    for some in points.chunks(5) {
        store.upsert(some.to_vec()).await?;
    }
    let mut expected: Vec<_> = points
        .iter()
        .map(|point| (point.record.start_us, point.record.id.clone()))
        .collect();
    expected.sort();
    for newest_first in [false, true] {
        for limit in [1, 2, 3, 5, 7, 23, 24, 25] {
            for filter in [all(), in_index("idx-1")] {
                let paged = paged(store, filter, newest_first, limit).await?;
                ensure!(paged == expected, "pages of {limit}, {newest_first}");
            }
        }
        expected.reverse();
    }
    // With the end of the filter in the midst of the records with one start, and a position that is no record's.
    let query = ListQuery {
        filter: RecordFilter {
            end_us: second(7 * 5),
            ..all()
        },
        limit: 2,
        newest_first: true,
        after: Some(Position::of(second(5 * 5) + 1, &id(0))?),
    };
    let found = store.list(&query).await?;
    let starts: Vec<_> = found.iter().map(|record| record.start_us).collect();
    ensure!(starts == [second(5 * 5), second(4 * 5)], "{starts:?}");
    // Beyond every record, at both ends of what a position can be.
    for (newest_first, start_us) in [(false, i64::MIN), (true, i64::MAX)] {
        let query = ListQuery {
            limit: 24,
            newest_first,
            after: Some(Position::of(start_us, &id(0))?),
            ..ListQuery::default()
        };
        ensure!(store.list(&query).await?.len() == 24, "{newest_first}");
    }
    Ok(())
}

async fn paged(
    store: &dyn VectorStore,
    filter: RecordFilter,
    newest_first: bool,
    limit: usize,
) -> Result<Vec<(i64, String)>> {
    let mut query = ListQuery {
        filter,
        limit,
        newest_first,
        after: None,
    };
    let mut all = Vec::new();
    loop {
        let page = store.list(&query).await?;
        ensure!(page.len() <= limit);
        let Some(last) = page.last() else {
            return Ok(all);
        };
        query.after = Some(Position::of(last.start_us, &last.id)?);
        all.extend(page.into_iter().map(|record| (record.start_us, record.id)));
        ensure!(all.len() <= 100, "pages never end");
    }
}

async fn searches(store: &dyn VectorStore) -> Result<()> {
    let mut points = vec![scene(1, 0), scene(2, 1), scene(3, 2), scene(4, 3)];
    points[1].vector = Some(vec![0.6, 0.8, 0.0]);
    // Lengths do not matter.
    points[2].vector = Some(vec![0.0, 20.0, 0.0]);
    points[3].vector = Some(vec![-1.0, 0.0, 0.0]);
    points[3].record.rtstream_id = "rts-2".to_owned();
    store.upsert(points).await?;

    let x = [1.0, 0.0, 0.0];
    let hits = found(store, x, all(), 0.0).await?;
    let scores: Vec<_> = hits.iter().map(|(_, score)| *score).collect();
    ensure!(
        hits.len() == 4 && (hits[0].0, hits[1].0) == (1, 2),
        "{hits:?}"
    );
    for (score, expected) in scores.iter().zip([1.0, 0.6, 0.0, 0.0]) {
        ensure!((score - expected).abs() < 1e-3, "{hits:?}");
        ensure!((0.0..=1.0).contains(score), "{hits:?}");
    }
    for (min_score, expected) in [(0.5, vec![1, 2]), (0.7, vec![1]), (0.99, vec![1])] {
        let hits = found(store, x, all(), min_score).await?;
        let numbers: Vec<_> = hits.iter().map(|(n, _)| *n).collect();
        ensure!(numbers == expected, "{min_score}: {hits:?}");
    }
    let later = RecordFilter {
        start_us: second(6),
        rtstream_ids: vec!["rts-1".to_owned()],
        ..all()
    };
    let hits = found(store, [0.0, 1.0, 0.0], later, 0.0).await?;
    let numbers: Vec<_> = hits.iter().map(|(n, _)| *n).collect();
    ensure!(numbers == [3, 2], "{hits:?}");
    for vector in [vec![1.0; 2], vec![1.0, f32::NAN, 0.0]] {
        let query = sightline_vectors::SearchQuery {
            vector,
            limit: 1,
            ..Default::default()
        };
        let refused = store.search(&query).await;
        ensure!(matches!(refused, Err(VectorError::Invalid(_))));
    }
    Ok(())
}

async fn without_text(store: &dyn VectorStore) -> Result<()> {
    let mut points = vec![scene(1, 0), scene(2, 1)];
    points[1].record.text.clear();
    points[1].vector = None;
    store.upsert(points.clone()).await?;
    holds(store, &points).await?;
    let hits = found(store, [1.0, 0.0, 0.0], all(), 0.0).await?;
    ensure!(hits.len() == 1 && hits[0].0 == 1, "{hits:?}");
    // A text that comes, and one that goes.
    let mut swapped = points;
    swapped[0].record.id = id(2);
    swapped[1].record.id = id(1);
    store.upsert(swapped.clone()).await?;
    holds(store, &swapped).await?;
    let hits = found(store, [1.0, 0.0, 0.0], all(), 0.0).await?;
    ensure!(hits.len() == 1 && hits[0].0 == 2, "{hits:?}");
    Ok(())
}

async fn replaces(store: &dyn VectorStore) -> Result<()> {
    let first = vec![scene(1, 0), scene(2, 1)];
    store.upsert(first.clone()).await?;
    store.upsert(first.clone()).await?;
    holds(store, &first).await?;
    // Twice in one call as well.
    store
        .upsert([first.clone(), first.clone()].concat())
        .await?;
    holds(store, &first).await?;

    let mut moved = scene(1, 9);
    moved.record.index_id = "idx-2".to_owned();
    moved.vector = Some(vec![0.0, 0.0, 1.0]);
    store.upsert(vec![moved.clone()]).await?;
    holds(store, &[first[1].clone(), moved]).await?;
    ensure!(listed(store, in_index("idx-1"), false).await? == [2]);
    let hits = found(store, [0.0, 0.0, 1.0], all(), 0.5).await?;
    ensure!(hits.len() == 1 && hits[0].0 == 1, "{hits:?}");
    ensure!(store.count_windows("idx-1").await?.described == 1);
    Ok(())
}

async fn windows(store: &dyn VectorStore) -> Result<()> {
    // Windows 2, 3 and 6 of the first epoch, 3 twice; 0 and 4 of the second; another index; transcripts.
    let mut points = vec![
        scene(1, 2),
        scene(2, 3),
        scene(3, 3),
        scene(4, 6),
        scene(5, 0),
        scene(6, 4),
        scene(7, 100),
        transcript(8, 500),
    ];
    for point in &mut points[4..6] {
        point.epoch_us = EPOCH_US + 7;
    }
    points[6].record.index_id = "idx-2".to_owned();
    store.upsert(points).await?;
    for (index, described, missing) in [("idx-1", 5, 2 + 3), ("idx-2", 1, 0), ("idx-9", 0, 0)] {
        let counts = store.count_windows(index).await?;
        let expected = WindowCounts { described, missing };
        ensure!(counts == expected, "{index}: {counts:?}");
    }
    Ok(())
}

async fn refused(store: &dyn VectorStore) -> Result<()> {
    type Spoil = fn(&mut Point);
    let table: [(&str, Spoil); 6] = [
        ("\"nonsense\" is not a UUID", |point| {
            point.record.id = "nonsense".to_owned();
        }),
        ("kind 0 is not known", |point| point.record.kind = 0),
        ("start_us is", |point| point.record.start_us = i64::MAX),
        ("epoch_us is", |point| point.epoch_us = i64::MIN),
        ("4 numbers", |point| point.vector = Some(vec![1.0; 4])),
        ("no number", |point| {
            point.vector = Some(vec![f32::INFINITY, 0.0, 0.0]);
        }),
    ];
    for (expected, spoil) in table {
        let mut points = vec![scene(1, 0), scene(2, 1)];
        spoil(&mut points[1]);
        match store.upsert(points).await {
            Err(VectorError::Invalid(text)) => ensure!(text.contains(expected), "{text}"),
            other => bail!("{expected}: {other:?}"),
        }
    }
    holds(store, &[]).await?;
    // Ids are one however they are written.
    let mut shouted = scene(0xabc, 0);
    shouted.record.id = shouted.record.id.to_uppercase();
    store.upsert(vec![scene(0xabc, 0), shouted]).await?;
    let query = ListQuery {
        limit: 10,
        ..ListQuery::default()
    };
    let records = store.list(&query).await?;
    ensure!(records.len() == 1 && number(&records[0])? == 0xabc);
    Ok(())
}

fn all() -> RecordFilter {
    RecordFilter::default()
}

fn in_index(index: &str) -> RecordFilter {
    RecordFilter {
        index_id: index.to_owned(),
        ..all()
    }
}
