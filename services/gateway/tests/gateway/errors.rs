//! Every bad request says why, by a stable reason, and names the field and what is allowed.

use prost_types::Timestamp;
use sightline_proto::v1;
use sightline_proto::v1::rt_stream::Playback;
use tonic::{Response, Status};

use crate::harness::{Gateway, reason_of};

/// Checks an error: (reason, first field, part of the message).
#[track_caller]
fn check<T>(answer: Result<Response<T>, Status>, expected: (&str, &str, &str)) {
    let status = answer.err().expect("the request is bad");
    let (reason, field, message) = reason_of(&status);
    assert_eq!(
        (reason.as_str(), field.as_str()),
        (expected.0, expected.1),
        "{message}"
    );
    assert!(
        message.contains(expected.2),
        "{message:?} lacks {:?}",
        expected.2
    );
    assert!(!message.contains("s3cret"), "{message}");
}

#[tokio::test]
async fn connect_refuses_bad_sources() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let dir = gateway.dir.path();
    let outside = format!("file://{}", dir.join("outside.mp4").display());
    let climbing = format!("file://{}", dir.join("media/../outside.mp4").display());
    let missing = format!("file://{}", dir.join("media/missing.mp4").display());
    for (url, reason, part) in [
        ("", "INVALID_ARGUMENT", "1 to 2000 characters, got 0"),
        ("not a url", "SOURCE_REFUSED", ""),
        ("gopher://camera/1", "SOURCE_REFUSED", "rtsp"),
        ("ftp://user:s3cret@camera/1", "SOURCE_REFUSED", "rtsp"),
        ("rtsp://", "SOURCE_REFUSED", ""),
        (&outside, "SOURCE_REFUSED", "media root"),
        (&climbing, "SOURCE_REFUSED", "media root"),
        (&missing, "SOURCE_REFUSED", ""),
        ("file:///etc/passwd", "SOURCE_REFUSED", "media root"),
    ] {
        let request = v1::ConnectRtStreamRequest {
            url: url.to_owned(),
            ..Default::default()
        };
        let answer = client.streams.connect_rt_stream(request).await;
        check(answer, (reason, "url", part));
    }
    let listed = client
        .streams
        .list_rt_streams(v1::ListRtStreamsRequest::default())
        .await;
    assert!(listed.expect("lists").into_inner().rtstreams.is_empty());
}

#[tokio::test]
async fn connect_refuses_bad_fields() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let good = v1::ConnectRtStreamRequest {
        url: "rtsp://camera.example/1".to_owned(),
        ..Default::default()
    };
    let named = v1::ConnectRtStreamRequest {
        name: "x".repeat(201),
        ..good.clone()
    };
    let fast = v1::ConnectRtStreamRequest {
        playback: Playback::Fast.into(),
        ..good.clone()
    };
    let playback = v1::ConnectRtStreamRequest {
        playback: 99,
        ..good.clone()
    };
    let request_id = v1::ConnectRtStreamRequest {
        request_id: "again".to_owned(),
        ..good.clone()
    };
    let collection = v1::ConnectRtStreamRequest {
        collection_id: "c-nobody".to_owned(),
        ..good
    };
    for (request, expected) in [
        (
            named,
            ("INVALID_ARGUMENT", "name", "0 to 200 characters, got 201"),
        ),
        (fast, ("INVALID_ARGUMENT", "playback", "PLAYBACK_REAL_TIME")),
        (playback, ("INVALID_ARGUMENT", "playback", "PLAYBACK_FAST")),
        (request_id, ("INVALID_ARGUMENT", "request_id", "UUID")),
        (collection, ("NOT_FOUND", "collection_id", "c-nobody")),
    ] {
        let answer = client.streams.connect_rt_stream(request).await;
        check(answer, expected);
    }
}

#[tokio::test]
async fn unknown_ids_of_any_shape_are_not_found() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let unknown = "rts-01890000-0000-7000-8000-000000000000";
    let odd = "rts-*.> \u{0}";
    for id in [unknown, odd, &"x".repeat(5000)] {
        let id = id.to_owned();
        let stream = ("NOT_FOUND", "rtstream_id", "there is no stream");
        let rtstream_id = id.clone();
        let request = v1::GetRtStreamRequest { rtstream_id };
        check(client.streams.get_rt_stream(request).await, stream);
        let index = ("NOT_FOUND", "index_id", "there is no index");
        let index_id = id.clone();
        let request = v1::GetIndexRequest { index_id };
        check(client.indexes.get_index(request).await, index);
        let alert = ("NOT_FOUND", "alert_id", "there is no alert");
        let alert_id = id.clone();
        let request = v1::EnableAlertRequest { alert_id };
        check(client.events.enable_alert(request).await, alert);
        let request = v1::WatchRequest {
            rtstream_ids: vec![id],
            ..Default::default()
        };
        let expected = ("NOT_FOUND", "rtstream_ids", "there is no stream");
        check(client.watch.watch(request).await, expected);
    }
    let request = v1::GetRtStreamRequest::default();
    let expected = ("INVALID_ARGUMENT", "rtstream_id", "required");
    check(client.streams.get_rt_stream(request).await, expected);
}

#[tokio::test]
async fn create_index_refuses_bad_fields() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stream = client.camera().await;
    let good = v1::CreateVisualIndexRequest {
        rtstream_id: stream.id,
        prompt: "What is going on?".to_owned(),
        ..Default::default()
    };
    let sampled = |seconds: i64, frame_count: u32| v1::CreateVisualIndexRequest {
        sampling: Some(v1::TimeSampling {
            window: Some(prost_types::Duration { seconds, nanos: 0 }),
            frame_count,
        }),
        ..good.clone()
    };
    let prompted = |prompt: String| v1::CreateVisualIndexRequest {
        prompt,
        ..good.clone()
    };
    let model = v1::CreateVisualIndexRequest {
        model: "gpt".to_owned(),
        ..good.clone()
    };
    let window = (
        "INVALID_ARGUMENT",
        "sampling.window",
        "1 s to 600 s, got 0 s",
    );
    let frames = (
        "INVALID_ARGUMENT",
        "sampling.frame_count",
        "1 to 16, got 1000",
    );
    let rate = (
        "INVALID_ARGUMENT",
        "sampling.frame_count",
        "at most 10 frames a second",
    );
    for (request, expected) in [
        (
            prompted(String::new()),
            ("INVALID_ARGUMENT", "prompt", "1 to 4000 characters, got 0"),
        ),
        (
            prompted("  ".to_owned()),
            ("INVALID_ARGUMENT", "prompt", "white space"),
        ),
        (
            prompted("x".repeat(4001)),
            ("INVALID_ARGUMENT", "prompt", "got 4001"),
        ),
        (sampled(0, 2), window),
        (sampled(5, 1000), frames),
        (sampled(1, 11), rate),
        (model, ("MODEL_UNKNOWN", "model", "demo-vlm, other")),
    ] {
        check(client.indexes.create_visual_index(request).await, expected);
    }
}

#[tokio::test]
async fn create_event_and_alert_refuse_bad_fields() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stream = client.camera().await;
    let index = client.index(&stream.id).await;
    let event = client.event().await;
    let request = v1::CreateEventRequest {
        label: "crossing".to_owned(),
        ..Default::default()
    };
    let expected = ("INVALID_ARGUMENT", "prompt", "1 to 1000 characters, got 0");
    check(client.events.create_event(request).await, expected);
    let request = v1::CreateEventRequest {
        prompt: "Detect".to_owned(),
        ..Default::default()
    };
    let expected = ("INVALID_ARGUMENT", "label", "1 to 100 characters, got 0");
    check(client.events.create_event(request).await, expected);

    let good = v1::CreateAlertRequest {
        event_id: event.id,
        index_id: index.id,
        callback_url: "https://hooks.example/a".to_owned(),
        ..Default::default()
    };
    let to = |url: &str| v1::CreateAlertRequest {
        callback_url: url.to_owned(),
        ..good.clone()
    };
    let above = |threshold: f32| v1::CreateAlertRequest {
        threshold: Some(threshold),
        ..good.clone()
    };
    let event = v1::CreateAlertRequest {
        event_id: "evt-1".to_owned(),
        ..good.clone()
    };
    let index = v1::CreateAlertRequest {
        index_id: "idx-1".to_owned(),
        ..good.clone()
    };
    for (request, expected) in [
        (to("nonsense"), ("INVALID_ARGUMENT", "callback_url", "http")),
        (
            to("ftp://hooks.example/"),
            ("INVALID_ARGUMENT", "callback_url", "http://"),
        ),
        (
            to("https://u:s3cret@hooks.example/"),
            ("INVALID_ARGUMENT", "callback_url", "password"),
        ),
        (
            to("http://127.0.0.1:9/"),
            ("EGRESS_REFUSED", "callback_url", "--allow-egress"),
        ),
        (above(0.0), ("INVALID_ARGUMENT", "threshold", "above 0")),
        (above(1.5), ("INVALID_ARGUMENT", "threshold", "got 1.5")),
        (
            above(f32::NAN),
            ("INVALID_ARGUMENT", "threshold", "above 0"),
        ),
        (event, ("NOT_FOUND", "event_id", "there is no event")),
        (index, ("NOT_FOUND", "index_id", "there is no index")),
    ] {
        check(client.events.create_alert(request).await, expected);
    }
}

#[tokio::test]
async fn lists_searches_and_watches_refuse_bad_fields() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stream = client.camera().await;
    let paged = |page_size: i32, page_token: &str| v1::ListRtStreamsRequest {
        page_size,
        page_token: page_token.to_owned(),
        ..Default::default()
    };
    for (request, expected) in [
        (
            paged(-1, ""),
            ("INVALID_ARGUMENT", "page_size", "1 to 1000"),
        ),
        (
            paged(1001, ""),
            ("INVALID_ARGUMENT", "page_size", "got 1001"),
        ),
        (
            paged(0, "garbage"),
            ("PAGE_TOKEN_INVALID", "page_token", "next_page_token"),
        ),
    ] {
        check(client.streams.list_rt_streams(request).await, expected);
    }
    let request = v1::ListTranscriptRequest {
        rtstream_id: stream.id.clone(),
        start_time: Some(Timestamp {
            seconds: 10,
            nanos: 0,
        }),
        end_time: Some(Timestamp {
            seconds: 10,
            nanos: 0,
        }),
        ..Default::default()
    };
    let expected = ("INVALID_ARGUMENT", "end_time", "after start_time");
    check(client.streams.list_transcript(request).await, expected);

    let good = v1::SearchRequest {
        query: "a white car".to_owned(),
        rtstream_id: stream.id.clone(),
        ..Default::default()
    };
    let query = v1::SearchRequest {
        query: String::new(),
        ..good.clone()
    };
    let nowhere = v1::SearchRequest {
        rtstream_id: String::new(),
        ..good.clone()
    };
    let both = v1::SearchRequest {
        collection_id: "default".to_owned(),
        ..good.clone()
    };
    let limit = v1::SearchRequest {
        limit: 101,
        ..good.clone()
    };
    let score = v1::SearchRequest {
        min_score: 1.1,
        ..good.clone()
    };
    let other = client.camera().await;
    let foreign = v1::SearchRequest {
        index_id: client.index(&other.id).await.id,
        ..good
    };
    for (request, expected) in [
        (query, ("INVALID_ARGUMENT", "query", "1 to 1000 characters")),
        (
            nowhere,
            ("INVALID_ARGUMENT", "rtstream_id", "collection_id"),
        ),
        (both, ("INVALID_ARGUMENT", "rtstream_id", "collection_id")),
        (limit, ("INVALID_ARGUMENT", "limit", "got 101")),
        (score, ("INVALID_ARGUMENT", "min_score", "0 to 1")),
        (foreign, ("INVALID_ARGUMENT", "index_id", "of the stream")),
    ] {
        check(client.indexes.search(request).await, expected);
    }

    let cursor = v1::WatchRequest {
        cursor: "garbage".to_owned(),
        ..Default::default()
    };
    let kinds = v1::WatchRequest {
        kinds: vec![77],
        ..Default::default()
    };
    for (request, expected) in [
        (cursor, ("CURSOR_INVALID", "cursor", "Watch")),
        (kinds, ("INVALID_ARGUMENT", "kinds", "got 77")),
    ] {
        check(client.watch.watch(request).await, expected);
    }
}

#[tokio::test]
async fn without_embeddings_scenes_transcripts_and_search_are_unavailable() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stream = client.camera().await;
    let index = client.index(&stream.id).await;
    let expected = ("UNAVAILABLE", "", "embeddings service");
    let index_id = index.id.clone();
    let request = v1::ListScenesRequest {
        index_id,
        ..Default::default()
    };
    check(client.indexes.list_scenes(request).await, expected);
    let rtstream_id = stream.id.clone();
    let request = v1::ListTranscriptRequest {
        rtstream_id,
        ..Default::default()
    };
    check(client.streams.list_transcript(request).await, expected);
    let request = v1::SearchRequest {
        query: "a white car".to_owned(),
        rtstream_id: stream.id,
        ..Default::default()
    };
    check(client.indexes.search(request).await, expected);
    let request = v1::GetIndexRequest { index_id: index.id };
    let found = client
        .indexes
        .get_index(request)
        .await
        .expect("without counts");
    assert_eq!(found.into_inner().index.expect("an index").stats, None);
}
