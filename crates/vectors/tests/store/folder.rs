//! The store in a folder: opened again, opened twice, with another model, damaged, and with a log that grows.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};
use sightline_vectors::{EdgeStore, EmbeddingModel, Owner, VectorError, VectorStore};

use crate::support::{holds, model, scene};

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_the_same_when_it_is_opened_again() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let store = EdgeStore::open(dir.path(), model()).await?;
    let identity = store.identity().to_owned();
    let mut points: Vec<_> = (1..=50).map(|n| scene(n, n as u64)).collect();
    for point in &points {
        store.upsert(vec![point.clone()]).await?;
    }
    drop(store);
    for round in 0..3 {
        let store = EdgeStore::open(dir.path(), model()).await?;
        assert_eq!(store.identity(), identity);
        holds(&store, &points).await?;
        // What was stored before is replaced after, too.
        points[7] = scene(8, 200 + round);
        store.upsert(vec![points[7].clone()]).await?;
        holds(&store, &points).await?;
        assert_eq!(store.count_windows("idx-1").await?.described, 50);
    }
    let store = EdgeStore::open(dir.path(), model()).await?;
    store.delete(&Owner::Index("idx-1".to_owned())).await?;
    drop(store);
    holds(&EdgeStore::open(dir.path(), model()).await?, &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_open_elsewhere_says_who_has_it() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let first = EdgeStore::open(dir.path(), model()).await?;
    let holder = format!("process {}", std::process::id());
    match EdgeStore::open(dir.path(), model()).await {
        Err(VectorError::Locked {
            dir: named,
            holder: by,
        }) => {
            assert_eq!((named.as_path(), by), (dir.path(), holder));
        }
        Err(other) => bail!(other),
        Ok(_) => bail!("it was opened twice"),
    }
    assert!(matches!(
        EdgeStore::delete(dir.path()),
        Err(VectorError::Locked { .. })
    ));
    drop(first);
    EdgeStore::open(dir.path(), model()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_another_model_is_refused_and_says_what_to_do() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let place = dir.path().display().to_string();
    drop(EdgeStore::open(dir.path(), model()).await?);
    let others = [("model-1", 4), ("model-2", 3)].map(|(revision, dimension)| EmbeddingModel {
        revision: revision.to_owned(),
        dimension,
        source: String::new(),
    });
    for other in others {
        let refused = text_of(dir.path(), other.clone()).await?;
        for part in [
            "holds vectors of 3 numbers by embedding model model-1",
            &format!("{} with {}", other.revision, other.dimension),
            &format!("delete {place}"),
            "OBSERVATIONS",
        ] {
            assert!(refused.contains(part), "{refused}");
        }
    }
    fs::write(dir.path().join("store.json"), "{")?;
    let damaged = text_of(dir.path(), model()).await?;
    assert!(damaged.contains("delete that folder"), "{damaged}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_or_half_made_store_is_made_anew() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut identities = Vec::new();
    let ways: [fn(&Path) -> Result<()>; 3] = [
        |dir| Ok(EdgeStore::delete(dir)?),
        |dir| Ok(fs::remove_dir_all(dir)?),
        // Killed before the store was complete.
        |dir| Ok(fs::remove_file(dir.join("store.json"))?),
    ];
    for delete in ways {
        let store = EdgeStore::open(dir.path(), model()).await?;
        holds(&store, &[]).await?;
        store.upsert(vec![scene(1, 1)]).await?;
        holds(&store, &[scene(1, 1)]).await?;
        assert!(!identities.contains(&store.identity().to_owned()));
        identities.push(store.identity().to_owned());
        drop(store);
        delete(dir.path())?;
    }
    Ok(())
}

/// The library keeps a log that it never reads. It must not grow for ever, and shortening it must not make the library
/// ignore later writes.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_stays_bounded() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let store = EdgeStore::open(dir.path(), model()).await?;
    let mut largest = 0;
    for n in 0..100 {
        let mut point = scene(1 + n % 3, n as u64);
        point.record.observation = vec![n as u8; 900_000].into();
        store.upsert(vec![point]).await?;
        largest = largest.max(bytes_in(&dir.path().join("edge/wal"))?);
    }
    let last: Vec<_> = (97..100)
        .map(|n: u128| {
            let mut point = scene(1 + n % 3, n as u64);
            point.record.observation = vec![n as u8; 900_000].into();
            point
        })
        .collect();
    holds(&store, &last).await?;
    assert!(largest < 100 << 20, "{largest} bytes");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_fails_loses_nothing_and_the_next_one_works() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let store = EdgeStore::open(dir.path(), model()).await?;
    store.upsert(vec![scene(1, 1)]).await?;
    let (files, away) = (dir.path().join("edge"), dir.path().join("away"));
    fs::rename(&files, &away)?;
    for _ in 0..2 {
        let failed = store.upsert(vec![scene(2, 2)]).await;
        assert!(matches!(failed, Err(VectorError::Write { .. })));
    }
    let _ = fs::remove_dir_all(&files);
    fs::rename(&away, &files)?;
    store.upsert(vec![scene(3, 3)]).await?;
    let points = [scene(1, 1), scene(2, 2), scene(3, 3)];
    store.upsert(vec![points[1].clone()]).await?;
    holds(&store, &points).await?;
    drop(store);
    let store = EdgeStore::open(dir.path(), model()).await?;
    holds(&store, &points).await
}

async fn text_of(dir: &Path, model: EmbeddingModel) -> Result<String> {
    match EdgeStore::open(dir, model).await {
        Err(error) => Ok(error.to_string()),
        Ok(_) => bail!("it was opened"),
    }
}

fn bytes_in(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        // Some may be removed meanwhile.
        bytes += entry?.metadata().map_or(0, |metadata| metadata.len());
    }
    Ok(bytes)
}
