//! Windows out of a recording, beside those that were sampled when it passed.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use sightline_media::{Recorded, moment, slot_start, thumbnail};
use sightline_proto::internal::child_report::Report;
use sightline_proto::internal::{OpenSource, RecordedSegment, SampledWindow, Sampling, TakeFrom};
use tempfile::tempdir;

use crate::recording::make;
use crate::support::*;

const EPOCH_US: i64 = 1_764_000_000_123_456;

#[test]
fn the_frames_of_recorded_windows_are_those_that_were_sampled() -> Result<()> {
    let dir = tempdir()?;
    let (b_frames, rare) = (dir.path().join("b.mp4"), dir.path().join("rare.mp4"));
    make(&b_frames, &["-c:v", "libx264", "-bf", "3", "-g", "25"])?;
    make(&rare, &["-c:v", "libx264", "-bf", "3", "-g", "200"])?;
    let fine = sampling(2 * SECOND, 8);
    let odd = sampling(3 * SECOND, 7);
    for (clip, samplings) in [
        (demo_clip(), [USUAL, fine]),
        (b_frames, [USUAL, odd]),
        (rare, [USUAL, fine]),
    ] {
        for sampling in samplings {
            check(&clip, sampling).with_context(|| format!("{clip:?} {sampling:?}"))?;
        }
    }
    Ok(())
}

fn check(clip: &Path, sampling: Sampling) -> Result<()> {
    let open = OpenSource {
        epoch_us: EPOCH_US,
        ..file(clip)
    };
    let wanted = TakeFrom {
        record: true,
        ..take(&[(sampling, 0)])
    };
    let played = play_all(&open, wanted);
    let segments: Vec<_> = played.reports.iter().filter_map(segment).collect();
    ensure!(segments.len() > 1, "{} segments", segments.len());
    for window in played.windows() {
        let found = again(&segments, window, &sampling)?;
        let expected: Vec<_> = window.frames.iter().map(|f| f.time_us).collect();
        let times: Vec<_> = found.iter().map(|(time_us, _)| *time_us).collect();
        // Times in a recording are rounded to ticks of 11 us.
        let near = |(a, b): (&i64, &i64)| (a - b).abs() < 12;
        ensure!(
            times.len() == expected.len() && times.iter().zip(&expected).all(near),
            "window {}: {times:?} instead of {expected:?}",
            window.window
        );
        let same = window.frames.iter().zip(&found);
        let differ = same
            .filter(|(frame, (_, jpeg))| frame.jpeg != *jpeg)
            .count();
        ensure!(
            differ == 0,
            "{differ} pictures of window {} differ",
            window.window
        );
    }
    Ok(())
}

fn segment(report: &Report) -> Option<&RecordedSegment> {
    match report {
        Report::Segment(segment) => Some(segment),
        _ => None,
    }
}

/// Positions and JPEGs of a window's frames, out of the recording.
fn again(
    segments: &[&RecordedSegment],
    window: &SampledWindow,
    sampling: &Sampling,
) -> Result<Vec<(i64, Vec<u8>)>> {
    let start_us = EPOCH_US + window.window as i64 * sampling.window_us;
    let mut frames = Vec::new();
    for slot in 0..sampling.frame_count {
        let at_us = slot_start(start_us, sampling, slot) - EPOCH_US;
        let within = segments.partition_point(|s| s.start_position_us + s.duration_us <= at_us);
        let near = &segments[within.saturating_sub(1)..(within + 2).min(segments.len())];
        let near: Vec<_> = near.iter().map(|s| recorded(s)).collect();
        if let Some(moment) = moment(&near, start_us, sampling, slot, false) {
            let jpeg = thumbnail(near[moment.segment].ts, moment.offset_us, 512)?;
            frames.push((moment.time_us - EPOCH_US, jpeg));
        }
    }
    Ok(frames)
}

fn recorded(segment: &RecordedSegment) -> Recorded<'_> {
    Recorded {
        start_us: EPOCH_US + segment.start_position_us,
        ts: &segment.ts,
    }
}
