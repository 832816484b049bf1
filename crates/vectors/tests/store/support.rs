//! Records to store, and how tests name them.

use anyhow::{Result, ensure};
use sightline_proto::internal::{Record, RecordFilter, RecordKind};
use sightline_vectors::{EmbeddingModel, ListQuery, Point, SearchQuery, VectorStore};
use uuid::Uuid;

pub const EPOCH_US: i64 = 1_795_514_400_000_000;
const SECOND_US: i64 = 1_000_000;

pub fn model() -> EmbeddingModel {
    EmbeddingModel {
        revision: "model-1".to_owned(),
        dimension: 3,
        source: String::new(),
    }
}

/// A number as a record's id.
pub fn id(number: u128) -> String {
    Uuid::from_u128(number).to_string()
}

/// A record's id as its number.
pub fn number(record: &Record) -> Result<u128> {
    Ok(Uuid::parse_str(&record.id)?.as_u128())
}

/// The scene of index `idx-1` of a window of 5 s.
pub fn scene(number: u128, window: u64) -> Point {
    let start_us = EPOCH_US + window as i64 * 5 * SECOND_US;
    Point {
        record: Record {
            id: id(number),
            kind: RecordKind::Scene.into(),
            rtstream_id: "rts-1".to_owned(),
            collection_id: "default".to_owned(),
            index_id: "idx-1".to_owned(),
            start_us,
            end_us: start_us + 5 * SECOND_US,
            text: format!("scene {number}"),
            observation: format!("observation {number} \0").into_bytes().into(),
        },
        epoch_us: EPOCH_US,
        window: Some(window),
        vector: Some(vec![1.0, 0.0, 0.0]),
    }
}

/// What was said from this second on, for 2 s.
pub fn transcript(number: u128, second: i64) -> Point {
    let mut point = scene(number, 0);
    point.record.kind = RecordKind::Transcript.into();
    point.record.index_id = String::new();
    point.record.start_us = EPOCH_US + second * SECOND_US;
    point.record.end_us = point.record.start_us + 2 * SECOND_US;
    point.window = None;
    point
}

/// A filter's time: so many seconds after the epoch.
pub fn second(second: i64) -> i64 {
    EPOCH_US + second * SECOND_US
}

/// The numbers of the records that a filter leaves, in order.
pub async fn listed(
    store: &dyn VectorStore,
    filter: RecordFilter,
    newest_first: bool,
) -> Result<Vec<u128>> {
    let query = ListQuery {
        filter,
        limit: 1000,
        newest_first,
        after: None,
    };
    store.list(&query).await?.iter().map(number).collect()
}

/// The numbers and scores of what a search finds, best first.
pub async fn found(
    store: &dyn VectorStore,
    vector: [f32; 3],
    filter: RecordFilter,
    min_score: f32,
) -> Result<Vec<(u128, f32)>> {
    let query = SearchQuery {
        vector: vector.to_vec(),
        filter,
        limit: 10,
        min_score,
    };
    let hits = store.search(&query).await?;
    hits.iter()
        .map(|hit| Ok((number(&hit.record)?, hit.score)))
        .collect()
}

/// Holds when the store has exactly these records, each as it was stored.
pub async fn holds(store: &dyn VectorStore, points: &[Point]) -> Result<()> {
    let query = ListQuery {
        limit: points.len() + 1,
        ..ListQuery::default()
    };
    let mut expected: Vec<_> = points.iter().map(|point| &point.record).collect();
    expected.sort_by_key(|record| (record.start_us, &record.id));
    let stored = store.list(&query).await?;
    ensure!(
        stored.iter().eq(expected.iter().copied()),
        "{} records instead of {}, or others",
        stored.len(),
        expected.len()
    );
    Ok(())
}
