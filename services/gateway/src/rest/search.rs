//! Search in this skin.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sightline_proto::reasons::ApiError;
use sightline_proto::v1;

use super::answer::{Answer, Data, renaming};
use super::request::{Body, Ids, unsupported};
use super::values::{Number, seconds, some, whole};
use crate::api::Session;

/// What fields of the core are called here.
const NAMES: [(&str, &str); 3] = [
    ("limit", "result_threshold"),
    ("min_score", "score_threshold"),
    ("index_id", "scene_index_id"),
];

/// What to look for.
#[derive(Deserialize)]
pub(super) struct Query {
    query: String,
    scene_index_id: Option<String>,
    result_threshold: Option<Number>,
    score_threshold: Option<Number>,
    dynamic_score_percentage: Option<Value>,
    stitch: Option<Value>,
    filter: Option<Value>,
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

/// `POST /rtstream/{id}/search`
pub(super) async fn in_stream(session: Session, ids: Ids, Body(body): Body<Query>) -> Answer {
    let request = v1::SearchRequest {
        rtstream_id: ids.id,
        ..asked(body)?
    };
    search(&session, request).await
}

/// `POST /rtstream/collection/{id}/search`
pub(super) async fn in_collection(session: Session, ids: Ids, Body(body): Body<Query>) -> Answer {
    let request = v1::SearchRequest {
        collection_id: ids.id,
        ..asked(body)?
    };
    search(&session, request).await
}

fn asked(body: Query) -> Result<v1::SearchRequest, ApiError> {
    unsupported([
        ("dynamic_score_percentage", &body.dynamic_score_percentage),
        ("stitch", &body.stitch),
        ("filter", &body.filter),
    ])?;
    let limit = whole("result_threshold", body.result_threshold, 1..=100)?;
    Ok(v1::SearchRequest {
        query: body.query,
        index_id: body.scene_index_id.unwrap_or_default(),
        limit: limit.unwrap_or_default() as i32,
        min_score: body
            .score_threshold
            .map_or(0.0, |Number(score)| score as f32),
        ..Default::default()
    })
}

async fn search(session: &Session, request: v1::SearchRequest) -> Answer {
    let found = session.search(request).await.map_err(renaming(&NAMES))?;
    let results = found.hits.into_iter().map(|hit| Hit {
        rtstream_name: session.stream_name(&hit.rtstream_id),
        scene_index_name: session.index_name(&hit.index_id),
        start: seconds(hit.start_time.as_ref()),
        end: seconds(hit.end_time.as_ref()),
        rtstream_id: hit.rtstream_id,
        text: hit.text,
        score: hit.score,
        scene_index_id: some(hit.index_id),
        metadata: Value::Object(serde_json::Map::new()),
        stream_url: some(hit.stream_url),
        player_url: some(hit.player_url),
    });
    Data::of(Results {
        results: results.collect(),
    })
}
