//! VideoDB's REST: what is said, and what is recorded.

use std::time::Duration;

use serde_json::{Value, json};
use sightline_gateway::Limits;
use sightline_proto::internal::{ExportRecord, RtStreamRecord};
use sightline_proto::v1::export::State as ExportState;
use sightline_proto::v1::rt_stream::State;
use sightline_testkit::until;
use tonic::transport::Endpoint;

use crate::harness::{Gateway, NOW_US};
use crate::recordings::SEGMENT_US;
use crate::rest::text;

const NOW: f64 = (NOW_US / 1_000_000) as f64;

impl Gateway {
    /// Stops a stream; its path.
    async fn stopped(&self, stream: &str) -> String {
        let path = format!("/rtstream/{stream}");
        let status = format!("{path}/status");
        self.ask("PATCH", &status, json!({"action": "stop"})).await;
        path
    }
}

#[tokio::test]
async fn transcription_is_switched_on_and_off() {
    let gateway = Gateway::start().await;
    let stream = gateway.connect("x", Value::Null).await;
    let path = format!("/rtstream/{stream}/transcription");
    let told = gateway
        .ask("GET", &format!("{path}/status"), Value::Null)
        .await;
    let never = json!({"status": "stopped", "engine": "whisper", "updated_at": null});
    assert_eq!(told, never);
    // Whatever VideoDB's engines are called, there is one here.
    let start = json!({"action": "start", "engine": "assemblyai"});
    for (body, status, dropped) in [
        (json!({"action": "start"}), "running", 0),
        (start.clone(), "running", 0),
        (json!({"action": "stop", "mode": "graceful"}), "stopped", 0),
        (start, "running", 0),
        (json!({"action": "stop", "mode": "immediate"}), "stopped", 2),
        (json!({"status": "running"}), "running", 2),
        (json!({"action": "stop", "mode": "force"}), "stopped", 3),
        (json!({"action": "stop"}), "stopped", 3),
    ] {
        let told = gateway.ask("POST", &path, body.clone()).await;
        let expected = json!({
            "status": status, "engine": "whisper", "updated_at": "2025-11-24T16:00:00Z",
        });
        assert_eq!(told, expected, "{body}");
        let told = gateway
            .ask("GET", &format!("{path}/status/"), Value::Null)
            .await;
        assert_eq!(told, expected, "{body}");
        let record = gateway.catalog.fetch::<RtStreamRecord>(&stream).await;
        let record = record.expect("answers").expect("a record");
        assert_eq!(record.value.dropped_session, dropped, "{body}");
    }
}

#[tokio::test]
async fn a_start_that_says_nothing_of_the_speech_leaves_its_language() {
    let gateway = Gateway::start().await;
    let stream = gateway.connect("x", Value::Null).await;
    let path = format!("/rtstream/{stream}/transcription");
    let english = json!({"action": "start", "model_config": {"language": "en"}});
    for (body, language) in [
        (json!({"action": "start"}), ""),
        (english, "en"),
        (json!({"action": "start"}), "en"),
        (json!({"action": "stop"}), "en"),
        (json!({"action": "start", "model_config": null}), "en"),
        (json!({"action": "start", "model_config": {}}), ""),
    ] {
        gateway.ask("POST", &path, body.clone()).await;
        let record = gateway.catalog.fetch::<RtStreamRecord>(&stream).await;
        let record = record.expect("answers").expect("a record");
        assert_eq!(record.value.language, language, "{body}");
    }
}

#[tokio::test]
async fn links_and_exports_are_of_the_whole_recording() {
    let gateway = Gateway::start().await;
    let stream = gateway.connect("Front door", json!({"store": true})).await;
    let path = gateway.stopped(&stream).await;
    gateway.record(&stream, &[0, 1]).await;
    gateway
        .run(&stream, State::Stopped, NOW_US + 2 * SEGMENT_US)
        .await;
    let links = format!("{path}/stream?start={NOW}&end={NOW}&player_title=A+door");
    let links = gateway.ask("GET", &links, Value::Null).await;
    assert!(
        text(&links["stream_url"]).contains("/manifests/"),
        "{links}"
    );
    assert!(text(&links["player_url"]).contains("/watch?v="), "{links}");

    let export = format!("{path}/export");
    let written = async {
        let mut changes = gateway.catalog.changes();
        loop {
            if let Some((id, record)) = gateway.catalog.list::<ExportRecord>().pop() {
                let mut done = ExportRecord::clone(&record.value);
                let export = done.export.as_mut().expect("an export");
                export.set_state(ExportState::Done);
                export.duration_seconds = 8.0;
                let written = gateway.catalog.update(&id, &done, record.revision).await;
                written.expect("written");
                return;
            }
            changes.changed().await.expect("a catalog");
        }
    };
    let (first, ()) = tokio::join!(gateway.ask("POST", &export, Value::Null), written);
    assert!(text(&first["video_id"]).starts_with("exp-"), "{first}");
    assert_eq!(
        (&first["name"], &first["duration"]),
        (&json!("Front door - Recording"), &json!(8.0))
    );
    for url in ["stream_url", "player_url"] {
        let answer = gateway.get(&text(&first[url])).await;
        assert_eq!(answer.status, 200, "{url}");
    }
    let again = gateway.ask("POST", &export, json!({"name": null})).await;
    assert_eq!(again["video_id"], first["video_id"]);
}

#[tokio::test]
async fn an_export_that_takes_long_is_asked_for_again() {
    let limits = Limits {
        deadline: Duration::from_secs(3),
        ..Limits::default()
    };
    let gateway = Gateway::start_with(Endpoint::from_static("http://127.0.0.1:1"), limits).await;
    let stream = gateway.connect("x", json!({"store": true})).await;
    let path = gateway.stopped(&stream).await;
    gateway.record(&stream, &[0]).await;
    let path = format!("{path}/export");
    // Where it takes long to be made, the deadline of the call may come first.
    until("to be told to ask again", async || {
        let (status, message) = gateway.refused("POST", &path, "").await;
        assert!([503, 504].contains(&status), "{status} {message}");
        Ok((status == 503 && message.contains("ask again")).then_some(()))
    })
    .await
    .expect("told");
}
