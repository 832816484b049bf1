//! The store on a Qdrant server, over gRPC.
//!
//! `wait` means that the server has applied a write and has it in its log: a killed server still has it, a power cut may
//! take the last moments. What the store says about itself is a point without a vector and without any field that queries
//! use, so no list, search or count ever shows it.

mod client;
mod stores;

use std::collections::HashSet;
use std::fmt;

use async_trait::async_trait;
use qdrant_client::qdrant::{
    CountPointsBuilder, DeletePointsBuilder, GetPointsBuilder, PointId, Query, QueryPointsBuilder,
};
use sightline_proto::internal::{Record, RecordFilter, RecordKind};

use crate::payload::{VECTOR, check, check_vector, point_id};
use crate::query::{conditions, owned_by};
use crate::{
    EmbeddingModel, Hit, ListQuery, Owner, Point, SearchQuery, VectorError, VectorStore,
    WindowCounts, listing, windows,
};

use client::{ABOUT, Client, filter, point, record, uuid_of};

pub use stores::QdrantStores;

/// What records are.
const KINDS: [RecordKind; 3] = [
    RecordKind::Scene,
    RecordKind::Transcript,
    RecordKind::AudioScene,
];

/// How a collection is made. One that is there stays as it is until it is built anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Layout {
    /// Over how many shards it is spread; the server's default if unset.
    pub shards: Option<u32>,
    /// How many servers have each shard; the server's default if unset.
    pub replicas: Option<u32>,
    /// How many of them must have a write before it counts; the server's default if unset.
    pub write_consistency: Option<u32>,
    /// Keeps vectors in int8 in memory beside the exact ones on disk: a quarter of the memory.
    pub quantized: bool,
    /// Keeps payloads on disk rather than in memory.
    pub on_disk_payload: bool,
}

/// Where the server is.
#[derive(Clone)]
pub struct QdrantConfig {
    /// Its gRPC address, for example `http://127.0.0.1:6334`.
    pub url: String,
    /// Its API key, if it asks for one.
    pub api_key: Option<String>,
    /// The collection, made if there is none.
    pub collection: String,
    /// How it is made.
    pub layout: Layout,
}

impl fmt::Debug for QdrantConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QdrantConfig")
            .field("url", &self.url)
            .field("collection", &self.collection)
            .finish_non_exhaustive()
    }
}

/// Vectors and records in a collection of a Qdrant server, which any number of processes may use at once.
pub struct QdrantStore {
    client: Client,
    identity: String,
    model: EmbeddingModel,
}

impl QdrantStore {
    /// Opens the collection, or makes it.
    ///
    /// # Errors
    /// `Server` when the server does not answer or refuses, `Foreign` when the collection is not ours, `Mismatch` when it
    /// holds vectors of another model.
    pub async fn connect(config: QdrantConfig, model: EmbeddingModel) -> Result<Self, VectorError> {
        let client = Client::new(config)?;
        let mut about = match client.about().await? {
            Some(about) => about,
            None => client.make(&model).await?,
        };
        about.check(&model, &client.place())?;
        if about.moved(&model) {
            client.put(ABOUT, &about).await?;
        }
        Ok(Self {
            client,
            identity: about.identity,
            model,
        })
    }

    /// Deletes the collection, if there is one: the next that is opened by its name is empty and has another identity.
    ///
    /// # Errors
    /// When the server does not answer or refuses.
    pub async fn delete(config: QdrantConfig) -> Result<(), VectorError> {
        let client = Client::new(config)?;
        if client.exists().await? {
            let deleting = client.qdrant.delete_collection(&client.config.collection);
            deleting
                .await
                .map_err(client.failed("delete a collection"))?;
        }
        Ok(())
    }
}

#[async_trait]
impl VectorStore for QdrantStore {
    fn identity(&self) -> &str {
        &self.identity
    }

    async fn upsert(&self, points: Vec<Point>) -> Result<(), VectorError> {
        let checked = points.into_iter().map(|point| check(point, &self.model));
        let points = checked
            .map(|checked| checked.and_then(point))
            .collect::<Result<Vec<_>, _>>()?;
        if points.is_empty() {
            return Ok(());
        }
        self.client.upsert(points).await
    }

    async fn list(&self, query: &ListQuery) -> Result<Vec<Record>, VectorError> {
        listing::list(&self.client, query).await
    }

    async fn search(&self, query: &SearchQuery) -> Result<Vec<Hit>, VectorError> {
        check_vector(&query.vector, &self.model)?;
        let client = &self.client;
        let mut request = QueryPointsBuilder::new(&client.config.collection)
            .query(Query::new_nearest(query.vector.clone()))
            .using(VECTOR)
            .filter(filter(&conditions(&query.filter)))
            .limit(query.limit as u64)
            .with_payload(true);
        if query.min_score > 0.0 {
            request = request.score_threshold(query.min_score);
        }
        let found = client.qdrant.query(request).await;
        let found = found.map_err(client.failed("search"))?.result;
        found
            .into_iter()
            .map(|point| {
                Ok(Hit {
                    record: record(point.id, point.payload)?,
                    score: point.score.clamp(0.0, 1.0),
                })
            })
            .collect()
    }

    async fn delete(&self, owner: &Owner) -> Result<(), VectorError> {
        let client = &self.client;
        let request = DeletePointsBuilder::new(&client.config.collection)
            .points(filter(&[owned_by(owner)?]))
            .wait(true);
        let deleted = client.qdrant.delete_points(request).await;
        deleted.map(drop).map_err(client.failed("delete points"))
    }

    async fn holds(&self, ids: &[String]) -> Result<HashSet<String>, VectorError> {
        let ids = ids.iter().map(|id| Ok(point_id(id)?.to_string().into()));
        let ids = ids.collect::<Result<Vec<PointId>, VectorError>>()?;
        let client = &self.client;
        let request = GetPointsBuilder::new(&client.config.collection, ids).with_payload(false);
        let found = client.qdrant.get_points(request).await;
        let found = found.map_err(client.failed("read points"))?.result;
        let ids = found.into_iter().filter_map(|point| uuid_of(point.id));
        Ok(ids.collect())
    }

    async fn count(&self) -> Result<u64, VectorError> {
        let client = &self.client;
        let request = CountPointsBuilder::new(&client.config.collection)
            .filter(filter(&conditions(&RecordFilter {
                kinds: KINDS.map(i32::from).to_vec(),
                ..RecordFilter::default()
            })))
            .exact(true);
        let counted = client.qdrant.count(request).await;
        let counted = counted.map_err(client.failed("count points"))?.result;
        Ok(counted.map_or(0, |counted| counted.count))
    }

    async fn count_windows(&self, index_id: &str) -> Result<WindowCounts, VectorError> {
        windows::count(&self.client, index_id).await
    }
}
