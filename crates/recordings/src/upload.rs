//! Writing a large file in parts, without holding more than one part in memory.

use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use crate::error::StoreError;
use crate::store::within;

/// The usual size of a part. S3 takes 10,000 of them, so a file of more than 150 GB gets larger ones.
const PART: u64 = 16 * 1024 * 1024;
const MOST_PARTS: u64 = 9_000;
/// How long a part may take.
const PART_DEADLINE: Duration = Duration::from_secs(60);

/// Writes the file and returns its size.
pub(crate) async fn put(
    objects: &Arc<dyn ObjectStore>,
    to: &Path,
    from: &FilePath,
) -> Result<u64, StoreError> {
    let mut file = File::open(from).await.map_err(unreadable)?;
    let size = file.metadata().await.map_err(unreadable)?.len();
    let part = PART.max(size.div_ceil(MOST_PARTS));
    if size <= part {
        let bytes = next_part(&mut file, part).await?;
        let size = bytes.len() as u64;
        within(
            PART_DEADLINE,
            "write",
            "export",
            objects.put(to, bytes.into()),
        )
        .await?;
        return Ok(size);
    }
    let beginning = objects.put_multipart(to);
    let mut upload = within(PART_DEADLINE, "write", "export", beginning).await?;
    let written = put_parts(upload.as_mut(), &mut file, part).await;
    if written.is_err() {
        // The failure is what counts; parts that stay behind are removed by `enforce` or the bucket's lifecycle rule.
        let _ = within(PART_DEADLINE, "write", "export", upload.abort()).await;
    }
    written
}

async fn put_parts(
    upload: &mut dyn MultipartUpload,
    file: &mut File,
    part: u64,
) -> Result<u64, StoreError> {
    let mut size = 0;
    loop {
        let bytes = next_part(file, part).await?;
        if bytes.is_empty() {
            break;
        }
        size += bytes.len() as u64;
        within(
            PART_DEADLINE,
            "write",
            "export",
            upload.put_part(bytes.into()),
        )
        .await?;
    }
    within(PART_DEADLINE, "write", "export", upload.complete()).await?;
    Ok(size)
}

async fn next_part(file: &mut File, part: u64) -> Result<Bytes, StoreError> {
    let mut bytes = BytesMut::new();
    let mut part = file.take(part);
    while part.read_buf(&mut bytes).await.map_err(unreadable)? > 0 {}
    Ok(bytes.freeze())
}

fn unreadable(error: std::io::Error) -> StoreError {
    StoreError::Failed {
        action: "be given a file that can't be read",
        source: object_store::Error::Generic {
            store: "file",
            source: error.into(),
        },
    }
}
