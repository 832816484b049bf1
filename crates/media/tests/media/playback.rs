//! What is made of a recording: pictures of moments, and one MP4.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use sightline_media::{export, thumbnail};
use sightline_proto::internal::RecordedSegment;
use tempfile::tempdir;

use crate::inspect::frames;
use crate::recording::{make, recorded, recorded_at};
use crate::support::*;

#[test]
fn a_thumbnail_is_the_picture_shown_at_that_moment() -> Result<()> {
    let dir = tempdir()?;
    for (name, options) in [
        (
            "b-frames.mp4",
            &["-c:v", "libx264", "-bf", "3", "-g", "50", "-an"][..],
        ),
        (
            "hevc.mp4",
            &[
                "-c:v",
                "libx265",
                "-g",
                "50",
                "-x265-params",
                "log-level=error",
                "-an",
            ],
        ),
    ] {
        let path = dir.path().join(name);
        make(&path, options)?;
        let segments = recorded(&path)?;
        for segment in &segments {
            for offset_us in [200_000, 1_000_000, 1_030_000, segment.duration_us - 1000] {
                let jpeg = thumbnail(&segment.ts, offset_us, 160)?;
                // Pictures are 40 ms apart, the first at 0.
                let shown_us = (segment.start_position_us + offset_us) / 40_000 * 40_000;
                let off = |at_us| off_by(&path, at_us, &jpeg, (160, 120));
                let (right, before) = (off(shown_us)?, off(shown_us - 40_000)?);
                ensure!(
                    right < 6.0 && right < before,
                    "{name} {offset_us}: off by {right} of 255, by {before} from the one before"
                );
            }
        }
        let first = thumbnail(&segments[0].ts, 0, 160)?;
        ensure!(first == thumbnail(&segments[0].ts, -5 * SECOND, 160)?);
        thumbnail(&segments[0].ts, i64::MAX, 160)?;
    }
    Ok(())
}

#[test]
fn a_segment_without_pictures_has_no_thumbnail() -> Result<()> {
    let dir = tempdir()?;
    let path = dir.path().join("radio.m4a");
    make(&path, &["-vn", "-c:a", "aac"])?;
    let segments = recorded(&path)?;
    for (ts, reason) in [
        (&segments[0].ts[..], "no pictures"),
        (&segments[0].ts[1..], "no recorded segment"),
        (&[0x47; 188 * 3][..], "no pictures"),
        (&[][..], "no pictures"),
    ] {
        let failure = thumbnail(ts, 0, 160).expect_err("it has none");
        ensure!(failure.reason.contains(reason), "{failure}");
    }
    Ok(())
}

/// How far a JPEG is from the frame that ffmpeg decodes at that time.
fn off_by(path: &Path, time_us: i64, jpeg: &[u8], size: (usize, usize)) -> Result<f64> {
    let mut decoder = zune_jpeg::JpegDecoder::new(std::io::Cursor::new(jpeg));
    let ours = decoder.decode()?;
    let info = decoder.info().context("a decoded JPEG has a size")?;
    assert_eq!((info.width as usize, info.height as usize), size);
    let scale = format!("scale={}:{}:flags=area", size.0, size.1);
    off_from_ffmpeg(path, time_us, &ours, &scale)
}

fn exported(segments: &[&RecordedSegment], file: &Path) -> Result<i64> {
    let all: Vec<Bytes> = segments.iter().map(|s| s.ts.clone()).collect();
    let mut all = all.into_iter();
    Ok(export(move || all.next(), file)?)
}

/// Times in seconds of the packets of a medium.
fn times(path: &Path, medium: &str) -> Result<Vec<f64>> {
    let output = std::process::Command::new("ffprobe")
        .args([
            "-v",
            "warning",
            "-select_streams",
            medium,
            "-show_entries",
            "packet=pts_time",
            "-of",
            "csv=p=0",
        ])
        .arg(path)
        .output()
        .context("ffprobe")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && complaint.is_empty(),
        "ffprobe: {complaint}"
    );
    let listed = String::from_utf8(output.stdout)?;
    let mut times: Vec<f64> = listed
        .lines()
        .filter_map(|line| line.trim_end_matches(',').parse().ok())
        .collect();
    times.sort_by(f64::total_cmp);
    Ok(times)
}

#[test]
fn an_export_is_the_recording_in_one_file_with_its_holes() -> Result<()> {
    let dir = tempdir()?;
    for (name, options) in [
        (
            "b-frames.mp4",
            &["-c:v", "libx264", "-bf", "3", "-g", "50", "-c:a", "aac"][..],
        ),
        (
            "hevc.mp4",
            &[
                "-c:v",
                "libx265",
                "-g",
                "50",
                "-x265-params",
                "log-level=error",
                "-c:a",
                "aac",
            ],
        ),
        (
            "silent.mp4",
            &["-c:v", "libx264", "-g", "50", "-bf", "0", "-an"],
        ),
        ("radio.m4a", &["-vn", "-c:a", "aac"]),
    ] {
        let path = dir.path().join(name);
        make(&path, options)?;
        let segments = recorded(&path)?;
        check_export(&path, &segments, name, dir.path()).context(name)?;
    }
    Ok(())
}

fn check_export(source: &Path, segments: &[RecordedSegment], name: &str, dir: &Path) -> Result<()> {
    let file = dir.join("export.mp4");
    let all: Vec<_> = segments.iter().collect();
    let duration_us = exported(&all, &file)?;
    ensure!(
        (duration_us - 14 * SECOND).abs() < SECOND / 10,
        "{duration_us}"
    );
    let begin = std::fs::read(&file)?;
    let at = |name: &[u8]| begin.windows(4).position(|four| four == name);
    ensure!(at(b"moov") < at(b"mdat"), "the index comes last");
    let (has_video, has_audio) = (!name.contains("radio"), !name.contains("silent"));
    let hole: Vec<_> = [0, 2, 3].map(|at| &segments[at]).to_vec();
    let with_hole = dir.join("hole.mp4");
    exported(&hole, &with_hole)?;
    if has_video {
        let pictures = |path: &Path| frames(path, &["-map", "0:v", "-fps_mode", "passthrough"]);
        ensure!(pictures(source)? == pictures(&file)?, "pictures differ");
        check_hole(
            &times(&file, "v")?,
            &times(&with_hole, "v")?,
            segments,
            0.001,
        )?;
    }
    if has_audio {
        let sound = |path: &Path| frames(path, &["-map", "0:a", "-c", "copy"]);
        let (theirs, ours) = (sound(source)?, sound(&file)?);
        let at = theirs
            .iter()
            .position(|hash| *hash == ours[0])
            .context("its sound begins elsewhere")?;
        ensure!(at <= 4 && theirs.len() - at - ours.len() <= 2);
        ensure!(theirs[at..at + ours.len()] == ours, "sound differs");
        check_hole(
            &times(&file, "a")?,
            &times(&with_hole, "a")?,
            segments,
            0.022,
        )?;
    }
    Ok(())
}

/// What is there keeps its times.
fn check_hole(
    whole: &[f64],
    with_hole: &[f64],
    segments: &[RecordedSegment],
    off: f64,
) -> Result<()> {
    let start_us = segments[0].start_position_us;
    let from = (segments[1].start_position_us - start_us) as f64 / 1e6;
    let to = (segments[2].start_position_us - start_us) as f64 / 1e6;
    let left: Vec<_> = whole
        .iter()
        .filter(|at| **at < from - off || **at > to - off)
        .collect();
    ensure!(
        left.len().abs_diff(with_hole.len()) <= 1,
        "{} {}",
        left.len(),
        with_hole.len()
    );
    let late = |times: &[f64]| times.iter().copied().find(|at| *at > (from + to) / 2.0);
    let (first, last) = (late(with_hole), with_hole.last().context("a time")?);
    ensure!(
        first.is_some_and(|first| (first - to).abs() < 0.03),
        "{first:?} {to}"
    );
    let end = whole.last().context("a time")?;
    ensure!(
        (last - end).abs() < 0.03 && whole[0].abs() < 0.03,
        "{last} {end}"
    );
    Ok(())
}

#[test]
fn an_export_goes_on_where_times_begin_again_and_where_sound_ends() -> Result<()> {
    let dir = tempdir()?;
    let (loud, silent) = (dir.path().join("loud.mp4"), dir.path().join("silent.mp4"));
    // More than waits for a track that has nothing.
    let large = [
        "-c:v",
        "libx264",
        "-g",
        "50",
        "-b:v",
        "12M",
        "-minrate",
        "12M",
        "-bufsize",
        "6M",
        "-x264-params",
        "nal-hrd=cbr",
    ];
    make(&loud, &[&large[..], &["-c:a", "aac"]].concat())?;
    make(&silent, &[&large[..], &["-an"]].concat())?;
    // 33 bits of 90 kHz are over after 95,443.717 s; here at 7 s, and a day passes before the sound comes back.
    let (round_us, day_us) = ((1_i64 << 33) * 100 / 9, 86_400 * SECOND);
    let epoch_us = 18_000 * round_us - 7 * SECOND;
    let parts = [
        recorded_at(&loud, epoch_us)?,
        recorded_at(&silent, epoch_us + 14 * SECOND)?,
        recorded_at(&loud, epoch_us + day_us)?,
    ];
    let file = dir.path().join("export.mp4");
    let all: Vec<_> = parts.iter().flatten().collect();
    let duration_us = exported(&all, &file)?;
    ensure!(
        (duration_us - day_us - 14 * SECOND).abs() < SECOND / 10,
        "{duration_us}"
    );
    let (pictures, sound) = (times(&file, "v")?, times(&file, "a")?);
    for (number, at) in pictures.iter().enumerate() {
        let expected = match number {
            0..700 => number as f64 / 25.0,
            _ => 86_400.0 + (number - 700) as f64 / 25.0,
        };
        ensure!((at - expected).abs() < 0.002, "{number}: {at}");
    }
    assert_eq!(pictures.len(), 1050);
    let (before, after): (Vec<f64>, Vec<f64>) = sound.iter().partition(|at| **at < 43_200.0);
    ensure!((before[before.len() - 1] - 14.0).abs() < 0.05, "{before:?}");
    ensure!((after[0] - 86_400.0).abs() < 0.03, "{}", after[0]);
    Ok(())
}

#[test]
fn nothing_can_be_exported_of_nothing() -> Result<()> {
    let dir = tempdir()?;
    let file = dir.path().join("none.mp4");
    let failure = export(|| None, &file).expect_err("there is nothing");
    ensure!(failure.reason.contains("nothing is recorded"), "{failure}");
    let mut one = Some(Bytes::from_static(b"no segment"));
    let failure = export(move || one.take(), &file).expect_err("no segment");
    ensure!(failure.reason.contains("no recorded segment"), "{failure}");
    Ok(())
}
