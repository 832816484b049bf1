//! How long the store in a folder takes, at a size: `cargo run --release -p sightline-vectors --example measure_store -- 100000`.

use std::time::Instant;

use anyhow::{Context, Result};
use sightline_proto::internal::{Record, RecordFilter, RecordKind};
use sightline_vectors::{
    EdgeStore, EmbeddingModel, ListQuery, Point, Position, SearchQuery, VectorStore,
};
use uuid::Uuid;

const DIMENSION: usize = 384;
const EPOCH_US: i64 = 1_795_514_400_000_000;
const WINDOW_US: i64 = 5_000_000;
const STREAMS: u64 = 20;

#[tokio::main]
async fn main() -> Result<()> {
    let count = std::env::args().nth(1).context("how many records?")?;
    let count: u64 = count.parse()?;
    let dir = tempfile::tempdir()?;
    let store = EdgeStore::open(dir.path(), model()).await?;

    let started = Instant::now();
    for first in (0..count).step_by(64) {
        store
            .upsert((first..count.min(first + 64)).map(point).collect())
            .await?;
    }
    report("filled", started, count.div_ceil(64));
    let started = Instant::now();
    for n in 0..50 {
        store.upsert(vec![point(count + n)]).await?;
    }
    report("upsert of 1", started, 50);

    let one_stream = RecordFilter {
        rtstream_ids: vec!["rts-7".to_owned()],
        ..RecordFilter::default()
    };
    let one_hour = RecordFilter {
        start_us: EPOCH_US + 3600 * 1_000_000,
        end_us: EPOCH_US + 2 * 3600 * 1_000_000,
        ..RecordFilter::default()
    };
    for (name, filter) in [
        ("all", RecordFilter::default()),
        ("one stream", one_stream),
        ("one hour", one_hour),
    ] {
        for newest_first in [true, false] {
            let query = ListQuery {
                filter: filter.clone(),
                limit: 100,
                newest_first,
                after: None,
            };
            list(
                &store,
                &format!("list {name}, newest first {newest_first}"),
                query,
            )
            .await?;
        }
        let query = SearchQuery {
            vector: vector(3),
            filter,
            limit: 10,
            min_score: 0.0,
        };
        let started = Instant::now();
        for _ in 0..10 {
            store.search(&query).await?;
        }
        report(&format!("search {name}"), started, 10);
    }
    let started = Instant::now();
    let counts = store.count_windows("idx-7").await?;
    report(&format!("count {counts:?}"), started, 1);
    let started = Instant::now();
    drop(store);
    report("closed", started, 1);
    let started = Instant::now();
    EdgeStore::open(dir.path(), model()).await?;
    report("opened", started, 1);
    Ok(())
}

async fn list(store: &EdgeStore, name: &str, mut query: ListQuery) -> Result<()> {
    let started = Instant::now();
    for _ in 0..10 {
        let page = store.list(&query).await?;
        let last = page.last().context("an empty page")?;
        query.after = Some(Position::of(last.start_us, &last.id)?);
    }
    report(name, started, 10);
    Ok(())
}

fn report(what: &str, started: Instant, times: u64) {
    let each = started.elapsed().as_secs_f64() * 1000.0 / times as f64;
    println!("{what}: {each:.2} ms each of {times}");
}

fn model() -> EmbeddingModel {
    EmbeddingModel {
        revision: "measured".to_owned(),
        dimension: DIMENSION,
        source: String::new(),
    }
}

/// Scenes of several streams with an index each, all on one grid.
fn point(n: u64) -> Point {
    let (stream, window) = (n % STREAMS, n / STREAMS);
    let start_us = EPOCH_US + window as i64 * WINDOW_US;
    Point {
        record: Record {
            id: Uuid::from_u128(
                u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
            )
            .to_string(),
            kind: RecordKind::Scene.into(),
            rtstream_id: format!("rts-{stream}"),
            collection_id: "default".to_owned(),
            index_id: format!("idx-{stream}"),
            start_us,
            end_us: start_us + WINDOW_US,
            text: format!("A white car drives past a bench, and {n} people cross the road."),
            observation: vec![7; 300].into(),
        },
        epoch_us: EPOCH_US,
        window: Some(window),
        vector: Some(vector(n)),
    }
}

fn vector(n: u64) -> Vec<f32> {
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..DIMENSION)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}
