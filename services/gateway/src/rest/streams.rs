//! RtStreams in this skin.

use axum::extract::RawQuery;
use serde::Serialize;
use serde_json::json;
use sightline_proto::internal::subscribed::To;
use sightline_proto::reasons::ApiError;
use sightline_proto::v1;

use super::answer::{Answer, Data, renaming};
use super::asked::streams::{CONNECTED, Connect, ListQuery, Rename, StreamQuery, address};
use super::paging;
use super::request::{Body, Ids, Params, Switch};
use super::values::{in_words, wrong};
use crate::api::Session;

/// What their server says when nobody asks for another. Sightline samples as each index says.
const SAMPLE_RATE: i64 = 30;
/// What fields of the core are called here.
const NAMES: [(&str, &str); 5] = [
    ("start_time", "start"),
    ("end_time", "end"),
    ("player_config.title", "player_title"),
    ("player_config.description", "player_description"),
    ("player_config.slug", "player_slug_prefix"),
];

#[derive(Serialize)]
struct Stream {
    id: String,
    name: String,
    status: &'static str,
    sample_rate: i64,
    media_types: Vec<String>,
    collection_id: String,
    store: bool,
    created_at: Option<String>,
}

fn shown(stream: v1::RtStream) -> Stream {
    Stream {
        status: status(&stream),
        id: stream.id,
        name: stream.name,
        sample_rate: SAMPLE_RATE,
        media_types: vec!["video".to_owned()],
        collection_id: stream.collection_id,
        store: stream.store,
        created_at: in_words(stream.create_time.as_ref()),
    }
}

fn status(stream: &v1::RtStream) -> &'static str {
    if CONNECTED.contains(&stream.state()) {
        "connected"
    } else {
        "stopped"
    }
}

/// `POST /rtstream`
pub(super) async fn connect(session: Session, Body(body): Body<Connect>) -> Answer {
    let connection = session.connection(body.ws_connection_id.as_deref()).await?;
    let (request, rate, media_types) = body.request()?;
    let stream = session.connect_rtstream(request).await?;
    let transcript = To::TranscriptOfRtstreamId(stream.id.clone());
    session.tell(&connection, transcript).await?;
    Data::created(Stream {
        sample_rate: rate.unwrap_or(SAMPLE_RATE),
        media_types,
        ..shown(stream)
    })
}

/// `GET /rtstream/{id}`
pub(super) async fn get(session: Session, ids: Ids) -> Answer {
    Data::of(shown(session.get_rtstream(&ids.id).await?))
}

/// `PATCH /rtstream/{id}`
pub(super) async fn rename(session: Session, ids: Ids, Body(body): Body<Rename>) -> Answer {
    let (request, rate) = body.request(ids.id)?;
    Data::of(Stream {
        sample_rate: rate.unwrap_or(SAMPLE_RATE),
        ..shown(session.update_rtstream(request).await?)
    })
}

/// `PATCH /rtstream/{id}/status`
pub(super) async fn set_status(session: Session, ids: Ids, Body(body): Body<Switch>) -> Answer {
    let stream = if body.is_on(["start", "connected"], ["stop", "stopped"])? {
        session.start_rtstream(&ids.id).await?
    } else {
        session.stop_rtstream(&ids.id).await?
    };
    Data::of(shown(stream))
}

/// `GET /rtstream`
pub(super) async fn list(
    session: Session,
    RawQuery(raw): RawQuery,
    Params(query): Params<ListQuery>,
) -> Answer {
    let (request, limit, offset) = query.request()?;
    let session = &session;
    let fetch = |page_size, page_token| {
        let request = v1::ListRtStreamsRequest {
            page_size,
            page_token,
            ..request.clone()
        };
        async move {
            let page = session.list_rtstreams(request).await?;
            Ok((page.rtstreams, page.next_page_token))
        }
    };
    let streams = paging::all(fetch).await;
    let mut streams = streams.map_err(renaming(&[("name_contains", "name")]))?;
    order(&mut streams, query.ordering.as_deref())?;
    let (count, raw) = (streams.len() as i64, raw.unwrap_or_default());
    let results = streams.into_iter().skip(offset as usize);
    let results: Vec<Stream> = results.take(limit as usize).map(shown).collect();
    let next = (offset + limit < count).then(|| address(&raw, limit, offset + limit));
    let previous = (offset > 0).then(|| address(&raw, limit, (offset - limit).max(0)));
    Data::of(json!({"results": results, "count": count, "next": next, "previous": previous}))
}

/// By a field, descending with a hyphen before it; newest first without one.
fn order(streams: &mut [v1::RtStream], by: Option<&str>) -> Result<(), ApiError> {
    let by = by.unwrap_or("-created_at");
    match by.trim_start_matches('-') {
        // Ids sort by creation.
        "created_at" | "id" => streams.sort_by(|a, b| a.id.cmp(&b.id)),
        "name" => streams.sort_by(|a, b| a.name.cmp(&b.name)),
        "status" => streams.sort_by_key(status),
        _ => {
            let allowed = "created_at, name or status, with - before it for descending";
            return Err(wrong("ordering", allowed));
        }
    }
    if by.starts_with('-') {
        streams.reverse();
    }
    Ok(())
}

/// `GET /rtstream/{id}/stream`: links that play a stretch of a recording.
pub(super) async fn stream(
    session: Session,
    ids: Ids,
    Params(query): Params<StreamQuery>,
) -> Answer {
    let request = query.request(ids.id)?;
    let links = session.generate_stream(request).await;
    let links = links.map_err(renaming(&NAMES))?;
    Data::of(json!({"stream_url": links.stream_url, "player_url": links.player_url}))
}
