//! Pictures of a moment: the gateway has no media pipeline, so a worker makes them.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use prost::bytes::Bytes;
use sightline_bus::Ask;
use sightline_proto::internal::{ThumbnailRequest, ThumbnailResponse};
use sightline_recordings::Segment;
use sightline_recordings::links::Clip;
use sightline_service::chain;

use super::Playback;
use super::answer::{Refusal, described, set, unchanged};
use super::playlists::last_us;
use super::segments::overlaps;

const CACHING: &str = "private, max-age=86400, immutable";
/// How long a worker may take.
const DEADLINE: Duration = Duration::from_secs(8);
/// Longest side in pixels.
const EDGE: u32 = 640;
/// How far outside its clip a moment may be: as far as a segment of it reaches that is cut late.
const AROUND_US: i64 = 120_000_000;
/// How much later than asked for the picture may be: a clip's start is padded, and may lie before the recording's.
const LATER_US: i64 = 6_000_000;

/// The moment in `<at_us>.jpg`, written as this platform writes it.
pub(super) fn parse(file: &str) -> Option<i64> {
    let digits = file.strip_suffix(".jpg")?;
    let at_us: i64 = digits.parse().ok()?;
    (at_us >= 0 && at_us.to_string() == digits).then_some(at_us)
}

impl Playback {
    /// The picture of a moment within a segment of the clip, or of the first moment after it.
    pub(super) async fn thumbnail(
        &self,
        clip: &Clip,
        at_us: i64,
        headers: &HeaderMap,
    ) -> Result<Response, Refusal> {
        let earliest_us = clip.start_us.saturating_sub(AROUND_US);
        let latest_us = last_us(clip).saturating_add(AROUND_US);
        if !(earliest_us..=latest_us).contains(&at_us) {
            return Err(Refusal::NotFound("this link is for another time"));
        }
        let tag = format!("\"{at_us}-{EDGE}\"");
        if let Some(response) = unchanged(headers, &tag, CACHING) {
            return Ok(response);
        }
        let Ok(_place) = self.thumbnails.try_acquire() else {
            return Err(Refusal::Busy);
        };
        let library = &self.core.library;
        let near = library
            .segments(&clip.rtstream, at_us, at_us.saturating_add(LATER_US))
            .await?;
        let segment = near.into_iter().find(|segment| overlaps(clip, *segment));
        let segment = segment.ok_or(Refusal::NotFound("nothing is recorded at this time"))?;
        let jpeg = self.picture(clip, segment, at_us).await?;
        let mut response = jpeg.into_response();
        described(&mut response, "image/jpeg", CACHING);
        set(&mut response, header::ETAG, &tag);
        Ok(response)
    }

    async fn picture(&self, clip: &Clip, segment: Segment, at_us: i64) -> Result<Bytes, Refusal> {
        let question = ThumbnailRequest {
            rtstream_id: clip.rtstream.clone(),
            segment_start_us: segment.start_us,
            segment_duration_us: segment.duration_us,
            at_us: at_us.max(segment.start_us),
            edge: EDGE,
        };
        let asked = self.core.bus.ask(Ask::Thumbnail, &question, DEADLINE).await;
        let answer: ThumbnailResponse = asked.map_err(|error| {
            tracing::warn!(error = chain(&error), "no worker made a picture");
            Refusal::Unavailable
        })?;
        if answer.busy {
            return Err(Refusal::Busy);
        }
        if answer.jpeg.is_empty() {
            tracing::debug!(error = answer.error, "there is no picture");
            return Err(Refusal::NotFound("there is no picture of this time"));
        }
        Ok(answer.jpeg)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_in_one_way() {
        for (file, expected) in [
            ("0.jpg", Some(0)),
            ("1764000000000000.jpg", Some(1_764_000_000_000_000)),
            ("01.jpg", None),
            ("+1.jpg", None),
            ("-1.jpg", None),
            ("1.jpeg", None),
            ("1.5.jpg", None),
            (".jpg", None),
            ("99999999999999999999.jpg", None),
            ("1.jpg/..", None),
        ] {
            assert_eq!(parse(file), expected, "{file}");
        }
    }
}
