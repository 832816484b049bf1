//! Scene indexes in this skin, and the newer `indexes`, which are the same by other names.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::time::{duration, duration_micros};
use sightline_proto::v1;
use sightline_proto::v1::index::State as Doing;

use super::answer::{Answer, Data, Refusal, renaming};
use super::paging::{self, PageQuery};
use super::request::{Body, Ids, Params, Switch, unsupported};
use super::values::{Number, seconds, some, some_time, whole, written, wrong};
use crate::api::Session;

/// What is asked of every window when the caller does not say.
const PROMPT: &str = "Describe the scene";
/// The window and its frames where only the other is given.
const WINDOW: Number = Number(5.0);
const FRAMES: i64 = 2;
/// What fields of the core are called here.
const NAMES: [(&str, &str); 3] = [
    ("sampling.window", "extraction_config.time"),
    ("sampling.frame_count", "extraction_config.frame_count"),
    ("model", "model_name"),
];

/// What to create.
#[derive(Deserialize)]
pub(super) struct Create {
    extraction_type: Option<String>,
    extraction_config: Option<Extraction>,
    prompt: Option<String>,
    name: Option<String>,
    model_name: Option<String>,
    model_config: Option<Value>,
    sandbox_id: Option<Value>,
    ws_connection_id: Option<Value>,
}

#[derive(Deserialize)]
struct Extraction {
    time: Option<Number>,
    frame_count: Option<Number>,
}

/// A scene index.
#[derive(Serialize)]
struct SceneIndex {
    rtstream_index_id: String,
    extraction_type: &'static str,
    extraction_config: Value,
    prompt: String,
    name: String,
    model_name: String,
    status: &'static str,
}

fn scene_index(index: v1::Index) -> SceneIndex {
    let sampling = index.sampling.unwrap_or_default();
    let window_us = sampling.window.as_ref().map_or(0, duration_micros);
    SceneIndex {
        status: status(&index),
        rtstream_index_id: index.id,
        extraction_type: "time",
        extraction_config: json!({
            "time": written(window_us as f64 / 1e6),
            "frame_count": sampling.frame_count,
        }),
        prompt: index.prompt,
        name: index.name,
        model_name: index.model,
    }
}

/// The same as the newer calls show it.
fn shown(index: v1::Index) -> Value {
    json!({
        "index_id": index.id,
        "rtstream_id": index.rtstream_id,
        "name": index.name,
        "status": status(&index),
        "use_for": ["semantic"],
        "source_understanding_id": null,
        "output": "scene",
    })
}

fn status(index: &v1::Index) -> &'static str {
    match index.state() {
        Doing::Running => "running",
        Doing::Stopped | Doing::Unspecified => "stopped",
    }
}

/// `POST /rtstream/{id}/index/scene`
pub(super) async fn create(session: Session, ids: Ids, Body(body): Body<Create>) -> Answer {
    match body.extraction_type.as_deref() {
        None | Some("time") => {}
        Some("transcript") => {
            return Err(Refusal::not_here(
                "indexes of the transcript (extraction_type \"transcript\") are not part of Sightline yet",
            ));
        }
        Some(_) => return Err(wrong("extraction_type", "\"time\" or \"transcript\"").into()),
    }
    unsupported([
        ("model_config", &body.model_config),
        ("sandbox_id", &body.sandbox_id),
        ("ws_connection_id", &body.ws_connection_id),
    ])?;
    let request = v1::CreateVisualIndexRequest {
        rtstream_id: ids.id,
        prompt: body.prompt.unwrap_or_else(|| PROMPT.to_owned()),
        name: body.name.unwrap_or_default(),
        model: body.model_name.unwrap_or_default(),
        sampling: body.extraction_config.map_or(Ok(None), sampling)?,
        ..Default::default()
    };
    let index = session.create_visual_index(request).await;
    Data::of(scene_index(index.map_err(renaming(&NAMES))?))
}

/// The sampling asked for; none if nothing is said of it.
fn sampling(asked: Extraction) -> Result<Option<v1::TimeSampling>, ApiError> {
    if asked.time.is_none() && asked.frame_count.is_none() {
        return Ok(None);
    }
    let Number(window) = asked.time.unwrap_or(WINDOW);
    let most = i64::from(u32::MAX);
    let frames = whole("extraction_config.frame_count", asked.frame_count, 0..=most)?;
    Ok(Some(v1::TimeSampling {
        window: Some(duration((window * 1e6).round() as i64)),
        frame_count: frames.unwrap_or(FRAMES) as u32,
    }))
}

/// `GET /rtstream/{id}/index/scene`: all of them.
pub(super) async fn list_scene(session: Session, ids: Ids) -> Answer {
    let all = all(&session, &ids.id).await?.into_iter().map(scene_index);
    Data::of(json!({ "scene_indexes": all.collect::<Vec<_>>() }))
}

/// `GET /rtstream/{id}/indexes`: all of them.
pub(super) async fn list(session: Session, ids: Ids) -> Answer {
    let all = all(&session, &ids.id).await?.into_iter().map(shown);
    Data::of(json!({ "indexes": all.collect::<Vec<_>>() }))
}

async fn all(session: &Session, rtstream_id: &str) -> Result<Vec<v1::Index>, ApiError> {
    let fetch = |page_size, page_token| {
        let request = v1::ListIndexesRequest {
            rtstream_id: rtstream_id.to_owned(),
            page_size,
            page_token,
        };
        async move {
            let page = session.list_indexes(request).await?;
            Ok((page.indexes, page.next_page_token))
        }
    };
    paging::all(fetch).await
}

/// `POST /rtstream/{id}/indexes`
pub(super) async fn materialize() -> Refusal {
    Refusal::not_here("indexes of an understanding are not part of Sightline: create a scene index")
}

/// `GET /rtstream/{id}/index/{index}`
pub(super) async fn get_scene(session: Session, ids: Ids) -> Answer {
    Data::of(scene_index(index_of(&session, &ids).await?))
}

/// `GET /rtstream/{id}/indexes/{index}`
pub(super) async fn get(session: Session, ids: Ids) -> Answer {
    Data::of(shown(index_of(&session, &ids).await?))
}

/// `PATCH /rtstream/{id}/index/scene/{index}/status`
pub(super) async fn set_status(session: Session, ids: Ids, Body(body): Body<Switch>) -> Answer {
    let index = index_of(&session, &ids).await?;
    let state = if body.is_on(["start", "running"], ["stop", "stopped"])? {
        Doing::Running
    } else {
        Doing::Stopped
    };
    Data::of(scene_index(
        session.set_index_state(&index.id, state).await?,
    ))
}

/// The index in the path, if it is one of the stream in the path.
pub(super) async fn index_of(session: &Session, ids: &Ids) -> Result<v1::Index, ApiError> {
    session.get_rtstream(&ids.id).await?;
    let index = session.index(&ids.index).await?;
    if index.rtstream_id == ids.id {
        return Ok(index);
    }
    let message = format!("the stream {} has no index {}", ids.id, ids.index);
    Err(ApiError::new(Reason::NotFound, message))
}

/// The stretch whose records are listed.
#[derive(Deserialize)]
pub(super) struct Stretch {
    start: Option<Number>,
    end: Option<Number>,
}

/// `GET /rtstream/{id}/index/scene/{index}`: what it described, newest first.
pub(super) async fn scenes(
    session: Session,
    ids: Ids,
    Params(page): Params<PageQuery>,
    Params(stretch): Params<Stretch>,
) -> Answer {
    let (records, next_page) = described(&session, &ids, &page, stretch).await?;
    Data::of(json!({"scene_index_records": records, "next_page": next_page}))
}

/// `GET /rtstream/{id}/indexes/{index}/records`
pub(super) async fn records(
    session: Session,
    ids: Ids,
    Params(page): Params<PageQuery>,
    Params(stretch): Params<Stretch>,
) -> Answer {
    let (records, next_page) = described(&session, &ids, &page, stretch).await?;
    Data::of(json!({"records": records, "next_page": next_page}))
}

async fn described(
    session: &Session,
    ids: &Ids,
    page: &PageQuery,
    stretch: Stretch,
) -> Result<(Vec<Value>, bool), Refusal> {
    let page = page.check()?;
    let start_time = some_time("start", stretch.start)?;
    let end_time = some_time("end", stretch.end)?;
    let index = index_of(session, ids).await?;
    let fetch = |page_size, page_token| {
        let request = v1::ListScenesRequest {
            index_id: index.id.clone(),
            start_time,
            end_time,
            page_size,
            page_token,
        };
        async move {
            let page = session.list_scenes(request).await?;
            Ok((page.scenes, page.next_page_token))
        }
    };
    let names = [("end_time", "end")];
    let (scenes, more) = paging::page(page, fetch).await.map_err(renaming(&names))?;
    Ok((scenes.into_iter().map(record).collect(), more))
}

fn record(scene: v1::Scene) -> Value {
    json!({
        "start": seconds(scene.start_time.as_ref()),
        "end": seconds(scene.end_time.as_ref()),
        "description": scene.text,
        "text": scene.text,
        "stream_url": some(scene.stream_url),
        "player_url": some(scene.player_url),
    })
}
