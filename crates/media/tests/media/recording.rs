//! Recording: what is written is what came, whole, at the right times, and readable by others.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use sightline_proto::internal::child_report::Report;
use sightline_proto::internal::{NotRecordable, OpenSource, RecordedSegment, TakeFrom};
use sightline_testkit::rtsp::RtspServer;
use tempfile::tempdir;

use crate::camera::camera;
use crate::inspect::{frames, join, probe, same};
use crate::support::*;

const EPOCH_US: i64 = 1_764_000_000_123_456;

fn recording(from_us: i64) -> TakeFrom {
    TakeFrom {
        record: true,
        record_from_us: from_us,
        ..TakeFrom::default()
    }
}

fn segments(reports: &[Report]) -> Vec<&RecordedSegment> {
    let found = reports.iter();
    found
        .filter_map(|report| match report {
            Report::Segment(segment) => Some(segment),
            _ => None,
        })
        .collect()
}

fn refusals(reports: &[Report]) -> Vec<&NotRecordable> {
    let found = reports.iter();
    found
        .filter_map(|report| match report {
            Report::NotRecordable(refusal) => Some(refusal),
            _ => None,
        })
        .collect()
}

/// Records a whole file.
pub fn recorded(path: &Path) -> Result<Vec<RecordedSegment>> {
    recorded_at(path, EPOCH_US)
}

/// Records a whole file whose media time 0 is at this time.
pub fn recorded_at(path: &Path, epoch_us: i64) -> Result<Vec<RecordedSegment>> {
    let open = OpenSource {
        epoch_us,
        ..file(path)
    };
    let played = play_all(&open, recording(0));
    played.end.as_ref().expect("plays to its end");
    ensure!(refusals(&played.reports).is_empty());
    Ok(segments(&played.reports).into_iter().cloned().collect())
}

/// A file whose media time 0 is at a known time.
fn fixed(path: &Path) -> OpenSource {
    OpenSource {
        epoch_us: EPOCH_US,
        ..file(path)
    }
}

/// Tests of one source: how it is made, which streams its recording has, and whether its sound is taken as it is.
struct Case {
    name: &'static str,
    options: &'static [&'static str],
    codecs: &'static [&'static str],
    same_sound: bool,
}

const fn case(
    name: &'static str,
    options: &'static [&'static str],
    codecs: &'static [&'static str],
    same_sound: bool,
) -> Case {
    Case {
        name,
        options,
        codecs,
        same_sound,
    }
}

const SOUND: [&str; 4] = ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"];

#[rustfmt::skip]
const CASES: &[Case] = &[
    case("b-frames.mp4", &["-c:v", "libx264", "-bf", "3", "-g", "50", "-c:a", "aac"], &["h264", "aac"], true),
    case("plain.mkv", &["-c:v", "libx264", "-bf", "0", "-g", "25", "-c:a", "aac", "-ac", "2"], &["h264", "aac"], true),
    case("ntsc.mp4", &["-r", "30000/1001", "-c:v", "libx264", "-g", "60", "-c:a", "aac"], &["h264", "aac"], true),
    case("broadcast.ts", &["-c:v", "libx264", "-g", "50", "-c:a", "aac"], &["h264", "aac"], true),
    case("long-groups.mp4", &["-c:v", "libx264", "-g", "250", "-c:a", "aac"], &["h264", "aac"], true),
    case("open-groups.mp4", &["-c:v", "libx264", "-x264-params", "open-gop=1:keyint=50:bframes=3", "-c:a", "aac"], &["h264", "aac"], true),
    case("hevc.mp4", &["-c:v", "libx265", "-g", "50", "-x265-params", "log-level=error:open-gop=0", "-c:a", "aac"], &["hevc", "aac"], true),
    case("hevc-open.mkv", &["-c:v", "libx265", "-g", "50", "-x265-params", "log-level=error", "-c:a", "aac"], &["hevc", "aac"], true),
    case("silent.mp4", &["-c:v", "libx264", "-g", "50", "-an"], &["h264"], true),
    case("radio.m4a", &["-vn", "-c:a", "aac"], &["aac"], true),
    case("opus.mkv", &["-c:v", "libx264", "-g", "50", "-c:a", "libopus"], &["h264", "aac"], false),
    case("mp3.mp4", &["-c:v", "libx264", "-g", "50", "-c:a", "libmp3lame"], &["h264", "aac"], false),
    case("telephone.mkv", &["-c:v", "libx264", "-g", "50", "-ar", "8000", "-c:a", "pcm_mulaw"], &["h264", "aac"], false),
    case("radio.flv", &["-vn", "-ar", "44100", "-c:a", "libmp3lame"], &["aac"], false),
];

#[test]
fn recordings_are_the_source_cut_into_segments_that_others_read() -> Result<()> {
    let dir = tempdir()?;
    for case in CASES {
        let path = dir.path().join(case.name);
        make(&path, case.options)?;
        check(case, &path, dir.path()).context(case.name)?;
    }
    Ok(())
}

/// A clip of 14 s with a test picture and a tone.
pub fn make(path: &Path, options: &[&str]) -> Result<()> {
    let mut all = SOUND.to_vec();
    all.extend_from_slice(&["-t", "14", "-pix_fmt", "yuv420p", "-preset", "veryfast"]);
    all.extend_from_slice(options);
    clip(path, "testsrc2=size=320x240:rate=25", &all)
}

fn check(case: &Case, path: &Path, dir: &Path) -> Result<()> {
    let segments = recorded(path)?;
    ensure!(segments.len() >= 2, "{} segments", segments.len());
    check_times(&segments, 14 * SECOND)?;
    for segment in &segments {
        check_segment(segment, case.name, case.codecs, dir)?;
    }
    let whole = dir.join("whole.ts");
    join(&segments, &whole)?;
    if case.codecs != ["aac"] {
        let pictures = |path: &Path| frames(path, &["-map", "0:v", "-fps_mode", "passthrough"]);
        same(&pictures(path)?, &pictures(&whole)?).context("pictures")?;
    }
    if case.same_sound && case.codecs.contains(&"aac") {
        let sound = |path: &Path| {
            frames(
                path,
                &["-map", "0:a", "-c", "copy", "-bsf:a", "aac_adtstoasc"],
            )
        };
        let (source, recorded) = (sound(path)?, sound(&whole)?);
        // What lies before the first picture is how the encoder settles, and containers may cut off the end.
        let at = source.iter().position(|hash| *hash == recorded[0]);
        let at = at.filter(|at| *at <= 4).context("it begins elsewhere")?;
        ensure!(
            source.len() - at - recorded.len() <= 2,
            "{} {}",
            source.len(),
            recorded.len()
        );
        same(&source[at..at + recorded.len()], &recorded).context("sound")?;
    }
    Ok(())
}

/// Segments follow each other without hole or overlap, from the start to the end.
fn check_times(segments: &[RecordedSegment], length_us: i64) -> Result<()> {
    let first = segments.first().context("a segment")?;
    ensure!(
        first.start_position_us.abs() < SECOND / 10,
        "{}",
        first.start_position_us
    );
    let mut end_us = first.start_position_us;
    for segment in segments {
        ensure!(
            segment.start_position_us == end_us,
            "{} {end_us}",
            segment.start_position_us
        );
        ensure!(segment.duration_us > 0);
        end_us += segment.duration_us;
    }
    ensure!((end_us - length_us).abs() < SECOND / 10, "ends at {end_us}");
    Ok(())
}

/// Others read it, say nothing about it, and find the same times in it.
fn check_segment(segment: &RecordedSegment, name: &str, codecs: &[&str], dir: &Path) -> Result<()> {
    let path = dir.join(format!("{name}.segment.ts"));
    std::fs::write(&path, &segment.ts)?;
    let found = probe(&path)?;
    let streams = found["streams"].as_array().context("streams")?;
    let names: Vec<_> = streams
        .iter()
        .filter_map(|s| s["codec_name"].as_str())
        .collect();
    ensure!(names == codecs, "{names:?}");
    let medium = if codecs == ["aac"] { "audio" } else { "video" };
    let packets = found["packets_and_frames"]
        .as_array()
        .or(found["packets"].as_array())
        .context("packets")?;
    let mut times = Vec::new();
    let mut decoded = f64::MIN;
    for packet in packets
        .iter()
        .filter(|p| p["type"] != "frame" && p["codec_type"] == medium)
    {
        let at = |name: &str| packet[name].as_str().and_then(|t| t.parse::<f64>().ok());
        times.push(at("pts_time").context("a time")?);
        let dts = at("dts_time").context("a time")?;
        ensure!(dts > decoded, "{dts} after {decoded}");
        decoded = dts;
    }
    let first = times.iter().copied().fold(f64::MAX, f64::min);
    let wraps = (1_i64 << 33) as f64 / 90_000.0;
    let wall = (EPOCH_US + segment.start_position_us) as f64 / 1e6;
    ensure!((wall % wraps - first).abs() < 0.001, "{first} for {wall}");
    let last = times.iter().copied().fold(f64::MIN, f64::max);
    let after = segment.duration_us as f64 / 1e6 - (last - first);
    ensure!(
        (0.0..0.15).contains(&after),
        "the last picture lasts {after}"
    );
    Ok(())
}

#[test]
fn whoever_goes_on_after_a_segment_records_the_same_ones() -> Result<()> {
    let dir = tempdir()?;
    for (name, options) in [
        (
            "b-frames.mp4",
            &["-c:v", "libx264", "-bf", "3", "-g", "30", "-c:a", "aac"][..],
        ),
        (
            "open.mp4",
            &[
                "-c:v",
                "libx265",
                "-g",
                "30",
                "-x265-params",
                "log-level=error",
                "-c:a",
                "aac",
            ],
        ),
        ("radio.m4a", &["-vn", "-c:a", "aac"]),
    ] {
        let path = dir.path().join(name);
        make(&path, options)?;
        let whole = recorded(&path)?;
        for (done, segment) in whole.iter().enumerate() {
            let end_us = segment.start_position_us + segment.duration_us;
            let mut open = fixed(&path);
            open.start_position_us = end_us;
            let rest = play_all(&open, recording(end_us));
            let rest = segments(&rest.reports);
            let expected: Vec<_> = whole.iter().skip(done + 1).collect();
            let times = |s: &[&RecordedSegment]| -> Vec<_> {
                s.iter()
                    .map(|s| (s.start_position_us, s.duration_us))
                    .collect()
            };
            assert_eq!(times(&rest), times(&expected), "{name} after {done}");
            ensure!(rest == expected, "{name} after {done}: bytes differ");
        }
    }
    Ok(())
}

#[test]
fn what_cannot_be_recorded_is_named_once() -> Result<()> {
    let dir = tempdir()?;
    for (name, options, expected, sound_only) in [
        (
            "vp9.webm",
            &[
                "-c:v",
                "libvpx-vp9",
                "-cpu-used",
                "8",
                "-deadline",
                "realtime",
                "-c:a",
                "libopus",
            ][..],
            "VP9",
            false,
        ),
        (
            "old.avi",
            &["-c:v", "mpeg4", "-c:a", "libmp3lame"],
            "MPEG-4",
            false,
        ),
        (
            "odd.mkv",
            &["-c:v", "libx264", "-c:a", "wavpack"],
            "audio/x-wavpack",
            true,
        ),
    ] {
        let path = dir.path().join(name);
        let mut all = SOUND.to_vec();
        all.extend_from_slice(&["-t", "5", "-pix_fmt", "yuv420p"]);
        all.extend_from_slice(options);
        clip(&path, "testsrc2=size=320x240:rate=25", &all)?;
        let played = play_all(&fixed(&path), recording(0));
        ensure!(played.end.is_ok(), "{name}: {:?}", played.end);
        played.opened().context(name)?;
        let refused = refusals(&played.reports);
        assert_eq!(refused.len(), 1, "{name}");
        assert_eq!(refused[0].sound_only, sound_only, "{name}: {refused:?}");
        ensure!(refused[0].reason.contains(expected), "{name}: {refused:?}");
        assert_eq!(segments(&played.reports).is_empty(), !sound_only, "{name}");
        let quiet = play_all(&fixed(&path), TakeFrom::default());
        ensure!(refusals(&quiet.reports).is_empty(), "{name}");
    }
    Ok(())
}

/// Waits for the next segment.
fn next(playing: &Playing) -> Result<RecordedSegment> {
    loop {
        match playing.reports.recv_timeout(sightline_testkit::LONG)? {
            Report::Segment(segment) => return Ok(segment),
            Report::Opened(_) => {}
            other => anyhow::bail!("unexpected: {other:?}"),
        }
    }
}

#[test]
fn a_camera_is_recorded_up_to_the_moment_it_is_stopped_or_goes_away() -> Result<()> {
    let dir = tempdir()?;
    for stopped in [true, false] {
        let server = RtspServer::start(&demo_clip())?;
        let open = OpenSource {
            epoch_us: EPOCH_US,
            ..camera(&server.url())
        };
        let playing = Playing::start(open, recording(0));
        let first = next(&playing)?;
        playing.control.take(recording(0));
        let started = std::time::Instant::now();
        let Playing {
            control,
            reports,
            thread,
        } = playing;
        if stopped {
            control.stop();
        } else {
            drop(server);
        }
        let ended = thread.join().expect("no panic");
        assert_eq!(ended.is_ok(), stopped);
        ensure!(started.elapsed() < sightline_testkit::LONG);
        let rest: Vec<_> = reports.try_iter().collect();
        let mut all = vec![&first];
        all.extend(segments(&rest));
        assert_eq!(all.len(), 2);
        for segment in &all {
            check_segment(segment, "camera", &["h264", "aac"], dir.path())?;
        }
        assert_eq!(
            first.start_position_us + first.duration_us,
            all[1].start_position_us
        );
    }
    Ok(())
}

#[test]
fn recording_is_switched_on_and_off_while_it_plays() -> Result<()> {
    let mut open = fixed(&demo_clip());
    open.real_time = true;
    let playing = Playing::start(open, TakeFrom::default());
    ensure!(matches!(playing.reports.recv()?, Report::Opened(_)));
    playing.control.take(recording(3 * SECOND));
    let first = next(&playing)?;
    // A keyframe every 2 s.
    assert_eq!(
        (first.start_position_us, first.duration_us),
        (4 * SECOND, 4 * SECOND)
    );
    playing.control.take(TakeFrom::default());
    let second = next(&playing)?;
    assert_eq!(second.start_position_us, 8 * SECOND);
    ensure!(second.duration_us < 4 * SECOND, "{}", second.duration_us);
    playing.control.take(recording(0));
    let third = next(&playing)?;
    ensure!(third.start_position_us >= 8 * SECOND + second.duration_us);
    assert_eq!(third.start_position_us % (2 * SECOND), 0);
    playing.stop().expect("stopped");
    Ok(())
}
