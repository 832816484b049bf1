//! RtStreams: connecting, reading and listing them, starting and stopping, and their transcripts.

use sightline_catalog::Versioned;
use sightline_catalog::source::{self, Source};
use sightline_proto::ids::Kind;
use sightline_proto::internal::{RecordFilter, RecordKind, RtStreamRecord, RunRecord};
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::time::timestamp;
use sightline_proto::v1::rt_stream::{Playback, RecordingState, State};
use sightline_proto::v1::{self, RtStream};
use sightline_recordings::Retention;
use sightline_service::failpoint;

use super::paging::{Pages, Position};
use super::violations::{Violations, refused};
use super::{Core, Session, bus_failed, catalog_failed, convert};

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
                .map(|segment| self.linker.link(segment))
                .collect(),
            next_page_token: page
                .next
                .map_or_else(String::new, |last| pages.token(&last)),
        })
    }

    /// A stream's name; empty for one that is not known.
    pub(crate) fn stream_name(&self, id: &str) -> String {
        let record = self.catalog.get::<RtStreamRecord>(id);
        let stream = record.and_then(|record| record.value.rtstream.clone());
        stream.map_or_else(String::new, |stream| stream.name)
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
    pub(super) fn merged(&self, record: &RtStreamRecord) -> RtStream {
        let run = self.catalog.get::<RunRecord>(id_of(record));
        let mut stream = merge(record, run.as_ref());
        if stream.store {
            let given = stream.retention.unwrap_or_default();
            stream.retention = Some(in_force(given, self.config.retention));
        }
        stream
    }
}

impl Core {
    /// How far a stream's recording has come.
    pub(crate) fn reach(&self, id: &str) -> Reach {
        let run = self.catalog.get::<RunRecord>(id);
        let record = self.catalog.get::<RtStreamRecord>(id);
        let state = record.map(|record| merge(&record.value, run.as_ref()).state());
        Reach {
            running: state.is_some_and(|state| !OVER.contains(&state)),
            recorded_us: run.map_or(0, |run| run.value.recorded_us),
        }
    }
}

/// How far a stream's recording has come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reach {
    /// Whether more may come.
    pub(crate) running: bool,
    /// Up to where it is stored, or known to be lost; 0: nothing yet.
    pub(crate) recorded_us: i64,
}

/// The states of a stream that is not running.
const OVER: [State; 3] = [State::Ended, State::Failed, State::Stopped];

/// What was given, and the defaults where nothing was.
fn in_force(given: v1::Retention, default: Retention) -> v1::Retention {
    let kept = Retention::of(given, default);
    v1::Retention {
        max_age_seconds: kept.max_age_us / 1_000_000,
        max_bytes: i64::try_from(kept.max_bytes).unwrap_or(i64::MAX),
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
fn retention(faults: &mut Violations, asked: Option<&v1::Retention>) {
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
    State::try_from(run.state).is_ok_and(|state| OVER.contains(&state))
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
    if stream.store {
        let (state, detail) = recording(&stream, run_of(record, run));
        stream.set_recording_state(state);
        stream.recording_detail = detail;
    }
    stream
}

/// What recording does, of a stream whose state is known. That its codecs can't be recorded stays true when it is over.
fn recording(stream: &RtStream, run: Option<&RunRecord>) -> (RecordingState, String) {
    let told = run.map(|run| {
        let state = RecordingState::try_from(run.recording_state).unwrap_or_default();
        (state, run.recording_detail.clone())
    });
    match (OVER.contains(&stream.state()), told) {
        (_, Some((RecordingState::Unsupported, detail))) => (RecordingState::Unsupported, detail),
        (true, _) => (RecordingState::Stopped, String::new()),
        (false, Some((state, detail))) if state != RecordingState::Unspecified => (state, detail),
        (false, _) => (RecordingState::Waiting, String::new()),
    }
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

    /// What is shown of a stream's recording, given its state and what its run says.
    fn check_recording(
        state: State,
        told: Option<(RecordingState, &str)>,
        expected: (RecordingState, &str),
    ) {
        let stream = RtStream {
            state: state.into(),
            store: true,
            ..Default::default()
        };
        let run = told.map(|(state, detail)| RunRecord {
            recording_state: state.into(),
            recording_detail: detail.to_owned(),
            ..Default::default()
        });
        let (state, detail) = recording(&stream, run.as_ref());
        assert_eq!((state, detail.as_str()), expected, "{stream:?} {run:?}");
    }

    #[test]
    fn recording_is_shown_as_it_is() {
        use RecordingState as R;
        check_recording(State::Connecting, None, (R::Waiting, ""));
        check_recording(State::Stopped, None, (R::Stopped, ""));
        let told = |state| Some((state, "why"));
        for (state, told, expected) in [
            (State::Active, told(R::Unspecified), (R::Waiting, "")),
            (State::Active, told(R::Failing), (R::Failing, "why")),
            (State::Reconnecting, told(R::Active), (R::Active, "why")),
            (State::Ended, told(R::Active), (R::Stopped, "")),
            (State::Ended, told(R::Unsupported), (R::Unsupported, "why")),
        ] {
            check_recording(state, told, expected);
        }
    }

    #[test]
    fn what_is_kept_is_as_given_or_the_default() {
        let default = Retention {
            max_age_us: 7_000_000,
            max_bytes: 9,
        };
        for (given, expected) in [((0, 0), (7, 9)), ((1, 0), (1, 9)), ((0, 2), (7, 2))] {
            let given = v1::Retention {
                max_age_seconds: given.0,
                max_bytes: given.1,
            };
            let kept = in_force(given, default);
            assert_eq!((kept.max_age_seconds, kept.max_bytes), expected);
        }
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
