//! What fuzzing found worth keeping (fuzz/corpus) is taken or refused by what a caller reaches, too.

use prost::Message;
use serde_json::Value;
use sightline_catalog::source;
use sightline_egress::Policy;
use sightline_message::{Body, MAX_OUTPUT, render};
use sightline_proto::internal::{AudioChunk, Delivery, FrameWindow, Observation};
use sightline_proto::v1;
use sightline_recordings::Segment;
use tonic::Code;

use crate::harness::{Gateway, KEY, NOW_US};

fn inputs(target: &str) -> Vec<Vec<u8>> {
    let folder = sightline_testkit::repository()
        .join("fuzz/corpus")
        .join(target);
    let files = std::fs::read_dir(&folder).expect("a corpus");
    let inputs: Vec<_> = files
        .map(|file| std::fs::read(file.expect("a file").path()).expect("read"))
        .collect();
    assert!(!inputs.is_empty(), "{}", folder.display());
    inputs
}

fn texts(target: &str) -> impl Iterator<Item = String> {
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    inputs(target).into_iter().map(text)
}

#[test]
fn sources_templates_and_messages_are_taken_or_refused() {
    for text in texts("source_urls") {
        let again = source::check(&text, None).map(|source| source.url().to_string());
        assert!(again.is_err() || source::check(&again.unwrap_or_default(), None).is_ok());
        let _ = Policy::default().check_url(&text);
    }
    for text in texts("templates") {
        let body = render(&text, &Body::sample(false));
        assert!(body.is_err() || body.unwrap_or_default().len() <= MAX_OUTPUT);
    }
    for payload in inputs("bus_payloads") {
        let _ = Observation::decode(payload.as_slice());
        let _ = FrameWindow::decode(payload.as_slice());
        let _ = AudioChunk::decode(payload.as_slice());
        let _ = Delivery::decode(payload.as_slice());
    }
}

#[tokio::test]
async fn tokens_and_links_are_refused_as_the_callers_fault() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    for token in texts("page_tokens").filter(|token| !token.is_empty()) {
        let request = v1::ListRtStreamsRequest {
            page_token: token.clone(),
            ..Default::default()
        };
        let answer = client.streams.list_rt_streams(request).await;
        assert_eq!(answer.expect_err(&token).code(), Code::InvalidArgument);
        let request = v1::WatchRequest {
            cursor: token.clone(),
            ..Default::default()
        };
        let answer = client.watch.watch(request).await.map(drop);
        let code = answer.map_or_else(|status| status.code(), |()| Code::Ok);
        assert!([Code::Ok, Code::InvalidArgument, Code::OutOfRange].contains(&code));
    }
    for text in texts("playlist_requests") {
        let mut lines = text.split('\n');
        let mut next = || lines.next().unwrap_or_default();
        let (rtstream, token, file) = (next(), next(), next());
        assert!(gateway.links.check_clip(rtstream, token, NOW_US).is_err());
        let segment = Segment::parse(file);
        assert!(segment.is_none_or(|segment| segment.file_name() == file));
    }
}

#[tokio::test]
async fn a_key_that_was_not_made_here_lets_nobody_in() {
    let gateway = Gateway::start().await;
    let as_header = |text: &String| text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let keys: Vec<_> = texts("secrets").filter(as_header).collect();
    assert!(!keys.is_empty());
    for key in keys {
        let (status, answer) = gateway.raw("GET", "/rtstream", &key, &[]).await;
        assert_eq!(status, 401, "{key}: {answer}");
    }
}

/// REST's calls in the order in which `fuzz/src/rest.rs` has them.
const CALLS: [(&str, &str); 19] = [
    ("POST", "/rtstream"),
    ("PATCH", "/rtstream/{id}"),
    ("GET", "/rtstream"),
    ("GET", "/rtstream/{id}/stream"),
    ("POST", "/rtstream/{id}/index/scene"),
    ("POST", "/rtstream/{id}/index/scene"),
    ("PATCH", "/rtstream/{id}/index/scene/idx-1"),
    ("GET", "/rtstream/{id}/index/scene/idx-1"),
    ("POST", "/rtstream/{id}/understand"),
    ("POST", "/rtstream/{id}/indexes"),
    ("GET", "/rtstream/{id}/understand/und-1/records"),
    ("POST", "/rtstream/{id}/search"),
    ("POST", "/rtstream/{id}/transcription"),
    ("GET", "/rtstream/{id}/transcription"),
    ("POST", "/rtstream/event"),
    ("POST", "/rtstream/{id}/index/idx-1/alert"),
    ("POST", "/collection"),
    ("PATCH", "/collection/default"),
    ("POST", "/rtstream/{id}/export"),
];
/// What the embeddings service, which is not there, is asked in vain.
const UNAVAILABLE: u16 = 503;

#[tokio::test]
async fn bodies_and_queries_are_answered_in_the_envelope() {
    let gateway = Gateway::start().await;
    let id = gateway.connect("x", Value::Null).await;
    for input in inputs("rest_requests") {
        let Some((kind, rest)) = input.split_first() else {
            continue;
        };
        let (method, path) = CALLS[usize::from(*kind) % CALLS.len()];
        let path = path.replace("{id}", &id);
        let mut parts = rest.splitn(2, |byte| *byte == b'\n');
        let query = String::from_utf8_lossy(parts.next().unwrap_or_default());
        let body = parts.next().unwrap_or_default();
        let asked = format!("{path}?{query}");
        let (path, body) = match (method, asked.parse::<http::Uri>()) {
            ("GET", Ok(_)) if asked.is_ascii() => (asked, &[][..]),
            ("GET", _) => continue,
            _ => (path, body),
        };
        let (status, answer) = gateway.raw(method, &path, KEY, body).await;
        assert!(
            status < 500 || status == UNAVAILABLE,
            "{method} {path} {}: {status} {answer}",
            String::from_utf8_lossy(body)
        );
    }
}
