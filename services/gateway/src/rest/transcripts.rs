//! Transcripts in this skin.

use serde_json::{Value, json};
use sightline_proto::internal::subscribed::To;
use sightline_proto::v1;
use sightline_proto::v1::transcription::State as Doing;

use super::answer::{Answer, Data, Refusal, renaming};
use super::asked::transcripts::{ModelConfig, Stretch, Transcription};
use super::paging::{self, PageQuery};
use super::request::{Body, Ids, Params};
use super::values::{in_words, seconds};
use crate::api::Session;

/// `POST /rtstream/{id}/transcription`: starts it, or stops it: at once, or when what was heard by then is finished.
pub(super) async fn switch(session: Session, ids: Ids, Body(body): Body<Transcription>) -> Answer {
    let stream = if body.starts()? {
        let connection = session.connection(body.ws_connection_id.as_deref()).await?;
        let stream = start(&session, &ids.id, body.model_config).await?;
        let transcript = To::TranscriptOfRtstreamId(ids.id);
        session.tell(&connection, transcript).await?;
        stream
    } else {
        let request = v1::StopTranscriptionRequest {
            rtstream_id: ids.id,
            mode: body.mode()?.into(),
        };
        session.stop_transcription(&request).await?
    };
    Data::of(shown(&stream))
}

/// Starts it. Who says nothing of the speech leaves it as others have it, as an audio index does.
async fn start(
    session: &Session,
    id: &str,
    config: Option<ModelConfig>,
) -> Result<v1::RtStream, Refusal> {
    let Some(config) = config else {
        return Ok(session.have_transcribed(id, None).await?);
    };
    let request = config.request(id.to_owned())?;
    let names = [
        ("language", "model_config.language"),
        ("translate", "model_config.task"),
    ];
    let started = session.start_transcription(&request).await;
    started.map_err(renaming(&names))
}

/// `GET /rtstream/{id}/transcription/status`
pub(super) async fn status_of(session: Session, ids: Ids) -> Answer {
    Data::of(shown(&session.get_rtstream(&ids.id).await?))
}

fn shown(stream: &v1::RtStream) -> Value {
    let transcription = stream.transcription.clone().unwrap_or_default();
    let status = match transcription.state() {
        Doing::Running => "running",
        Doing::Stopped | Doing::Unspecified => "stopped",
    };
    json!({
        "status": status,
        "engine": transcription.engine,
        "updated_at": in_words(transcription.change_time.as_ref()),
    })
}

/// `GET /rtstream/{id}/transcription`: what was said, oldest first.
pub(super) async fn list(
    session: Session,
    ids: Ids,
    Params(page): Params<PageQuery>,
    Params(stretch): Params<Stretch>,
) -> Answer {
    let page = page.check()?;
    let (session, request) = (&session, stretch.request(ids.id)?);
    let fetch = |page_size, page_token| {
        let request = v1::ListTranscriptRequest {
            page_size,
            page_token,
            ..request.clone()
        };
        async move {
            let page = session.list_transcript(request).await?;
            Ok((page.segments, page.next_page_token))
        }
    };
    let names = [("end_time", "end")];
    let (segments, more) = paging::page(page, fetch).await.map_err(renaming(&names))?;
    // Nobody counts what was not read.
    let total = (page.number - 1) * page.size + segments.len() as i64;
    let known = !more && (page.number == 1 || !segments.is_empty());
    Data::of(json!({
        "transcription_records": segments.into_iter().map(record).collect::<Vec<_>>(),
        "next_page": more,
        "total_count": known.then_some(total),
        "page": page.number,
        "page_size": page.size,
    }))
}

fn record(segment: v1::TranscriptSegment) -> Value {
    let words = segment.words.iter().map(|word| {
        json!({
            "word": word.text,
            "start": seconds(word.start_time.as_ref()),
            "end": seconds(word.end_time.as_ref()),
            "confidence": word.probability,
        })
    });
    json!({
        "start": seconds(segment.start_time.as_ref()),
        "end": seconds(segment.end_time.as_ref()),
        "text": segment.text,
        "word_timestamps": words.collect::<Vec<_>>(),
    })
}
