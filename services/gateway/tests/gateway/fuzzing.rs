//! Bodies and queries that nobody would send: refused in the envelope, and never a fault of the server.

use serde_json::{Map, Value, json};
use sightline_testkit::dice::Dice;

use crate::harness::{Gateway, KEY};

/// How many requests each call of the API gets.
const REQUESTS: usize = 60;
/// What the embeddings service, which is not there, is asked in vain.
const UNAVAILABLE: u16 = 503;

/// A call of the document: its method, its path with ids put in, and a body that it takes.
struct Call {
    method: String,
    path: String,
    body: Value,
}

#[tokio::test]
async fn whatever_a_body_holds_is_answered_in_the_envelope() {
    let gateway = Gateway::start().await;
    let id = gateway.connect("x", Value::Null).await;
    let document = gateway.get("/openapi.json").await.text();
    let document: Value = serde_json::from_str(&document).expect("JSON");
    let calls = calls(&document, &id);
    assert!(calls.len() > 10, "calls with bodies");
    let mut dice = Dice::new(7);
    for Call { method, path, body } in calls {
        for _ in 0..REQUESTS {
            let changed = dice.json(&body).to_string().into_bytes();
            let sent = match dice.below(3) {
                0 => dice.bytes(&changed),
                _ => changed,
            };
            let (status, answer) = gateway.raw(&method, &path, KEY, &sent).await;
            let sent = String::from_utf8_lossy(&sent);
            assert!(
                status < 500 || status == UNAVAILABLE,
                "{method} {path} {sent:.300}: {status} {answer}"
            );
        }
    }
    let (status, _) = gateway.raw("GET", "/rtstream", KEY, b"").await;
    assert_eq!(status, 200, "it still answers");
}

fn calls(document: &Value, rtstream: &str) -> Vec<Call> {
    let paths = document["paths"].as_object().expect("paths");
    let all = paths.iter().flat_map(|(path, calls)| {
        let calls = calls.as_object().expect("calls").iter();
        calls.map(move |(method, call)| (path, method, call))
    });
    let bodies = all.filter_map(|(path, method, call)| {
        let schema = call.pointer("/requestBody/content/application~1json/schema")?;
        let path = path.replace("{rtstream_id}", rtstream);
        let path = path.replace("{collection_id}", "default");
        Some(Call {
            method: method.to_uppercase(),
            path: path.replace(['{', '}'], ""),
            body: sample(document, schema),
        })
    });
    bodies.collect()
}

/// Something that a schema takes, with every field.
fn sample(document: &Value, schema: &Value) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        let pointer = reference.trim_start_matches('#');
        return sample(document, document.pointer(pointer).expect("a schema"));
    }
    if let Some(first) = schema["enum"].get(0) {
        return first.clone();
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds[0].as_str(),
        kind => kind.as_str(),
    };
    match kind {
        Some("object") => {
            let fields = schema["properties"].as_object().into_iter().flatten();
            let fields = fields.map(|(name, field)| (name.clone(), sample(document, field)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        Some("array") => json!([sample(document, &schema["items"])]),
        Some("integer" | "number") => schema.get("minimum").cloned().unwrap_or(json!(1)),
        Some("boolean") => json!(true),
        _ => json!("rtsp://camera.example/1"),
    }
}
