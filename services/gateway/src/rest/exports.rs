//! Exports in this skin: the call waits for the file.

use std::time::Duration;

use serde_json::json;
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::v1;
use sightline_proto::v1::export::State as Doing;

use super::answer::{Answer, Data};
use super::asked::Export;
use super::request::{Body, Ids};
use crate::api::Session;

/// How long a call waits at most: clients wait 30 s.
const WAIT: Duration = Duration::from_secs(25);
/// The longest name that leaves room for what is put behind it.
const NAME: usize = 188;

/// `POST /rtstream/{id}/export`: all that is recorded of a stopped stream. Asking again is the same export.
pub(super) async fn export(session: Session, ids: Ids, Body(body): Body<Export>) -> Answer {
    let stream = session.get_rtstream(&ids.id).await?;
    let name = body.name.unwrap_or_else(|| {
        let name: String = stream.name.chars().take(NAME).collect();
        format!("{name} - Recording")
    });
    let request = v1::CreateExportRequest {
        rtstream_id: stream.id,
        name,
        ..Default::default()
    };
    let asked = session.create_export(request).await?;
    // Less than the call's own deadline, so that its end can be told.
    let wait = WAIT.min(session.config.limits.deadline * 5 / 6);
    let over = tokio::time::timeout(wait, over(&session, &asked.id)).await;
    let export = over.unwrap_or_else(|_| {
        let message = "the export is still being written; ask again shortly";
        Err(ApiError::new(Reason::Unavailable, message))
    })?;
    if export.state() == Doing::Failed {
        let message = format!("the export failed: {}", export.state_detail);
        return Err(ApiError::new(Reason::FailedPrecondition, message).into());
    }
    let played = v1::GenerateStreamRequest {
        rtstream_id: export.rtstream_id,
        start_time: export.start_time,
        end_time: export.end_time,
        player_config: None,
    };
    let links = session.generate_stream(played).await?;
    Data::of(json!({
        "video_id": export.id,
        "stream_url": links.stream_url,
        "player_url": links.player_url,
        "download_url": export.download_url,
        "name": export.name,
        "duration": export.duration_seconds,
    }))
}

/// The export, once it is no longer being written.
async fn over(session: &Session, id: &str) -> Result<v1::Export, ApiError> {
    let mut changes = session.catalog.changes();
    loop {
        let export = session.get_export(id).await?;
        // The catalog is gone only together with the process.
        if export.state() != Doing::Running || changes.changed().await.is_err() {
            return Ok(export);
        }
    }
}
