//! What a stream is doing: what should be, in its own record, together with what is, in its run's.

use sightline_catalog::Versioned;
use sightline_proto::internal::{RtStreamRecord, RunRecord};
use sightline_proto::time::timestamp;
use sightline_proto::v1::rt_stream::{RecordingState, State};
use sightline_proto::v1::{self, RtStream, transcription};
use sightline_recordings::Retention;

use super::{Core, Session};

impl Session {
    /// A stream as callers see it.
    pub(super) fn merged(&self, record: &RtStreamRecord) -> RtStream {
        let run = self.catalog.get::<RunRecord>(id_of(record));
        let mut stream = merge(record, run.as_ref(), &self.config.engine);
        stream.collection_id = self.shown_collection(&stream.collection_id);
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
        let state =
            record.map(|record| merge(&record.value, run.as_ref(), &self.config.engine).state());
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

pub(super) fn id_of(record: &RtStreamRecord) -> &str {
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

pub(super) fn is_over(run: &RunRecord) -> bool {
    State::try_from(run.state).is_ok_and(|state| OVER.contains(&state))
}

/// What a stream's record says together with its run's.
pub(super) fn merge(
    record: &RtStreamRecord,
    run: Option<&Versioned<RunRecord>>,
    engine: &str,
) -> RtStream {
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
    stream.transcription = Some(transcription(record, engine));
    if stream.store {
        let (state, detail) = recording(&stream, run_of(record, run));
        stream.set_recording_state(state);
        stream.recording_detail = detail;
    }
    stream
}

fn transcription(record: &RtStreamRecord, engine: &str) -> v1::Transcription {
    let running = record.rtstream.as_ref().is_some_and(|s| s.transcribe);
    let state = if running {
        transcription::State::Running
    } else {
        transcription::State::Stopped
    };
    let changed_us = record.transcription_changed_us;
    v1::Transcription {
        state: state.into(),
        engine: engine.to_owned(),
        change_time: (changed_us != 0).then(|| timestamp(changed_us)),
        language: record.language.clone(),
        translate: record.translate,
    }
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

/// What was given, and the defaults where nothing was.
fn in_force(given: v1::Retention, default: Retention) -> v1::Retention {
    let kept = Retention::of(given, default);
    v1::Retention {
        max_age_seconds: kept.max_age_us / 1_000_000,
        max_bytes: i64::try_from(kept.max_bytes).unwrap_or(i64::MAX),
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
        let merged = merge(&record, run.as_ref(), "whisper");
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
