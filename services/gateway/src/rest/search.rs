//! Search in this skin.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sightline_proto::v1;

use super::Shared;
use super::answer::{Answer, Data};
use super::values::seconds;
use crate::api::Core;

/// What to look for.
#[derive(Deserialize)]
pub(super) struct SearchBody {
    query: String,
    #[serde(default)]
    scene_index_id: Option<String>,
    #[serde(default)]
    result_threshold: Option<i32>,
    #[serde(default)]
    score_threshold: Option<f32>,
}

#[derive(Serialize)]
struct Results {
    results: Vec<Hit>,
}

#[derive(Serialize)]
struct Hit {
    rtstream_id: String,
    rtstream_name: String,
    start: f64,
    end: f64,
    text: String,
    score: f32,
    scene_index_id: Option<String>,
    scene_index_name: Option<String>,
    metadata: Value,
    stream_url: Option<String>,
    player_url: Option<String>,
}

type Body = Result<Json<SearchBody>, JsonRejection>;

/// `POST /rtstream/{id}/search`
pub(super) async fn in_stream(State(core): Shared, Path(id): Path<String>, body: Body) -> Answer {
    let request = v1::SearchRequest {
        rtstream_id: id,
        ..asked(body?.0)
    };
    search(&core, request).await
}

/// `POST /rtstream/collection/{id}/search`
pub(super) async fn in_collection(
    State(core): Shared,
    Path(id): Path<String>,
    body: Body,
) -> Answer {
    let request = v1::SearchRequest {
        collection_id: id,
        ..asked(body?.0)
    };
    search(&core, request).await
}

fn asked(body: SearchBody) -> v1::SearchRequest {
    v1::SearchRequest {
        query: body.query,
        index_id: body.scene_index_id.unwrap_or_default(),
        limit: body.result_threshold.unwrap_or_default(),
        min_score: body.score_threshold.unwrap_or_default(),
        ..Default::default()
    }
}

async fn search(core: &Core, request: v1::SearchRequest) -> Answer {
    let found = core.search(request).await?;
    let results = found.hits.into_iter().map(|hit| Hit {
        rtstream_name: core.stream_name(&hit.rtstream_id),
        scene_index_name: core.index_name(&hit.index_id),
        start: seconds(hit.start_time.as_ref()),
        end: seconds(hit.end_time.as_ref()),
        rtstream_id: hit.rtstream_id,
        text: hit.text,
        score: hit.score,
        scene_index_id: Some(hit.index_id).filter(|id| !id.is_empty()),
        metadata: Value::Object(serde_json::Map::new()),
        stream_url: Some(hit.stream_url).filter(|url| !url.is_empty()),
        player_url: Some(hit.player_url).filter(|url| !url.is_empty()),
    });
    Data::of(Results {
        results: results.collect(),
    })
}
