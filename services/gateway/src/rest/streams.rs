//! RtStreams in this skin.

use axum::extract::RawQuery;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sightline_proto::internal::subscribed::To;
use sightline_proto::reasons::ApiError;
use sightline_proto::v1;
use sightline_proto::v1::rt_stream::State as Doing;

use super::answer::{Answer, Data, renaming};
use super::paging;
use super::request::{Body, Ids, Params, Switch};
use super::values::{Number, in_words, some_time, time, whole, wrong};
use crate::api::Session;

/// What their server says when nobody asks for another. Sightline samples as each index says.
const SAMPLE_RATE: i64 = 30;
const MOST: i64 = 1000;
const DEFAULT: i64 = 100;
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

/// The states that this skin calls connected, and those that it calls stopped.
const CONNECTED: [Doing; 3] = [Doing::Connecting, Doing::Active, Doing::Reconnecting];
const STOPPED: [Doing; 3] = [Doing::Stopped, Doing::Failed, Doing::Ended];

fn status(stream: &v1::RtStream) -> &'static str {
    if CONNECTED.contains(&stream.state()) {
        "connected"
    } else {
        "stopped"
    }
}

/// What a status stands for; none for any.
fn states(status: Option<&str>) -> Result<&'static [Doing], ApiError> {
    match status {
        None => Ok(&[]),
        Some("connected") => Ok(&CONNECTED),
        Some("stopped") => Ok(&STOPPED),
        Some(_) => Err(wrong("status", "\"connected\" or \"stopped\"")),
    }
}

/// What to connect.
#[derive(Deserialize)]
pub(super) struct Connect {
    url: String,
    name: Option<String>,
    collection_id: Option<String>,
    media_types: Option<Vec<String>>,
    sample_rate: Option<Number>,
    store: Option<bool>,
    enable_transcript: Option<bool>,
    ws_connection_id: Option<String>,
}

/// `POST /rtstream`
pub(super) async fn connect(session: Session, Body(body): Body<Connect>) -> Answer {
    let connection = session.connection(body.ws_connection_id.as_deref()).await?;
    let rate = whole("sample_rate", body.sample_rate, 1..=1_000_000)?;
    let types = body.media_types.unwrap_or_else(|| vec!["video".to_owned()]);
    let known = |kind: &String| ["video", "audio"].contains(&kind.as_str());
    if types.is_empty() || !types.iter().all(known) {
        return Err(wrong("media_types", "\"video\", \"audio\" or both").into());
    }
    let request = v1::ConnectRtStreamRequest {
        url: body.url,
        name: body.name.unwrap_or_default(),
        collection_id: body.collection_id.unwrap_or_default(),
        transcribe: body.enable_transcript.unwrap_or_default(),
        store: body.store.unwrap_or_default(),
        ..Default::default()
    };
    let stream = session.connect_rtstream(request).await?;
    let transcript = To::TranscriptOfRtstreamId(stream.id.clone());
    session.tell(&connection, transcript).await?;
    Data::created(Stream {
        sample_rate: rate.unwrap_or(SAMPLE_RATE),
        media_types: types,
        ..shown(stream)
    })
}

/// `GET /rtstream/{id}`
pub(super) async fn get(session: Session, ids: Ids) -> Answer {
    Data::of(shown(session.get_rtstream(&ids.id).await?))
}

/// What to change.
#[derive(Deserialize)]
pub(super) struct Rename {
    name: Option<String>,
    sample_rate: Option<Number>,
}

/// `PATCH /rtstream/{id}`
pub(super) async fn rename(session: Session, ids: Ids, Body(body): Body<Rename>) -> Answer {
    let rate = whole("sample_rate", body.sample_rate, 1..=1_000_000)?;
    let request = v1::UpdateRtStreamRequest {
        rtstream_id: ids.id,
        name: body.name,
        ..Default::default()
    };
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

/// Which streams to list.
#[derive(Deserialize)]
pub(super) struct ListQuery {
    collection_id: Option<String>,
    limit: Option<Number>,
    offset: Option<Number>,
    status: Option<String>,
    /// Part of it, in any case.
    name: Option<String>,
    ordering: Option<String>,
}

/// `GET /rtstream`
pub(super) async fn list(
    session: Session,
    RawQuery(raw): RawQuery,
    Params(query): Params<ListQuery>,
) -> Answer {
    let limit = whole("limit", query.limit, 1..=MOST)?.unwrap_or(DEFAULT);
    let offset = whole("offset", query.offset, 0..=i64::from(i32::MAX))?.unwrap_or(0);
    let states = states(query.status.as_deref())?;
    let session = &session;
    let fetch = |page_size, page_token| {
        let request = v1::ListRtStreamsRequest {
            collection_id: query.collection_id.clone().unwrap_or_default(),
            page_size,
            page_token,
            states: states.iter().map(|&state| state.into()).collect(),
            name_contains: query.name.clone().unwrap_or_default(),
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

/// The address of another page of the same list.
fn address(raw: &str, limit: i64, offset: i64) -> String {
    let place = |pair: &str| pair.starts_with("limit=") || pair.starts_with("offset=");
    let kept = raw
        .split('&')
        .filter(|pair| !pair.is_empty() && !place(pair));
    let place = [format!("limit={limit}"), format!("offset={offset}")];
    let pairs: Vec<_> = kept.map(ToOwned::to_owned).chain(place).collect();
    format!("/rtstream?{}", pairs.join("&"))
}

/// The stretch to play, and how its page looks.
#[derive(Deserialize)]
pub(super) struct StreamQuery {
    start: Number,
    end: Option<Number>,
    #[serde(default)]
    player_title: String,
    #[serde(default)]
    player_description: String,
    #[serde(default)]
    player_slug_prefix: String,
}

/// `GET /rtstream/{id}/stream`: links that play a stretch of a recording.
pub(super) async fn stream(
    session: Session,
    ids: Ids,
    Params(query): Params<StreamQuery>,
) -> Answer {
    let Number(start) = query.start;
    // Clients cut the times of a short shot to whole seconds.
    let end = query.end.map(|Number(end)| Number(end.max(start + 1.0)));
    let request = v1::GenerateStreamRequest {
        rtstream_id: ids.id,
        start_time: Some(time("start", start)?),
        end_time: some_time("end", end)?,
        player_config: Some(v1::PlayerConfig {
            title: query.player_title,
            description: query.player_description,
            slug: query.player_slug_prefix,
        }),
    };
    let links = session.generate_stream(request).await;
    let links = links.map_err(renaming(&NAMES))?;
    Data::of(json!({"stream_url": links.stream_url, "player_url": links.player_url}))
}
