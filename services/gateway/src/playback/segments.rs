//! Segments, as they lie in the store.

use axum::response::Response;
use http::{HeaderMap, header};
use sightline_recordings::Segment;
use sightline_recordings::links::Clip;

use super::Playback;
use super::answer::{Refusal, set, streamed, unchanged};
use super::playlists::last_us;

const CACHING: &str = "private, max-age=86400, immutable";

impl Playback {
    /// A segment that has a part of the clip.
    pub(super) async fn segment(
        &self,
        clip: &Clip,
        segment: Segment,
        headers: &HeaderMap,
    ) -> Result<Response, Refusal> {
        if !overlaps(clip, segment) {
            return Err(Refusal::NotFound("this link is for another time"));
        }
        // What has this name is always the same.
        let tag = format!("\"{}-{}\"", segment.start_us, segment.duration_us);
        if let Some(response) = unchanged(headers, &tag, CACHING) {
            return Ok(response);
        }
        let store = self.core.library.store();
        let body = store.segment(&clip.rtstream, segment).await?;
        let mut response = streamed(body, "video/mp2t", CACHING);
        set(&mut response, header::ETAG, &tag);
        Ok(response)
    }
}

/// Whether a segment has a part of a clip.
pub(super) fn overlaps(clip: &Clip, segment: Segment) -> bool {
    segment.start_us < last_us(clip) && segment.end_us() > clip.start_us
}
