//! Posting to real sockets on loopback, kind and hostile.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::*;

/// Far above what anything here takes.
const LONG: Duration = Duration::from_secs(120);
const SHORT: Timeouts = Timeouts {
    connect: Duration::from_secs(1),
    total: Duration::from_secs(1),
};

fn loopback() -> Policy {
    Policy {
        allow: vec!["127.0.0.0/8".parse().expect("a range")],
    }
}

fn patient() -> Egress {
    Egress::new(loopback(), Timeouts::default())
}

async fn post(egress: &Egress, url: &str) -> Result<Response, EgressError> {
    let body = Bytes::from_static(b"{\"hello\":1}");
    timeout(LONG, egress.post(url, HeaderMap::new(), body))
        .await
        .expect("a deadline holds")
}

/// Reads one request; returns its head and body.
async fn read_request(stream: &mut TcpStream) -> io::Result<String> {
    let mut seen = Vec::new();
    while !seen.ends_with(b"{\"hello\":1}") {
        if stream.read_buf(&mut seen).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(String::from_utf8_lossy(&seen).into_owned())
}

/// A receiver that reads one request and hands the connection to `answer`.
async fn receiver<F>(answer: impl FnOnce(TcpStream) -> F + Send + 'static) -> String
where
    F: Future<Output = io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!(
        "http://{}/hook?key=1",
        listener.local_addr().expect("bound")
    );
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        read_request(&mut stream).await?;
        answer(stream).await
    });
    url
}

async fn answering(response: &'static str) -> String {
    receiver(move |mut stream| async move { stream.write_all(response.as_bytes()).await }).await
}

/// An address at which nobody listens, nor comes to while the socket lives.
fn nobody(host: [u8; 4]) -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((host, 0).into()).expect("a free port");
    let address = socket.local_addr().expect("bound");
    (socket, address)
}

#[tokio::test]
async fn reports_the_status_and_follows_nothing() {
    let cases = [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 200),
        ("HTTP/1.1 204 No Content\r\n\r\n", 204),
        ("HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n", 410),
        (
            "HTTP/1.1 500 Oops\r\ncontent-length: 9999\r\n\r\nshort",
            500,
        ),
        ("HTTP/1.0 200 OK\r\n\r\nuntil the end", 200),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n",
            201,
        ),
    ];
    for (response, status) in cases {
        let answered = post(&patient(), &answering(response).await).await;
        assert_eq!(answered.expect("an answer").status, status, "{response}");
    }
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_its_target_hears_nothing() {
    let inner = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    inner.set_nonblocking(true).expect("a socket option");
    let location = inner.local_addr().expect("bound");
    for status in [301, 302, 303, 307, 308] {
        let url = receiver(move |mut stream| async move {
            let response = format!(
                "HTTP/1.1 {status} Moved\r\nlocation: http://{location}/\r\ncontent-length: 0\r\n\r\n"
            );
            stream.write_all(response.as_bytes()).await
        })
        .await;
        let answered = post(&patient(), &url).await.expect("an answer");
        assert_eq!(answered.status, status);
    }
    let nobody = inner.accept().expect_err("nobody connected");
    assert_eq!(nobody.kind(), io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn sends_what_it_is_given() {
    let (sender, seen) = oneshot::channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let request = read_request(&mut stream).await.expect("a request");
        stream
            .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            .await
            .expect("written");
        sender.send(request).expect("the test waits");
    });
    let mut headers = HeaderMap::new();
    headers.insert("webhook-id", "f-1".parse().expect("a value"));
    let body = Bytes::from_static(b"{\"hello\":1}");
    let url = format!("http://{address}/hook?key=1#part");
    patient()
        .post(&url, headers, body)
        .await
        .expect("an answer");
    let request = seen.await.expect("a request");
    assert!(
        request.starts_with("POST /hook?key=1 HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(
        request.contains(&format!("host: {address}\r\n")),
        "{request}"
    );
    assert!(request.contains("webhook-id: f-1\r\n"), "{request}");
    assert!(request.ends_with("\r\n\r\n{\"hello\":1}"), "{request}");
}

#[tokio::test]
async fn says_how_long_the_receiver_asks_to_be_left_alone() {
    let cases = [
        ("retry-after: 120", Some(120)),
        ("retry-after:  7 ", Some(7)),
        ("retry-after: -7", None),
        ("retry-after: soon", None),
        ("x: y", None),
        (
            "date: Tue, 24 Nov 2026 10:00:00 GMT\r\nretry-after: Tue, 24 Nov 2026 10:01:30 GMT",
            Some(90),
        ),
        (
            "date: Tue, 24 Nov 2026 10:00:00 GMT\r\nretry-after: Tue, 24 Nov 2026 09:00:00 GMT",
            None,
        ),
        ("retry-after: Tue, 24 Nov 2026 10:01:30 GMT", None),
    ];
    for (header, seconds) in cases {
        let url = receiver(move |mut stream| async move {
            let response = format!("HTTP/1.1 429 Slow\r\n{header}\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(response.as_bytes()).await
        })
        .await;
        let answered = post(&patient(), &url).await.expect("an answer");
        assert_eq!(
            answered.retry_after,
            seconds.map(Duration::from_secs),
            "{header}"
        );
    }
}

#[tokio::test]
async fn ten_gigabytes_are_read_to_four_kilobytes() {
    let (sender, sent) = oneshot::channel();
    let url = receiver(|mut stream| async move {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n")
            .await?;
        let chunk = vec![b'x'; 64 * 1024];
        let mut total = 0_u64;
        while stream.write_all(&chunk).await.is_ok() {
            total += chunk.len() as u64;
        }
        let _ = sender.send(total);
        Ok(())
    })
    .await;
    assert_eq!(post(&patient(), &url).await.expect("an answer").status, 200);
    let total = timeout(LONG, sent)
        .await
        .expect("the connection is dropped")
        .expect("counted");
    // What the kernel's socket buffers took, not what was read.
    assert!(total < 50_000_000, "{total} bytes were taken");
}

#[tokio::test]
async fn a_body_that_drips_does_not_hold_up_its_status() {
    let url = receiver(|mut stream| async move {
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
            .await?;
        loop {
            stream.write_all(b"x").await?;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(post(&patient(), &url).await.expect("an answer").status, 200);
}

#[tokio::test]
async fn who_hangs_or_drips_its_head_meets_the_deadline_and_is_hung_up_on() {
    for drip in [
        None,
        Some("HTTP/1.1 100 Continue\r\n\r\n"),
        Some("x-drip: 1\r\n"),
    ] {
        let (sender, closed) = oneshot::channel();
        let url = receiver(move |mut stream| async move {
            if drip.is_some_and(|line| line.starts_with('x')) {
                stream.write_all(b"HTTP/1.1 200 OK\r\n").await?;
            }
            let mut byte = [0];
            loop {
                tokio::select! {
                    read = stream.read(&mut byte) => {
                        let _ = sender.send(read.unwrap_or(0));
                        return Ok(());
                    }
                    () = tokio::time::sleep(Duration::from_millis(50)) => {
                        let _ = stream.write_all(drip.unwrap_or_default().as_bytes()).await;
                    }
                }
            }
        })
        .await;
        let error = post(&Egress::new(loopback(), SHORT), &url)
            .await
            .expect_err("no answer");
        assert!(
            matches!(error, EgressError::Deadline(_)),
            "{drip:?}: {error:?}"
        );
        let read = timeout(LONG, closed).await.expect("hung up").expect("told");
        assert_eq!(read, 0, "{drip:?}");
    }
}

#[tokio::test]
async fn who_breaks_off_or_talks_nonsense_is_an_error() {
    let endless_head = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(100_000));
    let many_headers = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(200));
    for response in [
        "",
        "HTTP/1.1 200",
        "SSH-2.0-OpenSSH_9.2\r\n",
        &endless_head,
        &many_headers,
    ] {
        let response = response.to_owned();
        let url = receiver(move |mut stream| async move {
            stream.write_all(response.as_bytes()).await?;
            stream.set_zero_linger()
        })
        .await;
        let error = post(&patient(), &url).await.expect_err("no answer");
        assert!(matches!(error, EgressError::Broken { .. }), "{error:?}");
    }
    let (_reserved, address) = nobody([127, 0, 0, 1]);
    let error = post(&patient(), &format!("http://{address}/"))
        .await
        .expect_err("nobody there");
    assert!(matches!(error, EgressError::Connect { .. }), "{error:?}");
}

#[tokio::test]
async fn idle_connections_are_used_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("bound"));
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                while read_request(&mut stream).await.is_ok() {
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    stream.write_all(answer).await.expect("written");
                }
            });
        }
    });
    let egress = patient();
    for _ in 0..20 {
        assert_eq!(post(&egress, &url).await.expect("an answer").status, 200);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn without_leave_no_spelling_of_loopback_is_connected_to() {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").expect("a free port");
    listener.set_nonblocking(true).expect("a socket option");
    let port = listener.local_addr().expect("bound").port();
    let egress = Egress::new(Policy::default(), Timeouts::default());
    for host in [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0",
        "localhost",
        "LOCALHOST",
        "①②⑦.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::]",
        "[::127.0.0.1]",
    ] {
        let error = post(&egress, &format!("http://{host}:{port}/"))
            .await
            .expect_err("refused");
        assert!(
            matches!(error, EgressError::Refused(_)),
            "{host}: {error:?}"
        );
    }
    let nobody = listener.accept().expect_err("nobody connected");
    assert_eq!(nobody.kind(), io::ErrorKind::WouldBlock);
}

fn resolving(answers: Vec<Vec<SocketAddr>>) -> Resolve {
    let asked = AtomicUsize::new(0);
    Arc::new(move |_, _| {
        let nth = asked.fetch_add(1, Ordering::SeqCst);
        let answer = answers[nth.min(answers.len() - 1)].clone();
        Box::pin(async move { Ok(answer) })
    })
}

fn with_resolver(policy: Policy, timeouts: Timeouts, resolve: Resolve) -> Egress {
    let tls = tls_versions().with_root_certificates(RootCertStore::empty());
    Egress::with_parts(policy, timeouts, resolve, tls)
}

#[tokio::test]
async fn a_name_is_judged_by_what_it_resolves_to_every_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        read_request(&mut stream).await.expect("a request");
        let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer).await.expect("written");
    });
    let private: SocketAddr = ([10, 0, 0, 1], 80).into();
    let metadata: SocketAddr = ([169, 254, 169, 254], 80).into();
    // Rebinding: first an address that is allowed (beside one that is not), then others.
    let resolve = resolving(vec![
        vec![private, address],
        vec![private, metadata],
        vec![],
    ]);
    let egress = with_resolver(loopback(), Timeouts::default(), resolve);
    let url = "http://rebinding.test/";
    assert_eq!(post(&egress, url).await.expect("allowed").status, 200);
    match post(&egress, url).await.expect_err("refused") {
        EgressError::Refused(refused) => {
            assert_eq!(refused.address, IpAddr::from(Ipv4Addr::new(10, 0, 0, 1)));
            assert_eq!(refused.what, "private");
        }
        other => panic!("{other:?}"),
    }
    let error = post(&egress, url).await.expect_err("no address");
    assert!(matches!(error, EgressError::Connect { .. }), "{error:?}");
}

#[tokio::test]
async fn the_next_address_is_tried_when_one_does_not_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let open = listener.local_addr().expect("bound");
    let (_reserved, dead) = nobody([127, 0, 0, 2]);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        read_request(&mut stream).await.expect("a request");
        stream
            .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            .await
            .expect("written");
    });
    let egress = with_resolver(
        loopback(),
        Timeouts::default(),
        resolving(vec![vec![dead, open]]),
    );
    assert_eq!(
        post(&egress, "http://two.test/")
            .await
            .expect("an answer")
            .status,
        204
    );
}

#[tokio::test]
async fn a_resolver_that_hangs_meets_the_connect_deadline() {
    let hanging: Resolve = Arc::new(|_, _| Box::pin(std::future::pending()));
    let timeouts = Timeouts {
        connect: Duration::from_millis(50),
        total: 2 * LONG,
    };
    let egress = with_resolver(Policy::default(), timeouts, hanging);
    let error = post(&egress, "http://slow.test/")
        .await
        .expect_err("no address");
    assert!(matches!(error, EgressError::Connect { .. }), "{error:?}");
}

/// A receiver with the certificate of `testdata/`, for the name receiver.test.
fn tls_receiver() -> SocketAddr {
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../testdata/receiver.key.pem"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_no_client_auth()
        .with_single_cert(vec![certificate()], key.expect("a key"))
        .expect("they belong together");
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for stream in listener.incoming().flatten() {
            let mut tls = rustls::ServerConnection::new(Arc::clone(&config)).expect("a session");
            let mut stream = stream;
            let mut stream = rustls::Stream::new(&mut tls, &mut stream);
            let mut seen = Vec::new();
            let mut buffer = [0; 1024];
            while !seen.ends_with(b"{\"hello\":1}") {
                match stream.read(&mut buffer) {
                    Ok(read) if read > 0 => seen.extend_from_slice(&buffer[..read]),
                    _ => break,
                }
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.flush();
        }
    });
    address
}

fn certificate() -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(include_bytes!("../testdata/receiver.cert.pem"))
        .expect("a certificate")
}

#[tokio::test]
async fn https_needs_a_trusted_certificate_for_that_very_name() {
    let address = tls_receiver();
    let check = async |trusted: bool, url: &str, expected: Option<u16>| {
        let mut roots = RootCertStore::empty();
        if trusted {
            roots.add(certificate()).expect("a root");
        }
        let tls = tls_versions().with_root_certificates(roots);
        let resolve = resolving(vec![vec![address]]);
        let egress = Egress::with_parts(loopback(), Timeouts::default(), resolve, tls);
        match (post(&egress, url).await, expected) {
            (Ok(answered), Some(status)) => assert_eq!(answered.status, status),
            (Err(EgressError::Connect { .. }), None) => {}
            (found, _) => panic!("{url} trusted {trusted}: {found:?}"),
        }
    };
    check(true, "https://receiver.test/", Some(200)).await;
    check(false, "https://receiver.test/", None).await;
    check(true, "https://another.test/", None).await;
}
