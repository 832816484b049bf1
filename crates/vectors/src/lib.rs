//! The vector store: scenes of both kinds and transcripts with their vectors, to list in time order and to search by meaning.
//!
//! One trait with two implementations: [`EdgeStore`] keeps everything in a folder of this machine through Qdrant Edge, in
//! this process; [`QdrantStore`] asks a Qdrant server. One conformance suite (`tests/store`) holds for both. What is shared,
//! the meaning of a filter, the order of a list and the count of windows, is written once (`query`, `listing`, `windows`).
//!
//! A store holds the vectors of one model. [`Stores`] is where stores are: the one in use, and the one that is to take its place.
//!
//! Everything in a store can be computed again: a store that is deleted is filled from OBSERVATIONS by whoever owns it.

mod about;
mod edge;
mod error;
mod listing;
mod payload;
mod query;
mod server;
mod stores;
mod windows;

use std::collections::HashSet;

use async_trait::async_trait;
use sightline_proto::internal::{Record, RecordFilter};
use uuid::Uuid;

pub use edge::{EdgeStore, EdgeStores};
pub use error::VectorError;
pub use server::{Layout, QdrantConfig, QdrantStore, QdrantStores};
pub use stores::{Named, Progress, Rebuild, State, Stores};

/// The model whose vectors a store holds: vectors of two models are not comparable, so a store holds those of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddingModel {
    /// Its revision.
    pub revision: String,
    /// Length of each vector.
    pub dimension: usize,
    /// Where it is loaded from, its directory for example: so that it is found again when another one is to take its place.
    pub source: String,
}

impl EmbeddingModel {
    /// Whether it makes the same vectors.
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        self.revision == other.revision && self.dimension == other.dimension
    }
}

/// What is stored of one observation.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// What lists and searches return. Its id, a UUID, is the point's: a point with the same id is replaced.
    pub record: Record,
    /// Wall time of media time 0, in microseconds since the Unix epoch.
    pub epoch_us: i64,
    /// The window or batch that a scene describes; none for transcripts.
    pub window: Option<u64>,
    /// The text's vector; none where there is no text: such a point is listed and never found.
    pub vector: Option<Vec<f32>>,
}

/// Where a list goes on: after the record with this start and id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Its start, in microseconds since the Unix epoch.
    pub start_us: i64,
    /// Its id.
    pub id: Uuid,
}

/// A page of a list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ListQuery {
    /// Which records.
    pub filter: RecordFilter,
    /// How many at most.
    pub limit: usize,
    /// From the newest to the oldest: the very reverse of the usual order.
    pub newest_first: bool,
    /// Where to go on.
    pub after: Option<Position>,
}

/// A search by meaning.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SearchQuery {
    /// What is looked for.
    pub vector: Vec<f32>,
    /// Where to look.
    pub filter: RecordFilter,
    /// How many at most.
    pub limit: usize,
    /// Only results with at least this score.
    pub min_score: f32,
}

/// A result of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// What was found.
    pub record: Record,
    /// Cosine similarity, 0 to 1; opposite meanings have 0 too.
    pub score: f32,
}

/// Whose records are deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// All that was observed on this stream.
    RtStream(String),
    /// All scenes of this index.
    Index(String),
}

/// How much of an index's time is described.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WindowCounts {
    /// Windows or batches with a scene, however many scenes each has.
    pub described: u64,
    /// Windows between the first and the last of each epoch without one. No batch is ever missing: times without speech have
    /// none.
    pub missing: u64,
}

/// Keeps points. Errors are either [`VectorError::Invalid`], where trying again can't help, or pass by themselves.
#[async_trait]
pub trait VectorStore: Send + Sync {
    /// Names this very store: a store that is made anew has another identity.
    fn identity(&self) -> &str;

    /// Stores points, replacing those with the same ids. When it returns they survive a killed process.
    ///
    /// # Errors
    /// `Invalid` when a point can't be stored, then none is; otherwise some may have been stored: repeat all of them.
    async fn upsert(&self, points: Vec<Point>) -> Result<(), VectorError>;

    /// The records that match, ordered by start and then by id.
    async fn list(&self, query: &ListQuery) -> Result<Vec<Record>, VectorError>;

    /// The records whose texts are nearest in meaning, best first.
    async fn search(&self, query: &SearchQuery) -> Result<Vec<Hit>, VectorError>;

    /// Deletes all that is stored of a stream or an index. When it returns that survives a killed process.
    ///
    /// # Errors
    /// `Invalid` when the owner has no id; otherwise some may have been deleted: repeat it.
    async fn delete(&self, owner: &Owner) -> Result<(), VectorError>;

    /// Which of these ids it holds.
    async fn holds(&self, ids: &[String]) -> Result<HashSet<String>, VectorError>;

    /// How many records it holds.
    async fn count(&self) -> Result<u64, VectorError>;

    /// Counts the windows of an index.
    async fn count_windows(&self, index_id: &str) -> Result<WindowCounts, VectorError>;
}
