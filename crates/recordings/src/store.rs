//! The object store: a local directory or an S3-compatible service, with a deadline on every call.

use bytes::Bytes;
use futures::stream::BoxStream;
use sightline_proto::internal::PlayerPage;

use crate::error::StoreError;
use crate::names::Segment;

/// Where recordings are kept. Clones share it.
#[derive(Debug, Clone)]
pub struct Store(std::sync::Arc<dyn object_store::ObjectStore>);

/// An object, or a part of it, as it is read.
pub struct ObjectBody {
    /// Size of the whole object.
    pub size: u64,
    /// Which part this is: from, and up to but without.
    pub range: std::ops::Range<u64>,
    /// Its bytes.
    pub stream: BoxStream<'static, Result<Bytes, StoreError>>,
}

impl Store {
    /// Opens a store: `file:///DIR` (made if missing) or `s3://BUCKET/PREFIX`. `options` are those of object_store by their
    /// environment names ("AWS_ENDPOINT", "AWS_ACCESS_KEY_ID", "AWS_ALLOW_HTTP", …); others are ignored.
    pub fn open(_address: &str, _options: impl IntoIterator<Item = (String, String)>) -> Result<Self, StoreError> {
        unimplemented!()
    }

    /// Writes a segment, whole or not at all; again is harmless. `segment.bytes` is ignored.
    pub async fn put_segment(&self, _rtstream: &str, _segment: Segment, _ts: Bytes) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// Reads a segment.
    pub async fn segment(&self, _rtstream: &str, _segment: Segment) -> Result<ObjectBody, StoreError> {
        unimplemented!()
    }

    /// Writes what a player page shows; `Exists` when its slug is taken.
    pub async fn create_page(&self, _slug: &str, _page: &PlayerPage) -> Result<(), StoreError> {
        unimplemented!()
    }

    /// What a player page shows.
    pub async fn page(&self, _slug: &str) -> Result<PlayerPage, StoreError> {
        unimplemented!()
    }

    /// Removes player pages whose links have stopped working, and returns how many.
    pub async fn remove_expired_pages(&self, _now_us: i64) -> Result<u64, StoreError> {
        unimplemented!()
    }

    /// Writes the MP4 file of an export from a local file, in parts, and returns its size.
    pub async fn put_export(&self, _export_id: &str, _file: &std::path::Path) -> Result<u64, StoreError> {
        unimplemented!()
    }

    /// Reads an export's file, or a part of it; `range` is cut at the end of the file.
    pub async fn export(&self, _export_id: &str, _range: Option<std::ops::Range<u64>>) -> Result<ObjectBody, StoreError> {
        unimplemented!()
    }
}
