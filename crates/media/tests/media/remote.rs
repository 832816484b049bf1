//! Sources on real servers: RTMP, SRT, HLS and HTTP, in H.264 and H.265, seen, heard, recorded and missed.

use std::io::Write;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sightline_media::Failure;
use sightline_proto::internal::child_report::Report;
use sightline_proto::internal::{OpenSource, Opened, TakeFrom};
use sightline_service::clock::{Clock, SystemClock};
use sightline_testkit::LONG;
use sightline_testkit::nginx::{Nginx, free_port};
use sightline_testkit::rtsp::RtspServer;
use sightline_testkit::sender::Sender;
use tempfile::{TempDir, tempdir};

use crate::camera::camera;
use crate::elsewhere::{request, server};
use crate::inspect::{join, probe};
use crate::support::*;

/// What a busy machine may be late by, in microseconds.
const LATE: i64 = 30 * SECOND;
/// An endless MPEG-TS, and what makes one.
const TS: &[&str] = &["-f", "mpegts"];

fn everything() -> TakeFrom {
    TakeFrom {
        audio: true,
        record: true,
        ..take(&[(sampling(2 * SECOND, 1), 0)])
    }
}

/// The sample clip with its pictures coded as H.265, a keyframe every 2 s.
pub fn hevc(dir: &TempDir) -> Result<PathBuf> {
    let path = dir.path().join("hevc.mp4");
    let from = demo_clip();
    ffmpeg(&[
        "-i",
        from.to_str().context("a plain path")?,
        "-t",
        "14",
        "-c:v",
        "libx265",
        "-preset",
        "ultrafast",
        "-x265-params",
        "keyint=20:bframes=0:log-level=error",
        "-c:a",
        "copy",
        path.to_str().context("a plain path")?,
    ])?;
    Ok(path)
}

/// Tries until the source is there, as a worker does: senders take a moment to come up.
fn opened(open: &OpenSource) -> Result<(Playing, Opened)> {
    let deadline = Instant::now() + LONG;
    loop {
        let playing = Playing::start(open.clone(), everything());
        match playing.reports.recv_timeout(LONG) {
            Ok(Report::Opened(opened)) => return Ok((playing, opened)),
            Ok(other) => anyhow::bail!("the first report is {other:?}"),
            Err(_) => {
                let failure = playing.stop().expect_err("it ended without a report");
                ensure!(Instant::now() < deadline, "{failure}");
                std::thread::park_timeout(Duration::from_millis(100));
            }
        }
    }
}

/// The source is opened now, seen each 2 s from its beginning, heard and recorded with these codecs.
fn check_live(url: &str, codecs: &[&str]) -> Result<Playing> {
    let (playing, opened) = opened(&camera(url))?;
    let now_us = SystemClock.now_us();
    assert_eq!((opened.width, opened.height), (640, 360));
    ensure!(
        (now_us - opened.epoch_us).abs() < LATE,
        "opened {} us ago",
        now_us - opened.epoch_us
    );
    let (mut windows, mut utterances, mut segments) = (Vec::new(), 0, Vec::new());
    while windows.len() < 3 || utterances == 0 || segments.is_empty() {
        match playing.reports.recv_timeout(LONG)? {
            Report::Window(window) => windows.push(window),
            Report::Utterance(utterance) => {
                ensure!(utterance.pcm.len() > 16_000, "half a second at least");
                utterances += 1;
            }
            Report::Segment(segment) => segments.push(segment),
            Report::Interim(_) => {}
            other => anyhow::bail!("unexpected: {other:?}"),
        }
    }
    for (number, window) in windows.iter().enumerate() {
        assert_eq!((window.window, window.frames.len()), (number as u64, 1));
        // What is there is not older than the server keeps for those who come.
        let late_us = window.captured_us - opened.epoch_us - window.frames[0].time_us;
        ensure!((-LATE..10 * SECOND + LATE).contains(&late_us), "{late_us}");
        ensure!(window.captured_us <= SystemClock.now_us());
    }
    let dir = tempdir()?;
    let path = dir.path().join("recorded.ts");
    join(&segments, &path)?;
    let found = probe(&path)?;
    let streams = found["streams"].as_array().context("streams")?;
    let names: Vec<_> = streams
        .iter()
        .filter_map(|s| s["codec_name"].as_str())
        .collect();
    assert_eq!(names, codecs);
    Ok(playing)
}

/// The source is missed soon after it went away, and that may pass.
fn check_missed(playing: Playing) -> Result<()> {
    let started = Instant::now();
    let failure = playing.end().expect_err("it is gone");
    ensure!(
        !failure.permanent && started.elapsed() < LONG,
        "{failure} after {:?}",
        started.elapsed()
    );
    Ok(())
}

#[test]
fn rtmp_is_read_and_missed() -> Result<()> {
    let mut server = Nginx::start()?;
    let url = server.rtmp_url("door");
    let _sender = Sender::start(&demo_clip(), &["-f", "flv"], &url)?;
    let playing = check_live(&url, &["h264", "aac"])?;
    server.kill();
    check_missed(playing)?;
    let failure = refused(&url)?;
    ensure!(failure.reason.contains("Connection refused"), "{failure}");
    Ok(())
}

#[test]
fn a_stream_that_an_rtmp_server_does_not_know_may_come() -> Result<()> {
    let server = Nginx::start()?;
    let failure = refused(&server.rtmp_url("nobody"))?;
    ensure!(!failure.permanent, "{failure}");
    let failure = refused(&server.rtmp_url("nobody").replace("/live/", "/other/"))?;
    ensure!(!failure.permanent, "{failure}");
    Ok(())
}

#[test]
fn srt_is_read_in_both_codings_and_missed() -> Result<()> {
    let dir = tempdir()?;
    for (clip, codec) in [(demo_clip(), "h264"), (hevc(&dir)?, "hevc")] {
        let port = free_port()?;
        let secret = "passphrase=correct-horse&pbkeylen=32";
        let listener = format!("srt://127.0.0.1:{port}?mode=listener&{secret}");
        let sender = Sender::start(&clip, TS, &listener)?;
        let url = format!("srt://127.0.0.1:{port}?{secret}&latency=100");
        let playing = check_live(&url, &[codec, "aac"])?;
        drop(sender);
        check_missed(playing)?;
    }
    Ok(())
}

#[test]
fn a_wrong_passphrase_of_srt_is_in_no_reason() -> Result<()> {
    let port = free_port()?;
    let listener = format!("srt://127.0.0.1:{port}?mode=listener&passphrase=correct-horse");
    let _sender = Sender::start(&demo_clip(), TS, &listener)?;
    let failure = refused(&format!("srt://127.0.0.1:{port}?passphrase=battery-staple"))?;
    ensure!(!failure.reason.contains("staple"), "{failure}");
    Ok(())
}

#[test]
fn a_live_playlist_of_mpeg_ts_is_followed_and_missed() -> Result<()> {
    let mut server = Nginx::start()?;
    let url = server.rtmp_url("gate");
    let _sender = Sender::start(&demo_clip(), &["-f", "flv"], &url)?;
    let playing = check_live(&server.http_url("live/gate.m3u8"), &["h264", "aac"])?;
    server.kill();
    check_missed(playing)
}

#[test]
fn a_live_playlist_of_fragmented_mp4_is_followed_in_h265() -> Result<()> {
    let (server, dir) = (Nginx::start()?, tempdir()?);
    let list = server.folder().join("live.m3u8");
    let format = ["-tag:v", "hvc1"];
    let format = [
        &format[..],
        HLS,
        &["-hls_segment_type", "fmp4", "-hls_flags", "delete_segments"],
    ]
    .concat();
    let sender = Sender::start(&hevc(&dir)?, &format, list.to_str().context("plain")?)?;
    let playing = check_live(&server.http_url("moved/live.m3u8"), &["hevc", "aac"])?;
    drop(sender);
    check_missed(playing)
}

/// A playlist that never ends, and what it holds each time that it is asked for: `a` is a segment of so many seconds, always
/// the same, and `!` says that the next one begins anew. The last stays.
fn growing(seconds: &'static str, lists: &'static [&'static str]) -> Result<String> {
    let dir = tempdir()?;
    let (from, path) = (demo_clip(), dir.path().join("segment.ts"));
    let (from, to) = (from.to_str(), path.to_str());
    let (from, to) = (from.context("plain")?, to.context("plain")?);
    ffmpeg(&["-i", from, "-t", seconds, "-c", "copy", to])?;
    let segment = std::fs::read(path)?;
    let looks = AtomicU64::new(0);
    let port = server(move |stream| {
        let body = if request(stream).contains(".m3u8") {
            let look = looks.fetch_add(1, Ordering::Relaxed) as usize;
            let parts = lists[look.min(lists.len() - 1)]
                .chars()
                .map(|part| match part {
                    'a' => format!("#EXTINF:{seconds},\na.ts\n"),
                    _ => "#EXT-X-DISCONTINUITY\n".to_owned(),
                });
            let head = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n".to_owned();
            (head + &parts.collect::<String>()).into_bytes()
        } else {
            segment.clone()
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        let _ = stream.write_all(&[head.into_bytes(), body].concat());
    })?;
    Ok(format!("http://127.0.0.1:{port}/a.m3u8"))
}

#[test]
fn a_playlist_that_was_seen_is_gone_on_with_where_it_grows() -> Result<()> {
    let again = |url: &str| OpenSource {
        epoch_us: SystemClock.now_us() - 60 * SECOND,
        ..camera(url)
    };
    // Once another server gives an older one.
    let url = growing("2", &["aaa", "aa", "aaaa"])?;
    let playing = Playing::start(again(&url), everything());
    let first = playing.reports.recv_timeout(LONG);
    ensure!(matches!(first, Ok(Report::Opened(_))), "{first:?}");
    playing.stop().expect("stopped");
    // It grows no more: what is there was seen.
    let played = play_all(&again(&url), everything());
    let failure = played.end.expect_err("nothing new");
    ensure!(!failure.permanent && played.reports.is_empty(), "{failure}");
    // Who has not seen it begins with what is there.
    let (playing, _) = opened(&camera(&url))?;
    playing.stop().expect("stopped");
    Ok(())
}

#[test]
fn what_was_fetched_before_a_stream_begins_anew_is_played() -> Result<()> {
    let url = growing("7", &["a", "a!a"])?;
    let played = play_all(&camera(&url), take(&[(sampling(2 * SECOND, 1), 0)]));
    let failure = played.end.as_ref().expect_err("it begins anew");
    ensure!(
        !failure.permanent && failure.reason.contains("begins anew"),
        "{failure}"
    );
    let numbers: Vec<u64> = played.windows().iter().map(|w| w.window).collect();
    ensure!(numbers.starts_with(&[0, 1, 2]), "{numbers:?}");
    Ok(())
}

const HLS: &[&str] = &["-f", "hls", "-hls_time", "2", "-hls_list_size", "6"];

/// A playlist that ends, of a clip of 14 s, behind one that names it.
fn vod(server: &Nginx, clip: &Path) -> Result<()> {
    let folder = server.folder();
    let list = folder.join("clip.m3u8");
    let options = [
        "-i",
        clip.to_str().context("plain")?,
        "-t",
        "14",
        "-c",
        "copy",
    ];
    let format = ["-f", "hls", "-hls_time", "2", "-hls_list_size", "0"];
    ffmpeg(&[&options[..], &format, &[list.to_str().context("plain")?]].concat())?;
    let master = "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000\nlow.m3u8\n#EXT-X-STREAM-INF:BANDWIDTH=9000\n/clip.m3u8\n";
    Ok(std::fs::write(folder.join("master.m3u8"), master)?)
}

/// Ends as a file does, after windows of 2 s from one of these to the end of the 14 s.
fn check_clip(open: &OpenSource, begins: RangeInclusive<u64>) -> Result<()> {
    let played = play_all(open, take(&[(sampling(2 * SECOND, 1), 0)]));
    ensure!(played.end.is_ok(), "{:?}", played.end);
    let numbers: Vec<u64> = played.windows().iter().map(|w| w.window).collect();
    let first = *numbers.first().context("a window")?;
    ensure!(
        begins.contains(&first) && numbers == (first..=6).collect::<Vec<_>>(),
        "{numbers:?}"
    );
    Ok(())
}

#[test]
fn a_playlist_that_ends_is_played_as_a_file_and_goes_on_where_it_would_be() -> Result<()> {
    let server = Nginx::start()?;
    vod(&server, &demo_clip())?;
    let url = server.http_url("master.m3u8");
    check_clip(&camera(&url), 0..=0)?;
    let late = OpenSource {
        epoch_us: SystemClock.now_us() - 5 * SECOND,
        ..camera(&url)
    };
    // Opening takes its time.
    check_clip(&late, 3..=6)?;
    let over = OpenSource {
        epoch_us: SystemClock.now_us() - 30 * SECOND,
        ..camera(&url)
    };
    let played = play_all(&over, everything());
    ensure!(
        played.end.is_ok() && played.reports.is_empty(),
        "{:?}",
        played.end
    );
    Ok(())
}

#[test]
fn files_are_fetched_wherever_their_index_is() -> Result<()> {
    let server = Nginx::start()?;
    let from = demo_clip();
    for (name, format) in [
        ("late.mp4", &["-f", "mp4"][..]),
        ("early.mp4", &["-f", "mp4", "-movflags", "+faststart"]),
        ("clip.ts", TS),
        ("clip.mkv", &["-f", "matroska"]),
    ] {
        let path = server.folder().join(name);
        let options = [
            "-i",
            from.to_str().context("plain")?,
            "-t",
            "14",
            "-c",
            "copy",
        ];
        ffmpeg(&[&options[..], format, &[path.to_str().context("plain")?]].concat())?;
        let late = OpenSource {
            epoch_us: SystemClock.now_us() - 5 * SECOND,
            ..camera(&server.http_url(name))
        };
        check_clip(&late, 3..=6).context(name)?;
    }
    Ok(())
}

#[test]
fn endless_answers_are_read_and_missed() -> Result<()> {
    let dir = tempdir()?;
    for (clip, codec) in [(demo_clip(), "h264"), (hevc(&dir)?, "hevc")] {
        let url = format!("http://127.0.0.1:{}/live.ts", free_port()?);
        let format = [TS, &["-listen", "1"]].concat();
        let sender = Sender::start(&clip, &format, &url)?;
        let playing = check_live(&url, &[codec, "aac"])?;
        drop(sender);
        check_missed(playing)?;
    }
    Ok(())
}

#[test]
fn motion_jpeg_is_seen() -> Result<()> {
    let dir = tempdir()?;
    let clip_path = dir.path().join("clip.mkv");
    let mjpeg = ["-t", "8", "-c:v", "mjpeg", "-pix_fmt", "yuvj420p"];
    clip(&clip_path, "testsrc2=size=640x360:rate=10", &mjpeg)?;
    let url = format!("http://127.0.0.1:{}/live", free_port()?);
    let format = [
        "-f",
        "mpjpeg",
        "-listen",
        "1",
        "-content_type",
        "multipart/x-mixed-replace;boundary=ffmpeg",
    ];
    let sender = Sender::start(&clip_path, &format, &url)?;
    let (playing, opened) = opened(&camera(&url))?;
    assert_eq!((opened.width, opened.height), (640, 360));
    let mut windows = 0;
    while windows < 2 {
        windows += usize::from(matches!(
            playing.reports.recv_timeout(LONG)?,
            Report::Window(_)
        ));
    }
    drop(sender);
    check_missed(playing)
}

#[test]
fn h265_of_a_camera_is_recorded() -> Result<()> {
    let dir = tempdir()?;
    let server = RtspServer::start_h265(&hevc(&dir)?)?;
    let playing = check_live(&server.url(), &["hevc", "aac"])?;
    drop(server);
    check_missed(playing)
}

/// Why a source can't be read.
fn refused(url: &str) -> Result<Failure> {
    let started = Instant::now();
    let failure = play_all(&camera(url), everything()).end.err();
    let failure = failure.context("it can be read")?;
    ensure!(started.elapsed() < LONG, "{failure}");
    Ok(failure)
}

#[test]
fn a_server_that_asks_who_is_there_is_told_and_nobody_else() -> Result<()> {
    let server = Nginx::start()?;
    vod(&server, &demo_clip())?;
    server.allow("viewer", "p@ss/w?rd")?;
    let mut url = url::Url::parse(&server.http_url("private/clip.m3u8"))?;
    let failure = refused(url.as_str())?;
    ensure!(
        failure.permanent && failure.reason.contains("user name"),
        "{failure}"
    );
    url.set_username("viewer").expect("it has a host");
    url.set_password(Some("wrong")).expect("it has a host");
    let failure = refused(url.as_str())?;
    ensure!(
        failure.permanent && !failure.reason.contains("wrong"),
        "{failure}"
    );
    url.set_password(Some("p@ss/w?rd")).expect("it has a host");
    opened(&camera(url.as_str()))?.0.stop().expect("stopped");
    let absent = refused(&server.http_url("absent.mp4"))?;
    ensure!(
        !absent.permanent && absent.reason.contains("404"),
        "{absent}"
    );
    Ok(())
}
