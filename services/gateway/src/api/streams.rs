//! RtStreams: connecting, reading and listing them, starting and stopping.

use sightline_catalog::Versioned;
use sightline_catalog::source::{self, Source};
use sightline_proto::internal::{RtStreamRecord, RunRecord};
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::time::timestamp;
use sightline_proto::v1::rt_stream::{Playback, State};
use sightline_proto::v1::{self, RtStream};
use sightline_service::failpoint;

use super::paging::Position;
use super::state::{id_of, is_over, run_of};
use super::violations::{Violations, refused};
use super::{Session, bus_failed, catalog_failed};

pub(super) const MAX_NAME: usize = 200;
const MAX_URL: usize = 2000;
/// Ten years.
const MAX_AGE_SECONDS: i64 = 10 * 366 * 24 * 3600;

impl Session {
    /// Connects a source: checked, stored with its credentials sealed, and asked to run.
    pub(crate) async fn connect_rtstream(
        &self,
        request: v1::ConnectRtStreamRequest,
    ) -> Result<RtStream, ApiError> {
        let mut faults = Violations::default();
        faults.text("url", &request.url, 1, MAX_URL);
        faults.text("name", &request.name, 0, MAX_NAME);
        let request_id = faults.request_id(&request.request_id);
        if Playback::try_from(request.playback).is_err() {
            faults.add("playback", "PLAYBACK_REAL_TIME or PLAYBACK_FAST");
        }
        retention(&mut faults, request.retention.as_ref());
        faults.into_result()?;
        let source = self.check_source(&request.url).await?;
        if request.playback() == Playback::Fast && !source.is_file() {
            let allowed = "PLAYBACK_REAL_TIME: a live source has one pace only";
            return Err(refused(Reason::InvalidArgument, "playback", allowed));
        }
        let collection_id = self.collection(&request.collection_id).await?;

        let public = v1::ConnectRtStreamRequest {
            url: source.redacted(),
            ..request.clone()
        };
        let now_us = self.clock.now_us();
        let record = self
            .create_once(request_id, &public, |id| RtStreamRecord {
                rtstream: Some(described(id, collection_id, &public, now_us)),
                sealed_url: self.seal.seal(&request.url).into(),
                wanted: !request.start_stopped,
                start_count: 1,
                tenant: self.tenant(),
                transcription_session: u32::from(request.transcribe),
                transcription_changed_us: if request.transcribe { now_us } else { 0 },
                ..Default::default()
            })
            .await?;
        failpoint::hit("gateway.before_run_request");
        let id = id_of(&record);
        if record.wanted {
            self.bus.request_run(id).await.map_err(bus_failed)?;
        }
        Ok(self.merged(&record))
    }

    /// One stream with its state.
    pub(crate) async fn get_rtstream(&self, id: &str) -> Result<RtStream, ApiError> {
        let record = self.stream(id).await?;
        Ok(self.merged(&record.value))
    }

    /// Streams, newest first.
    pub(crate) async fn list_rtstreams(
        &self,
        request: v1::ListRtStreamsRequest,
    ) -> Result<v1::ListRtStreamsResponse, ApiError> {
        let mut faults = Violations::default();
        let size = faults.page_size(request.page_size);
        let name = &request.name_contains;
        faults.text("name_contains", name, 0, MAX_NAME);
        for state in &request.states {
            if !State::try_from(*state).is_ok_and(|state| state != State::Unspecified) {
                faults.add("states", format!("known states, got {state}"));
            }
        }
        faults.into_result()?;
        let collection = match request.collection_id.as_str() {
            "" => None,
            id => Some(self.collection(id).await?),
        };
        let pages = self.pages(
            "ListRtStreams",
            &v1::ListRtStreamsRequest {
                page_size: 0,
                page_token: String::new(),
                ..request.clone()
            },
        );
        let name = name.to_lowercase();
        let newest_first = self
            .all::<RtStreamRecord>()
            .rev()
            .filter(|record| {
                let of = record.rtstream.as_ref().map(|s| &s.collection_id);
                collection.is_none() || of == collection.as_ref()
            })
            .map(|record| self.merged(&record))
            .filter(|stream| request.states.is_empty() || request.states.contains(&stream.state))
            .filter(|stream| name.is_empty() || stream.name.to_lowercase().contains(&name));
        let (rtstreams, next_page_token) =
            pages.cut(newest_first, &request.page_token, size, true, |stream| {
                Position::of_id(&stream.id)
            })?;
        Ok(v1::ListRtStreamsResponse {
            rtstreams,
            next_page_token,
        })
    }

    /// Starts a stream that is stopped or over; one that runs is left alone.
    pub(crate) async fn start_rtstream(&self, id: &str) -> Result<RtStream, ApiError> {
        self.stream(id).await?;
        let run = self.catalog.get::<RunRecord>(id);
        let record = self
            .catalog
            .modify::<RtStreamRecord>(id, |record| {
                let over = run_of(record, run.as_ref()).is_some_and(is_over);
                let starts = !record.wanted || over;
                if starts {
                    record.wanted = true;
                    record.start_count += 1;
                }
                starts
            })
            .await
            .map_err(catalog_failed)?;
        failpoint::hit("gateway.before_run_request");
        self.bus.request_run(id).await.map_err(bus_failed)?;
        Ok(self.merged(&record))
    }

    /// Says that a stream should not run; whoever runs it stops.
    pub(crate) async fn stop_rtstream(&self, id: &str) -> Result<RtStream, ApiError> {
        self.stream(id).await?;
        let record = self
            .catalog
            .modify::<RtStreamRecord>(id, |record| std::mem::replace(&mut record.wanted, false))
            .await
            .map_err(catalog_failed)?;
        Ok(self.merged(&record))
    }

    pub(super) async fn stream(&self, id: &str) -> Result<Versioned<RtStreamRecord>, ApiError> {
        self.find("rtstream_id", id).await
    }

    /// File systems may be slow, so the check has a thread of its own.
    async fn check_source(&self, url: &str) -> Result<Source, ApiError> {
        let (url, root) = (url.to_owned(), self.config.media_root.clone());
        let check = tokio::task::spawn_blocking(move || source::check(&url, root.as_deref()));
        let checked = check.await.map_err(|error| {
            tracing::error!(%error, "checking a source failed");
            ApiError::new(Reason::Internal, "the source could not be checked")
        })?;
        checked.map_err(|error| refused(Reason::SourceRefused, "url", error.to_string()))
    }
}

fn described(
    id: &str,
    collection_id: String,
    request: &v1::ConnectRtStreamRequest,
    now_us: i64,
) -> RtStream {
    let playback = match request.playback() {
        Playback::Unspecified => Playback::RealTime,
        chosen => chosen,
    };
    RtStream {
        id: id.to_owned(),
        collection_id,
        name: if request.name.is_empty() {
            id.to_owned()
        } else {
            request.name.clone()
        },
        url: request.url.clone(),
        transcribe: request.transcribe,
        playback: playback.into(),
        create_time: Some(timestamp(now_us)),
        store: request.store,
        retention: request.retention,
        ..Default::default()
    }
}

/// What is kept is bounded by 0 (the default) and ten years, and by any size.
pub(super) fn retention(faults: &mut Violations, asked: Option<&v1::Retention>) {
    let Some(asked) = asked else { return };
    if !(0..=MAX_AGE_SECONDS).contains(&asked.max_age_seconds) {
        let got = asked.max_age_seconds;
        let allowed = format!("0 to {MAX_AGE_SECONDS}, 0 being the default; got {got}");
        faults.add("retention.max_age_seconds", allowed);
    }
    if asked.max_bytes < 0 {
        let allowed = format!("0 or more, 0 being the default; got {}", asked.max_bytes);
        faults.add("retention.max_bytes", allowed);
    }
}
