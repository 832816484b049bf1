//! Where stores are: which is in use, which is to be, what a killed process leaves behind, and the store of an older release.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use qdrant_client::Qdrant;
use sightline_vectors::{
    EdgeStore, EdgeStores, EmbeddingModel, Layout, Progress, QdrantConfig, QdrantStores, Rebuild,
    Stores, VectorError, VectorStore,
};
use uuid::Uuid;

use crate::conformance::qdrant_url;
use crate::support::{holds, model, scene};

/// The model that is to follow.
fn other() -> EmbeddingModel {
    EmbeddingModel {
        revision: "model-2".to_owned(),
        dimension: 4,
        source: "/models/2".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_of_a_folder_change_places() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let stores = EdgeStores::lock(dir.path())?;
    change_places(&stores, &EdgeStores::look(dir.path())).await?;
    assert!(matches!(
        EdgeStores::lock(dir.path()),
        Err(VectorError::Locked { .. })
    ));
    assert!(EdgeStores::look(dir.path()).in_use());
    drop(stores);
    assert!(!EdgeStores::look(dir.path()).in_use());
    // What was made, and is named nowhere because its maker was killed, goes.
    fs::create_dir(dir.path().join("half-made"))?;
    let stores = EdgeStores::lock(dir.path())?;
    assert_eq!(stores.tidy().await?, 1);
    drop(stores);
    EdgeStores::delete(dir.path())?;
    assert_eq!(EdgeStores::lock(dir.path())?.state().await?.current, None);
    Ok(())
}

/// Runs where there is a server, as the conformance suite.
#[tokio::test(flavor = "multi_thread")]
async fn collections_of_a_server_change_places() -> Result<()> {
    let Some(url) = qdrant_url() else {
        eprintln!("NOT RUN on a Qdrant server: QDRANT_URL is not set");
        return Ok(());
    };
    let base = format!("sightline-test-{}", Uuid::new_v4().simple());
    let config = QdrantConfig {
        url: url.clone(),
        api_key: None,
        collection: base.clone(),
        layout: Layout {
            shards: Some(2),
            quantized: true,
            on_disk_payload: true,
            ..Layout::default()
        },
    };
    let stores = QdrantStores::new(config.clone())?;
    let result = change_places(&stores, &QdrantStores::new(config)?).await;
    let qdrant = Qdrant::from_url(&url).skip_compatibility_check().build()?;
    for collection in qdrant.list_collections().await?.collections {
        if collection.name.starts_with(&base) {
            qdrant.delete_collection(&collection.name).await?;
        }
    }
    result
}

/// Of who has the place, and of somebody who looks on.
async fn change_places(stores: &dyn Stores, look: &dyn Stores) -> Result<()> {
    assert_eq!(look.state().await?, Default::default());
    let nothing = look.ask(Rebuild { from_us: None }).await;
    assert!(matches!(nothing, Err(VectorError::Invalid(_))));

    stores.begin(&model()).await?;
    let first = look.state().await?.current.context("a store")?;
    assert_eq!(first.model, model());
    let store = stores.open(&first).await?;
    store.upsert(vec![scene(1, 1)]).await?;
    assert_eq!(look.progress().await?, None);

    let wish = Rebuild { from_us: Some(7) };
    look.ask(wish).await?;
    stores.begin(&other()).await?;
    let state = look.state().await?;
    let next = state.next.context("a next store")?;
    assert_eq!(
        (&state.current, state.rebuild),
        (&Some(first.clone()), Some(wish))
    );
    assert_eq!(next.model, other());
    // Who sees it knows which of the two came last, and where there may be others, whether one of them is at work.
    assert_eq!(
        (first.replaces.len(), &next.replaces),
        (0, &vec![model().revision])
    );
    for name in [&first.name, &next.name] {
        let pulse = look.pulse(name).await?;
        stores.beat(name).await?;
        assert!(pulse.is_none() || pulse != look.pulse(name).await?);
    }
    let progress = Progress { done: 3, total: 9 };
    stores.note(progress).await?;
    assert_eq!(look.progress().await?, Some(progress));
    assert_eq!(stores.tidy().await?, 0);
    holds(store.as_ref(), &[scene(1, 1)]).await?;

    // Given up and begun again.
    stores.give_up().await?;
    assert_eq!(look.state().await?.next, None);
    assert_eq!(tidied(stores).await?, 1);
    stores.begin(&other()).await?;
    let next = look.state().await?.next.context("a next store")?;
    for _ in 0..2 {
        stores.switch(&next.name).await?;
        let state = look.state().await?;
        assert_eq!((state.current.as_ref(), state.next), (Some(&next), None));
        assert_eq!(state.rebuild, None);
    }
    drop(store);
    assert_eq!(tidied(stores).await?, 1);
    let store = stores.open(&next).await?;
    holds(store.as_ref(), &[]).await
}

/// What others may be making is left the first time.
async fn tidied(stores: &dyn Stores) -> Result<usize> {
    Ok(stores.tidy().await? + stores.tidy().await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_of_an_older_release_is_taken_over() -> Result<()> {
    // Killed after any step of it, it goes on.
    let steps: [fn(&Path) -> std::io::Result<()>; 3] = [
        |_| Ok(()),
        |dir| fs::write(dir.join("stores.json"), r#"{"current": "first"}"#),
        |dir| {
            fs::write(dir.join("stores.json"), r#"{"current": "first"}"#)?;
            fs::create_dir(dir.join("first"))?;
            fs::rename(dir.join("edge"), dir.join("first/edge"))
        },
    ];
    for step in steps {
        let dir = tempfile::tempdir()?;
        let store = EdgeStore::open(dir.path(), model()).await?;
        let identity = store.identity().to_owned();
        store.upsert(vec![scene(1, 1)]).await?;
        drop(store);
        step(dir.path())?;
        let stores = EdgeStores::lock(dir.path())?;
        let mut current = stores.state().await?.current.context("a store")?;
        assert_eq!(current.model, model());
        // Where the model is now is remembered.
        current.model.source = "/models/1".to_owned();
        let store = stores.open(&current).await?;
        assert_eq!(store.identity(), identity);
        holds(store.as_ref(), &[scene(1, 1)]).await?;
        let remembered = stores.state().await?.current.context("a store")?;
        assert_eq!(remembered.model.source, "/models/1");
        assert_eq!(stores.tidy().await?, 0);
    }
    Ok(())
}
