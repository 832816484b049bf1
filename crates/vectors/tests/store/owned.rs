//! Cases of the conformance suite about audio indexes, and about deleting what belongs to somebody.

use anyhow::{Result, ensure};
use sightline_proto::internal::{RecordFilter, RecordKind};
use sightline_vectors::{Owner, VectorError, VectorStore, WindowCounts};

use crate::support::{found, holds, listed, scene, transcript};

pub async fn batches(store: &dyn VectorStore) -> Result<()> {
    let mut points = vec![
        scene(1, 0),
        scene(2, 9),
        scene(3, 4),
        transcript(4, 1),
        scene(5, 9),
    ];
    for at in [0, 1, 4] {
        points[at].record.kind = RecordKind::AudioScene.into();
        points[at].record.index_id = "idx-a".to_owned();
    }
    store.upsert(points.clone()).await?;
    holds(store, &points).await?;
    let (scenes, batches) = (RecordKind::Scene, RecordKind::AudioScene);
    let (transcripts, any) = (RecordKind::Transcript, RecordKind::Unspecified);
    let table: [(&[RecordKind], &[u128]); 6] = [
        (&[batches], &[1, 2, 5]),
        (&[scenes], &[3]),
        (&[scenes, batches], &[1, 3, 2, 5]),
        (&[transcripts, batches], &[1, 4, 2, 5]),
        (&[scenes, batches, transcripts], &[1, 4, 3, 2, 5]),
        (&[any, scenes], &[1, 4, 3, 2, 5]),
    ];
    for (kinds, expected) in table {
        let filter = RecordFilter {
            kinds: kinds.iter().map(|kind| (*kind).into()).collect(),
            ..RecordFilter::default()
        };
        let found = listed(store, filter, false).await?;
        ensure!(found == expected, "{kinds:?}: {found:?}");
    }
    let counts = store.count_windows("idx-a").await?;
    let (described, missing) = (2, 0);
    ensure!(counts == WindowCounts { described, missing }, "{counts:?}");
    Ok(())
}

pub async fn deletes(store: &dyn VectorStore) -> Result<()> {
    let mut points: Vec<_> = (1..=4).map(|n| scene(n, n as u64)).collect();
    points.extend([transcript(5, 3), transcript(6, 8)]);
    points[1].record.index_id = "idx-2".to_owned();
    points[2].record.rtstream_id = "rts-2".to_owned();
    points[5].record.rtstream_id = "rts-2".to_owned();
    store.upsert(points.clone()).await?;
    let index = Owner::Index("idx-1".to_owned());
    let stream = |id: &str| Owner::RtStream(id.to_owned());
    let table: [(Owner, &[usize]); 5] = [
        (stream("rts-9"), &[0, 1, 2, 3, 4, 5]),
        (index.clone(), &[1, 4, 5]),
        (index, &[1, 4, 5]),
        (stream("rts-2"), &[1, 4]),
        (stream("rts-1"), &[]),
    ];
    for (owner, left) in table {
        store.delete(&owner).await?;
        let left: Vec<_> = left.iter().map(|at| points[*at].clone()).collect();
        holds(store, &left).await?;
    }
    let hits = found(store, [1.0, 0.0, 0.0], RecordFilter::default(), 0.0).await?;
    ensure!(hits.is_empty(), "{hits:?}");
    ensure!(store.count_windows("idx-1").await? == WindowCounts::default());
    // What was deleted can be stored again.
    store.upsert(points.clone()).await?;
    holds(store, &points).await?;
    for owner in [stream(""), Owner::Index(String::new())] {
        let refused = store.delete(&owner).await;
        ensure!(matches!(refused, Err(VectorError::Invalid(_))), "{owner:?}");
    }
    holds(store, &points).await
}
