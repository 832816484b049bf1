//! Playlists: what is recorded of a clip, as far as it has come.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use sightline_recordings::Segment;
use sightline_recordings::links::Clip;
use sightline_recordings::playlist::{Ending, GAP_US, playlist};
use tokio::time::Instant;

use super::answer::{Refusal, described};
use super::{LATE_US, Playback};
use crate::api::MAX_CLIP_US;

const TYPE: &str = "application/vnd.apple.mpegurl";
/// How long the first segment of what is being recorded is waited for, and how often it is looked for.
const WAIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(250);
/// The library's answers are at most a second old.
const STALE: Duration = Duration::from_millis(1100);
/// How far beyond the clock, or what is known to be recorded, a clip without an end is looked for: an hour.
const AHEAD_US: i64 = 3_600_000_000;

/// What there is of a clip.
struct Found {
    segments: Vec<Segment>,
    /// Whether more of it may come.
    grows: bool,
    /// Whether a segment that was stored within the last second may be missing.
    stale: bool,
}

impl Playback {
    /// The clip's playlist; waits a little for the first segment of what is just being recorded.
    pub(super) async fn playlist(&self, clip: &Clip) -> Result<Response, Refusal> {
        let latest = Instant::now() + WAIT;
        let mut found = self.look(clip).await?;
        while found.segments.is_empty() && found.grows && Instant::now() < latest {
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = self.core.shutdown.cancelled() => return Err(Refusal::Unavailable),
            }
            found = self.look(clip).await?;
        }
        if found.stale {
            tokio::time::sleep(STALE).await;
            found = self.look(clip).await?;
        }
        match (found.segments.is_empty(), found.grows) {
            (true, true) => Err(Refusal::NotYet),
            (true, false) => Err(Refusal::NotFound("nothing of this is recorded")),
            (false, true) => Ok(answer(clip, &found.segments, Ending::Open)),
            (false, false) => Ok(answer(clip, &found.segments, Ending::Complete)),
        }
    }

    async fn look(&self, clip: &Clip) -> Result<Found, Refusal> {
        // First how far it is and then what there is: what is stored before a stream is over is found after it.
        let reach = self.core.reach(&clip.rtstream);
        let now_us = self.core.clock.now_us();
        let to_us = last_us(clip);
        let ahead_us = now_us.max(reach.recorded_us).saturating_add(AHEAD_US);
        let until_us = if clip.end_us.is_none() {
            to_us.min(ahead_us)
        } else {
            to_us
        };
        let segments = if until_us > clip.start_us {
            let library = &self.core.library;
            library
                .segments(&clip.rtstream, clip.start_us, until_us)
                .await?
        } else {
            Vec::new()
        };
        let end_us = segments.last().map_or(clip.start_us, Segment::end_us);
        let late = to_us.saturating_add(LATE_US) < now_us;
        let grows = reach.running && end_us < to_us && !late;
        let stale = !reach.running && end_us.saturating_add(GAP_US) < reach.recorded_us.min(to_us);
        Ok(Found {
            segments,
            grows,
            stale: stale && !late,
        })
    }
}

/// Where a clip ends at the latest.
pub(super) fn last_us(clip: &Clip) -> i64 {
    let longest_us = clip.start_us.saturating_add(MAX_CLIP_US);
    clip.end_us
        .map_or(longest_us, |end_us| end_us.min(longest_us))
}

fn answer(clip: &Clip, segments: &[Segment], ending: Ending) -> Response {
    let mut response = playlist(segments, clip.start_us, ending).into_response();
    let caching = match ending {
        Ending::Complete => "private, max-age=60",
        Ending::Open => "no-store",
    };
    described(&mut response, TYPE, caching);
    response
}
