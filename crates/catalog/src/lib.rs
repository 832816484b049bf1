//! The catalog: what users created and how far each part has come, in the key-value bucket CATALOG.
//!
//! Every role holds a view of the whole bucket in memory, kept by one watch: reads are local and nobody polls. Writes are
//! compare-and-set, so that of two writers at the same moment one has to look again. The view trails the server by
//! milliseconds (and by an outage while there is one), but never one's own writes.

pub mod endpoints;
mod entry;
mod error;
mod follow;
mod partitions;
pub mod seal;
pub mod source;
mod view;

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::kv::{CreateErrorKind, Operation, Store, UpdateError, UpdateErrorKind};
use sightline_bus::Bus;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

pub use entry::Entry;
pub use error::CatalogError;

use crate::view::View;

/// The bucket's name on the server.
pub const BUCKET: &str = "CATALOG";
/// How long the server may take to answer any call, with what the library does around it.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often `modify` tries against other writers before it gives up.
const MODIFY_ATTEMPTS: usize = 16;

/// A record with its revision in the bucket.
#[derive(Debug)]
pub struct Versioned<T> {
    /// The record.
    pub value: Arc<T>,
    /// What `Catalog::update` has to name to replace it. Grows with every write to the bucket.
    pub revision: u64,
}

/// The catalog. Clones share one view.
#[derive(Clone)]
pub struct Catalog {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    view: Arc<View>,
    partitions: u32,
    /// Ends with the last clone of the catalog.
    _following: AbortOnDropHandle<()>,
}

impl Catalog {
    /// Opens the catalog, making it at the first start of a cluster. Returns when the view holds everything that was in the
    /// bucket at the call.
    ///
    /// # Errors
    /// When the bus does not answer, or the number of partitions that the bucket holds can't be read.
    pub async fn open(bus: &Bus) -> Result<Self, CatalogError> {
        let store = bus.key_value(BUCKET).await?;
        // Done first, so that the bucket is never empty: its last entry tells that the view is complete.
        let partitions = partitions::settle(&store).await?;
        let view = Arc::new(View::default());
        let following = follow::start(bus.clone(), store.clone(), Arc::clone(&view)).await?;
        Ok(Self {
            inner: Arc::new(Inner {
                store,
                view,
                partitions,
                _following: following,
            }),
        })
    }

    /// A record as the view has it.
    pub fn get<T: Entry>(&self, id: &str) -> Option<Versioned<T>> {
        self.inner.view.get(id)
    }

    /// Every record of a kind with its id, sorted by id, as the view has them.
    pub fn list<T: Entry>(&self) -> Vec<(String, Versioned<T>)> {
        self.inner.view.list()
    }

    /// A record as the server has it now.
    ///
    /// # Errors
    /// When the server does not answer or holds something that can't be read.
    pub async fn fetch<T: Entry>(&self, id: &str) -> Result<Option<Versioned<T>>, CatalogError> {
        let key = entry::key::<T>(id);
        if !entry::is_valid(&key) {
            return Ok(None);
        }
        let found = within_deadline("read", &key, self.inner.store.entry(key.clone())).await?;
        let found = found.map_err(|source| CatalogError::failed("read", &key, source))?;
        let Some(found) = found.filter(|found| found.operation == Operation::Put) else {
            return Ok(None);
        };
        let value = T::decode(found.value).map_err(|source| CatalogError::Unreadable {
            key: key.clone(),
            source,
        })?;
        let value = Arc::new(value);
        self.inner
            .view
            .put(key, found.revision, Some(value.clone() as view::Value));
        Ok(Some(Versioned {
            value,
            revision: found.revision,
        }))
    }

    /// Whether the server knows that a record was deleted. That is more than that it has none: a catalog that was lost or is
    /// another one has no records either, and what is kept for them elsewhere must not be removed.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn is_deleted<T: Entry>(&self, id: &str) -> Result<bool, CatalogError> {
        let key = entry::key::<T>(id);
        if !entry::is_valid(&key) {
            return Ok(false);
        }
        let found = within_deadline("read", &key, self.inner.store.entry(key.clone())).await?;
        let found = found.map_err(|source| CatalogError::failed("read", &key, source))?;
        Ok(found.is_some_and(|found| found.operation != Operation::Put))
    }

    /// Writes a record that does not exist yet, and returns its revision.
    ///
    /// # Errors
    /// `Exists` when there is one, which may be this one: its confirmation may have got lost at an earlier try. Otherwise
    /// when the id is none or the server does not answer; the record may have been written all the same.
    pub async fn create<T: Entry>(&self, id: &str, record: &T) -> Result<u64, CatalogError> {
        let key = entry::valid_key::<T>(id)?;
        let payload = record.encode_to_vec().into();
        let created = self.inner.store.create(&key, payload);
        let created = within_deadline("created", &key, created).await?;
        let revision = created.map_err(|source| match source.kind() {
            CreateErrorKind::AlreadyExists => CatalogError::Exists { key: key.clone() },
            _ => CatalogError::failed("created", &key, source),
        })?;
        self.keep(key, revision, record.clone());
        Ok(revision)
    }

    /// Replaces the record that has this revision, and returns the new one.
    ///
    /// # Errors
    /// `Conflict` when it has another revision by now, which may be of this very write: its confirmation may have got lost
    /// at an earlier try. Otherwise when the server does not answer; the record may have been written all the same.
    pub async fn update<T: Entry>(
        &self,
        id: &str,
        record: &T,
        revision: u64,
    ) -> Result<u64, CatalogError> {
        let key = entry::valid_key::<T>(id)?;
        let payload = record.encode_to_vec().into();
        let updated = self.inner.store.update(&key, payload, revision);
        let updated = within_deadline("updated", &key, updated).await?;
        let revision = updated.map_err(|source: UpdateError| match source.kind() {
            UpdateErrorKind::WrongLastRevision => CatalogError::Conflict { key: key.clone() },
            _ => CatalogError::failed("updated", &key, source),
        })?;
        self.keep(key, revision, record.clone());
        Ok(revision)
    }

    /// Changes a record as the server has it now, again on what others wrote meanwhile, and returns it. `change` says
    /// whether it changed anything; it may be called several times, each time on a fresh copy.
    ///
    /// # Errors
    /// `Missing` without such a record, `Conflict` after 16 tries against others; otherwise when the server does not answer.
    pub async fn modify<T: Entry>(
        &self,
        id: &str,
        mut change: impl FnMut(&mut T) -> bool,
    ) -> Result<Arc<T>, CatalogError> {
        let missing = || CatalogError::Missing {
            key: entry::key::<T>(id),
        };
        for _ in 0..MODIFY_ATTEMPTS {
            let found = self.fetch::<T>(id).await?.ok_or_else(missing)?;
            let mut record = T::clone(&found.value);
            if !change(&mut record) {
                return Ok(found.value);
            }
            match self.update(id, &record, found.revision).await {
                Ok(_) => return Ok(Arc::new(record)),
                Err(CatalogError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(CatalogError::Conflict {
            key: entry::key::<T>(id),
        })
    }

    /// Deletes the record that has this revision.
    ///
    /// # Errors
    /// `Conflict` when it has another revision by now, or none. Otherwise when the server does not answer; the record may
    /// have been deleted all the same.
    pub async fn delete<T: Entry>(&self, id: &str, revision: u64) -> Result<(), CatalogError> {
        let key = entry::valid_key::<T>(id)?;
        let deleted = self
            .inner
            .store
            .delete_expect_revision(&key, Some(revision));
        let deleted = within_deadline("deleted", &key, deleted).await?;
        deleted.map_err(|source: UpdateError| match source.kind() {
            UpdateErrorKind::WrongLastRevision => CatalogError::Conflict { key: key.clone() },
            _ => CatalogError::failed("deleted", &key, source),
        })?;
        // The server does not say which revision the deletion has; it is a later one than the record's.
        self.inner.view.put(key, revision + 1, None);
        Ok(())
    }

    /// Wakes after every change of the view, one's own writes included. The value is the newest revision in the view.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.view.changes()
    }

    /// The same for one kind of records: for who would look through all of them after every change of any.
    pub fn changes_of<T: Entry>(&self) -> watch::Receiver<u64> {
        self.inner.view.changes_of::<T>()
    }

    /// The number of partitions of OBSERVATIONS, fixed at the first start of a cluster.
    pub fn partitions(&self) -> u32 {
        self.inner.partitions
    }

    /// The partition that a stream's observations belong to, the same in every process and release.
    pub fn partition_of(&self, rtstream: &str) -> u32 {
        partitions::of(rtstream, self.inner.partitions)
    }

    fn keep<T: Entry>(&self, key: String, revision: u64, record: T) {
        self.inner.view.put(key, revision, Some(Arc::new(record)));
    }
}

/// The library bounds the wait for an answer, but not the wait for room to send in.
async fn within_deadline<T>(
    action: &'static str,
    key: &str,
    call: impl Future<Output = T>,
) -> Result<T, CatalogError> {
    timeout(DEADLINE, call)
        .await
        .map_err(|source| CatalogError::failed(action, key, source))
}
