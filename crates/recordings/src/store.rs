//! The object store: a local directory or an S3-compatible service, with a deadline on every call.

use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};
use prost::Message;
use sightline_proto::internal::PlayerPage;

use crate::body::ObjectBody;
use crate::error::StoreError;
use crate::names::{self, Segment};
use crate::open::open;
use crate::upload;

/// How long a small call may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);
/// How long writing a segment may take: up to 24 MiB over a slow line.
const SEGMENT_DEADLINE: Duration = Duration::from_secs(30);
/// Larger than any page: 200 and 2,000 characters of at most four bytes.
const PAGE_BYTES: usize = 16 * 1024;
/// Calls at a time.
pub(crate) const AT_ONCE: usize = 16;

/// Where recordings are kept. Clones share it.
#[derive(Clone)]
pub struct Store {
    pub(crate) objects: Arc<dyn ObjectStore>,
    /// Where it is, when it is a folder of this machine.
    pub(crate) folder: Option<Arc<PathBuf>>,
}

/// Without its configuration, which holds keys.
impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Store({})", self.objects)
    }
}

impl Store {
    /// Opens a store: `file:///DIR` (made if missing) or `s3://BUCKET/PREFIX`. `options` are those of object_store by their
    /// environment names ("AWS_ENDPOINT", "AWS_ACCESS_KEY_ID", "AWS_ALLOW_HTTP", …); others are ignored. An S3 bucket should
    /// have a lifecycle rule that removes incomplete multipart uploads: what a dead worker leaves of an export is not seen here.
    ///
    /// # Errors
    /// When the address is none, its folder can't be made, or an option has no good value. Nothing is connected to yet.
    pub fn open(
        address: &str,
        options: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, StoreError> {
        let opened = open(address, options)?;
        Ok(Self {
            objects: opened.objects,
            folder: opened.folder.map(Arc::new),
        })
    }

    /// Writes a segment, whole or not at all; again is harmless. `segment.bytes` is ignored.
    ///
    /// # Errors
    /// When the store fails or takes longer than 30 s; `NotFound` when `rtstream` is no id of a stream or the segment's times can't be.
    pub async fn put_segment(
        &self,
        rtstream: &str,
        segment: Segment,
        ts: Bytes,
    ) -> Result<(), StoreError> {
        let path = names::segment(rtstream, segment)?;
        let put = self.objects.put(&path, ts.into());
        within(SEGMENT_DEADLINE, "write", "segment", put).await?;
        // One that comes when its hour is over already (a clock that was set, a second worker) would be missing in the index.
        // After the segment: whoever writes an index looks again afterwards, so one of both notices.
        let index = names::index(rtstream, segment.hour())?;
        match within(DEADLINE, "read", "index", self.objects.head(&index)).await {
            Ok(_) => self.remove(&index, "index").await,
            Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Reads a segment.
    ///
    /// # Errors
    /// `NotFound`, or when the store fails.
    pub async fn segment(
        &self,
        rtstream: &str,
        segment: Segment,
    ) -> Result<ObjectBody, StoreError> {
        let path = names::segment(rtstream, segment)?;
        self.get(&path, "segment").await
    }

    /// Writes what a player page shows; `Exists` when its slug is taken.
    ///
    /// # Errors
    /// `Exists`; `NotFound` when the slug can't be one; or when the store fails.
    pub async fn create_page(&self, slug: &str, page: &PlayerPage) -> Result<(), StoreError> {
        let path = names::page(slug)?;
        let bytes = page.encode_to_vec();
        if bytes.len() > PAGE_BYTES {
            return Err(damaged_page());
        }
        let create = PutOptions::from(PutMode::Create);
        let put = self.objects.put_opts(&path, bytes.into(), create);
        within(DEADLINE, "write", "player page of that slug", put).await?;
        Ok(())
    }

    /// What a player page shows.
    ///
    /// # Errors
    /// `NotFound`; `Damaged`; or when the store fails.
    pub async fn page(&self, slug: &str) -> Result<PlayerPage, StoreError> {
        let path = names::page(slug)?;
        let bytes = self.small(&path, "player page", PAGE_BYTES).await?;
        PlayerPage::decode(bytes).map_err(|_| damaged_page())
    }

    /// Writes the MP4 file of an export from a local file, in parts, and returns its size.
    ///
    /// # Errors
    /// When the file can't be read or the store fails; `NotFound` when `export_id` is no id of an export.
    pub async fn put_export(&self, export_id: &str, file: &FilePath) -> Result<u64, StoreError> {
        upload::put(&self.objects, &names::export(export_id)?, file).await
    }

    /// Reads an export's file, or a part of it; `range` is cut at the end of the file, and beyond it there is an empty body.
    ///
    /// # Errors
    /// `NotFound`, or when the store fails.
    pub async fn export(
        &self,
        export_id: &str,
        range: Option<Range<u64>>,
    ) -> Result<ObjectBody, StoreError> {
        let path = names::export(export_id)?;
        let Some(range) = range else {
            return self.get(&path, "export").await;
        };
        // Stores differ in how they refuse a range without bytes, so none is asked for.
        let head = self.objects.head(&path);
        let size = within(DEADLINE, "read", "export", head).await?.size;
        if range.start >= size.min(range.end) {
            return Ok(ObjectBody::empty(size, range.start.min(size)));
        }
        let options =
            GetOptions::new().with_range(Some(GetRange::Bounded(range.start..range.end.min(size))));
        let got = self.objects.get_opts(&path, options);
        Ok(ObjectBody::new(
            within(DEADLINE, "read", "export", got).await?,
        ))
    }

    async fn get(&self, path: &Path, what: &'static str) -> Result<ObjectBody, StoreError> {
        let got = within(DEADLINE, "read", what, self.objects.get(path)).await?;
        Ok(ObjectBody::new(got))
    }

    /// An object that has to be small; `Damaged` when it isn't.
    pub(crate) async fn small(
        &self,
        path: &Path,
        what: &'static str,
        most: usize,
    ) -> Result<Bytes, StoreError> {
        let body = self.get(path, what).await?;
        if body.size > most as u64 {
            return Err(StoreError::Damaged {
                what: what.to_owned(),
            });
        }
        body.bytes().await
    }

    pub(crate) async fn put(
        &self,
        path: &Path,
        what: &'static str,
        bytes: PutPayload,
    ) -> Result<(), StoreError> {
        within(DEADLINE, "write", what, self.objects.put(path, bytes)).await?;
        Ok(())
    }

    /// Removes an object that may be gone already.
    pub(crate) async fn remove(&self, path: &Path, what: &'static str) -> Result<(), StoreError> {
        let removal = within(DEADLINE, "remove", what, self.objects.delete(path)).await;
        match removal {
            Err(StoreError::NotFound { .. }) => Ok(()),
            other => other,
        }
    }
}

/// Awaits a call of the store for so long.
pub(crate) async fn within<T>(
    deadline: Duration,
    action: &'static str,
    what: &'static str,
    call: impl Future<Output = object_store::Result<T>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(deadline, call).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(failed(action, what, error)),
        Err(_) => Err(StoreError::Deadline {
            seconds: deadline.as_secs(),
        }),
    }
}

/// A bucket that is not there can't be written to or listed: that is a failure, and not something that is not found.
pub(crate) fn failed(
    action: &'static str,
    what: &'static str,
    source: object_store::Error,
) -> StoreError {
    let what = what.to_owned();
    match source {
        object_store::Error::NotFound { .. } if matches!(action, "read" | "remove") => {
            StoreError::NotFound { what }
        }
        object_store::Error::AlreadyExists { .. } => StoreError::Exists { what },
        source => StoreError::Failed { action, source },
    }
}

fn damaged_page() -> StoreError {
    StoreError::Damaged {
        what: "player page".to_owned(),
    }
}
