//! Scene indexes in this skin: of pictures by time, and of the transcript. The newer `understand` and `indexes` are the same by
//! other names: see `understandings`.

use serde::Serialize;
use serde_json::{Value, json};
use sightline_proto::internal::subscribed::To;
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::time::duration_micros;
use sightline_proto::v1;
use sightline_proto::v1::audio_batching::Batch;
use sightline_proto::v1::index::State as Doing;

use super::answer::{Answer, Data, Refusal, renaming};
use super::asked::indexes::{Change, Create, Stretch};
use super::paging::{self, PageQuery};
use super::request::{Body, Ids, Params, Switch, unsupported};
use super::values::{seconds, some, written, wrong};
use crate::api::Session;

/// What fields of the core are called here.
const NAMES: [(&str, &str); 6] = [
    ("sampling.window", "extraction_config.time"),
    ("sampling.frame_count", "extraction_config.frame_count"),
    ("batching.words", "extraction_config.segmentation_value"),
    ("batching.sentences", "extraction_config.segmentation_value"),
    ("batching.time", "extraction_config.segmentation_value"),
    ("model", "model_name"),
];

/// A scene index.
#[derive(Serialize)]
struct SceneIndex {
    rtstream_index_id: String,
    rtstream_id: String,
    extraction_type: &'static str,
    extraction_config: Value,
    prompt: String,
    name: String,
    model_name: String,
    /// False where a model that can't read text leaves the prompt of a transcript's index unanswered.
    prompt_applied: bool,
    status: &'static str,
}

fn scene_index(index: v1::Index) -> SceneIndex {
    let (extraction_type, extraction_config) = match (&index.sampling, &index.batching) {
        (_, Some(batching)) => ("transcript", batched(batching)),
        (sampling, None) => ("time", sampled(&sampling.unwrap_or_default())),
    };
    SceneIndex {
        status: status(&index),
        rtstream_index_id: index.id,
        rtstream_id: index.rtstream_id,
        extraction_type,
        extraction_config,
        prompt: index.prompt,
        name: index.name,
        model_name: index.model,
        prompt_applied: index.prompt_applied,
    }
}

fn sampled(sampling: &v1::TimeSampling) -> Value {
    let window_us = sampling.window.as_ref().map_or(0, duration_micros);
    json!({
        "time": written(window_us as f64 / 1e6),
        "frame_count": sampling.frame_count,
    })
}

fn batched(batching: &v1::AudioBatching) -> Value {
    let (segmenter, value) = match &batching.batch {
        Some(Batch::Words(words)) => ("word", Value::from(*words)),
        Some(Batch::Sentences(sentences)) => ("sentence", Value::from(*sentences)),
        Some(Batch::Time(time)) => ("time", written(duration_micros(time) as f64 / 1e6)),
        None => ("word", Value::Null),
    };
    json!({"segmenter": segmenter, "segmentation_value": value})
}

pub(super) fn status(index: &v1::Index) -> &'static str {
    match index.state() {
        Doing::Running => "running",
        Doing::Stopped | Doing::Unspecified => "stopped",
    }
}

/// `POST /rtstream/{id}/index/scene`
pub(super) async fn create(session: Session, ids: Ids, Body(body): Body<Create>) -> Answer {
    unsupported([("sandbox_id", &body.sandbox_id)])?;
    let connection = session.connection(body.ws_connection_id.as_deref()).await?;
    let index = match body.extraction_type.as_deref() {
        // One client says "time_based", the other one "time".
        None | Some("time" | "time_based") => {
            session.create_visual_index(body.visual(ids.id)?).await
        }
        Some("transcript") => {
            may_transcribe(&session, &ids, &body).await?;
            session.create_audio_index(body.audio(ids.id)?).await
        }
        Some(_) => Err(wrong("extraction_type", "\"time\" or \"transcript\"")),
    };
    let index = index.map_err(renaming(&NAMES))?;
    let scenes = To::IndexId(index.id.clone());
    session.tell(&connection, scenes).await?;
    Data::of(scene_index(index))
}

/// An audio index has its stream transcribed, which a caller may forbid.
async fn may_transcribe(session: &Session, ids: &Ids, body: &Create) -> Result<(), ApiError> {
    if body.auto_start_transcript == Some(false) && !session.get_rtstream(&ids.id).await?.transcribe
    {
        let allowed = "true, or a stream that is transcribed already: an audio index starts that";
        return Err(wrong("auto_start_transcript", allowed));
    }
    Ok(())
}

/// `GET /rtstream/{id}/index/scene`: all of them.
pub(super) async fn list_scene(session: Session, ids: Ids) -> Answer {
    let all = all(&session, &ids.id).await?.into_iter().map(scene_index);
    Data::of(json!({ "scene_indexes": all.collect::<Vec<_>>() }))
}

/// All indexes of a stream, oldest first.
pub(super) async fn all(session: &Session, rtstream_id: &str) -> Result<Vec<v1::Index>, ApiError> {
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

/// `GET /rtstream/{id}/index/{index}`
pub(super) async fn get_scene(session: Session, ids: Ids) -> Answer {
    Data::of(scene_index(index_of(&session, &ids).await?))
}

/// `PATCH /rtstream/{id}/index/scene/{index}`: another prompt, while it runs too.
pub(super) async fn change(session: Session, ids: Ids, Body(body): Body<Change>) -> Answer {
    let index = index_of(&session, &ids).await?;
    let request = body.request(index.id)?;
    Data::of(scene_index(session.update_index(request).await?))
}

/// `PATCH /rtstream/{id}/index/scene/{index}/status`
pub(super) async fn set_status(session: Session, ids: Ids, Body(body): Body<Switch>) -> Answer {
    Data::of(scene_index(switch(&session, &ids, &body).await?))
}

/// Starts or stops the index in the path.
pub(super) async fn switch(
    session: &Session,
    ids: &Ids,
    body: &Switch,
) -> Result<v1::Index, ApiError> {
    let index = index_of(session, ids).await?;
    let state = if body.is_on(["start", "running"], ["stop", "stopped"])? {
        Doing::Running
    } else {
        Doing::Stopped
    };
    session.set_index_state(&index.id, state).await
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

/// A page of what the index in the path described, and whether there are more.
pub(super) async fn described(
    session: &Session,
    ids: &Ids,
    page: &PageQuery,
    stretch: Stretch,
) -> Result<(Vec<Value>, bool), Refusal> {
    let page = page.check()?;
    let (start_time, end_time) = stretch.times()?;
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
