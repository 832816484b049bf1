//! Pictures of moments of recordings, for whoever asks on the bus. Each is made by a child of its own: what strangers sent is
//! decoded in no worker.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sightline_bus::Ask;
use sightline_catalog::Catalog;
use sightline_proto::internal::child_command::Command;
use sightline_proto::internal::child_report::Report;
use sightline_proto::internal::{
    MakeThumbnail, RtStreamRecord, ThumbnailRequest, ThumbnailResponse,
};
use sightline_recordings::Segment;
use sightline_service::{Shutdown, chain};
use tokio::time::{sleep, timeout};

use crate::process::ChildProcess;
use crate::{PAUSE, Shared, reading};

/// Pictures made at the same time.
const AT_ONCE: usize = 2;
/// How long one may take.
const DEADLINE: Duration = Duration::from_secs(6);
/// How long the longest side of a picture may be, in pixels.
const EDGES: std::ops::RangeInclusive<u32> = 16..=1920;

/// Answers until shutdown.
pub(crate) async fn run(shared: Arc<Shared>, shutdown: Shutdown) {
    while !shutdown.is_cancelled() {
        let asked = Arc::clone(&shared);
        let answer = move |question| {
            let shared = Arc::clone(&asked);
            async move { answer(&shared, &question).await }
        };
        let answering = shared
            .bus
            .answer(Ask::Thumbnail, AT_ONCE, &shutdown, answer);
        if let Err(error) = answering.await {
            tracing::debug!(%error, "thumbnails cannot be answered, trying again");
            sleep(PAUSE).await;
        }
    }
}

async fn answer(shared: &Shared, question: &ThumbnailRequest) -> ThumbnailResponse {
    match timeout(DEADLINE, make(shared, question)).await {
        Ok(Ok(jpeg)) => ThumbnailResponse {
            jpeg,
            ..ThumbnailResponse::default()
        },
        Ok(Err(error)) => ThumbnailResponse {
            error,
            ..ThumbnailResponse::default()
        },
        Err(_) => ThumbnailResponse {
            error: format!("not made within {} s", DEADLINE.as_secs()),
            busy: true,
            ..ThumbnailResponse::default()
        },
    }
}

/// The picture as JPEG; or why there is none, in words.
async fn make(shared: &Shared, question: &ThumbnailRequest) -> Result<Bytes, String> {
    let id = &question.rtstream_id;
    if !is_known(&shared.catalog, id) {
        return Err("there is no such stream".to_owned());
    }
    let segment = Segment {
        start_us: question.segment_start_us,
        duration_us: question.segment_duration_us,
        bytes: 0,
    };
    let ts = reading::segment(shared.library.store(), id, segment);
    let ts = ts.await.map_err(|error| chain(&error))?;
    let offset_us = question.at_us.saturating_sub(segment.start_us);
    let wanted = MakeThumbnail {
        ts,
        offset_us: offset_us.clamp(0, segment.duration_us.max(0)),
        edge: question.edge.clamp(*EDGES.start(), *EDGES.end()),
    };
    // Dropped at the deadline, and killed with that.
    let mut child = ChildProcess::spawn(&shared.config.child)
        .map_err(|error| format!("the child cannot be started: {error}"))?;
    let sent = child.send(Command::Thumbnail(wanted)).await;
    match child.next().await {
        Some(Ok(Report::Picture(picture))) => Ok(picture.jpeg),
        Some(Ok(Report::Failed(failed))) => Err(failed.reason),
        _ => {
            let status = child.end().await;
            let sent = sent
                .err()
                .map_or(String::new(), |error| format!(": {error}"));
            Err(format!("the child of this picture died ({status}){sent}"))
        }
    }
}

fn is_known(catalog: &Catalog, rtstream_id: &str) -> bool {
    catalog.get::<RtStreamRecord>(rtstream_id).is_some()
}
