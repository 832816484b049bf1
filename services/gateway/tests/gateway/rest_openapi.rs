//! The OpenAPI document is served without a key, and names every call and no other.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::{Gateway, KEY};

const METHODS: [&str; 5] = ["GET", "POST", "PATCH", "PUT", "DELETE"];

#[tokio::test]
async fn the_document_names_every_method_of_every_path() {
    let gateway = Gateway::start().await;
    let answer = gateway.get("/openapi.json").await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, "application/json")
    );
    let document: Value = serde_json::from_str(&answer.text()).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    assert!(!paths.is_empty());
    let mut ids = BTreeSet::new();
    for (path, calls) in paths {
        for method in METHODS {
            let call = &calls[method.to_lowercase()];
            let asked = path.replace(['{', '}'], "");
            let (status, body) = gateway.raw(method, &asked, KEY, b"").await;
            let there = status != 405 && !body.to_string().contains("no such call");
            assert_eq!(there, call.is_object(), "{method} {path}: {status} {body}");
            if let Some(id) = call["operationId"].as_str() {
                assert!(ids.insert(id.to_owned()), "{id} twice");
            }
        }
    }
}
