//! VideoDB's REST: every route's good and bad cases, in the envelope, over real HTTP.

use serde_json::{Value, json};
use sightline_proto::internal::IndexRecord;
use sightline_proto::v1;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Gateway, KEY, LONG};

impl Gateway {
    /// Sends bytes as a body; the status and the JSON of the answer, which is in the envelope.
    pub async fn raw(&self, method: &str, path: &str, key: &str, body: &[u8]) -> (u16, Value) {
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-access-token: {key}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        let talking = async {
            let mut socket = TcpStream::connect(self.address).await.expect("connects");
            socket.write_all(head.as_bytes()).await.expect("sent");
            // A body that is refused may not be read to its end.
            let _ = socket.write_all(body).await;
            let mut answer = Vec::new();
            let _ = socket.read_to_end(&mut answer).await;
            String::from_utf8(answer).expect("UTF-8")
        };
        let answer = tokio::time::timeout(LONG, talking).await.expect("in time");
        let (head, body) = answer.split_once("\r\n\r\n").expect("the end of the head");
        let status: u16 = head[9..12].parse().expect("a status");
        assert!(head.contains("application/json"), "{method} {path}: {head}");
        let body: Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body["success"], json!(status < 300), "{method} {path}");
        if status >= 300 {
            assert!(!body["message"].as_str().expect("a message").is_empty());
            assert!(!body["error_code"].as_str().expect("a code").is_empty());
        }
        (status, body)
    }

    /// The data of a call that goes well; `Value::Null` is no body.
    pub async fn ask(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, body) = self.raw(method, path, KEY, &sent(&body)).await;
        assert!(status < 300, "{method} {path}: {status} {body}");
        body["data"].clone()
    }

    /// The status and the message of a call that is refused.
    pub async fn refused(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let (status, body) = self.raw(method, path, KEY, body.as_bytes()).await;
        (status, text(&body["message"]))
    }

    /// Checks lines `METHOD PATH BODY -> STATUS PART OF THE MESSAGE`, with these words replaced in the calls.
    pub async fn refuses(&self, table: &str, words: &[(&str, &str)]) {
        for line in table.lines().filter(|line| !line.is_empty()) {
            let (call, expected) = line.split_once(" -> ").expect("an arrow");
            let (status, said) = expected.split_once(' ').expect("a status");
            let replaced = |call: String, word: &(&str, &str)| call.replace(word.0, word.1);
            let call = words.iter().fold(call.to_owned(), replaced);
            let mut parts = call.splitn(3, ' ');
            let mut part = || parts.next().unwrap_or_default();
            let (found, message) = self.refused(part(), part(), part()).await;
            let as_expected = found.to_string() == status && message.contains(said);
            assert!(as_expected, "{line}: {found} {message}");
        }
    }

    /// Connects a camera; its id.
    pub async fn connect(&self, name: &str, further: Value) -> String {
        let mut body = json!({"url": "rtsp://camera.example/1", "name": name});
        let further = further.as_object().cloned().unwrap_or_default();
        body.as_object_mut().expect("an object").extend(further);
        text(&self.ask("POST", "/rtstream", body).await["id"])
    }
}

fn sent(body: &Value) -> Vec<u8> {
    if body.is_null() {
        Vec::new()
    } else {
        body.to_string().into_bytes()
    }
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn names(list: &Value, key: &str) -> Vec<String> {
    let items = list.as_array().expect("a list");
    items.iter().map(|item| text(&item[key])).collect()
}

#[tokio::test]
async fn collections_are_made_changed_and_deleted() {
    let gateway = Gateway::start().await;
    let default = json!({
        "id": "default", "name": "default", "description": "", "is_public": false,
    });
    assert_eq!(
        gateway.ask("GET", "/collection/default", Value::Null).await,
        default
    );
    let body = json!({"name": "Gates", "description": null, "is_public": false});
    let made = gateway.ask("POST", "/collection", body).await;
    let id = text(&made["id"]);
    assert!(id.starts_with("c-"), "{id}");
    let path = format!("/collection/{id}");
    let changed = gateway
        .ask("PATCH", &path, json!({"description": "All of them"}))
        .await;
    assert_eq!(
        changed,
        json!({"id": id, "name": "Gates", "description": "All of them", "is_public": false})
    );
    assert_eq!(gateway.ask("GET", &path, Value::Null).await, changed);
    let listed = gateway.ask("GET", "/collection", Value::Null).await;
    assert_eq!(listed, json!({"collections": [default, changed]}));

    gateway
        .connect("Gate 1", json!({"collection_id": id}))
        .await;
    gateway
        .refuses(
            r#"
DELETE /collection/ID -> 400 collection_id: a collection without streams
DELETE /collection/default -> 400 can't be deleted
PATCH /collection/default {"name": "x"} -> 400 can't be changed
PATCH /collection/ID {"name": ""} -> 400 name: 1 to 200
PATCH /collection/ID {"name": 5} -> 400 name: invalid type
POST /collection -> 400 missing field `name`
POST /collection {"name": " "} -> 400 name: must hold more
POST /collection {"name": "x", "is_public": true} -> 400 is_public: not supported
GET /collection/c-1 -> 404 no collection
PUT /collection/ID -> 405 PUT
"#,
            &[("ID", &id)],
        )
        .await;
    let empty = gateway
        .ask("POST", "/collection/", json!({"name": "Empty"}))
        .await;
    let path = format!("/collection/{}", text(&empty["id"]));
    gateway.ask("DELETE", &path, Value::Null).await;
    for method in ["GET", "DELETE"] {
        assert_eq!(gateway.refused(method, &path, "").await.0, 404);
    }
}

#[tokio::test]
async fn streams_are_connected_and_listed() {
    let gateway = Gateway::start().await;
    let body = json!({
        "url": "rtsp://user:s3cret@camera.example/1", "name": "Front door", "collection_id": "default",
        "media_types": ["video", "audio"], "sample_rate": "15", "store": true, "enable_transcript": true,
        "ws_connection_id": null,
    });
    let (status, made) = gateway.raw("POST", "/rtstream/", KEY, &sent(&body)).await;
    let id = text(&made["data"]["id"]);
    let shown = json!({
        "id": id, "name": "Front door", "status": "connected", "sample_rate": 15,
        "media_types": ["video", "audio"], "collection_id": "default", "store": true,
        "created_at": "2025-11-24T16:00:00Z",
    });
    assert_eq!((status, &made["data"]), (201, &shown));
    let path = format!("/rtstream/{id}");
    assert_eq!(
        gateway.ask("GET", &path, Value::Null).await["name"],
        "Front door"
    );
    for (body, status) in [
        (json!({"action": "stop"}), "stopped"),
        (json!({"status": "connected"}), "connected"),
        (json!({"action": "stop", "status": null}), "stopped"),
    ] {
        let stream = gateway.ask("PATCH", &format!("{path}/status/"), body).await;
        assert_eq!(stream["status"], status);
    }
    let named = gateway
        .ask("PATCH", &path, json!({"name": "Back door"}))
        .await;
    assert_eq!(named["name"], "Back door");
    for name in ["Gate 2", "Gate 1", "Gate 3"] {
        gateway.connect(name, json!({"name": name})).await;
    }
    for (query, expected) in [
        ("", vec!["Gate 3", "Gate 1", "Gate 2", "Back door"]),
        (
            "?name=gate&ordering=name",
            vec!["Gate 1", "Gate 2", "Gate 3"],
        ),
        ("?status=stopped", vec!["Back door"]),
        ("?ordering=-name&limit=1&offset=1", vec!["Gate 2"]),
        ("?ordering=created_at&limit=2", vec!["Back door", "Gate 2"]),
        ("?offset=9", vec![]),
    ] {
        let list = gateway
            .ask("GET", &format!("/rtstream{query}"), Value::Null)
            .await;
        assert_eq!(names(&list["results"], "name"), expected, "{query}");
    }
    let list = gateway
        .ask("GET", "/rtstream?limit=2&offset=1&name=gate", Value::Null)
        .await;
    assert_eq!(
        (&list["count"], &list["next"], &list["previous"]),
        (
            &json!(3),
            &Value::Null,
            &json!("/rtstream?name=gate&limit=2&offset=0")
        )
    );
    let list = gateway.ask("GET", "/rtstream?limit=2", Value::Null).await;
    let next = text(&list["next"]);
    let list = gateway.ask("GET", &next, Value::Null).await;
    assert_eq!(names(&list["results"], "name"), ["Gate 2", "Back door"]);
}

#[tokio::test]
async fn indexes_are_created_and_switched() {
    let gateway = Gateway::start().await;
    let stream = gateway.connect("x", Value::Null).await;
    let other = gateway.connect("y", Value::Null).await;
    let all = format!("/rtstream/{stream}/index/scene");
    let create = |config: Value| {
        json!({
            "extraction_type": "time", "extraction_config": config, "prompt": null,
            "model_name": null, "model_config": {"max_new_tokens": "64"}, "name": null,
        })
    };
    for (config, expected) in [
        (Value::Null, json!({"time": 5, "frame_count": 2})),
        (
            json!({"time": null, "frame_count": null}),
            json!({"time": 5, "frame_count": 2}),
        ),
        (
            json!({"time": "2.5", "frame_count": "5"}),
            json!({"time": 2.5, "frame_count": 5}),
        ),
        (
            json!({"time": 10, "frame_count": null}),
            json!({"time": 10, "frame_count": 2}),
        ),
    ] {
        let made = gateway.ask("POST", &all, create(config)).await;
        let id = text(&made["rtstream_index_id"]);
        let expected = json!({
            "rtstream_index_id": id, "rtstream_id": stream, "extraction_type": "time", "extraction_config": expected,
            "prompt": "Describe the scene", "name": id, "model_name": "demo-vlm", "prompt_applied": true,
            "status": "running",
        });
        assert_eq!(made, expected);
        let path = format!("/rtstream/{stream}/index/{id}/");
        assert_eq!(gateway.ask("GET", &path, Value::Null).await, expected);
    }
    let listed = gateway.ask("GET", &all, Value::Null).await;
    let ids = names(&listed["scene_indexes"], "rtstream_index_id");
    let told = |id: &str| {
        let record = gateway.catalog.get::<IndexRecord>(id);
        let index = record.and_then(|record| record.value.index.clone());
        index.and_then(|index| index.model_config)
    };
    let tokens = |max_new_tokens| Some(v1::ModelConfig { max_new_tokens });
    assert_eq!(told(&ids[0]), tokens(64));
    let change = json!({"model_config": {"max_new_tokens": 96}});
    gateway
        .ask("PATCH", &format!("{all}/{}", ids[0]), change)
        .await;
    assert_eq!(told(&ids[0]), tokens(96));
    let newer = gateway
        .ask("GET", &format!("/rtstream/{stream}/indexes"), Value::Null)
        .await;
    assert_eq!(
        (ids.len(), names(&newer["indexes"], "index_id")),
        (4, ids.clone())
    );
    let id = &ids[0];
    for (path, body, status) in [
        (
            format!("{all}/{id}/status"),
            json!({"action": "stop"}),
            "stopped",
        ),
        (
            format!("{all}/{id}/status/"),
            json!({"status": "running"}),
            "running",
        ),
        (
            format!("/rtstream/{stream}/indexes/{id}/status"),
            json!({"action": "stop"}),
            "stopped",
        ),
    ] {
        assert_eq!(gateway.ask("PATCH", &path, body).await["status"], status);
    }
    let newer = gateway
        .ask(
            "GET",
            &format!("/rtstream/{stream}/indexes/{id}"),
            Value::Null,
        )
        .await;
    assert_eq!(
        (&newer["index_id"], &newer["status"]),
        (&json!(id), &json!("stopped"))
    );

    gateway
        .refuses(
            r#"
POST ALL {"extraction_config": {"time": "x"}} -> 400 extraction_config.time: 
POST ALL {"extraction_config": {"time": 0}} -> 400 extraction_config.time: 1 s to 600 s
POST ALL {"extraction_config": {"time": 1e300}} -> 400 extraction_config.time: 
POST ALL {"extraction_config": {"time": 5, "frame_count": 17}} -> 400 extraction_config.frame_count: 1 to 16
POST ALL {"extraction_config": {"time": 5, "frame_count": 1.5}} -> 400 extraction_config.frame_count: 
POST ALL {"extraction_config": 5} -> 400 extraction_config: 
POST ALL {"extraction_type": "shot"} -> 400 extraction_type: 
POST ALL {"extraction_type": "transcript", "extraction_config": {"segmenter": "word", "segmentation_value": 0}} -> 400 extraction_config.segmentation_value: 1 to 1000
POST ALL {"extraction_type": "transcript", "extraction_config": {"segmenter": "letter"}} -> 400 extraction_config.segmenter: 
POST ALL {"extraction_type": "transcript", "extraction_config": {"segmenter": "sentence", "segmentation_value": 1.5}} -> 400 extraction_config.segmentation_value: 
POST ALL {"extraction_type": "transcript", "auto_start_transcript": false} -> 400 auto_start_transcript: 
POST ALL {"model_name": "gpt"} -> 400 model_name: one of demo-vlm, other
POST ALL {"model_config": {"a": 1}} -> 400 model_config: "max_new_tokens" is all that it may hold, got "a"
POST ALL {"model_config": {"max_new_tokens": 1025}} -> 400 model_config.max_new_tokens: 1 to 1024
POST ALL {"model_config": {"max_new_tokens": 1.5}} -> 400 model_config.max_new_tokens: a whole number
POST ALL {"extraction_type": "transcript", "model_config": {"max_new_tokens": 1025}} -> 400 model_config.max_new_tokens: 1 to 1024
POST ALL {"sandbox_id": "s"} -> 400 sandbox_id: not supported
POST ALL {"prompt": ""} -> 400 prompt: 1 to 4000
POST /rtstream/rts-x/index/scene {} -> 404 no stream
GET /rtstream/STREAM/index/idx-01890000-0000-7000-8000-000000000000 -> 404 no index
GET /rtstream/OTHER/index/INDEX -> 404 has no index
GET /rtstream/OTHER/index/scene/INDEX -> 404 has no index
PATCH ALL/INDEX/status {"action": ""} -> 400 action: 
GET ALL/INDEX?page=x -> 400 page: 
GET ALL/INDEX?page=1001&page_size=100 -> 400 page: page times page_size
GET ALL/INDEX?start=2&end=1 -> 400 end: must be after
GET ALL/INDEX?page=1&page_size=5 -> 503 embeddings
GET /rtstream/STREAM/indexes/INDEX/records -> 503 embeddings
PATCH ALL/INDEX {"prompt": ""} -> 400 prompt: 1 to 4000
PATCH /rtstream/OTHER/index/scene/INDEX {"prompt": "x"} -> 404 has no index
DELETE /rtstream/STREAM/index/INDEX -> 405 DELETE
"#,
            &[("ALL", &all), ("STREAM", &stream), ("OTHER", &other), ("INDEX", id)],
        )
        .await;
}

#[tokio::test]
async fn a_transcript_is_batched_and_prompts_change() {
    let gateway = Gateway::start().await;
    let stream = gateway.connect("x", Value::Null).await;
    let all = format!("/rtstream/{stream}/index/scene");
    let transcription = format!("/rtstream/{stream}/transcription/status");
    let off = gateway.ask("GET", &transcription, Value::Null).await;
    assert_eq!(off["status"], "stopped");
    for (config, expected) in [
        (Value::Null, ("word", json!(10))),
        (
            json!({"segmenter": "word", "segmentation_value": "50"}),
            ("word", json!(50)),
        ),
        (
            json!({"segmenter": "sentence", "segmentation_value": 5}),
            ("sentence", json!(5)),
        ),
        (
            json!({"segmenter": "time", "segmentation_value": 7.5}),
            ("time", json!(7.5)),
        ),
    ] {
        let body = json!({
            "extraction_type": "transcript", "extraction_config": config, "prompt": null,
            "model_name": "basic", "model_config": {}, "name": "Words",
        });
        let made = gateway.ask("POST", &all, body).await;
        let (segmenter, value) = expected;
        let config = json!({"segmenter": segmenter, "segmentation_value": value});
        let expected = json!({
            "rtstream_index_id": made["rtstream_index_id"], "rtstream_id": stream,
            "extraction_type": "transcript", "extraction_config": config, "prompt": "",
            "name": "Words", "model_name": "demo-vlm", "prompt_applied": false, "status": "running",
        });
        assert_eq!(made, expected);
    }
    let on = gateway.ask("GET", &transcription, Value::Null).await;
    assert_eq!(on["status"], "running");
    // What one of the clients sends for "time".
    let body = json!({"extraction_type": "time_based", "auto_start_transcript": false});
    let made = gateway.ask("POST", &all, body).await;
    let path = format!("{all}/{}", text(&made["rtstream_index_id"]));
    let body = json!({"prompt": "Describe people"});
    assert_eq!(
        gateway.ask("PATCH", &path, body).await["prompt"],
        "Describe people"
    );
}

#[tokio::test]
async fn an_understanding_and_its_index_are_one() {
    let gateway = Gateway::start().await;
    let stream = gateway.connect("x", Value::Null).await;
    let other = gateway.connect("y", Value::Null).await;
    let all = format!("/rtstream/{stream}/understand");
    let body = json!({
        "segmentation": {"type": "time", "window": "10s"},
        "analyzers": [{
            "type": "vlm", "name": "people", "sampling": {"frame_count": 5},
            "config": {"prompt": "Who is there?", "model": "basic"},
        }],
        "store": true,
    });
    let made = gateway.ask("POST", &all, body).await;
    let id = text(&made["understanding_id"]);
    let source = json!({"understanding_id": id, "output": "people"});
    let expected = json!({
        "understanding_id": id, "rtstream_id": stream, "status": "running", "store": true,
        "segmentation": {"type": "time", "window": "10s"},
        "analyzers": [{
            "type": "vlm", "name": "people", "sampling": {"frame_count": 5},
            "config": {"prompt": "Who is there?", "model": "demo-vlm"},
        }],
        "outputs": {"people": source},
    });
    assert!(id.starts_with("und-"), "{id}");
    assert_eq!(made, expected);
    // An index of its own is none.
    let scene = format!("/rtstream/{stream}/index/scene");
    let plain = text(&gateway.ask("POST", &scene, Value::Null).await["rtstream_index_id"]);
    let listed = gateway.ask("GET", &all, Value::Null).await;
    assert_eq!(listed, json!({"understandings": [expected]}));

    let indexes = format!("/rtstream/{stream}/indexes");
    let body = json!({"source": source, "name": "People", "use_for": ["semantic"]});
    let index = gateway.ask("POST", &indexes, body).await;
    let index_id = id.replace("und-", "idx-");
    let shown = json!({
        "index_id": index_id, "rtstream_id": stream, "name": "People", "status": "running",
        "use_for": ["semantic"], "source_understanding_id": id, "output": "people",
    });
    assert_eq!(index, shown);
    let found = gateway.ask("GET", &indexes, Value::Null).await;
    assert_eq!(
        names(&found["indexes"], "index_id"),
        [index_id.clone(), plain.clone()]
    );
    assert_eq!(found["indexes"][1]["source_understanding_id"], Value::Null);
    let status = format!("{all}/{id}/status");
    let stopped = gateway
        .ask("PATCH", &status, json!({"action": "stop"}))
        .await;
    assert_eq!(stopped["status"], "stopped");
    let index = gateway
        .ask("GET", &format!("{indexes}/{index_id}"), Value::Null)
        .await;
    assert_eq!(index["status"], "stopped");
    let again = gateway
        .ask("GET", &format!("{all}/{id}"), Value::Null)
        .await;
    assert_eq!(again["outputs"], made["outputs"]);
    gateway
        .refuses(
            r#"
POST ALL -> 400 analyzers: exactly one
POST ALL {"analyzers": [{}, {}]} -> 400 analyzers: exactly one
POST ALL {"analyzers": [{"type": "ocr"}]} -> 400 analyzers.type: 
POST ALL {"analyzers": [{"name": ""}]} -> 400 analyzers.name: 
POST ALL {"analyzers": [{"config": {"prompt": ""}}]} -> 400 analyzers.config.prompt: 1 to 4000
POST ALL {"analyzers": [{"config": {"model": "gpt"}}]} -> 400 analyzers.config.model: 
POST ALL {"analyzers": [{"sampling": {"frame_count": 17}}]} -> 400 analyzers.sampling.frame_count: 
POST ALL {"analyzers": [{}], "segmentation": {"type": "shot"}} -> 400 segmentation.type: 
POST ALL {"analyzers": [{}], "segmentation": {"window": "soon"}} -> 400 segmentation.window: 
POST ALL {"analyzers": [{}], "segmentation": {"window": "1h"}} -> 400 segmentation.window: 
POST ALL {"analyzers": [{}], "store": false} -> 400 store: 
POST /rtstream/rts-x/understand {"analyzers": [{}]} -> 404 no stream
GET ALL/und-x -> 404 has no understanding
GET ALL/PLAIN -> 404 has no understanding
GET /rtstream/OTHER/understand/ID -> 404 has no understanding
PATCH ALL/ID/status {"action": "pause"} -> 400 action: 
GET ALL/ID/records?output=scene -> 400 output: 
GET ALL/ID/records?output=people -> 503 embeddings
POST /rtstream/STREAM/indexes {"source": {}} -> 400 missing field `understanding_id`
POST /rtstream/STREAM/indexes {"source": {"understanding_id": "PLAIN"}} -> 404 has no understanding
POST /rtstream/STREAM/indexes {"source": {"understanding_id": "ID", "output": "x"}} -> 400 source.output: 
POST /rtstream/STREAM/indexes {"source": {"understanding_id": "ID"}, "use_for": ["keyword"]} -> 400 use_for: 
POST /rtstream/STREAM/indexes {"source": {"understanding_id": "ID"}, "name": ""} -> 400 name: 1 to 200
"#,
            &[
                ("ALL", &all),
                ("STREAM", &stream),
                ("OTHER", &other),
                ("PLAIN", &plain),
                ("ID", &id),
            ],
        )
        .await;
}

#[tokio::test]
async fn events_and_alerts_are_created_and_switched() {
    let gateway = Gateway::start().await;
    let stream = gateway.connect("x", Value::Null).await;
    let scene = format!("/rtstream/{stream}/index/scene");
    let mut indexes = Vec::new();
    for _ in 0..2 {
        let index = gateway.ask("POST", &scene, Value::Null).await;
        indexes.push(text(&index["rtstream_index_id"]));
    }
    let body = json!({"event_prompt": "Somebody enters", "label": "entry"});
    let event = text(&gateway.ask("POST", "/rtstream/event/", body).await["event_id"]);
    let events = gateway.ask("GET", "/rtstream/event", Value::Null).await;
    let shown = json!({"event_id": event, "event_prompt": "Somebody enters", "label": "entry"});
    assert_eq!(events, json!({"events": [shown]}));

    let alerts = format!("/rtstream/{stream}/index/{}/alert", indexes[0]);
    let hook = "https://hooks.example/a";
    let body = json!({"event_id": event, "callback_url": hook, "ws_connection_id": null});
    let alert = text(&gateway.ask("POST", &alerts, body.clone()).await["alert_id"]);
    let status = format!("{alerts}/{alert}/status");
    let newer = format!("/rtstream/{stream}/indexes/{}/alert", indexes[0]);
    for (path, body, status) in [
        (status.clone(), json!({"action": "disable"}), "disabled"),
        (status.clone(), json!({"status": "enabled"}), "enabled"),
        (
            format!("{status}/"),
            json!({"status": "disabled"}),
            "disabled",
        ),
        (
            format!("{newer}/{alert}/status"),
            json!({"action": "enable"}),
            "enabled",
        ),
    ] {
        gateway.ask("PATCH", &path, body).await;
        let expected = json!({"alerts": [{
            "alert_id": alert, "event_id": event, "prompt": "Somebody enters", "label": "entry",
            "callback_url": hook, "status": status,
        }]});
        assert_eq!(gateway.ask("GET", &alerts, Value::Null).await, expected);
        assert_eq!(gateway.ask("GET", &newer, Value::Null).await, expected);
    }
    let elsewhere = format!("/rtstream/{stream}/index/{}/alert", indexes[1]);
    assert_eq!(
        gateway.ask("GET", &elsewhere, Value::Null).await,
        json!({"alerts": []})
    );
    gateway
        .refuses(
            r#"
POST /rtstream/event {"label": "x"} -> 400 missing field `event_prompt`
POST /rtstream/event {"event_prompt": "", "label": "x"} -> 400 event_prompt: 1 to 1000
POST /rtstream/event {"event_prompt": "x", "label": 1} -> 400 label: invalid type
POST ALERTS {"callback_url": ""} -> 400 missing field `event_id`
POST ALERTS {"event_id": "e", "callback_url": "https://hooks.example/a"} -> 404 no event
POST ALERTS {"event_id": "EVENT", "callback_url": "x"} -> 400 callback_url: an http
POST ALERTS {"event_id": "EVENT", "callback_url": "http://10.0.0.1/"} -> 400 callback_url: 
POST /rtstream/STREAM/index/i/alert {"event_id": "EVENT", "callback_url": "https://hooks.example/a"} -> 404 no index
PATCH ALERTS/THIS/status {"action": "start"} -> 400 action: 
PATCH ALERTS/alr-01890000-0000-7000-8000-000000000000/status {"action": "enable"} -> 404 no alert
PATCH ELSEWHERE/THIS/status {"action": "enable"} -> 404 has no alert
"#,
            &[
                ("ALERTS", &alerts),
                ("ELSEWHERE", &elsewhere),
                ("STREAM", &stream),
                ("EVENT", &event),
                ("THIS", &alert),
            ],
        )
        .await;
}
