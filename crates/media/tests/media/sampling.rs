//! Which frames are sampled, when, and what they look like.

use anyhow::{Context, Result, ensure};
use sightline_proto::internal::child_report::Report;
use tempfile::tempdir;

use crate::support::*;

#[test]
fn the_sample_clip_yields_its_windows() -> Result<()> {
    let played = play_all(&file(&demo_clip()), take(&[(USUAL, 0)]));
    let opened = played.opened()?;
    assert_eq!(
        (opened.width, opened.height, opened.has_audio),
        (640, 360, true)
    );
    // A keyframe every 2 s: the first at or after the start of each slot of 2.5 s.
    let keyframe_from = |second: f64| (second / 2.0).ceil() * 2.0;
    let expected: Vec<_> = (0..18u32)
        .map(|window| {
            let start = f64::from(window) * 5.0;
            let frames = vec![keyframe_from(start), keyframe_from(start + 2.5)];
            (u64::from(window), start + 5.0, frames)
        })
        .collect();
    assert_eq!(played.times(&USUAL), expected);
    let ended = played.end.as_ref().expect("plays to its end");
    assert!(
        (ended.duration_us - 90 * SECOND).abs() < SECOND / 10,
        "{ended:?}"
    );
    for window in played.windows() {
        assert!(window.captured_us <= window.sampled_us);
    }
    Ok(())
}

#[test]
fn a_resumed_file_yields_the_same_windows_as_the_whole_one() -> Result<()> {
    let whole = play_all(&file(&demo_clip()), take(&[(USUAL, 0)]));
    let mut open = file(&demo_clip());
    open.start_position_us = 7 * 5 * SECOND;
    open.epoch_us = 1_764_000_000_000_000;
    let resumed = play_all(&open, take(&[(USUAL, 7)]));
    assert_eq!(resumed.opened()?.epoch_us, open.epoch_us);
    let jpegs = |played: &Played, from: u64| -> Vec<_> {
        let windows = played.windows().into_iter().filter(|w| w.window >= from);
        windows.map(|w| w.frames.clone()).collect()
    };
    let resumed_windows = jpegs(&resumed, 0);
    assert_eq!(resumed_windows.len(), 11);
    assert!(resumed_windows == jpegs(&whole, 7), "frames differ");
    Ok(())
}

#[test]
fn several_samplings_share_a_source_and_short_slots_are_filled_between_keyframes() -> Result<()> {
    let fine = sampling(2 * SECOND, 8);
    let coarse = sampling(40 * SECOND, 1);
    let played = play_all(
        &file(&demo_clip()),
        take(&[(USUAL, 0), (fine, 0), (coarse, 1)]),
    );
    assert_eq!(played.times(&USUAL).len(), 18);
    let windows = played.times(&fine);
    assert_eq!(windows.len(), 45);
    for (window, _, frames) in windows {
        // Ten frames a second: the first at or after every quarter of a second.
        let expected: Vec<_> = (0..8)
            .map(|slot| {
                let tenths = (f64::from(slot) * 2.5).ceil();
                (window as f64 * 20.0 + tenths) / 10.0
            })
            .collect();
        assert_eq!(frames, expected, "window {window}");
    }
    let expected = [(1, 80.0, vec![40.0]), (2, 90.0, vec![80.0])];
    assert_eq!(played.times(&coarse), expected);
    Ok(())
}

#[test]
fn frames_between_distant_keyframes_are_right_to_the_frame_with_reordering() -> Result<()> {
    let dir = tempdir()?;
    let path = dir.path().join("long-gop.mp4");
    let encoder = [
        "-c:v", "libx264", "-preset", "veryfast", "-g", "250", "-bf", "3", "-pix_fmt", "yuv420p",
        "-t", "12.5",
    ];
    clip(&path, "testsrc2=size=320x240:rate=25", &encoder)?;
    let played = play_all(&file(&path), take(&[(USUAL, 0)]));
    let expected = [
        (0, 5.0, vec![0.0, 2.52]),
        (1, 10.0, vec![5.0, 7.52]),
        (2, 12.5, vec![10.0]),
    ];
    let times = played.times(&USUAL);
    assert_eq!(times.len(), 3);
    for ((window, end, frames), (w, e, f)) in times.iter().zip(&expected) {
        assert_eq!((window, frames.len()), (w, f.len()));
        assert!((end - e).abs() < 0.05, "{end} {e}");
        for (frame, exact) in frames.iter().zip(f) {
            assert!((frame - exact).abs() < 0.001, "{frame} {exact}");
        }
    }
    for window in played.windows() {
        for frame in &window.frames {
            check_picture(&path, frame.time_us, &frame.jpeg)?;
        }
    }
    Ok(())
}

#[test]
fn pictures_keep_their_colours_and_are_scaled() -> Result<()> {
    let dir = tempdir()?;
    for (name, options) in [
        ("bt709.mp4", ["-colorspace", "bt709", "-color_range", "tv"]),
        ("full.mp4", ["-colorspace", "bt470bg", "-color_range", "pc"]),
    ] {
        let path = dir.path().join(name);
        let mut encoder = vec![
            "-c:v", "libx264", "-g", "10", "-pix_fmt", "yuv420p", "-t", "2",
        ];
        encoder.extend_from_slice(&options);
        clip(&path, "smptehdbars=size=1280x720:rate=10", &encoder)?;
        let played = play_all(&file(&path), take(&[(sampling(SECOND, 1), 0)]));
        let windows = played.windows();
        let frame = &windows.first().context("a window")?.frames[0];
        check_picture(&path, frame.time_us, &frame.jpeg).context(name)?;
    }
    Ok(())
}

#[test]
fn other_containers_and_codecs_are_read() -> Result<()> {
    let dir = tempdir()?;
    let h264 = [
        "-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p",
    ];
    let cases: [(&str, &[&str]); 6] = [
        ("clip.mkv", &h264),
        ("clip.ts", &h264),
        ("clip.flv", &h264),
        (
            "hevc.mp4",
            &["-c:v", "libx265", "-x265-params", "log-level=error"],
        ),
        (
            "vp9.webm",
            &[
                "-c:v",
                "libvpx-vp9",
                "-cpu-used",
                "8",
                "-deadline",
                "realtime",
            ],
        ),
        ("mpeg4.avi", &["-c:v", "mpeg4"]),
    ];
    for (name, encoder) in cases {
        let path = dir.path().join(name);
        let mut options = vec!["-g", "10", "-t", "4"];
        options.extend_from_slice(encoder);
        clip(&path, "testsrc2=size=320x240:rate=10", &options).context(name)?;
        let every_second = sampling(SECOND, 1);
        let played = play_all(&file(&path), take(&[(every_second, 0)]));
        ensure!(played.end.is_ok(), "{name}: {:?}", played.end);
        let times = played.times(&every_second);
        assert_eq!(times.len(), 4, "{name}: {times:?}");
        for (window, _, frames) in &times {
            let off = frames[0] - *window as f64;
            assert!((-0.001..0.11).contains(&off), "{name}: {times:?}");
        }
    }
    Ok(())
}

#[test]
fn a_file_in_real_time_keeps_the_pace_and_frames_are_captured_when_due() -> Result<()> {
    let mut open = file(&demo_clip());
    open.real_time = true;
    let started = std::time::Instant::now();
    let playing = Playing::start(open, take(&[(sampling(2 * SECOND, 1), 0)]));
    let mut epoch_us = 0;
    let mut windows = Vec::new();
    while windows.len() < 3 {
        match playing.reports.recv()? {
            Report::Opened(opened) => epoch_us = opened.epoch_us,
            Report::Window(window) => windows.push(window),
            _ => {}
        }
    }
    let took = started.elapsed().as_secs_f64();
    assert!(took >= 3.9, "{took}");
    for window in &windows {
        let due_us = epoch_us + window.frames[0].time_us;
        assert!(
            (window.captured_us - due_us).abs() < 1000,
            "{due_us} {}",
            window.captured_us
        );
        let late_us = window.sampled_us - window.captured_us;
        // A busy machine takes its time.
        assert!((0..10 * SECOND).contains(&late_us), "{late_us}");
    }
    let ended = playing.stop().expect("stopped");
    assert!(ended.duration_us < 60 * SECOND, "{ended:?}");
    Ok(())
}

#[test]
fn what_is_wanted_changes_while_it_plays() -> Result<()> {
    let mut open = file(&demo_clip());
    open.real_time = true;
    let quick = sampling(2 * SECOND, 1);
    let playing = Playing::start(open, take(&[(sampling(20 * SECOND, 1), 0)]));
    assert!(matches!(playing.reports.recv()?, Report::Opened(_)));
    // The first window is complete with its first frame, at 0.
    assert!(matches!(playing.reports.recv()?, Report::Window(_)));
    playing.control.take(take(&[(quick, 0)]));
    let Report::Window(window) = playing.reports.recv()? else {
        anyhow::bail!("no window");
    };
    // The window that was under way when it was asked for is not half sampled.
    assert_eq!(window.sampling, Some(quick));
    assert!(window.window > 0, "{}", window.window);
    let start_us = window.window as i64 * 2 * SECOND;
    assert_eq!(window.frames[0].time_us, start_us);
    playing.stop().expect("stopped");
    Ok(())
}

/// Compares a JPEG with the frame that ffmpeg decodes at that time, scaled to the same size.
fn check_picture(path: &std::path::Path, time_us: i64, jpeg: &[u8]) -> Result<()> {
    let mut decoder = zune_jpeg::JpegDecoder::new(std::io::Cursor::new(jpeg));
    let ours = decoder.decode()?;
    let info = decoder.info().context("a decoded JPEG has a size")?;
    assert!(info.width.max(info.height) <= 512 && info.width % 2 == 0 && info.height % 2 == 0);
    let scale = format!(
        "scale={}:{}:flags=area:in_range=auto",
        info.width, info.height
    );
    let mean = off_from_ffmpeg(path, time_us, &ours, &scale)?;
    assert!(mean < 6.0, "colours are off by {mean} of 255 at {time_us}");
    Ok(())
}
