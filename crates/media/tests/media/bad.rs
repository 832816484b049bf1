//! What can't be read is refused with a reason, in bounded time.

use std::fs;

use anyhow::{Context, Result};
use tempfile::tempdir;

use crate::support::*;

/// The reason for which these bytes under this name are refused for good.
fn refused(name: &str, content: &[u8]) -> Result<String> {
    let dir = tempdir()?;
    let path = dir.path().join(name);
    fs::write(&path, content)?;
    let played = play_all(&file(&path), take(&[(USUAL, 0)]));
    let failure = played.failure();
    assert!(failure.permanent, "{name}: {failure}");
    assert!(
        !failure
            .reason
            .contains(path.to_str().context("a plain path")?)
    );
    Ok(failure.reason.clone())
}

#[test]
fn what_is_no_video_is_named() -> Result<()> {
    let text = b"This is not a video.\n".repeat(40);
    assert_eq!(
        refused("text.mp4", &text)?,
        "it is not a video: its content is text/plain"
    );
    assert_eq!(refused("empty.mp4", b"")?, "the file is empty");
    let noise: Vec<u8> = (0..100_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    assert!(refused("noise.mp4", &noise)?.starts_with("it is not a video"));
    // A playlist would lead to other places.
    let playlist = b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:10,\nhttp://127.0.0.1:1/a.ts\n";
    assert!(refused("list.mp4", playlist)?.starts_with("it is not a video"));
    Ok(())
}

#[test]
fn a_file_that_is_absent_or_a_folder_is_refused() -> Result<()> {
    let dir = tempdir()?;
    let absent = play_all(&file(&dir.path().join("absent.mp4")), take(&[]));
    assert!(absent.failure().permanent);
    assert!(absent.failure().reason.contains("No such file"));
    let folder = play_all(&file(dir.path()), take(&[]));
    assert_eq!(folder.failure().reason, "it is no regular file");
    Ok(())
}

#[test]
fn damaged_files_end_without_a_crash() -> Result<()> {
    let clip = fs::read(demo_clip())?;
    let dir = tempdir()?;
    let path = dir.path().join("damaged.mp4");
    // Its index is at the start: what is there of it is played.
    fs::write(&path, &clip[..clip.len() / 2])?;
    let cut = play_all(&file(&path), take(&[(USUAL, 0)]));
    assert!((5..12).contains(&cut.windows().len()), "{:?}", cut.end);
    // With the index at the end, half of a file is none.
    let late = dir.path().join("late.mp4");
    let (from, to) = (demo_clip(), late.to_str().context("a plain path")?);
    ffmpeg(&[
        "-i",
        from.to_str().context("a plain path")?,
        "-c",
        "copy",
        to,
    ])?;
    let whole = fs::read(&late)?;
    fs::write(&path, &whole[..whole.len() / 2])?;
    let cut = play_all(&file(&path), take(&[(USUAL, 0)]));
    assert!(cut.failure().permanent, "{:?}", cut.end);
    for seed in 1..=8u64 {
        let mut flipped = clip.clone();
        let mut state = seed;
        for _ in 0..400 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 16) as usize % flipped.len();
            flipped[at] ^= 1 << (state >> 60 & 7);
        }
        fs::write(&path, &flipped)?;
        let played = play_all(&file(&path), take(&[(USUAL, 0)]));
        if let Err(failure) = &played.end {
            assert!(!failure.reason.is_empty());
        }
    }
    Ok(())
}

#[test]
fn pictures_that_are_too_large_are_refused_before_they_are_decoded() -> Result<()> {
    let dir = tempdir()?;
    let path = dir.path().join("large.mkv");
    let encoder = ["-c:v", "libx264", "-preset", "ultrafast", "-frames:v", "1"];
    clip(&path, "color=size=8200x64:rate=1", &encoder)?;
    let played = play_all(&file(&path), take(&[(USUAL, 0)]));
    let failure = played.failure();
    assert!(failure.permanent);
    assert!(failure.reason.contains("8200x64"), "{failure}");
    Ok(())
}

#[test]
fn too_many_tracks_and_unknown_codecs_are_refused() -> Result<()> {
    let dir = tempdir()?;
    let path = dir.path().join("many.mkv");
    let mut options = vec!["-t", "1", "-c:v", "mpeg4"];
    options.extend(["-map", "0:v"].repeat(9));
    clip(&path, "testsrc2=size=64x64:rate=5", &options)?;
    let played = play_all(&file(&path), take(&[(USUAL, 0)]));
    assert_eq!(played.failure().reason, "it has more than 8 tracks");

    let path = dir.path().join("prores.mov");
    clip(
        &path,
        "testsrc2=size=64x64:rate=5",
        &["-t", "1", "-c:v", "prores"],
    )?;
    let played = play_all(&file(&path), take(&[(USUAL, 0)]));
    assert_eq!(
        played.failure().reason,
        "it has no track that can be decoded: video/x-prores is not supported"
    );
    Ok(())
}
