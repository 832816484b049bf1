//! WebSockets: a connection is told of what was created with its id, goes on by cursor, and is closed with a code that says why.

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use sightline_bus::Ask;
use sightline_gateway::Limits;
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{
    AudioSceneBody, FiringBody, KeyRecord, Observation, SubscriptionRecord,
};
use sightline_proto::v1;
use sightline_testkit::until;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tonic::transport::Endpoint;

use crate::harness::{Gateway, LONG, NOW_US, interim, scene, transcript};
use crate::rest::text;

const NOW_MS: i64 = NOW_US / 1000;

/// A client's end of an open WebSocket.
struct Socket(WebSocketStream<TcpStream>);

impl Socket {
    /// What comes next: a message, or the code that the connection is closed with.
    async fn next(&mut self) -> Result<Value, u16> {
        loop {
            let next = tokio::time::timeout(LONG, self.0.next()).await;
            let frame = next.expect("in time").expect("a close frame comes first");
            match frame.expect("a frame") {
                Frame::Text(text) => return Ok(serde_json::from_str(&text).expect("JSON")),
                Frame::Close(close) => return Err(close.map_or(1005, |close| close.code.into())),
                _ => {}
            }
        }
    }

    /// The channel and the data of the next message.
    async fn told(&mut self) -> (String, Value) {
        let message = self.next().await.expect("a message");
        (text(&message["channel"]), message)
    }
}

impl Gateway {
    async fn websocket_url(&self) -> String {
        let answer = self.ask("GET", "/collection/default/websocket", Value::Null);
        text(&answer.await["websocket_url"])
    }

    async fn dial(&self, url: &str) -> Socket {
        let connection = TcpStream::connect(self.address).await.expect("connects");
        let opened = tokio_tungstenite::client_async(url, connection).await;
        Socket(opened.expect("a WebSocket").0)
    }

    /// A new connection, its id and the cursor to begin with.
    async fn socket(&self) -> (Socket, String, String) {
        let mut socket = self.dial(&self.websocket_url().await).await;
        let init = socket.next().await.expect("the first frame");
        let id = text(&init["connection_id"]);
        assert!(id.starts_with("ws-"), "{init}");
        (socket, id, text(&init["cursor"]))
    }

    /// Goes on with a connection.
    async fn resume(&self, id: &str, cursor: &str) -> Socket {
        let url = self.websocket_url().await;
        self.dial(&format!("{url}?connection_id={id}&cursor={cursor}"))
            .await
    }

    /// The code that a connection to this address is closed with.
    async fn closed(&self, url: &str) -> u16 {
        let mut socket = self.dial(url).await;
        socket.next().await.expect_err("closed at once")
    }
}

fn firing(rtstream: &str, index: &str, alert: &str) -> Observation {
    Observation {
        id: format!("{alert}-firing"),
        rtstream_id: rtstream.to_owned(),
        start_us: NOW_US,
        end_us: NOW_US + 5_000_000,
        body: Some(Body::Firing(FiringBody {
            firing_id: "firing-1".to_owned(),
            alert_id: alert.to_owned(),
            event_id: "evt-1".to_owned(),
            index_id: index.to_owned(),
            label: "entry".to_owned(),
            confidence: 0.75,
            explanation: "somebody came in".to_owned(),
            decided_us: NOW_US + 6_000_000,
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn batch(rtstream: &str, index: &str) -> Observation {
    Observation {
        id: format!("{index}-batch"),
        rtstream_id: rtstream.to_owned(),
        start_us: NOW_US + 1_500_000,
        end_us: NOW_US + 2_500_000,
        body: Some(Body::AudioScene(AudioSceneBody {
            index_id: index.to_owned(),
            text: "a white car".to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_connection_is_told_of_what_was_created_with_its_id() {
    let gateway = Gateway::start().await;
    let (mut socket, id, _) = gateway.socket().await;
    let (mut other, _, _) = gateway.socket().await;
    let stream = gateway
        .connect("Gate", json!({"ws_connection_id": id}))
        .await;
    let foreign = gateway.connect("Door", Value::Null).await;
    let create = async |body: Value| {
        let path = format!("/rtstream/{stream}/index/scene");
        text(&gateway.ask("POST", &path, body).await["rtstream_index_id"])
    };
    let seen = create(json!({"ws_connection_id": id})).await;
    let unseen = create(Value::Null).await;
    let heard = create(json!({"extraction_type": "transcript", "ws_connection_id": id})).await;
    let event = json!({"event_prompt": "Somebody enters", "label": "entry"});
    let event = text(&gateway.ask("POST", "/rtstream/event", event).await["event_id"]);
    let alert = json!({"event_id": event, "callback_url": "", "ws_connection_id": id});
    let path = format!("/rtstream/{stream}/index/{unseen}/alert");
    let alert = text(&gateway.ask("POST", &path, alert).await["alert_id"]);
    gateway.told_of(&id, 4).await;

    gateway
        .observe(&scene(&stream, &unseen, 0, "not for it"))
        .await;
    gateway.observe(&transcript(&foreign, 0)).await;
    gateway.observe(&scene(&stream, &seen, 1, "a street")).await;
    gateway.observe(&transcript(&stream, 1)).await;
    gateway.observe(&batch(&stream, &heard)).await;
    gateway.observe(&firing(&stream, &unseen, &alert)).await;
    let (channel, message) = socket.told().await;
    let data = json!({
        "text": "a street", "start": NOW_MS + 5_000, "end": NOW_MS + 10_000, "index_id": seen,
        "stream_url": null, "player_url": null,
    });
    assert_eq!((channel.as_str(), &message["data"]), ("scene_index", &data));
    assert_eq!(
        (&message["rtstream_id"], &message["rtstream_name"]),
        (&json!(stream), &json!("Gate"))
    );
    let (channel, message) = socket.told().await;
    assert_eq!(channel, "transcript");
    assert_eq!(
        (&message["data"]["text"], &message["data"]["is_final"]),
        (&json!("a white car"), &json!(true))
    );
    let (channel, message) = socket.told().await;
    assert_eq!(channel, "audio_index");
    assert_eq!(message["data"]["start"], json!(NOW_MS + 1_500));
    let (channel, message) = socket.told().await;
    assert_eq!(channel, "alert");
    let data = json!({
        "event_id": "evt-1", "alert_id": alert, "firing_id": "firing-1", "index_id": unseen,
        "label": "entry", "event_label": "entry", "triggered": true, "confidence": 0.75,
        "text": "somebody came in", "explanation": "somebody came in",
        "timestamp": NOW_MS + 6_000, "start": NOW_MS, "end": NOW_MS + 5_000,
        "stream_url": null, "player_url": null,
    });
    assert_eq!(message["data"], data);

    // Whatever the other one was told of would have come before this.
    gateway.shutdown.cancel();
    assert_eq!(other.next().await, Err(1001));
    assert_eq!(socket.next().await, Err(1001));
}

impl Gateway {
    /// Waits until a connection is told of so many things.
    async fn told_of(&self, id: &str, count: usize) {
        let record = self.catalog.fetch::<SubscriptionRecord>(id).await;
        let record = record.expect("the catalog answers").expect("a record");
        assert_eq!(record.value.subscribed.len(), count);
    }
}

#[tokio::test]
async fn a_connection_goes_on_where_it_ended() {
    let gateway = Gateway::start().await;
    let (mut socket, id, begin) = gateway.socket().await;
    let stream = gateway
        .connect("Gate", json!({"ws_connection_id": id}))
        .await;
    for number in 0..3 {
        gateway.observe(&transcript(&stream, number)).await;
    }
    let mut cursors = Vec::new();
    for _ in 0..3 {
        cursors.push(text(&socket.told().await.1["cursor"]));
    }
    drop(socket);
    gateway.observe(&transcript(&stream, 3)).await;
    let mut newest = String::new();
    for (cursor, expected) in [(&begin, &cursors[..]), (&cursors[1], &cursors[2..])] {
        let mut socket = gateway.resume(&id, cursor).await;
        let init = socket.next().await.expect("the first frame");
        let named = (&init["connection_id"], &init["cursor"]);
        assert_eq!(named, (&json!(id), &json!(cursor)));
        for expected in expected {
            assert_eq!(text(&socket.told().await.1["cursor"]), *expected);
        }
        // What came while nobody was connected.
        newest = text(&socket.told().await.1["cursor"]);
        assert!(!cursors.contains(&newest));
    }
    let mut socket = gateway.resume(&id, &newest).await;
    socket.next().await.expect("the first frame");
    gateway.observe(&transcript(&stream, 4)).await;
    let live = text(&socket.told().await.1["cursor"]);
    assert!(live != newest && !cursors.contains(&live));
    for code in [
        gateway.resume(&id, "nonsense").await.next().await,
        gateway.resume("ws-1", &begin).await.next().await,
        gateway
            .resume("ws-01890000-0000-7000-8000-000000000000", &begin)
            .await
            .next()
            .await,
    ] {
        assert_eq!(code, Err(4400));
    }
    let url = gateway.websocket_url().await;
    assert_eq!(gateway.closed(&format!("{url}?cursor={begin}")).await, 4400);
    assert_eq!(
        gateway
            .closed(&format!("{url}?cursor=%ff&connection_id"))
            .await,
        4400
    );
}

#[tokio::test]
async fn addresses_hold_for_five_minutes_and_are_signed() {
    let gateway = Gateway::start().await;
    let url = gateway.websocket_url().await;
    assert!(
        url.starts_with("ws://x/websocket/"),
        "the host that was asked: {url}"
    );
    assert_eq!(gateway.closed(&format!("{url}x")).await, 4401);
    gateway.clock.set(NOW_US + 300_000_000 - 1);
    assert!(gateway.dial(&url).await.next().await.is_ok());
    gateway.clock.set(NOW_US + 300_000_000);
    assert_eq!(gateway.closed(&url).await, 4401);
    gateway
        .refuses(
            "
GET /collection/c-1/websocket -> 404 no collection
POST /collection/default/websocket -> 405 POST
",
            &[],
        )
        .await;
}

#[tokio::test]
async fn ids_of_nobody_and_of_others_are_refused_alike() {
    let gateway = Gateway::start().await;
    let stream = gateway.connect("x", Value::Null).await;
    let foreign = "ws-01890000-0000-7000-8000-000000000001";
    let record = SubscriptionRecord {
        tenant: "acme".to_owned(),
        ..Default::default()
    };
    gateway
        .catalog
        .create(foreign, &record)
        .await
        .expect("made");
    for id in ["w", "ws-01890000-0000-7000-8000-000000000000", foreign] {
        gateway
            .refuses(
                r#"
POST /rtstream {"url": "rtsp://a.example/1", "ws_connection_id": "WS"} -> 400 ws_connection_id: the connection_id
POST /rtstream/ID/index/scene {"ws_connection_id": "WS"} -> 400 ws_connection_id: the connection_id
POST /rtstream/ID/transcription {"action": "start", "ws_connection_id": "WS"} -> 400 ws_connection_id: the connection_id
POST /rtstream/ID/understand {"analyzers": [{}], "ws_connection_id": "WS"} -> 400 ws_connection_id: the connection_id
"#,
                &[("ID", &stream), ("WS", id)],
            )
            .await;
    }
    assert_eq!(gateway.resume(foreign, "").await.next().await, Err(4400));
}

#[tokio::test]
async fn there_are_so_many_and_no_more() {
    let limits = Limits {
        websockets: 1,
        ..Limits::default()
    };
    let gateway = Gateway::start_with(Endpoint::from_static("http://127.0.0.1:1"), limits).await;
    let (mut socket, id, _) = gateway.socket().await;
    let url = gateway.websocket_url().await;
    assert_eq!(gateway.closed(&url).await, 4429);
    // What is too large to mean anything ends the connection, and makes room.
    let large = Frame::Text("x".repeat(64 << 10).into());
    socket.0.send(Frame::Text("{}".into())).await.expect("sent");
    socket.0.send(large).await.expect("sent");
    while let Ok(Some(Ok(_))) = tokio::time::timeout(LONG, socket.0.next()).await {}
    until("room for another one", async || {
        let mut socket = gateway.resume(&id, "").await;
        Ok(socket.next().await.ok())
    })
    .await
    .expect("in time");
}

#[tokio::test]
async fn a_revoked_key_closes_what_it_opened() {
    let gateway = Gateway::start().await;
    let (id, secret) = gateway.key("acme").await;
    let (status, body) = gateway
        .raw("GET", "/collection/default/websocket", &secret, b"")
        .await;
    assert_eq!(status, 200, "{body}");
    let url = text(&body["data"]["websocket_url"]);
    let mut socket = gateway.dial(&url).await;
    assert!(socket.next().await.is_ok());
    let record = gateway.catalog.fetch::<KeyRecord>(&id).await;
    let revision = record.expect("answers").expect("a key").revision;
    let revoked = gateway.catalog.delete::<KeyRecord>(&id, revision).await;
    revoked.expect("revoked");
    assert_eq!(socket.next().await, Err(4401));
    assert_eq!(gateway.closed(&url).await, 4401);
}

impl Gateway {
    /// A key of a tenant: its id and its secret.
    async fn key(&self, tenant: &str) -> (String, String) {
        use sha2::{Digest, Sha256};
        let uuid = "01890000000070008000000000000000";
        let secret = format!("sl_{uuid}_{}", "x".repeat(43));
        let id = "key-01890000-0000-7000-8000-000000000000".to_owned();
        let record = KeyRecord {
            key: Some(v1::Key {
                id: id.clone(),
                tenant: tenant.to_owned(),
                ..Default::default()
            }),
            secret_sha256: Sha256::digest(&secret).to_vec().into(),
        };
        self.catalog.create(&id, &record).await.expect("made");
        (id, secret)
    }
}

#[tokio::test]
async fn the_address_is_not_for_plain_requests() {
    let gateway = Gateway::start().await;
    let url = gateway
        .websocket_url()
        .await
        .replace("ws://x/", "http://x/");
    let path = url.trim_start_matches("http://x");
    let answer = gateway
        .get(&format!("http://{}{path}", gateway.address))
        .await;
    assert_eq!(answer.status, 426);
}

#[tokio::test]
async fn what_is_still_being_said_is_not_final_and_moves_no_cursor() {
    let gateway = Gateway::start().await;
    let (mut socket, id, cursor) = gateway.socket().await;
    let stream = gateway.connect("Gate", Value::Null).await;
    let start = json!({"action": "start", "ws_connection_id": id});
    let path = format!("/rtstream/{stream}/transcription");
    gateway.ask("POST", &path, start).await;
    let heard = until("somebody to listen", async || {
        let asked = gateway.bus.ask::<()>(Ask::Listening, &(), LONG).await;
        Ok(asked.ok())
    });
    heard.await.expect("in time");
    let line = interim(&stream, NOW_US);
    gateway.bus.tell_interim(&line).await.expect("sent");
    let (channel, message) = socket.told().await;
    let data = &message["data"];
    assert_eq!(
        (channel.as_str(), &data["is_final"]),
        ("transcript", &json!(false))
    );
    assert_eq!(
        (&data["text"], &data["start"]),
        (&json!("a white car"), &json!(NOW_MS))
    );
    assert_eq!(message["cursor"], json!(cursor));
}
