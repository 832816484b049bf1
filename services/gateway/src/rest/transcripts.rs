//! Transcripts in this skin.

use serde::Deserialize;
use serde_json::{Value, json};
use sightline_proto::time::timestamp;
use sightline_proto::v1;

use super::answer::{Answer, Data, renaming};
use super::paging::{self, PageQuery};
use super::request::{Body, Ids, Params, Switch, unsupported};
use super::values::{Number, in_words, seconds, some_time, wrong};
use crate::api::Session;

/// The engine when the caller names none: there is one only, whatever it is called.
const ENGINE: &str = "whisper";

/// What to do.
#[derive(Deserialize)]
pub(super) struct Transcription {
    action: Option<String>,
    status: Option<String>,
    engine: Option<String>,
    mode: Option<String>,
    ws_connection_id: Option<Value>,
}

/// `POST /rtstream/{id}/transcription`: starts it or stops it. What was heard by then is finished.
pub(super) async fn switch(session: Session, ids: Ids, Body(body): Body<Transcription>) -> Answer {
    unsupported([("ws_connection_id", &body.ws_connection_id)])?;
    if body.mode.as_deref().is_some_and(|mode| mode != "graceful") {
        return Err(wrong("mode", "\"graceful\", or nothing").into());
    }
    let switch = Switch {
        action: body.action,
        status: body.status,
    };
    let on = switch.is_on(["start", "running"], ["stop", "stopped"])?;
    let stream = session.set_transcribe(&ids.id, on).await?;
    Data::of(json!({
        "status": status(&stream),
        "engine": body.engine.as_deref().unwrap_or(ENGINE),
        "updated_at": in_words(Some(&timestamp(session.clock.now_us()))),
    }))
}

/// `GET /rtstream/{id}/transcription/status`
pub(super) async fn status_of(session: Session, ids: Ids) -> Answer {
    let stream = session.get_rtstream(&ids.id).await?;
    Data::of(json!({"status": status(&stream), "engine": ENGINE}))
}

fn status(stream: &v1::RtStream) -> &'static str {
    if stream.transcribe {
        "running"
    } else {
        "stopped"
    }
}

/// The stretch whose words are listed; `since` is a later start.
#[derive(Deserialize)]
pub(super) struct Stretch {
    start: Option<Number>,
    end: Option<Number>,
    since: Option<Number>,
}

/// `GET /rtstream/{id}/transcription`: what was said, oldest first.
pub(super) async fn list(
    session: Session,
    ids: Ids,
    Params(page): Params<PageQuery>,
    Params(stretch): Params<Stretch>,
) -> Answer {
    let page = page.check()?;
    let start = some_time("start", stretch.start)?;
    let since = some_time("since", stretch.since)?;
    let end_time = some_time("end", stretch.end)?;
    let later = |a: &prost_types::Timestamp| (a.seconds, a.nanos);
    let start_time = start.into_iter().chain(since).max_by_key(later);
    let (session, id) = (&session, &ids.id);
    let fetch = |page_size, page_token| {
        let request = v1::ListTranscriptRequest {
            rtstream_id: id.clone(),
            start_time,
            end_time,
            page_size,
            page_token,
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
