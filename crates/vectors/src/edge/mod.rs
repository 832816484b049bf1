//! The store in a folder of this machine: Qdrant Edge, in this process.
//!
//! What this needs to know of the library (0.7.2): what is not flushed is lost when the process is killed; a flush must not
//! run beside an update, so one thread does both (`writer`); its log of operations is never read back and never shortened
//! (`files`); a segment that failed once takes no further writes until it is loaded again (`writer`). Searches are exact
//! scans: its approximate index would have to be built in the writer's thread, and up to about a million records a scan
//! takes fractions of a second. More than that is a Qdrant server's work.

mod convert;
mod files;
mod stores;
mod writer;

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;

use async_trait::async_trait;
use qdrant_edge::external::ordered_float::OrderedFloat;
use qdrant_edge::{
    CountRequest, Direction, EdgeShard, FacetRequest, FacetValue, NamedQuery, OrderBy,
    OrderByInterface, PointId, QueryEnum, QueryRequest, ScoringQuery, ScrollRequest, StartFrom,
    UpdateOperation, VectorInternal, WithVector,
};
use sightline_proto::internal::Record;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::payload::{START, VECTOR, check, check_vector, point_id};
use crate::query::{Condition, Scan, conditions, owned_by};
use crate::{
    EmbeddingModel, Hit, ListQuery, Owner, Point, SearchQuery, VectorError, VectorStore,
    WindowCounts, listing, windows,
};

use convert::{filter, path, record};
use files::Folder;
use writer::Job;

pub use stores::EdgeStores;

/// Writes that wait for the writer; further callers wait for room.
const QUEUE: usize = 16;
/// Records read at once where all are wanted.
const SCROLL: usize = 1000;
/// More windows than an epoch has: 1.5 years of windows of 5 s.
const MOST_VALUES: usize = 10_000_000;

/// The open library; none while it can't be opened again after a failure.
type Shard = Arc<RwLock<Option<EdgeShard>>>;

/// Vectors and records in a folder, open in one process at a time.
pub struct EdgeStore {
    identity: String,
    model: EmbeddingModel,
    shard: Shard,
    jobs: Option<mpsc::Sender<Job>>,
    writer: Option<JoinHandle<()>>,
}

impl EdgeStore {
    /// Opens the store in `dir`, made if there is none.
    ///
    /// # Errors
    /// `Locked` while another process has it, `Mismatch` when it holds vectors of another model, `Open` when its files
    /// can't be used.
    pub async fn open(dir: &Path, model: EmbeddingModel) -> Result<Self, VectorError> {
        let dir = dir.to_owned();
        let opening = {
            let dir = dir.clone();
            spawn_blocking(move || Self::open_blocking(&dir, model))
        };
        opening.await.map_err(|source| VectorError::Open {
            dir,
            source: source.into(),
        })?
    }

    /// Deletes the store in `dir`: the next one that is opened there is empty and has another identity.
    ///
    /// # Errors
    /// `Locked` while a process has it, `Open` when it can't be deleted.
    pub fn delete(dir: &Path) -> Result<(), VectorError> {
        Folder::lock(dir)?.clear()
    }

    fn open_blocking(dir: &Path, model: EmbeddingModel) -> Result<Self, VectorError> {
        let folder = Folder::lock(dir)?;
        let (identity, shard) = files::open(&folder, &model)?;
        let shard = Arc::new(RwLock::new(Some(shard)));
        let (jobs, queue) = mpsc::channel(QUEUE);
        let writer = writer::start(folder, Arc::clone(&shard), queue)?;
        Ok(Self {
            identity,
            model,
            shard,
            jobs: Some(jobs),
            writer: Some(writer),
        })
    }

    /// Has the writer change the store, and waits until that is durable.
    async fn write(&self, change: UpdateOperation) -> Result<(), VectorError> {
        let stopped = || VectorError::Write {
            reason: "the store is closed".to_owned(),
        };
        let (job, done) = Job::new(change);
        let jobs = self.jobs.as_ref().ok_or_else(stopped)?;
        jobs.send(job).await.map_err(|_| stopped())?;
        done.await
            .map_err(|_| stopped())?
            .map_err(|reason| VectorError::Write { reason })
    }

    /// Runs a read of the library off the async threads.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&EdgeShard) -> Result<T, VectorError> + Send + 'static,
    ) -> Result<T, VectorError> {
        let shard = Arc::clone(&self.shard);
        let reading = spawn_blocking(move || {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            match &*shard {
                Some(shard) => read(shard),
                None => Err(VectorError::read(
                    "it is being opened again after a failure",
                )),
            }
        });
        reading.await.map_err(VectorError::read)?
    }
}

impl Drop for EdgeStore {
    /// Waits until what was accepted is written and the folder is free.
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

#[async_trait]
impl VectorStore for EdgeStore {
    fn identity(&self) -> &str {
        &self.identity
    }

    async fn upsert(&self, points: Vec<Point>) -> Result<(), VectorError> {
        let checked = points.into_iter().map(|point| check(point, &self.model));
        let points = checked
            .map(|point| point.map(convert::point))
            .collect::<Result<Vec<_>, _>>()?;
        if points.is_empty() {
            return Ok(());
        }
        self.write(convert::upsert(points)).await
    }

    async fn delete(&self, owner: &Owner) -> Result<(), VectorError> {
        let Some(owned) = filter(&[owned_by(owner)?]) else {
            return Ok(());
        };
        self.write(convert::delete(owned)).await
    }

    async fn list(&self, query: &ListQuery) -> Result<Vec<Record>, VectorError> {
        listing::list(self, query).await
    }

    async fn search(&self, query: &SearchQuery) -> Result<Vec<Hit>, VectorError> {
        check_vector(&query.vector, &self.model)?;
        let request = QueryRequest {
            prefetches: Vec::new(),
            query: Some(ScoringQuery::Vector(QueryEnum::Nearest(NamedQuery {
                query: VectorInternal::Dense(query.vector.clone()),
                using: Some(VECTOR.into()),
            }))),
            filter: filter(&conditions(&query.filter)),
            score_threshold: (query.min_score > 0.0).then_some(OrderedFloat(query.min_score)),
            limit: query.limit,
            offset: 0,
            params: None,
            with_vector: WithVector::Bool(false),
            with_payload: true.into(),
        };
        self.read(move |shard| {
            let found = shard.query(request).map_err(VectorError::read)?;
            found
                .into_iter()
                .map(|point| {
                    Ok(Hit {
                        record: record(point.id, point.payload)?,
                        score: point.score.clamp(0.0, 1.0),
                    })
                })
                .collect()
        })
        .await
    }

    async fn holds(&self, ids: &[String]) -> Result<HashSet<String>, VectorError> {
        let ids = ids.iter().map(|id| Ok(PointId::Uuid(point_id(id)?)));
        let ids = ids.collect::<Result<Vec<_>, VectorError>>()?;
        self.read(move |shard| {
            let found = shard.retrieve(&ids, Some(false.into()), Some(false.into()));
            let found = found.map_err(VectorError::read)?.into_iter();
            Ok(found.map(|point| point.id.to_string()).collect())
        })
        .await
    }

    async fn count(&self) -> Result<u64, VectorError> {
        let request = CountRequest {
            filter: None,
            exact: true,
        };
        self.read(move |shard| Ok(shard.count(request).map_err(VectorError::read)? as u64))
            .await
    }

    async fn count_windows(&self, index_id: &str) -> Result<WindowCounts, VectorError> {
        windows::count(self, index_id).await
    }
}

#[async_trait]
impl Scan for EdgeStore {
    async fn by_start(
        &self,
        conditions: &[Condition],
        newest_first: bool,
        from: Option<i64>,
        limit: usize,
    ) -> Result<Vec<Record>, VectorError> {
        let order = OrderBy {
            key: path(START),
            direction: Some(if newest_first {
                Direction::Desc
            } else {
                Direction::Asc
            }),
            start_from: from.map(StartFrom::Integer),
        };
        let request = ScrollRequest {
            limit: Some(limit),
            filter: filter(conditions),
            order_by: Some(OrderByInterface::Struct(order)),
            ..ScrollRequest::default()
        };
        self.read(move |shard| {
            let (points, _) = shard.scroll(request).map_err(VectorError::read)?;
            points
                .into_iter()
                .map(|point| record(point.id, point.payload))
                .collect()
        })
        .await
    }

    async fn all(&self, conditions: &[Condition]) -> Result<Vec<Record>, VectorError> {
        let mut request = ScrollRequest {
            limit: Some(SCROLL),
            filter: filter(conditions),
            ..ScrollRequest::default()
        };
        self.read(move |shard| {
            let mut records = Vec::new();
            loop {
                let (points, next) = shard.scroll(request.clone()).map_err(VectorError::read)?;
                for point in points {
                    records.push(record(point.id, point.payload)?);
                }
                match next {
                    Some(next) => request.offset = Some(next),
                    None => return Ok(records),
                }
            }
        })
        .await
    }

    async fn distinct(
        &self,
        field: &'static str,
        conditions: &[Condition],
    ) -> Result<Vec<i64>, VectorError> {
        let request = FacetRequest {
            key: path(field),
            limit: MOST_VALUES,
            filter: filter(conditions),
            exact: true,
        };
        self.read(move |shard| {
            let found = shard.facet(request).map_err(VectorError::read)?;
            let values = found.hits.into_iter().filter_map(|hit| match hit.value {
                FacetValue::Int(value) => Some(value),
                _ => None,
            });
            Ok(values.collect())
        })
        .await
    }
}
