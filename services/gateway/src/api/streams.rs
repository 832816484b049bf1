//! RtStreams: connecting, reading and listing them, starting and stopping, and their transcripts.

use sightline_catalog::Versioned;
use sightline_catalog::source::{self, Source};
use sightline_proto::ids::Kind;
use sightline_proto::internal::{RecordFilter, RecordKind, RtStreamRecord, RunRecord};
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::time::timestamp;
use sightline_proto::v1::rt_stream::{Playback, State};
use sightline_proto::v1::{self, RtStream};
use sightline_service::failpoint;

use super::paging::{Pages, Position};
use super::violations::{Violations, refused};
use super::{Core, bus_failed, catalog_failed, convert};

const MAX_NAME: usize = 200;
const MAX_URL: usize = 2000;

impl Core {
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
        let record = self
            .create_once(Kind::RtStream, request_id, &public, |id| RtStreamRecord {
                rtstream: Some(described(id, collection_id, &public, self.clock.now_us())),
                sealed_url: self.seal.seal(&request.url).into(),
                wanted: !request.start_stopped,
                start_count: 1,
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
        faults.into_result()?;
        if !request.collection_id.is_empty() {
            self.collection(&request.collection_id).await?;
        }
        let pages = Pages::of(
            "ListRtStreams",
            &v1::ListRtStreamsRequest {
                page_size: 0,
                page_token: String::new(),
                ..request.clone()
            },
        );
        let wanted = |record: &RtStreamRecord| {
            let collection = record.rtstream.as_ref().map(|s| s.collection_id.as_str());
            request.collection_id.is_empty() || collection == Some(&request.collection_id)
        };
        let newest_first = self
            .catalog
            .list::<RtStreamRecord>()
            .into_iter()
            .rev()
            .filter(|(_, record)| wanted(&record.value));
        let (page, next_page_token) =
            pages.cut(newest_first, &request.page_token, size, true, |(id, _)| {
                Position::of_id(id)
            })?;
        Ok(v1::ListRtStreamsResponse {
            rtstreams: page.iter().map(|(_, r)| self.merged(&r.value)).collect(),
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

    /// A stream's transcript, oldest first.
    pub(crate) async fn list_transcript(
        &self,
        request: v1::ListTranscriptRequest,
    ) -> Result<v1::ListTranscriptResponse, ApiError> {
        let mut faults = Violations::default();
        let size = faults.page_size(request.page_size);
        let (start_us, end_us) =
            faults.period(request.start_time.as_ref(), request.end_time.as_ref());
        faults.into_result()?;
        let pages = Pages::of(
            "ListTranscript",
            &v1::ListTranscriptRequest {
                page_size: 0,
                page_token: String::new(),
                ..request.clone()
            },
        );
        let after = pages.start(&request.page_token)?;
        self.stream(&request.rtstream_id).await?;
        let filter = RecordFilter {
            rtstream_ids: vec![request.rtstream_id],
            kind: RecordKind::Transcript.into(),
            start_us,
            end_us,
            ..Default::default()
        };
        let page = self.records.list(filter, size, false, after).await?;
        Ok(v1::ListTranscriptResponse {
            segments: page
                .observations()
                .filter_map(|o| convert::transcript(&o))
                .collect(),
            next_page_token: page
                .next
                .map_or_else(String::new, |last| pages.token(&last)),
        })
    }

    pub(super) async fn stream(&self, id: &str) -> Result<Versioned<RtStreamRecord>, ApiError> {
        self.find(Kind::RtStream, "rtstream_id", id).await
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

    /// What should be, together with what is.
    fn merged(&self, record: &RtStreamRecord) -> RtStream {
        merge(
            record,
            self.catalog.get::<RunRecord>(id_of(record)).as_ref(),
        )
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
        ..Default::default()
    }
}

fn id_of(record: &RtStreamRecord) -> &str {
    record.rtstream.as_ref().map_or("", |s| s.id.as_str())
}

/// The run of the stream's latest start, if a worker has taken it up.
pub(super) fn run_of<'a>(
    record: &RtStreamRecord,
    run: Option<&'a Versioned<RunRecord>>,
) -> Option<&'a RunRecord> {
    run.map(|run| run.value.as_ref())
        .filter(|run| run.start_count == record.start_count)
}

fn is_over(run: &RunRecord) -> bool {
    matches!(
        State::try_from(run.state),
        Ok(State::Ended | State::Failed | State::Stopped)
    )
}

fn merge(record: &RtStreamRecord, run: Option<&Versioned<RunRecord>>) -> RtStream {
    let mut stream = record.rtstream.clone().unwrap_or_default();
    match run_of(record, run) {
        Some(run) => {
            stream.state = run.state;
            stream.state_detail.clone_from(&run.detail);
            stream.attempt = run.attempt;
            stream.epoch = (run.epoch_us != 0).then(|| timestamp(run.epoch_us));
        }
        None if record.wanted => stream.set_state(State::Connecting),
        None => stream.set_state(State::Stopped),
    }
    stream
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// The state shown for a stream at its second start, given what the catalog holds of its run.
    fn check(wanted: bool, run: Option<(u64, State)>, expected: State) {
        let record = RtStreamRecord {
            rtstream: Some(RtStream::default()),
            wanted,
            start_count: 2,
            ..Default::default()
        };
        let run = run.map(|(start_count, state)| Versioned {
            value: Arc::new(RunRecord {
                start_count,
                state: state.into(),
                epoch_us: 5,
                ..Default::default()
            }),
            revision: 1,
        });
        let merged = merge(&record, run.as_ref());
        assert_eq!(merged.state(), expected, "wanted {wanted}, run {run:?}");
    }

    #[test]
    fn a_run_counts_only_for_the_start_that_it_serves() {
        check(true, None, State::Connecting);
        check(false, None, State::Stopped);
        check(true, Some((2, State::Active)), State::Active);
        check(true, Some((2, State::Failed)), State::Failed);
        check(true, Some((1, State::Ended)), State::Connecting);
        check(false, Some((1, State::Active)), State::Stopped);
        check(false, Some((2, State::Active)), State::Active);
    }
}
