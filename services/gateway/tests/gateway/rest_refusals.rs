//! VideoDB's REST: what is refused, always in the envelope and never with a fault of the server.

use serde_json::{Value, json};
use sightline_gateway::Limits;

use crate::harness::{Gateway, KEY};

#[tokio::test]
async fn streams_that_make_no_sense_are_refused() {
    let gateway = Gateway::start().await;
    let id = gateway.connect("x", Value::Null).await;
    gateway
        .refuses(
            r#"
POST /rtstream -> 400 missing field `url`
POST /rtstream {"url": null} -> 400 url: invalid type
POST /rtstream [] -> 400 must be a JSON object
POST /rtstream "x" -> 400 must be a JSON object
POST /rtstream {"url": "gopher://x"} -> 400 url: 
POST /rtstream {"url": "rtsp://a.example/1", "name": 7} -> 400 name: invalid type
POST /rtstream {"url": "rtsp://a.example/1", "store": "yes"} -> 400 store: invalid type
POST /rtstream {"url": "rtsp://a.example/1", "sample_rate": "x"} -> 400 sample_rate: 
POST /rtstream {"url": "rtsp://a.example/1", "sample_rate": 0.5} -> 400 sample_rate: 
POST /rtstream {"url": "rtsp://a.example/1", "sample_rate": "inf"} -> 400 sample_rate: 
POST /rtstream {"url": "rtsp://a.example/1", "media_types": ["image"]} -> 400 media_types: 
POST /rtstream {"url": "rtsp://a.example/1", "media_types": []} -> 400 media_types: 
POST /rtstream {"url": "rtsp://a.example/1", "ws_connection_id": 5} -> 400 ws_connection_id: invalid type
POST /rtstream {"url": "rtsp://a.example/1", "collection_id": "c-1"} -> 404 no collection
GET /rtstream?limit=x -> 400 limit: 
GET /rtstream?limit=0 -> 400 limit: 
GET /rtstream?offset=-1 -> 400 offset: 
GET /rtstream?status=busy -> 400 status: 
GET /rtstream?ordering=size -> 400 ordering: 
GET /rtstream/rts-01890000-0000-7000-8000-000000000000 -> 404 no stream
GET /rtstream/%ff -> 400 UTF-8
PATCH /rtstream/ID/status -> 400 action: 
PATCH /rtstream/ID/status {"action": "pause"} -> 400 action: 
PATCH /rtstream/ID/status {"action": 1} -> 400 action: invalid type
PATCH /rtstream/ID {"name": ""} -> 400 name: 1 to 200
PATCH /rtstream/rts-x/status {"action": "stop"} -> 404 no stream
GET /rtstream/ID/stream -> 400 missing field `start`
GET /rtstream/ID/stream?start=x -> 400 start: 
GET /rtstream/ID/stream?start=-1&end=5 -> 400 start: 
GET /rtstream/ID/stream?start=1&end=5 -> 400 rtstream_id: a stream that is recorded
POST /rtstream/ID/export -> 400 a stream that is recorded
POST /rtstream/ID/search {} -> 400 missing field `query`
POST /rtstream/ID/search {"query": ""} -> 400 query: 1 to 1000
POST /rtstream/ID/search {"query": "x", "result_threshold": "0"} -> 400 result_threshold: 
POST /rtstream/ID/search {"query": "x", "score_threshold": 2} -> 400 score_threshold: 0 to 1
POST /rtstream/ID/search {"query": "x", "stitch": 5} -> 400 stitch: 
POST /rtstream/ID/search {"query": "x", "dynamic_score_percentage": 101} -> 400 dynamic_score_percentage: 
POST /rtstream/ID/search {"query": "x", "rerank": true} -> 400 rerank: not supported
POST /rtstream/ID/search {"query": "x", "index_type": "x"} -> 400 index_type: 
POST /rtstream/ID/search {"query": "x", "filter": {}} -> 400 filter: 
POST /rtstream/ID/search {"query": "x", "filter": [{"a": 1}]} -> 400 rtstream_id, scene_index_id, kind, start, end; got "a"
POST /rtstream/ID/search {"query": "x", "filter": [{"start": 5, "end": 4}]} -> 400 filter.end: 
POST /rtstream/ID/search {"query": "x", "filter": [{"scene_index_id": "i"}]} -> 404 scene_index_id: 
POST /rtstream/collection/c-1/search {"query": "x", "filter": [{"rtstream_id": "ID"}]} -> 404 no collection
POST /rtstream/ID/search {"query": "x", "scene_index_id": "i"} -> 404 scene_index_id: 
POST /rtstream/ID/search {"query": "x", "filter": [], "stitch": null} -> 503 embeddings
POST /rtstream/ID/search {"query": "x", "filter": [{"kind": "audio"}], "stitch": true, "dynamic_score_percentage": "20"} -> 503 embeddings
POST /rtstream/collection/default/search {"query": "x", "filter": [{"rtstream_id": "ID"}]} -> 503 embeddings
POST /rtstream/collection/c-1/search {"query": "x"} -> 404 no collection
POST /rtstream/ID/transcription -> 400 action: 
POST /rtstream/ID/transcription {"action": "stop", "mode": "soon"} -> 400 mode: 
POST /rtstream/ID/transcription {"action": "start", "engine": 5} -> 400 engine: invalid type
POST /rtstream/ID/transcription {"action": "start", "model_config": {"task": "sing"}} -> 400 model_config.task: 
POST /rtstream/ID/transcription {"action": "start", "model_config": {"task": "translate"}} -> 400 model_config.task: false, because
POST /rtstream/ID/transcription {"action": "start", "model_config": {"language": "de"}} -> 400 model_config.language: "en" or empty
GET /rtstream/ID/transcription?page=0 -> 400 page: 
GET /rtstream/ID/transcription?page_size=1001 -> 400 page_size: 
GET /rtstream/ID/transcription?start=5&end=4 -> 400 end: must be after
GET /rtstream/ID/transcription?since=x -> 400 since: 
GET /rtstream/ID/transcription?page=2&page_size=5&since=1.5 -> 503 embeddings
"#,
            &[("ID", &id)],
        )
        .await;
}

#[tokio::test]
async fn everything_else_is_refused_in_the_envelope() {
    let gateway = Gateway::start().await;
    gateway
        .refuses(
            r#"
GET /billing/usage -> 501 billing is not part of Sightline
GET /video -> 501 video is not part of Sightline
DELETE /video/m-1/ -> 501 video is not part of Sightline
POST /collection/default/upload -> 501 upload is not part of Sightline
POST /collection/default/generate/image -> 501 generate is not part of Sightline
POST /understand -> 501 understand is not part of Sightline
POST /timeline -> 501 timeline is not part of Sightline
GET /rtstream/rts-1/nothing -> 404 no such call
GET /rtstream/a/b/c/d/e/f/g -> 404 no such call
GET /collection/default/nothing -> 404 no such call
DELETE /rtstream/rts-1 -> 405 DELETE
PUT /rtstream -> 405 PUT
GET /rtstream/rts-1/search -> 405 GET
OPTIONS /collection/ -> 405 OPTIONS
"#,
            &[],
        )
        .await;
    for path in [
        "/rtstream",
        "/collection/default",
        "/video",
        "/rtstream/x/y/z",
    ] {
        let (status, body) = gateway.raw("GET", path, "wrong", b"").await;
        assert_eq!(
            (status, &body["error_code"]),
            (401, &json!("UNAUTHENTICATED"))
        );
    }
    let large = vec![b' '; Limits::default().message_bytes + 1];
    for (body, status, code) in [
        (&b"{"[..], 400, "INVALID_ARGUMENT"),
        (b"{\"url\": \"\xff\"}", 400, "INVALID_ARGUMENT"),
        (b"{\"url\": 1e999}", 400, "INVALID_ARGUMENT"),
        (b"{} {}", 400, "INVALID_ARGUMENT"),
        (b"{\"url\":\"a\",\"url\":\"b\"}", 400, "INVALID_ARGUMENT"),
        ("[".repeat(1000).as_bytes(), 400, "INVALID_ARGUMENT"),
        (&large, 413, "BODY_TOO_LARGE"),
    ] {
        let (found, answer) = gateway.raw("POST", "/rtstream", KEY, body).await;
        assert_eq!(
            (found, &answer["error_code"]),
            (status, &json!(code)),
            "{answer}"
        );
    }
}
