//! The promises of recordings: on a local directory and on a real S3 service, and to players.

mod keeping;
mod links;
mod playlists;
mod stores;

use anyhow::{Context, Result};
use bytes::Bytes;
use sightline_recordings::{Segment, Store};
use sightline_testkit::s3::S3Server;

const STREAM: &str = "rts-01900000-0000-7000-8000-000000000001";
const OTHER_STREAM: &str = "rts-01900000-0000-7000-8000-000000000009";
const EXPORT: &str = "exp-01900000-0000-7000-8000-000000000002";
const SECOND_US: i64 = 1_000_000;
const HOUR_US: i64 = 3600 * SECOND_US;
/// 2025-11-24T16:00:00Z
const BEGIN_US: i64 = 490_000 * HOUR_US;

/// What holds on a local directory holds on S3.
async fn on_each(check: impl AsyncFn(Store) -> Result<()>) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let address = format!("file://{}/made%20when/missing", dir.path().display());
    check(Store::open(&address, [])?)
        .await
        .context("in a local directory")?;
    let server = S3Server::start().await?;
    check(Store::open(&server.address(), server.options())?)
        .await
        .context("on S3")
}

/// A segment of so many seconds and bytes that starts so many seconds after [`BEGIN_US`].
fn segment(second: i64, seconds: i64, bytes: u64) -> Segment {
    Segment {
        start_us: BEGIN_US + second * SECOND_US,
        duration_us: seconds * SECOND_US,
        bytes,
    }
}

async fn put(store: &Store, segments: &[Segment]) -> Result<()> {
    for segment in segments {
        let bytes = Bytes::from(vec![b'x'; segment.bytes as usize]);
        store.put_segment(STREAM, *segment, bytes).await?;
    }
    Ok(())
}
