//! What ffmpeg and ffprobe say of a file.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use sightline_proto::internal::RecordedSegment;

use crate::support::ffmpeg;

/// Hashes of all frames.
pub fn frames(path: &Path, options: &[&str]) -> Result<Vec<String>> {
    let mut args = vec!["-copyts", "-i", path.to_str().context("a plain path")?];
    args.extend_from_slice(options);
    args.extend_from_slice(&["-f", "framemd5", "-"]);
    let listed = String::from_utf8(ffmpeg(&args)?)?;
    let hash = |line: &str| line.split(',').nth(5).unwrap_or_default().trim().to_owned();
    Ok(listed
        .lines()
        .filter(|l| !l.starts_with('#'))
        .map(hash)
        .collect())
}

pub fn same(expected: &[String], found: &[String]) -> Result<()> {
    ensure!(
        expected.len() == found.len() && !found.is_empty(),
        "{} instead of {}",
        found.len(),
        expected.len()
    );
    let differ = expected.iter().zip(found).position(|(a, b)| a != b);
    ensure!(differ.is_none(), "the first that differs is {differ:?}");
    Ok(())
}

/// What ffprobe finds, which must be without any complaint.
pub fn probe(path: &Path) -> Result<serde_json::Value> {
    // Pictures of an open group need the segment before: a decoder complains, whoever has cut it.
    let name = path.file_name().unwrap_or_default();
    let decoding: &[&str] = match name.to_str() {
        Some(name) if name.contains("open") => &[],
        _ => &["-show_frames", "-count_frames"],
    };
    let output = std::process::Command::new("ffprobe")
        .args(decoding)
        .args([
            "-v",
            "warning",
            "-of",
            "json",
            "-show_streams",
            "-show_packets",
        ])
        .arg(path)
        .output()
        .context("ffprobe")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && complaint.is_empty(),
        "ffprobe: {complaint}"
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

pub fn join(segments: &[RecordedSegment], path: &Path) -> Result<()> {
    let all: Vec<&[u8]> = segments.iter().map(|s| &*s.ts).collect();
    Ok(std::fs::write(path, all.concat())?)
}
