//! Cameras: a real RTSP server with H.264 and AAC, its sound as the first track.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sightline_proto::internal::child_report::Report;
use sightline_proto::internal::{OpenSource, Opened, SampledWindow, TakeFrom, Utterance};
use sightline_service::clock::{Clock, SystemClock};
use sightline_testkit::LONG;
use sightline_testkit::rtsp::{Auth, RtspServer};

use crate::support::*;

/// What a busy machine may be late by, in microseconds.
const LATE: i64 = 10 * SECOND;
/// How soon it is told that a camera has gone away: it is silent for longer before that is taken for the reason.
const SOON: Duration = Duration::from_secs(18);

pub fn camera(url: &str) -> OpenSource {
    OpenSource {
        url: url.to_owned(),
        real_time: true,
        frame_edge: 512,
        ..OpenSource::default()
    }
}

fn everything() -> TakeFrom {
    TakeFrom {
        audio: true,
        ..take(&[(sampling(2 * SECOND, 1), 0)])
    }
}

fn opened(playing: &Playing) -> Result<Opened> {
    match playing.reports.recv_timeout(LONG) {
        Ok(Report::Opened(opened)) => Ok(opened),
        other => bail!("no first report: {other:?}"),
    }
}

/// Reads until there are that many windows and utterances.
fn read(
    playing: &Playing,
    windows: usize,
    utterances: usize,
) -> Result<(Vec<SampledWindow>, Vec<Utterance>)> {
    let mut found = (Vec::new(), Vec::new());
    while found.0.len() < windows || found.1.len() < utterances {
        match playing.reports.recv_timeout(LONG)? {
            Report::Window(window) => found.0.push(window),
            Report::Utterance(utterance) => found.1.push(utterance),
            // Told each second before it is over.
            Report::Interim(_) => {}
            other => bail!("unexpected: {other:?}"),
        }
    }
    Ok(found)
}

#[test]
fn a_camera_is_seen_and_heard_at_the_right_times() -> Result<()> {
    let server = RtspServer::start(&demo_clip())?;
    let playing = Playing::start(camera(&server.url()), everything());
    let opened = opened(&playing)?;
    let now_us = SystemClock.now_us();
    assert_eq!(
        (opened.width, opened.height, opened.has_audio),
        (640, 360, true)
    );
    ensure!(
        (now_us - opened.epoch_us).abs() < LATE,
        "{opened:?} at {now_us}"
    );
    let (windows, utterances) = read(&playing, 3, 1)?;
    for (number, window) in windows.iter().enumerate() {
        assert_eq!((window.window, window.frames.len()), (number as u64, 1));
        let frame = &window.frames[0];
        // A keyframe every 2 s, from about the start on.
        let late_us = frame.time_us - number as i64 * 2 * SECOND;
        ensure!(
            (-SECOND / 25..SECOND).contains(&late_us),
            "{number}: {late_us}"
        );
        // Captured when it arrived, and sampled at once.
        let captured_us = window.captured_us - opened.epoch_us;
        ensure!((captured_us - frame.time_us).abs() < LATE, "{captured_us}");
        let took_us = window.sampled_us - window.captured_us;
        ensure!((0..LATE).contains(&took_us), "{took_us}");
    }
    // The clip's first sentence is from 1.0 to 2.684 s.
    let start_us = utterances[0].start_position_us;
    let length_us = utterances[0].pcm.len() as i64 / 2 * SECOND / 16_000;
    ensure!(
        (SECOND / 2..3 * SECOND / 2).contains(&start_us),
        "{start_us}"
    );
    ensure!(
        (2 * SECOND..5 * SECOND / 2).contains(&length_us),
        "{length_us}"
    );
    playing.stop().expect("stopped");
    Ok(())
}

#[test]
fn a_camera_that_is_found_again_goes_on_in_its_epoch() -> Result<()> {
    let server = RtspServer::start(&demo_clip())?;
    let epoch_us = SystemClock.now_us() - 101 * SECOND;
    let open = OpenSource {
        epoch_us,
        ..camera(&server.url())
    };
    let playing = Playing::start(open, everything());
    assert_eq!(opened(&playing)?.epoch_us, epoch_us);
    let (windows, _) = read(&playing, 1, 0)?;
    let at_us = windows[0].frames[0].time_us;
    ensure!((101 * SECOND..161 * SECOND).contains(&at_us), "{at_us}");
    assert_eq!(windows[0].window, (at_us / (2 * SECOND)).unsigned_abs());
    playing.stop().expect("stopped");
    Ok(())
}

#[test]
fn a_camera_that_goes_away_is_missed_at_once() -> Result<()> {
    let server = RtspServer::start(&demo_clip())?;
    let url = server.url();
    let playing = Playing::start(camera(&url), everything());
    opened(&playing)?;
    let started = Instant::now();
    drop(server);
    let failure = playing.end().expect_err("the camera is gone");
    ensure!(!failure.permanent && started.elapsed() < SOON, "{failure}");

    let failure = play_all(&camera(&url), everything())
        .end
        .expect_err("nobody listens");
    ensure!(!failure.permanent);
    ensure!(failure.reason.contains("Connection refused"), "{failure}");
    Ok(())
}

#[test]
fn credentials_are_used_and_wrong_ones_are_named() -> Result<()> {
    for auth in [Auth::Basic, Auth::Digest] {
        let server = RtspServer::start_guarded(&demo_clip(), auth, "viewer", "p@ss:w/rd")?;
        let mut url = url::Url::parse(&server.url())?;
        url.set_username("viewer").expect("it has a host");
        url.set_password(Some("p@ss:w/rd")).expect("it has a host");
        let playing = Playing::start(camera(url.as_str()), everything());
        opened(&playing).with_context(|| format!("{auth:?}"))?;
        playing.stop().expect("stopped");

        let mut wrong = url.clone();
        wrong.set_password(Some("wrong")).expect("it has a host");
        let failure = play_all(&camera(wrong.as_str()), everything())
            .end
            .expect_err("refused");
        ensure!(failure.permanent, "{auth:?}: {failure}");
        ensure!(
            failure
                .reason
                .contains("refuses the user name and password"),
            "{failure}"
        );
        ensure!(!failure.reason.contains("wrong"));
    }
    Ok(())
}

#[test]
fn a_path_that_the_camera_does_not_know_is_named() -> Result<()> {
    let server = RtspServer::start(&demo_clip())?;
    let url = server.url().replace("/stream", "/other");
    let failure = play_all(&camera(&url), everything())
        .end
        .expect_err("unknown");
    assert_eq!(failure.reason, "the camera knows no stream at this path");
    ensure!(!failure.permanent);
    Ok(())
}

#[test]
fn only_allowed_addresses_are_connected_to() -> Result<()> {
    let server = RtspServer::start(&demo_clip())?;
    let named = format!("rtsp://camera.invalid:{}/stream", server.port());
    let open = OpenSource {
        addresses: vec!["127.0.0.1".to_owned()],
        ..camera(&named)
    };
    let playing = Playing::start(open, everything());
    opened(&playing)?;
    playing.stop().expect("stopped");
    let open = OpenSource {
        addresses: vec!["127.0.0.77".to_owned()],
        ..camera(&server.url())
    };
    let failure = play_all(&open, everything())
        .end
        .expect_err("nobody listens there");
    ensure!(failure.reason.contains("Connection refused"), "{failure}");
    Ok(())
}
