//! Cameras that misbehave: each costs bounded time and memory, and leads nowhere else.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use sightline_media::Failure;
use sightline_testkit::LONG;

use crate::camera::camera;
use crate::support::*;

/// A request of the client.
struct Request {
    method: String,
    sequence: String,
}

impl Request {
    /// A whole answer.
    fn answer(&self, status: &str, headers: &str, body: &str) -> String {
        let sequence = &self.sequence;
        format!("RTSP/1.0 {status}\r\nCSeq: {sequence}\r\n{headers}\r\n{body}")
    }
}

/// A camera on a free port that answers each request by a function, which returns false to hang up.
fn misbehaving(
    answer: impl Fn(&Request, &mut TcpStream) -> bool + Send + Sync + 'static,
) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            std::thread::spawn(move || {
                while let Some(request) = next_request(&stream) {
                    if !answer(&request, &mut stream) {
                        return;
                    }
                }
            });
        }
    });
    Ok(format!("rtsp://127.0.0.1:{port}/s"))
}

fn next_request(stream: &TcpStream) -> Option<Request> {
    // Unbuffered enough: the client waits for an answer before it asks again.
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next()?;
    let mut sequence = String::new();
    for line in lines.by_ref().take_while(|line| !line.is_empty()) {
        if let Some(value) = line.strip_prefix("CSeq:") {
            sequence = value.trim().to_owned();
        }
    }
    let method = first.split(' ').next()?;
    Some(Request {
        method: method.to_owned(),
        sequence,
    })
}

fn send(stream: &mut TcpStream, text: &str) -> bool {
    stream.write_all(text.as_bytes()).is_ok()
}

const OPTIONS: &str = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER\r\n";

/// A description of one H.264 track.
fn description(request: &Request, control: &str) -> String {
    let sdp = format!(
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\nc=IN IP4 0.0.0.0\r\n\
         a=rtpmap:96 H264/90000\r\na=control:{control}\r\n"
    );
    let headers = format!(
        "Content-Type: application/sdp\r\nContent-Length: {}\r\n",
        sdp.len()
    );
    request.answer("200 OK", &headers, &sdp)
}

/// How the camera fails, which must not take for ever.
fn fails(url: &str) -> Result<Failure> {
    let started = Instant::now();
    let failure = play_all(&camera(url), take(&[(USUAL, 0)])).end.err();
    let failure = failure.context("it fails")?;
    ensure!(
        started.elapsed() < LONG,
        "{failure} after {:?}",
        started.elapsed()
    );
    Ok(failure)
}

/// The most memory that this process has held, in MB.
pub fn peak_mb() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kb = line
        .and_then(|l| l.split_whitespace().nth(1))
        .context("VmHWM")?;
    Ok(kb.parse::<u64>()? / 1024)
}

#[test]
fn a_camera_that_answers_but_sends_nothing_is_given_up() -> Result<()> {
    silent_after_play(true)
}

#[test]
fn a_camera_that_goes_silent_after_play_is_given_up() -> Result<()> {
    silent_after_play(false)
}

fn silent_after_play(answers_keepalive: bool) -> Result<()> {
    let played = AtomicBool::new(false);
    let url = misbehaving(move |request, stream| {
        if played.load(Ordering::Relaxed) && !answers_keepalive {
            return true;
        }
        let answer = match request.method.as_str() {
            "OPTIONS" => request.answer("200 OK", OPTIONS, ""),
            "DESCRIBE" => description(request, "track1"),
            "SETUP" => request.answer(
                "200 OK",
                "Session: 12345;timeout=6\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n",
                "",
            ),
            _ => request.answer("200 OK", "Session: 12345\r\n", ""),
        };
        played.fetch_or(request.method == "PLAY", Ordering::Relaxed);
        send(stream, &answer)
    })?;
    let failure = fails(&url)?;
    ensure!(!failure.permanent);
    assert_eq!(failure.reason, "no picture or sound came within 20 s");
    Ok(())
}

#[test]
fn a_camera_that_never_answers_is_given_up() -> Result<()> {
    let url = misbehaving(|_, _| true)?;
    let failure = fails(&url)?;
    ensure!(!failure.permanent, "{failure}");
    Ok(())
}

#[test]
fn a_description_that_lies_about_its_length_costs_no_memory() -> Result<()> {
    for length in ["2000000000", "99999999999999999999", "-1"] {
        let url = misbehaving(move |request, stream| {
            if request.method == "OPTIONS" {
                return send(stream, &request.answer("200 OK", OPTIONS, ""));
            }
            let headers = format!("Content-Type: application/sdp\r\nContent-Length: {length}\r\n");
            send(stream, &request.answer("200 OK", &headers, "v=0\r\n"));
            let line = format!("a=x:{}\r\n", "y".repeat(65_530));
            while send(stream, &line) {}
            false
        })?;
        let failure = fails(&url)?;
        ensure!(failure.reason.contains("bytes: at most"), "{failure}");
    }
    let url = misbehaving(|request, stream| {
        if request.method == "OPTIONS" {
            return send(stream, &request.answer("200 OK", OPTIONS, ""));
        }
        send(stream, "RTSP/1.0 200 OK\r\nCSeq: 2\r\n");
        let header = format!("X: {}\r\n", "a".repeat(900));
        while send(stream, &header) {}
        false
    })?;
    let failure = fails(&url)?;
    ensure!(failure.reason.contains("without an end"), "{failure}");
    ensure!(peak_mb()? < 200, "{} MB", peak_mb()?);
    Ok(())
}

#[test]
fn a_camera_that_sends_elsewhere_is_not_followed() -> Result<()> {
    let victim = TcpListener::bind("127.0.0.2:0")?;
    let elsewhere = format!("rtsp://127.0.0.2:{}/meta", victim.local_addr()?.port());
    victim.set_nonblocking(true)?;

    let to = elsewhere.clone();
    let redirecting = misbehaving(move |request, stream| {
        let location = format!("Location: {to}\r\n");
        let answer = match request.method.as_str() {
            "OPTIONS" => request.answer("200 OK", OPTIONS, ""),
            _ => request.answer("302 Moved", &location, ""),
        };
        send(stream, &answer)
    })?;
    let failure = fails(&redirecting)?;
    ensure!(
        failure.reason.contains("sends to another address"),
        "{failure}"
    );

    let describing = misbehaving(move |request, stream| {
        let answer = match request.method.as_str() {
            "OPTIONS" => request.answer("200 OK", OPTIONS, ""),
            "DESCRIBE" => description(request, &elsewhere),
            _ => request.answer("454 Session Not Found", "", ""),
        };
        send(stream, &answer)
    })?;
    fails(&describing)?;
    let connected = victim.accept();
    ensure!(connected.is_err(), "somebody was led there: {connected:?}");
    Ok(())
}

#[test]
fn what_is_no_camera_is_named() -> Result<()> {
    let url = misbehaving(|_, stream| {
        send(
            stream,
            "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        )
    })?;
    let failure = fails(&url)?;
    assert_eq!(failure.reason, "what answers there is no RTSP server");
    Ok(())
}
