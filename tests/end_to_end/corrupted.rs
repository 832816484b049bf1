//! Damaged clips, read by the real child: each ends in time, and takes nothing with it.
//!
//! Seeds make them, so that any of them can be looked at again.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use prost::Message;
use sightline_proto::internal::child_command::Command as Body;
use sightline_proto::internal::child_report::Report;
use sightline_proto::internal::{
    ChildCommand, ChildReport, OpenSource, Sampling, TakeFrom, WantedSampling,
};
use sightline_testkit::dice::Dice;
use sightline_testkit::{repository, sample_clip};

/// Far above what reading a clip of 6 s takes.
const IN_TIME: Duration = Duration::from_secs(60);
/// Children at once: as many as the smallest machine has cores.
const AT_ONCE: usize = 2;

/// Clips of 6 s in both containers, and in both codings.
fn clips(dir: &Path) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let hevc = [
        "-c:v",
        "libx265",
        "-preset",
        "ultrafast",
        "-x265-params",
        "keyint=20:log-level=error",
    ];
    let made = [
        ("clip.mp4", &["-c", "copy"][..]),
        ("clip.ts", &["-c", "copy"]),
        ("hevc.mp4", &hevc),
        ("hevc.ts", &hevc),
    ];
    let make = |(name, options): (&'static str, &[&str])| {
        let path = dir.join(name);
        let made = Command::new("ffmpeg")
            .args(["-v", "error", "-nostdin", "-i"])
            .arg(sample_clip())
            .args(["-t", "6"])
            .args(options)
            .arg(&path)
            .status()?;
        ensure!(made.success(), "{name}: {made}");
        Ok((name, std::fs::read(path)?))
    };
    made.into_iter().map(make).collect()
}

/// The same with bits flipped, cut off, or with stretches moved, doubled, blanked or left out.
fn damaged(seed: u64, clip: &[u8]) -> Vec<u8> {
    let mut dice = Dice::new(seed);
    let mut bytes = clip.to_vec();
    for _ in 0..=dice.below(3) {
        let from = dice.below(bytes.len().max(1));
        let to = (from + 1 + dice.below(4000)).min(bytes.len());
        let other = dice.below(bytes.len().max(1));
        match dice.below(6) {
            0 => {
                for _ in 0..=dice.below(400) {
                    let at = dice.below(bytes.len().max(1));
                    bytes[at] ^= 1 << dice.below(8);
                }
            }
            // What leads through the rest is at its start: there a bit matters.
            1 => {
                for _ in 0..=dice.below(8) {
                    let at = dice.below(bytes.len().min(4000));
                    bytes[at] ^= 1 << dice.below(8);
                }
            }
            2 => bytes.truncate(from.max(1)),
            3 => bytes[from..to].fill(dice.below(256) as u8),
            4 => drop(bytes.drain(from..to)),
            _ => {
                let stretch = bytes[from..to].to_vec();
                bytes.splice(other..other, stretch);
            }
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
    bytes
}

/// Everything is wanted of it.
fn commands(path: &Path) -> Vec<u8> {
    let open = OpenSource {
        url: format!("file://{}", path.display()),
        frame_edge: 512,
        ..OpenSource::default()
    };
    let sampling = Sampling {
        window_us: 2_000_000,
        frame_count: 2,
    };
    let take = TakeFrom {
        samplings: vec![WantedSampling {
            sampling: Some(sampling),
            first_window: 0,
        }],
        audio: true,
        record: true,
        measure_pictures: true,
        measure_sound: true,
        ..TakeFrom::default()
    };
    let command = |command| ChildCommand {
        command: Some(command),
    };
    [Body::Open(open), Body::Take(take)]
        .map(|body| command(body).encode_length_delimited_to_vec())
        .concat()
}

/// How a child ended with a file.
enum End {
    /// It said how: the kinds of all it said.
    Told(&'static str),
    /// It died, and said nothing of it.
    Died(String),
}

/// Lets a child read a file. It must end in time.
fn read(path: &Path) -> Result<End> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sightline"))
        .arg("ingest-child")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut stdin = child.stdin.take().context("a pipe")?;
    let mut stdout = child.stdout.take().context("a pipe")?;
    stdin.write_all(&commands(path))?;
    let reading = std::thread::spawn(move || {
        let mut said = Vec::new();
        stdout.read_to_end(&mut said).map(|_| said)
    });
    let deadline = Instant::now() + IN_TIME;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            anyhow::bail!("{} is read without an end", path.display());
        }
        std::thread::park_timeout(Duration::from_millis(5));
    };
    let said = reading.join().expect("no panic")?;
    Ok(match last(&said) {
        Some(Report::Ended(_)) => End::Told("ended"),
        Some(Report::Failed(failed)) => {
            ensure!(!failed.reason.is_empty(), "a reason");
            End::Told("failed")
        }
        _ => End::Died(status.to_string()),
    })
}

/// The last report that came whole.
fn last(said: &[u8]) -> Option<Report> {
    let mut rest = said;
    let mut last = None;
    while let Ok(report) = ChildReport::decode_length_delimited(&mut rest) {
        last = report.report;
        if rest.is_empty() {
            break;
        }
    }
    last
}

/// Reads as many damaged clips, and says how they ended.
fn read_all(count: usize) -> Result<()> {
    let dir = tempfile::tempdir_in(repository().join("target")).or_else(|_| tempfile::tempdir())?;
    let clips = clips(dir.path())?;
    let next = AtomicUsize::new(0);
    let [ended, failed] = [const { AtomicUsize::new(0) }; 2];
    let one = |worker: usize| -> Result<Vec<String>> {
        let mut died = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= count {
                return Ok(died);
            }
            let (name, clip) = &clips[seed % clips.len()];
            let path: PathBuf = dir.path().join(format!("{worker}-{name}"));
            std::fs::write(&path, damaged(seed as u64, clip))?;
            match read(&path).with_context(|| format!("seed {seed} of {name}"))? {
                End::Told("ended") => ended.fetch_add(1, Ordering::Relaxed),
                End::Told(_) => failed.fetch_add(1, Ordering::Relaxed),
                End::Died(status) => {
                    died.push(format!("seed {seed} of {name}: {status}"));
                    0
                }
            };
        }
    };
    let died = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|w| scope.spawn(move || one(w))).collect();
        let died = workers.into_iter().map(|w| w.join().expect("no panic"));
        died.collect::<Result<Vec<_>>>()
    })?
    .concat();
    println!(
        "{count} damaged clips: {ended:?} ended, {failed:?} failed with a reason, {} killed their child: {died:#?}",
        died.len()
    );
    // A decoder may break over one of them, and the next file is read all the same; more would be a fault of ours.
    ensure!(died.len() * 50 <= count, "{died:#?}");
    Ok(())
}

#[test]
fn damaged_clips_end_in_time_and_cost_their_child_at_most() -> Result<()> {
    read_all(50)
}

#[test]
fn a_child_has_bounds_for_memory_and_descriptors() -> Result<()> {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sightline"))
        .arg("ingest-child")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().context("a pipe")?;
    let mut stdout = child.stdout.take().context("a pipe")?;
    stdin.write_all(&commands(&sample_clip().canonicalize()?))?;
    // What it says first, it says when it reads.
    stdout.read_exact(&mut [0; 2])?;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id()))?;
    let open = std::fs::read_dir(format!("/proc/{}/fd", child.id()))?.count();
    child.kill()?;
    child.wait()?;
    for (what, most) in [
        ("Max address space", "4294967296"),
        ("Max open files", "256"),
    ] {
        let line = limits
            .lines()
            .find(|line| line.starts_with(what))
            .context(what)?;
        let bounds: Vec<_> = line[what.len()..].split_whitespace().take(2).collect();
        assert_eq!(bounds, [most, most], "{what}, soft and hard");
    }
    ensure!(open < 64, "{open} descriptors are open");
    Ok(())
}

mod faults {
    mod long {
        #[test]
        fn five_hundred_damaged_clips_end_in_time_and_cost_their_child_at_most()
        -> anyhow::Result<()> {
            crate::corrupted::read_all(500)
        }
    }
}
