//! Transcription: starting and stopping it, and what was said.

use sightline_proto::internal::{RecordFilter, RecordKind};
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::time::micros;
use sightline_proto::v1::stop_transcription_request::Mode;
use sightline_proto::v1::{self, RtStream};
use uuid::Uuid;

use super::paging::Position;
use super::violations::{Violations, refused, shown};
use super::{Session, convert, languages};

impl Session {
    /// Has a stream's speech transcribed from now on, in a new session; where it is already, in the language that is given.
    pub(crate) async fn start_transcription(
        &self,
        request: &v1::StartTranscriptionRequest,
    ) -> Result<RtStream, ApiError> {
        let engine = &self.config.engine;
        if !request.engine.is_empty() && request.engine != *engine {
            let got = shown(&request.engine);
            let allowed = format!("{engine}, or empty; got {got}");
            return Err(refused(Reason::InvalidArgument, "engine", allowed));
        }
        languages::check(
            &request.language,
            request.translate,
            self.config.multilingual,
        )?;
        let asked = Some((request.language.as_str(), request.translate));
        self.have_transcribed(&request.rtstream_id, asked).await
    }

    /// As `start_transcription`; with nothing asked for, the language stays as it was.
    pub(crate) async fn have_transcribed(
        &self,
        rtstream_id: &str,
        asked: Option<(&str, bool)>,
    ) -> Result<RtStream, ApiError> {
        let now_us = self.clock.now_us();
        self.change_rtstream(rtstream_id, |record| {
            let Some(stream) = record.rtstream.as_mut() else {
                return;
            };
            let same = asked.is_none_or(|asked| asked == (&record.language, record.translate));
            if stream.transcribe && same {
                return;
            }
            if !stream.transcribe {
                stream.transcribe = true;
                record.transcription_session += 1;
            }
            if let Some((language, translate)) = asked {
                language.clone_into(&mut record.language);
                record.translate = translate;
            }
            record.transcription_changed_us = now_us;
        })
        .await
    }

    /// Has a stream's speech not transcribed from now on. What was heard before is still finished, unless it is to stop at once.
    pub(crate) async fn stop_transcription(
        &self,
        request: &v1::StopTranscriptionRequest,
    ) -> Result<RtStream, ApiError> {
        let Ok(mode) = Mode::try_from(request.mode) else {
            let allowed = format!("MODE_GRACEFUL or MODE_IMMEDIATE, got {}", request.mode);
            return Err(refused(Reason::InvalidArgument, "mode", allowed));
        };
        let now_us = self.clock.now_us();
        self.change_rtstream(&request.rtstream_id, |record| {
            let Some(stream) = record.rtstream.as_mut() else {
                return;
            };
            if std::mem::replace(&mut stream.transcribe, false) {
                record.transcription_changed_us = now_us;
            }
            if mode == Mode::Immediate {
                record.dropped_session = record.transcription_session;
            }
        })
        .await
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
        let pages = self.pages(
            "ListTranscript",
            &v1::ListTranscriptRequest {
                page_size: 0,
                page_token: String::new(),
                ..request.clone()
            },
        );
        let after = pages.start(&request.page_token)?;
        let after = after.max(request.since.as_ref().map(|since| before(micros(since))));
        self.stream(&request.rtstream_id).await?;
        let filter = RecordFilter {
            rtstream_ids: vec![request.rtstream_id],
            kinds: vec![RecordKind::Transcript.into()],
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
}

/// The last place before what starts then.
fn before(time_us: i64) -> Position {
    Position {
        time_us: time_us.saturating_sub(1),
        id: Uuid::max().to_string(),
    }
}
