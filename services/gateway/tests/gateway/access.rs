//! Who may call, and what else the port speaks: health, reflection, gRPC-web, pages.

use std::time::Duration;

use sightline_gateway::Limits;
use sightline_proto::v1;
use sightline_proto::v1::rt_stream_service_client::RtStreamServiceClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tonic::metadata::MetadataValue;
use tonic::transport::Endpoint;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::{Gateway, KEY, LONG, reason_of};

#[tokio::test]
async fn calls_need_the_key_by_either_header() {
    let gateway = Gateway::start().await;
    let channel = gateway.endpoint().connect().await.expect("connects");
    let mut client = RtStreamServiceClient::new(channel);
    for (header, value, expected) in [
        ("", String::new(), Code::Unauthenticated),
        ("x-access-token", "wrong".to_owned(), Code::Unauthenticated),
        ("x-access-token", KEY.to_owned(), Code::Ok),
        ("authorization", format!("Bearer {KEY}"), Code::Ok),
        (
            "authorization",
            format!("Basic {KEY}"),
            Code::Unauthenticated,
        ),
    ] {
        let mut request = Request::new(v1::ListRtStreamsRequest::default());
        if !header.is_empty() {
            let value = MetadataValue::try_from(value).expect("ASCII");
            request.metadata_mut().insert(header, value);
        }
        let code = match client.list_rt_streams(request).await {
            Ok(_) => Code::Ok,
            Err(status) => {
                let (reason, _, message) = reason_of(&status);
                assert_eq!(reason, "UNAUTHENTICATED");
                assert!(message.contains("key"), "{message}");
                assert!(!message.contains(KEY), "{message}");
                status.code()
            }
        };
        assert_eq!(code, expected, "{header}");
    }
    let metrics = gateway.metrics.encode();
    let counted = "sightline_gateway_calls_total{skin=\"grpc\",method=\"sightline.v1.RtStreamService/ListRtStreams\",code=\"UNAUTHENTICATED\"} 3";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn health_needs_no_key_and_reflection_does() {
    use tonic_reflection::pb::v1::ServerReflectionRequest;
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

    let gateway = Gateway::start().await;
    let channel = gateway.endpoint().connect().await.expect("connects");
    let request = HealthCheckRequest {
        service: "sightline.v1.WatchService".to_owned(),
    };
    let health = HealthClient::new(channel.clone()).check(request).await;
    assert_eq!(health.expect("answers").into_inner().status, 1, "SERVING");

    let list = || {
        tokio_stream::once(ServerReflectionRequest {
            message_request: Some(MessageRequest::ListServices(String::new())),
            ..Default::default()
        })
    };
    let mut reflection = ServerReflectionClient::new(channel);
    let refused = reflection.server_reflection_info(list()).await;
    assert_eq!(refused.expect_err("no key").code(), Code::Unauthenticated);
    let mut request = Request::new(list());
    let key = MetadataValue::from_static(KEY);
    request.metadata_mut().insert("x-access-token", key);
    let mut answers = reflection
        .server_reflection_info(request)
        .await
        .expect("answers")
        .into_inner();
    let answer = answers.message().await.expect("an answer").expect("one");
    let Some(MessageResponse::ListServicesResponse(services)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let names: Vec<_> = services.service.into_iter().map(|s| s.name).collect();
    for name in [
        "RtStreamService",
        "IndexService",
        "EventService",
        "RecordingService",
        "WatchService",
    ] {
        assert!(names.contains(&format!("sightline.v1.{name}")), "{names:?}");
    }
}

/// Sends bytes over HTTP/1.1 and returns the whole answer as text.
async fn raw(gateway: &Gateway, head: &str, body: &[u8]) -> String {
    let mut socket = TcpStream::connect(gateway.address).await.expect("connects");
    let length = body.len();
    let head =
        format!("{head}\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
    socket.write_all(head.as_bytes()).await.expect("sent");
    socket.write_all(body).await.expect("sent");
    let mut answer = Vec::new();
    let read = tokio::time::timeout(LONG, socket.read_to_end(&mut answer)).await;
    read.expect("in time").expect("read");
    String::from_utf8_lossy(&answer).to_lowercase()
}

#[tokio::test]
async fn the_port_speaks_http_1_for_pages_and_grpc_web() {
    let gateway = Gateway::start().await;
    let web = format!(
        "POST /sightline.v1.RtStreamService/ListRtStreams HTTP/1.1\r\n\
         content-type: application/grpc-web+proto\r\nx-access-token: {KEY}"
    );
    let without_key = web.replace(KEY, "wrong");
    let preflight = "OPTIONS /sightline.v1.RtStreamService/ListRtStreams HTTP/1.1\r\n\
                     origin: https://console.example\r\naccess-control-request-method: POST";
    let unknown = "POST /sightline.v1.Nonsense/Call HTTP/1.1\r\ncontent-type: application/grpc";
    // An empty message: uncompressed, length 0.
    let empty: &[u8] = &[0, 0, 0, 0, 0];
    for (head, body, expected) in [
        ("GET / HTTP/1.1", b"".as_slice(), "sightline.v1"),
        ("GET /healthz HTTP/1.1", b"", "200 ok"),
        ("GET /nothing HTTP/1.1", b"", "404 not found"),
        (&web, empty, "grpc-status:0"),
        (&without_key, empty, "grpc-status: 16"),
        (
            preflight,
            b"",
            "access-control-allow-headers: authorization",
        ),
        (unknown, empty, "grpc-status: 12"),
    ] {
        let answer = raw(&gateway, head, body).await;
        assert!(answer.contains(expected), "{head}\n{answer}");
    }
}

#[tokio::test]
async fn a_request_that_is_too_large_is_refused() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let request = v1::ConnectRtStreamRequest {
        name: "x".repeat(2 << 20),
        ..Default::default()
    };
    let refused = client.streams.connect_rt_stream(request).await;
    assert_eq!(refused.expect_err("2 MB").code(), Code::OutOfRange);
    assert!(client.camera().await.id.starts_with("rts-"), "still serves");
}

#[tokio::test]
async fn a_call_that_takes_too_long_ends_with_its_reason() {
    // An embeddings service that takes connections and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = silent.local_addr().expect("bound");
    let records = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let limits = Limits {
        deadline: Duration::from_millis(300),
        ..Limits::default()
    };
    let gateway = Gateway::start_with(records, limits).await;
    // Put into the catalog: a call that makes it would have to keep the deadline, which a slow machine may not.
    let rtstream_id = "rts-01890000-0000-7000-8000-000000000000";
    gateway.stream(rtstream_id).await;
    let mut client = gateway.client().await;
    let request = v1::SearchRequest {
        query: "a white car".to_owned(),
        rtstream_id: rtstream_id.to_owned(),
        ..Default::default()
    };
    let late = client.indexes.search(request).await;
    let (reason, _, message) = reason_of(&late.expect_err("nobody answers"));
    assert_eq!(reason, "DEADLINE_EXCEEDED");
    assert!(message.contains("300ms"), "{message}");
}
