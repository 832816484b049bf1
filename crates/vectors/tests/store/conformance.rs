//! The suite on each store.

use anyhow::{Context, Result};
use qdrant_client::qdrant::{
    CreateCollectionBuilder, Distance, PointStruct, UpsertPointsBuilder, VectorParamsBuilder,
};
use qdrant_client::{Payload, Qdrant};
use sightline_vectors::{EdgeStore, Layout, QdrantConfig, QdrantStore, VectorError, VectorStore};
use uuid::Uuid;

use crate::cases::{CASES, run};
use crate::support::model;

#[tokio::test(flavor = "multi_thread")]
async fn edge_conforms() -> Result<()> {
    for case in CASES {
        let dir = tempfile::tempdir()?;
        let store = EdgeStore::open(dir.path(), model()).await?;
        run(case, &store).await.context(case)?;
    }
    Ok(())
}

/// No package registry has the server: who has one runs this with `QDRANT_URL=http://127.0.0.1:6334`.
#[tokio::test(flavor = "multi_thread")]
async fn a_qdrant_server_conforms() -> Result<()> {
    let Some(url) = qdrant_url() else {
        eprintln!(
            "NOT RUN on a Qdrant server: QDRANT_URL is not set (its gRPC address, for example http://127.0.0.1:6334)"
        );
        return Ok(());
    };
    for case in CASES {
        let config = QdrantConfig {
            url: url.clone(),
            api_key: None,
            collection: format!("sightline-test-{}", Uuid::new_v4().simple()),
            layout: Layout::default(),
        };
        let store = QdrantStore::connect(config.clone(), model()).await?;
        let result = run(case, &store).await.context(case);
        let again = QdrantStore::connect(config.clone(), model()).await?;
        assert_eq!(store.identity(), again.identity());
        let mut other = model();
        other.dimension += 1;
        let refused = QdrantStore::connect(config.clone(), other).await;
        assert!(matches!(refused, Err(VectorError::Mismatch { .. })));
        QdrantStore::delete(config).await?;
        result?;
    }
    foreign_collection_is_refused(&url).await?;
    eprintln!("ran on the Qdrant server at {url}");
    Ok(())
}

async fn foreign_collection_is_refused(url: &str) -> Result<()> {
    let config = QdrantConfig {
        url: url.to_owned(),
        api_key: None,
        collection: format!("sightline-test-{}", Uuid::new_v4().simple()),
        layout: Layout::default(),
    };
    let qdrant = Qdrant::from_url(url).skip_compatibility_check().build()?;
    let vectors = VectorParamsBuilder::new(2, Distance::Dot);
    let making = CreateCollectionBuilder::new(&config.collection).vectors_config(vectors);
    qdrant.create_collection(making).await?;
    let point = PointStruct::new(1, vec![0.0, 1.0], Payload::new());
    let storing = UpsertPointsBuilder::new(&config.collection, vec![point]).wait(true);
    qdrant.upsert_points(storing).await?;
    let refused = QdrantStore::connect(config.clone(), model()).await;
    qdrant.delete_collection(&config.collection).await?;
    assert!(matches!(refused, Err(VectorError::Foreign { .. })));
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let config = QdrantConfig {
        url: "http://127.0.0.1:1".to_owned(),
        api_key: Some("secret".to_owned()),
        collection: "sightline".to_owned(),
        layout: Layout::default(),
    };
    assert!(!format!("{config:?}").contains("secret"));
    match QdrantStore::connect(config, model()).await {
        Err(error @ VectorError::Server { .. }) => {
            let text = error.to_string();
            assert!(text.contains("http://127.0.0.1:1"), "{text}");
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("connected to nothing"),
    }
}

#[expect(clippy::disallowed_methods, reason = "a test's only configuration")]
pub fn qdrant_url() -> Option<String> {
    std::env::var("QDRANT_URL").ok()
}
