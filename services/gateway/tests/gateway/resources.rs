//! Streams and indexes: what creates, reads, lists and changes do.

use sightline_bus::{LeaseConfig, Subject};
use sightline_proto::internal::{RtStreamRecord, RunRecord};
use sightline_proto::time::timestamp;
use sightline_proto::v1;
use sightline_proto::v1::rt_stream::{Playback, State};

use crate::harness::{Gateway, LONG, NOW_US, reason_of};

fn run_of(rtstream: &str) -> Subject {
    Subject::Run {
        rtstream: rtstream.to_owned(),
    }
}

#[tokio::test]
async fn connect_stores_seals_and_asks_for_a_run() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let url = "rtsp://user:s3cret@camera.example:8554/1?x=y";
    let request = v1::ConnectRtStreamRequest {
        url: url.to_owned(),
        name: "Front door".to_owned(),
        transcribe: true,
        ..Default::default()
    };
    let answer = client.streams.connect_rt_stream(request).await;
    let stream = answer
        .expect("connected")
        .into_inner()
        .rtstream
        .expect("a stream");
    assert_eq!(stream.state(), State::Connecting);
    assert_eq!(stream.playback(), Playback::RealTime);
    assert_eq!(stream.name, "Front door");
    assert_eq!(stream.collection_id, "default");
    assert_eq!(stream.create_time, Some(timestamp(NOW_US)));
    assert!(stream.transcribe);
    assert!(
        stream.url.starts_with("rtsp://camera.example:8554/1"),
        "{}",
        stream.url
    );
    assert!(!stream.url.contains("s3cret"));

    let record = gateway.catalog.get::<RtStreamRecord>(&stream.id);
    let record = record.expect("stored").value;
    assert!(!format!("{record:?}").contains("s3cret"));
    assert_eq!(
        gateway.seal.open(&record.sealed_url).expect("own seal"),
        url
    );
    assert_eq!((record.wanted, record.start_count), (true, 1));
    let runs = gateway.bus.outstanding(&run_of(&stream.id)).await;
    assert_eq!(runs.expect("counted"), 1);
}

#[tokio::test]
async fn a_run_that_was_never_asked_for_is_asked_for() {
    let gateway = Gateway::start().await;
    // What a gateway leaves that dies between its two writes.
    let record = RtStreamRecord {
        rtstream: Some(v1::RtStream::default()),
        wanted: true,
        start_count: 1,
        ..Default::default()
    };
    let unwanted = RtStreamRecord {
        wanted: false,
        ..record.clone()
    };
    for (id, record) in [("rts-stopped", &unwanted), ("rts-wanted", &record)] {
        gateway.catalog.create(id, record).await.expect("written");
    }
    let config = LeaseConfig { ack_wait: LONG };
    let mut leases = gateway.bus.leases(config).await.expect("leases");
    let lease = tokio::time::timeout(LONG, leases.next()).await;
    let lease = lease.expect("in time").expect("a lease");
    assert_eq!(lease.rtstream_id(), "rts-wanted");
}

#[tokio::test]
async fn the_same_request_id_returns_the_same_stream() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let request = v1::ConnectRtStreamRequest {
        url: "rtsp://user:s3cret@camera.example/1".to_owned(),
        request_id: "9c0e1a52-5d0e-4f4e-9b1c-7f0b8f6f2a11".to_owned(),
        ..Default::default()
    };
    let mut ids = Vec::new();
    for _ in 0..3 {
        let answer = client.streams.connect_rt_stream(request.clone()).await;
        let stream = answer.expect("connected").into_inner().rtstream;
        ids.push(stream.expect("a stream").id);
    }
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let listed = client
        .streams
        .list_rt_streams(v1::ListRtStreamsRequest::default())
        .await;
    assert_eq!(listed.expect("lists").into_inner().rtstreams.len(), 1);

    let other = v1::ConnectRtStreamRequest {
        name: "another".to_owned(),
        ..request.clone()
    };
    let refused = client
        .streams
        .connect_rt_stream(other)
        .await
        .expect_err("another");
    let (reason, field, _) = reason_of(&refused);
    assert_eq!(
        (reason.as_str(), field.as_str()),
        ("ALREADY_EXISTS", "request_id")
    );
    let event = v1::CreateEventRequest {
        prompt: "Detect".to_owned(),
        label: "label".to_owned(),
        request_id: request.request_id,
    };
    let refused = client
        .events
        .create_event(event)
        .await
        .expect_err("another kind");
    assert_eq!(reason_of(&refused).0, "ALREADY_EXISTS");
}

#[tokio::test]
async fn one_request_id_at_the_same_moment_makes_one_stream() {
    let gateway = Gateway::start().await;
    let request = v1::ConnectRtStreamRequest {
        url: "rtsp://camera.example/1".to_owned(),
        request_id: "9c0e1a52-5d0e-4f4e-9b1c-7f0b8f6f2a12".to_owned(),
        ..Default::default()
    };
    let calls = (0..8).map(|_| async {
        let mut client = gateway.client().await;
        let answer = client.streams.connect_rt_stream(request.clone()).await;
        answer
            .expect("connected")
            .into_inner()
            .rtstream
            .expect("a stream")
            .id
    });
    let mut ids = futures::future::join_all(calls).await;
    ids.dedup();
    assert_eq!(ids.len(), 1, "{ids:?}");
}

#[tokio::test]
async fn a_stream_starts_stops_and_starts_anew_after_its_end() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let request = v1::ConnectRtStreamRequest {
        url: gateway.clip(),
        playback: Playback::Fast.into(),
        start_stopped: true,
        ..Default::default()
    };
    let answer = client.streams.connect_rt_stream(request).await;
    let stream = answer
        .expect("connected")
        .into_inner()
        .rtstream
        .expect("a stream");
    assert_eq!(stream.state(), State::Stopped);
    let id = stream.id;
    let runs = gateway.bus.outstanding(&run_of(&id)).await;
    assert_eq!(runs.expect("counted"), 0, "it was not to start");

    let mut start = async |expected: u64| {
        let request = v1::StartRtStreamRequest {
            rtstream_id: id.clone(),
        };
        let answer = client.streams.start_rt_stream(request).await;
        let stream = answer.expect("starts").into_inner().rtstream;
        let record = gateway.catalog.get::<RtStreamRecord>(&id).expect("stored");
        assert_eq!(
            (record.value.wanted, record.value.start_count),
            (true, expected)
        );
        stream.expect("a stream").state()
    };
    assert_eq!(start(2).await, State::Connecting);
    let runs = gateway.bus.outstanding(&run_of(&id)).await;
    assert_eq!(runs.expect("counted"), 1);
    assert_eq!(
        start(2).await,
        State::Connecting,
        "a second start changes nothing"
    );

    let mut run = RunRecord {
        start_count: 2,
        state: State::Active.into(),
        epoch_us: NOW_US,
        ..Default::default()
    };
    let revision = gateway
        .catalog
        .create(&id, &run)
        .await
        .expect("a worker's record");
    assert_eq!(start(2).await, State::Active);
    run.state = State::Ended.into();
    gateway
        .catalog
        .update(&id, &run, revision)
        .await
        .expect("the run ends");
    assert_eq!(
        start(3).await,
        State::Connecting,
        "a start after the end is a new run"
    );

    let request = v1::StopRtStreamRequest {
        rtstream_id: id.clone(),
    };
    let answer = client.streams.stop_rt_stream(request).await;
    let stopped = answer
        .expect("stops")
        .into_inner()
        .rtstream
        .expect("a stream");
    assert_eq!(stopped.state(), State::Stopped);
    let record = gateway.catalog.get::<RtStreamRecord>(&id).expect("stored");
    assert!(!record.value.wanted);
}

#[tokio::test]
async fn streams_are_listed_newest_first_in_pages() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let mut created = Vec::new();
    for _ in 0..5 {
        created.push(client.camera().await.id);
    }
    created.reverse();
    let (mut listed, mut pages) = (Vec::new(), 0);
    let mut request = v1::ListRtStreamsRequest {
        page_size: 2,
        ..Default::default()
    };
    loop {
        let answer = client.streams.list_rt_streams(request.clone()).await;
        let page = answer.expect("a page").into_inner();
        listed.extend(page.rtstreams.into_iter().map(|stream| stream.id));
        pages += 1;
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
        // What arrives meanwhile shifts nothing.
        client.camera().await;
    }
    assert_eq!(listed, created);
    assert_eq!(pages, 3);
    request.collection_id = "default".to_owned();
    let refused = client
        .streams
        .list_rt_streams(request)
        .await
        .expect_err("other list");
    assert_eq!(reason_of(&refused).0, "PAGE_TOKEN_INVALID");
}

#[tokio::test]
async fn an_index_has_its_defaults_and_can_be_stopped() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stream = client.camera().await;
    let other = client.camera().await;
    let index = client.index(&stream.id).await;
    let second = client.index(&stream.id).await;
    client.index(&other.id).await;
    assert_eq!(index.name, index.id);
    assert_eq!(index.model, "demo-vlm");
    assert_eq!(index.prompt_revision, 1);
    assert_eq!(index.state(), v1::index::State::Running);
    let sampling = index.sampling.expect("a default");
    assert_eq!(
        (sampling.window.expect("set").seconds, sampling.frame_count),
        (5, 2)
    );

    let request = v1::ListIndexesRequest {
        rtstream_id: stream.id,
        ..Default::default()
    };
    let answer = client.indexes.list_indexes(request).await.expect("lists");
    let listed: Vec<_> = answer
        .into_inner()
        .indexes
        .into_iter()
        .map(|i| i.id)
        .collect();
    assert_eq!(listed, [index.id.clone(), second.id], "oldest first");

    let index_id = index.id.clone();
    let answer = client
        .indexes
        .stop_index(v1::StopIndexRequest { index_id })
        .await;
    let stopped = answer.expect("stops").into_inner().index.expect("an index");
    assert_eq!(stopped.state(), v1::index::State::Stopped);
    let index_id = index.id;
    let answer = client
        .indexes
        .start_index(v1::StartIndexRequest { index_id })
        .await;
    let started = answer
        .expect("starts")
        .into_inner()
        .index
        .expect("an index");
    assert_eq!(started.state(), v1::index::State::Running);
}
