//! Search in this skin.

use serde::Serialize;
use serde_json::{Value, json};
use sightline_proto::v1;
use sightline_proto::v1::search_hit::Kind;

use super::answer::{Answer, Data, renaming};
use super::asked::search::Query;
use super::request::{Body, Ids};
use super::values::{seconds, some, wrong};
use crate::api::Session;

/// What fields of the core are called here.
const NAMES: [(&str, &str); 5] = [
    ("limit", "result_threshold"),
    ("min_score", "score_threshold"),
    ("index_id", "scene_index_id"),
    ("start_time", "filter.start"),
    ("end_time", "filter.end"),
];

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
        ..Default::default()
    };
    search(&session, body.added_to(request)?).await
}

/// `POST /rtstream/collection/{id}/search`
pub(super) async fn in_collection(session: Session, ids: Ids, Body(body): Body<Query>) -> Answer {
    let mut request = body.added_to(v1::SearchRequest::default())?;
    if request.rtstream_id.is_empty() {
        request.collection_id = ids.id;
    } else {
        session.get_collection(&ids.id).await?;
        let stream = session.get_rtstream(&request.rtstream_id).await?;
        if stream.collection_id != ids.id {
            return Err(wrong("filter.rtstream_id", "a stream of this collection").into());
        }
    }
    search(&session, request).await
}

async fn search(session: &Session, request: v1::SearchRequest) -> Answer {
    let found = session.search(request).await.map_err(renaming(&NAMES))?;
    let results = found.hits.into_iter().map(|hit| {
        let kind = match hit.kind() {
            Kind::Transcript => "transcript",
            Kind::AudioScene => "audio",
            Kind::Scene | Kind::Unspecified => "scene",
        };
        Hit {
            rtstream_name: hit.rtstream_name,
            scene_index_name: some(hit.index_name),
            start: seconds(hit.start_time.as_ref()),
            end: seconds(hit.end_time.as_ref()),
            rtstream_id: hit.rtstream_id,
            text: hit.text,
            score: hit.score,
            scene_index_id: some(hit.index_id),
            metadata: json!({"kind": kind, "stitched": hit.stitched_ids}),
            stream_url: some(hit.stream_url),
            player_url: some(hit.player_url),
        }
    });
    Data::of(Results {
        results: results.collect(),
    })
}
