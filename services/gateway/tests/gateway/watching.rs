//! Watch: live messages, filters, resuming by cursor, slow readers, shutdown.

use std::time::Duration;

use futures::StreamExt;
use sightline_bus::Ask;
use sightline_proto::internal::Observation;
use sightline_proto::time::timestamp;
use sightline_proto::v1;
use sightline_proto::v1::watch_request::Kind;
use sightline_proto::v1::watch_response::Message;
use sightline_service::chain;
use sightline_testkit::until;
use tonic::{Code, Status, Streaming};

use crate::harness::{
    Client, Gateway, LONG, NOW_US, interim, reason_of, scene, transcript, verdict,
};

/// How long an answer over the bus may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// An open watch.
struct Watch(Streaming<v1::WatchResponse>);

impl Watch {
    /// Opens a watch and takes the Ready message, whose cursor is returned.
    async fn open(client: &mut Client, request: v1::WatchRequest) -> (Self, String) {
        let answer = client.watch.watch(request).await;
        let mut watch = Self(answer.expect("watches").into_inner());
        let ready = watch.next().await.expect("a message");
        assert_eq!(ready.message, Some(Message::Ready(v1::Ready {})));
        (watch, ready.cursor)
    }

    async fn next(&mut self) -> Result<v1::WatchResponse, Status> {
        let next = tokio::time::timeout(LONG, self.0.next()).await;
        next.expect("in time")
            .expect("the watch ends with an error alone")
    }

    /// The next message as its observation's id and its cursor.
    async fn next_id(&mut self) -> (String, String) {
        let response = self.next().await.expect("a message");
        let id = match response.message.expect("set") {
            Message::Scene(scene) => scene.id,
            Message::Transcript(segment) => segment.id,
            Message::Lagged(lagged) => format!("lagged {}", lagged.count),
            other => panic!("{other:?}"),
        };
        (id, response.cursor)
    }
}

fn after(cursor: &str) -> v1::WatchRequest {
    v1::WatchRequest {
        cursor: cursor.to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn what_happens_is_sent_as_it_happens_and_verdicts_are_not() {
    let gateway = Gateway::start().await;
    gateway.stream("rts-1").await;
    let mut client = gateway.client().await;
    gateway
        .observe(&scene("rts-1", "idx-1", 0, "before the watch"))
        .await;
    let (mut watch, _) = Watch::open(&mut client, after("")).await;
    gateway.observe(&verdict("rts-1", 1)).await;
    let expected = [
        gateway
            .observe(&scene("rts-1", "idx-1", 1, "a street"))
            .await,
        gateway.observe(&transcript("rts-1", 1)).await,
    ];
    let first = watch.next_id().await.0;
    // The hub may still have been on its way through what came before the watch.
    let first = if first == "rts-1-idx-1-scene-0" {
        watch.next_id().await.0
    } else {
        first
    };
    assert_eq!([first, watch.next_id().await.0], expected);
    assert!(
        gateway
            .metrics
            .encode()
            .contains("sightline_gateway_watchers 1")
    );
}

#[tokio::test]
async fn filters_by_stream_index_and_kind() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stream = client.camera().await.id;
    let other = client.camera().await.id;
    let index = client.index(&stream).await.id;
    let request = |kinds: Vec<i32>| v1::WatchRequest {
        rtstream_ids: vec![stream.clone()],
        index_ids: vec![index.clone()],
        kinds,
        ..Default::default()
    };
    let (mut all, _) = Watch::open(&mut client, request(Vec::new())).await;
    let (mut scenes, _) = Watch::open(&mut client, request(vec![Kind::SceneIndex.into()])).await;
    gateway
        .observe(&scene(&other, &index, 0, "another stream"))
        .await;
    gateway
        .observe(&scene(&stream, "idx-other", 0, "another index"))
        .await;
    let heard = gateway.observe(&transcript(&stream, 0)).await;
    let seen = gateway.observe(&scene(&stream, &index, 1, "wanted")).await;
    assert_eq!(
        [all.next_id().await.0, all.next_id().await.0],
        [heard, seen.clone()]
    );
    assert_eq!(scenes.next_id().await.0, seen);
}

#[tokio::test]
async fn resuming_misses_nothing_and_repeats_nothing() {
    const COUNT: u64 = 600;
    let gateway = Gateway::start().await;
    gateway.stream("rts-1").await;
    let mut client = gateway.client().await;
    let (_, mut cursor) = Watch::open(&mut client, after("")).await;
    let publish = async {
        let mut ids = Vec::new();
        for number in 0..COUNT {
            gateway.observe(&verdict("rts-1", number)).await;
            ids.push(
                gateway
                    .observe(&scene("rts-1", "idx-1", number, "a street"))
                    .await,
            );
        }
        ids
    };
    // Reconnects again and again while messages go on coming.
    let receive = async {
        let mut ids = Vec::new();
        while ids.len() < COUNT as usize {
            let (mut watch, ready) = Watch::open(&mut client, after(&cursor)).await;
            assert_eq!(ready, cursor, "ready stands where the watch goes on");
            for _ in 0..37.min(COUNT as usize - ids.len()) {
                let (id, place) = watch.next_id().await;
                ids.push(id);
                cursor = place;
            }
        }
        ids
    };
    let (published, received) = tokio::join!(publish, receive);
    assert_eq!(received, published);
}

#[tokio::test]
async fn a_late_watcher_catches_up_and_goes_on_live() {
    let gateway = Gateway::start().await;
    gateway.stream("rts-1").await;
    let mut client = gateway.client().await;
    let (_, cursor) = Watch::open(&mut client, after("")).await;
    let mut published = Vec::new();
    for number in 0..400 {
        published.push(
            gateway
                .observe(&scene("rts-1", "idx-1", number, "a street"))
                .await,
        );
    }
    let (mut watch, _) = Watch::open(&mut client, after(&cursor)).await;
    let mut received = Vec::new();
    for number in 400..420 {
        for _ in 0..20 {
            received.push(watch.next_id().await.0);
        }
        published.push(
            gateway
                .observe(&scene("rts-1", "idx-1", number, "live"))
                .await,
        );
    }
    while received.len() < published.len() {
        received.push(watch.next_id().await.0);
    }
    assert_eq!(received, published);
}

#[tokio::test]
async fn a_cursor_from_the_future_is_refused() {
    let gateway = Gateway::start().await;
    let elsewhere = Gateway::start().await;
    elsewhere.stream("rts-1").await;
    elsewhere
        .observe(&scene("rts-1", "idx-1", 0, "elsewhere"))
        .await;
    let mut client = elsewhere.client().await;
    let (mut watch, start) = Watch::open(&mut client, after("")).await;
    elsewhere
        .observe(&scene("rts-1", "idx-1", 1, "elsewhere"))
        .await;
    let (_, cursor) = watch.next_id().await;
    assert_ne!(cursor, start);
    let refused = gateway.client().await.watch.watch(after(&cursor)).await;
    let (reason, field, message) = reason_of(&refused.expect_err("nothing is there yet"));
    assert_eq!(
        (reason.as_str(), field.as_str()),
        ("CURSOR_INVALID", "cursor")
    );
    assert!(message.contains("another server"), "{message}");
}

#[tokio::test]
async fn a_slow_reader_is_told_what_it_missed_and_can_get_it() {
    const COUNT: u64 = 400;
    let gateway = Gateway::start().await;
    gateway.stream("rts-1").await;
    // A small window, so that little lies in the network between gateway and reader.
    let narrow = gateway.endpoint().initial_stream_window_size(65_535);
    let mut slow_client = Client::on(narrow.connect().await.expect("connects"));
    let (mut slow, _) = Watch::open(&mut slow_client, after("")).await;
    let mut fast_client = gateway.client().await;
    let (mut fast, _) = Watch::open(&mut fast_client, after("")).await;
    let text = "x".repeat(50_000);
    let mut published = Vec::new();
    for number in 0..COUNT {
        published.push(
            gateway
                .observe(&scene("rts-1", "idx-1", number, &text))
                .await,
        );
        assert_eq!(
            &fast.next_id().await.0,
            &published[number as usize],
            "it keeps up"
        );
    }

    let mut received = Vec::new();
    let (missed, cursor) = loop {
        let (id, cursor) = slow.next_id().await;
        match id.strip_prefix("lagged ") {
            Some(count) => break (count.parse::<usize>().expect("a number"), cursor),
            None => received.push(id),
        }
    };
    assert!(
        received.len() >= 256,
        "the buffer's messages came: {}",
        received.len()
    );
    assert_eq!(received.len() + missed, COUNT as usize);
    let metrics = gateway.metrics.encode();
    let counted = format!("sightline_gateway_watch_dropped_messages_total {missed}");
    assert!(metrics.contains(&counted), "{metrics}");

    let (mut again, _) = Watch::open(&mut slow_client, after(&cursor)).await;
    for _ in 0..missed {
        received.push(again.next_id().await.0);
    }
    assert_eq!(received, published);
}

#[tokio::test]
async fn shutdown_ends_watches_and_then_the_gateway() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let (mut watch, _) = Watch::open(&mut client, after("")).await;
    gateway.shutdown.cancel();
    let status = watch.next().await.expect_err("the end");
    assert_eq!(status.code(), Code::Unavailable);
    let (reason, _, message) = reason_of(&status);
    assert_eq!(reason, "UNAVAILABLE");
    assert!(message.contains("cursor"), "{message}");
    drop((watch, client));
    let served = tokio::time::timeout(LONG, gateway.served).await;
    served
        .expect("in time")
        .expect("no panic")
        .expect("drained");
}

#[tokio::test]
async fn shutdown_does_not_wait_for_ever() {
    let gateway = Gateway::start().await;
    gateway.stream("rts-1").await;
    // A reader that never takes what it watches, so that its watch can't end properly.
    let narrow = gateway.endpoint().initial_stream_window_size(65_535);
    let mut client = Client::on(narrow.connect().await.expect("connects"));
    let (watch, _) = Watch::open(&mut client, after("")).await;
    let text = "x".repeat(50_000);
    for number in 0..40 {
        gateway
            .observe(&scene("rts-1", "idx-1", number, &text))
            .await;
    }
    gateway.shutdown.cancel();
    let served = tokio::time::timeout(LONG, gateway.served).await;
    served
        .expect("in time")
        .expect("no panic")
        .expect("drained");
    drop(watch);
}

#[tokio::test]
async fn interim_lines_are_for_those_who_ask_and_have_the_cursor_of_what_came_before() {
    let gateway = Gateway::start().await;
    gateway.stream("rts-1").await;
    let mut client = gateway.client().await;
    // A question that comes while the gateway stops listening may go unanswered, and is asked again.
    let ask = async || {
        let asked = gateway.bus.ask::<()>(Ask::Listening, &(), PATIENCE);
        asked.await.map_err(|error| chain(&error))
    };
    let is_unheard = async || ask().await.is_err_and(|why| why.contains("no responders"));
    let (mut plain, _) = Watch::open(&mut client, after("")).await;
    assert!(is_unheard().await, "nobody reads along");
    let request = v1::WatchRequest {
        interim: true,
        ..after("")
    };
    let (mut along, ready) = Watch::open(&mut client, request).await;
    until("somebody to read along", async || Ok(ask().await.ok()))
        .await
        .expect("in time");
    let said = Observation {
        start_us: NOW_US,
        end_us: NOW_US + 2_000_000,
        ..transcript("rts-1", 5)
    };
    gateway
        .bus
        .tell_interim(&interim("rts-1", said.start_us))
        .await
        .expect("sent");
    let line = along.next().await.expect("a message");
    assert_eq!(line.cursor, ready);
    let Some(Message::Transcript(segment)) = line.message else {
        panic!("{line:?}");
    };
    assert_eq!(
        (
            segment.interim,
            segment.id.as_str(),
            segment.language.as_str()
        ),
        (true, "", "en")
    );
    let id = gateway.observe(&said).await;
    let (told, cursor) = along.next_id().await;
    assert_eq!(told, id);
    assert_ne!(cursor, ready);
    // One that is late, and then one of what is said next.
    gateway
        .bus
        .tell_interim(&interim("rts-1", said.start_us))
        .await
        .expect("sent");
    gateway
        .bus
        .tell_interim(&interim("rts-1", said.end_us))
        .await
        .expect("sent");
    let line = along.next().await.expect("a message");
    assert_eq!(line.cursor, cursor);
    let Some(Message::Transcript(segment)) = line.message else {
        panic!("{line:?}");
    };
    assert_eq!(segment.start_time, Some(timestamp(said.end_us)));
    // The others were told of what is over alone.
    assert_eq!(plain.next_id().await, (id, cursor));
    let last = gateway
        .observe(&scene("rts-1", "idx-1", 9, "the end"))
        .await;
    assert_eq!(plain.next_id().await.0, last);
    drop(along);
    until("nobody to read along", async || {
        Ok(is_unheard().await.then_some(()))
    })
    .await
    .expect("in time");
}
