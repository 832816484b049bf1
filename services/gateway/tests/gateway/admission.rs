//! Keys of the catalog, their revocation, and plain connections from elsewhere: the same in every skin.

use std::net::{IpAddr, UdpSocket};

use sha2::{Digest, Sha256};
use sightline_proto::internal::KeyRecord;
use sightline_proto::v1;
use sightline_proto::v1::watch_response::Message;
use sightline_testkit::until;
use tokio::time::timeout;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Endpoint;
use tonic::{Code, Request};

use crate::harness::{Gateway, KEY, LONG, reason_of, transcript};
use crate::http::Answer;

const UUID: &str = "0198f0c4-6f1f-7a3b-b0e5-c8e9d4751c07";

fn secret(random: char) -> String {
    let random = String::from(random).repeat(43);
    format!("sl_{}_{random}", UUID.replace('-', ""))
}

impl Gateway {
    /// Puts a key into the catalog, as CreateKey does.
    async fn create_key(&self, tenant: &str) -> String {
        let id = format!("key-{UUID}");
        let record = KeyRecord {
            key: Some(v1::Key {
                id: id.clone(),
                tenant: tenant.to_owned(),
                ..Default::default()
            }),
            secret_sha256: Sha256::digest(secret('a')).to_vec().into(),
        };
        let created = self.catalog.create(&id, &record).await;
        created.expect("created");
        secret('a')
    }

    async fn revoke(&self) {
        let id = format!("key-{UUID}");
        let found = self.catalog.fetch::<KeyRecord>(&id).await.expect("read");
        let revision = found.expect("it is there").revision;
        let deleted = self.catalog.delete::<KeyRecord>(&id, revision).await;
        deleted.expect("deleted");
    }

    /// The code of a gRPC call with this key.
    async fn call(&self, key: &str) -> Code {
        let channel = self.endpoint().connect().await.expect("connects");
        let mut client = v1::rt_stream_service_client::RtStreamServiceClient::new(channel);
        let answer = client
            .list_rt_streams(with(key, v1::ListRtStreamsRequest::default()))
            .await;
        answer.map_or_else(|status| status.code(), |_| Code::Ok)
    }

    async fn rest(&self, key: &str) -> Answer {
        self.send("GET", "/rtstream", &[("x-access-token", key)])
            .await
    }
}

fn with<T>(key: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let key = AsciiMetadataValue::try_from(key).expect("ASCII");
    request.metadata_mut().insert("x-access-token", key);
    request
}

#[tokio::test]
async fn keys_of_the_catalog_are_let_in_until_they_are_revoked() {
    let gateway = Gateway::start().await;
    let key = gateway.create_key("guests").await;
    let another = key.replace("0198f0c4", "0198f0c5");
    for (key, code, status) in [
        (key.as_str(), Code::Ok, 200),
        (&secret('b'), Code::Unauthenticated, 401),
        (&another, Code::Unauthenticated, 401),
        ("sl_", Code::Unauthenticated, 401),
    ] {
        assert_eq!(gateway.call(key).await, code, "{key}");
        let answer = gateway.rest(key).await;
        assert_eq!(answer.status, status, "{key}");
        assert!(!answer.text().contains(key), "{key}");
    }
    let client = gateway.client().await;
    let mut watch = client.watch.clone();
    gateway.revoke().await;
    assert_eq!(gateway.call(&key).await, Code::Unauthenticated);
    assert_eq!(gateway.rest(&key).await.status, 401);
    let request = with(KEY, v1::WatchRequest::default());
    watch.watch(request).await.expect("other keys go on");
}

#[tokio::test]
async fn a_revoked_key_ends_its_open_watches_and_no_others() {
    let gateway = Gateway::start().await;
    let key = gateway.create_key("guests").await;
    let channel = gateway.endpoint().connect().await.expect("connects");
    let mut client = v1::watch_service_client::WatchServiceClient::new(channel);
    let open = async |client: &mut v1::watch_service_client::WatchServiceClient<_>, key: &str| {
        let answer = client.watch(with(key, v1::WatchRequest::default())).await;
        let mut watch = answer.expect("watches").into_inner();
        watch.message().await.expect("a message").expect("Ready");
        watch
    };
    let mut ours = open(&mut client, &key).await;
    let mut others = open(&mut client, KEY).await;
    gateway.revoke().await;
    let ended = timeout(LONG, ours.message()).await.expect("in time");
    assert_eq!(
        ended.expect_err("it is revoked").code(),
        Code::Unauthenticated
    );
    let stream = gateway.client().await.camera().await;
    gateway.observe(&transcript(&stream.id, 1)).await;
    let next = timeout(LONG, others.message()).await.expect("in time");
    let message = next.expect("goes on").expect("a message").message;
    assert!(
        matches!(message, Some(Message::Transcript(_))),
        "{message:?}"
    );
}

#[tokio::test]
async fn a_key_that_another_gateway_made_is_looked_up_and_guesses_are_bounded() {
    let gateway = Gateway::start().await;
    for guess in 0..200 {
        let key = secret('a').replace("0198f0c4", &format!("{guess:08x}"));
        assert_eq!(gateway.rest(&key).await.status, 401);
    }
    // After so many guesses a look-up may be refused, but the view has the key soon.
    let key = gateway.create_key("guests").await;
    until("the key to be known", async || {
        Ok((gateway.rest(&key).await.status == 200).then_some(()))
    })
    .await
    .expect("known");
}

/// An address of this machine that is not loopback, if it has one.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent: this only asks which address would be the sender's.
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback()).then_some(address)
}

#[tokio::test]
async fn keys_over_plain_connections_from_elsewhere_are_refused_unless_the_operator_says_so() {
    let Some(own) = own_address() else {
        println!("this machine has no address but loopback");
        return;
    };
    for (allowed, code, status) in [(false, Code::Unauthenticated, 401), (true, Code::Ok, 200)] {
        let records = Endpoint::from_static("http://127.0.0.1:1");
        let gateway = Gateway::start_at(&format!("{own}:0"), records, |config| {
            config.allow_plain_keys = allowed;
        })
        .await;
        assert_eq!(gateway.call(KEY).await, code);
        let answer = gateway.rest(KEY).await;
        assert_eq!(answer.status, status);
        if !allowed {
            let wrong = gateway.rest("wrong").await;
            assert_eq!(wrong.text(), answer.text(), "whatever the key");
            assert!(answer.text().contains("INSECURE_CONNECTION"), "{answer:?}");
            assert!(answer.text().contains("--tls-cert"), "{answer:?}");
            let mut client = gateway.client().await;
            let request = v1::ListRtStreamsRequest::default();
            let refused = client.streams.list_rt_streams(request).await;
            let (reason, _, _) = reason_of(&refused.expect_err("refused"));
            assert_eq!(reason, "INSECURE_CONNECTION");
        }
    }
}

#[tokio::test]
async fn web_pages_may_call_rest_and_its_calls_are_counted_by_route() {
    let gateway = Gateway::start().await;
    let preflight = [
        ("origin", "https://console.example"),
        ("access-control-request-method", "PATCH"),
        ("access-control-request-headers", "x-access-token"),
    ];
    let answer = gateway.send("OPTIONS", "/rtstream/rts-1", &preflight).await;
    assert_eq!(answer.status, 204);
    let methods = answer.header("access-control-allow-methods");
    assert!(methods.contains("PATCH"), "{methods}");
    for (method, path, key, status) in [
        ("GET", "/rtstream/", KEY, 200),
        ("GET", "/rtstream/rts-1", KEY, 404),
        ("GET", "/rtstream/rts-2", KEY, 404),
        ("GET", "/rtstream/rts-2", "wrong", 401),
        ("GET", "/video/1", KEY, 501),
        ("BREW", "/rtstream", KEY, 405),
    ] {
        let answer = gateway.send(method, path, &[("x-access-token", key)]).await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
    }
    let metrics = gateway.metrics.encode();
    for (method, code, count) in [
        ("GET /rtstream", "200", 1),
        ("GET /rtstream/{id}", "404", 2),
        ("GET /rtstream/{id}", "401", 1),
        ("unknown", "501", 1),
        ("unknown", "405", 1),
    ] {
        let line = format!(
            "sightline_gateway_calls_total{{skin=\"rest\",method=\"{method}\",code=\"{code}\"}} {count}"
        );
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
}
