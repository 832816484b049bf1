//! Servers that lead elsewhere or flood: nothing is connected to that is not allowed, and what is sent costs bounded memory.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use sightline_media::{Control, Failure, Policy, play};
use sightline_service::clock::SystemClock;
use sightline_testkit::LONG;

use crate::camera::camera;
use crate::hostile::peak_mb;
use crate::support::*;

/// A server on a free port that treats each connection like this.
pub fn server(treat: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let treat = Arc::new(treat);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let treat = Arc::clone(&treat);
            std::thread::spawn(move || treat(&mut stream));
        }
    });
    Ok(port)
}

/// Reads a request's head.
pub fn request(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
}

/// An HTTP server that always answers this.
fn answering(text: String) -> Result<u16> {
    server(move |stream| {
        request(stream);
        let _ = stream.write_all(text.as_bytes());
    })
}

/// How the source fails for somebody who may connect to these addresses only.
fn failure(url: &str, allowed: &[&str]) -> Result<Failure> {
    let allow = allowed.iter().map(|a| Ok(a.parse::<IpAddr>()?.into()));
    let policy = Policy {
        allow: allow.collect::<Result<_>>()?,
    };
    let control = Arc::new(Control::default());
    control.take(take(&[(USUAL, 0)]));
    let started = Instant::now();
    let played = play(
        &camera(url),
        &policy,
        &control,
        Arc::new(SystemClock),
        Box::new(|_| {}),
    );
    let failure = played.err().context("it can be read")?;
    ensure!(started.elapsed() < LONG, "{failure}");
    Ok(failure)
}

/// Somewhere that nobody may be led to.
struct Victim {
    listener: TcpListener,
    port: u16,
}

impl Victim {
    fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.2:0")?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        Ok(Self { listener, port })
    }

    fn check(&self, failure: &Failure) -> Result<()> {
        ensure!(failure.permanent, "{failure}");
        let named = "connecting to 127.0.0.2 is not allowed: it is a loopback address; an operator can allow it with --allow-source 127.0.0.2";
        assert_eq!(failure.reason, named);
        let connected = self.listener.accept();
        ensure!(connected.is_err(), "somebody was led there: {connected:?}");
        Ok(())
    }
}

#[test]
fn no_source_is_where_the_operator_does_not_allow_it() -> Result<()> {
    let victim = Victim::start()?;
    for url in [
        "rtsp://127.0.0.2:{}/a",
        "rtmp://127.0.0.2:{}/a/b",
        "srt://127.0.0.2:{}",
        "http://127.0.0.2:{}/a",
    ] {
        let url = url.replace("{}", &victim.port.to_string());
        victim.check(&failure(&url, &["127.0.0.1"])?).context(url)?;
    }
    // Any way to write it, and any name that leads there.
    for host in ["2130706434", "0x7f.2", "[::ffff:127.0.0.2]", "localhost"] {
        for scheme in ["http", "rtsp", "rtmp"] {
            let url = format!("{scheme}://{host}:{}/a/b", victim.port);
            let failure = failure(&url, &[])?;
            ensure!(
                failure.permanent && failure.reason.contains("is not allowed"),
                "{url}: {failure}"
            );
        }
    }
    ensure!(victim.listener.accept().is_err(), "somebody was led there");
    Ok(())
}

#[test]
fn redirects_and_playlists_lead_nowhere_else() -> Result<()> {
    let victim = Victim::start()?;
    let elsewhere = format!("http://127.0.0.2:{}/meta", victim.port);
    let segments =
        format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{elsewhere}\n#EXT-X-ENDLIST\n");
    let variants = format!("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{elsewhere}\n");
    let map = format!(
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MAP:URI=\"{elsewhere}\"\n#EXTINF:2,\na.mp4\n"
    );
    for text in [
        answer("302 Found", &format!("Location: {elsewhere}\r\n"), ""),
        answer("200 OK", "", &segments),
        answer("200 OK", "", &variants),
        answer("200 OK", "", &map),
    ] {
        let port = answering(text)?;
        victim.check(&failure(
            &format!("http://127.0.0.1:{port}/a"),
            &["127.0.0.1"],
        )?)?;
    }
    for named in ["file:///etc/passwd", "rtsp://127.0.0.1/a", "data:,x"] {
        let segments =
            format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{named}\n#EXT-X-ENDLIST\n");
        let port = answering(answer("200 OK", "", &segments))?;
        let failure = failure(&format!("http://127.0.0.1:{port}/a"), &["127.0.0.1"])?;
        ensure!(
            failure.reason.contains("not fetched over HTTP"),
            "{named}: {failure}"
        );
    }
    Ok(())
}

#[test]
fn a_password_is_for_the_server_that_it_was_given_for() -> Result<()> {
    let told = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&told);
    let other = server(move |stream| {
        let mut head = [0; 2048];
        let count = stream.read(&mut head).unwrap_or(0);
        let head = String::from_utf8_lossy(&head[..count]).to_ascii_lowercase();
        seen.fetch_or(head.contains("authorization"), Ordering::Relaxed);
        let asks = "WWW-Authenticate: Basic realm=\"a\"\r\n";
        let _ = stream.write_all(answer("401 Unauthorized", asks, "").as_bytes());
    })?;
    let location = format!("Location: http://viewer:s3cret@127.0.0.1:{other}/\r\n");
    let port = answering(answer("302 Found", &location, ""))?;
    let failure = failure(
        &format!("http://viewer:s3cret@127.0.0.1:{port}/a"),
        &["127.0.0.1"],
    )?;
    ensure!(
        failure.reason.contains("user name") && !failure.reason.contains("s3cret"),
        "{failure}"
    );
    ensure!(!told.load(Ordering::Relaxed), "the other server was told");
    Ok(())
}

#[test]
fn floods_cost_no_memory() -> Result<()> {
    let head = "HTTP/1.1 200 OK\r\n\r\n";
    let zeros = vec![0u8; 1 << 16];
    let flood = move |first: &'static str, more: Vec<u8>| {
        server(move |stream| {
            request(stream);
            let _ = stream.write_all(first.as_bytes());
            while stream.write_all(&more).is_ok() {}
        })
    };
    let line = b"#EXTINF:2,\na.ts\n".repeat(4000);
    let playlist = "HTTP/1.1 200 OK\r\n\r\n#EXTM3U\n#EXT-X-TARGETDURATION:2\n";
    for (what, port, part) in [
        ("no video", flood(head, zeros)?, "no video"),
        (
            "a playlist without an end",
            flood(playlist, line)?,
            "more than",
        ),
        (
            "headers without an end",
            flood("HTTP/1.1 200 OK\r\n", b"X: y\r\n".repeat(1000))?,
            "broke",
        ),
    ] {
        let failure = failure(&format!("http://127.0.0.1:{port}/a"), &["127.0.0.1"])?;
        ensure!(failure.reason.contains(part), "{what}: {failure}");
    }
    // RTMP: a greeting, then messages that are said to be the largest there can be.
    let port = server(|stream| {
        let mut ours = vec![0; 1537];
        if stream.read_exact(&mut ours).is_err() {
            return;
        }
        ours.extend(vec![0; 1536]);
        let _ = stream.write_all(&ours);
        let mut id = 3u8;
        while stream
            .write_all(&[id, 0, 0, 0, 0x7f, 0xff, 0xff, 9, 0, 0, 0, 0])
            .is_ok()
        {
            id = if id == 63 { 3 } else { id + 1 };
            if stream.write_all(&[0; 128]).is_err() {
                return;
            }
        }
    })?;
    let failure = failure(&format!("rtmp://127.0.0.1:{port}/a/b"), &["127.0.0.1"])?;
    ensure!(failure.reason.contains("larger messages"), "{failure}");
    ensure!(peak_mb()? < 300, "{} MB", peak_mb()?);
    Ok(())
}

#[test]
fn servers_that_say_nothing_are_given_up() -> Result<()> {
    let silent = server(|stream| {
        let mut byte = [0];
        while stream.read(&mut byte).unwrap_or(0) > 0 {}
    })?;
    for url in [
        "rtmp://127.0.0.1:{}/a/b",
        "http://127.0.0.1:{}/a",
        "srt://127.0.0.1:{}",
    ] {
        let url = url.replace("{}", &silent.to_string());
        let failure = failure(&url, &["127.0.0.1"])?;
        ensure!(!failure.permanent, "{url}: {failure}");
    }
    // What answers in another language is named.
    let web = answering(answer("400 Bad Request", "", ""))?;
    let failure = failure(&format!("rtmp://127.0.0.1:{web}/a/b"), &["127.0.0.1"])?;
    ensure!(!failure.reason.is_empty());
    Ok(())
}
