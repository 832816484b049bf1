//! Recordings: links that play a stretch, and what is recorded.

use prost_types::Timestamp;
use sightline_proto::internal::PlayerPage;
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::time::{micros, timestamp};
use sightline_proto::v1;
use sightline_recordings::links::{Clip, Links};
use sightline_recordings::{StoreError, playlist};

use super::violations::{Violations, refused};
use super::{Session, store_failed};

/// The longest stretch that one link plays.
pub(crate) const MAX_CLIP_US: i64 = 31 * 24 * 3600 * 1_000_000;
const MAX_TITLE: usize = 200;
const MAX_DESCRIPTION: usize = 2000;
const MAX_SLUG: usize = 64;
/// How often another slug is tried; the ending that nobody can guess makes one enough.
const SLUGS: usize = 5;
/// The last moment that times may name: the end of the year 9999.
const LAST_US: i64 = 253_402_300_799_999_999;

impl Session {
    /// Links that play a stretch, or, without an end, a stream as it goes on.
    pub(crate) async fn generate_stream(
        &self,
        request: v1::GenerateStreamRequest,
    ) -> Result<v1::GenerateStreamResponse, ApiError> {
        let mut faults = Violations::default();
        let (start_us, end_us) = stretch(&mut faults, &request);
        let look = request.player_config.unwrap_or_default();
        faults.text("player_config.title", &look.title, 0, MAX_TITLE);
        let description = &look.description;
        faults.text("player_config.description", description, 0, MAX_DESCRIPTION);
        faults.text("player_config.slug", &look.slug, 0, MAX_SLUG);
        faults.into_result()?;
        self.recorded_stream(&request.rtstream_id).await?;
        let clip = Clip {
            rtstream: request.rtstream_id,
            start_us,
            end_us,
        };
        let now_us = self.clock.now_us();
        let mut links = self.config.links.clip(&clip, now_us);
        let expires_us = self.config.links.expires_us(now_us);
        if look != v1::PlayerConfig::default() {
            links.player_url = self.player_page(&clip, look, expires_us).await?;
        }
        Ok(v1::GenerateStreamResponse {
            stream_url: links.stream_url,
            player_url: links.player_url,
            thumbnail_url: links.thumbnail_url,
            expire_time: expires_us.map(timestamp),
        })
    }

    /// What of a stream is recorded, in stretches without holes.
    pub(crate) async fn get_recording(
        &self,
        request: &v1::GetRecordingRequest,
    ) -> Result<v1::GetRecordingResponse, ApiError> {
        let mut faults = Violations::default();
        let (start_us, end_us) =
            faults.period(request.start_time.as_ref(), request.end_time.as_ref());
        faults.into_result()?;
        let id = &request.rtstream_id;
        self.stream(id).await?;
        let Some((first_us, last_us)) = self.library.extent(id).await.map_err(store_failed)? else {
            return Ok(v1::GetRecordingResponse::default());
        };
        let end_us = if end_us == 0 { last_us } else { end_us };
        let (from_us, to_us) = (start_us.max(first_us), end_us.min(last_us));
        if from_us >= to_us {
            return Ok(v1::GetRecordingResponse::default());
        }
        let segments = self.library.segments(id, from_us, to_us).await;
        let segments = segments.map_err(store_failed)?;
        let bytes: u64 = segments.iter().map(|segment| segment.bytes).sum();
        let stretches = playlist::stretches(&segments).into_iter();
        Ok(v1::GetRecordingResponse {
            stretches: stretches
                .map(|(start_us, end_us)| v1::Stretch {
                    start_time: Some(timestamp(start_us)),
                    end_time: Some(timestamp(end_us)),
                })
                .collect(),
            bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
            segments: i64::try_from(segments.len()).unwrap_or(i64::MAX),
        })
    }

    /// The stream, if it is recorded.
    pub(super) async fn recorded_stream(&self, id: &str) -> Result<v1::RtStream, ApiError> {
        let record = self.stream(id).await?;
        let stream = record.value.rtstream.clone().unwrap_or_default();
        if stream.store {
            return Ok(stream);
        }
        let allowed = "a stream that is recorded: connect it with `store` set to true";
        Err(refused(Reason::FailedPrecondition, "rtstream_id", allowed))
    }

    /// Keeps what a page of its own shows, and returns its address.
    async fn player_page(
        &self,
        clip: &Clip,
        look: v1::PlayerConfig,
        expires_us: Option<i64>,
    ) -> Result<String, ApiError> {
        let page = PlayerPage {
            rtstream_id: clip.rtstream.clone(),
            start_us: clip.start_us,
            end_us: clip.end_us.unwrap_or(0),
            expires_us: expires_us.unwrap_or(0),
            title: look.title,
            description: look.description,
        };
        for _ in 0..SLUGS {
            let slug = Links::new_slug(&look.slug);
            match self.library.store().create_page(&slug, &page).await {
                Ok(()) => return Ok(self.config.links.page(&slug)),
                Err(StoreError::Exists { .. }) => {}
                Err(error) => return Err(store_failed(error)),
            }
        }
        Err(super::conflict())
    }
}

/// Where a link's stretch starts, and where it ends unless it goes on.
fn stretch(faults: &mut Violations, request: &v1::GenerateStreamRequest) -> (i64, Option<i64>) {
    let start_us = match &request.start_time {
        Some(time) => moment(faults, "start_time", time),
        None => {
            faults.add("start_time", "required, got nothing");
            0
        }
    };
    let end_us = request.end_time.as_ref();
    let end_us = end_us.map(|time| moment(faults, "end_time", time));
    if let (Some(_), Some(end_us)) = (&request.start_time, end_us) {
        span(faults, start_us, end_us, MAX_CLIP_US, "31 days");
    }
    (start_us, end_us)
}

/// A time from 1970 to 9999.
pub(super) fn moment(faults: &mut Violations, field: &'static str, time: &Timestamp) -> i64 {
    let us = micros(time);
    if !(1..=LAST_US).contains(&us) {
        faults.add(
            field,
            format!("after 1970 and before 10000, got {}", time.seconds),
        );
    }
    us.clamp(1, LAST_US)
}

/// An end after its start, and not too far.
pub(super) fn span(
    faults: &mut Violations,
    start_us: i64,
    end_us: i64,
    most_us: i64,
    most: &'static str,
) {
    if end_us <= start_us {
        faults.add("end_time", "must be after start_time");
    } else if end_us - start_us > most_us {
        faults.add("end_time", format!("at most {most} after start_time"));
    }
}
