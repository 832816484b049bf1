//! Playing a source to its end and collecting what it yields.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use sightline_media::{Control, Failure, Policy, play};
use sightline_proto::internal::child_report::Report;
use sightline_proto::internal::{
    Ended, OpenSource, Opened, SampledWindow, Sampling, TakeFrom, Utterance, WantedSampling,
};
use sightline_service::clock::SystemClock;

pub const SECOND: i64 = 1_000_000;
/// Two frames of every five seconds, as the demo samples.
pub const USUAL: Sampling = sampling(5 * SECOND, 2);

pub const fn sampling(window_us: i64, frame_count: u32) -> Sampling {
    Sampling {
        window_us,
        frame_count,
    }
}

/// What a source yielded.
pub struct Played {
    pub reports: Vec<Report>,
    pub end: Result<Ended, Failure>,
}

impl Played {
    pub fn opened(&self) -> Result<&Opened> {
        match self.reports.first() {
            Some(Report::Opened(opened)) => Ok(opened),
            other => anyhow::bail!("the first report is {other:?}"),
        }
    }

    pub fn windows(&self) -> Vec<&SampledWindow> {
        let windows = self.reports.iter();
        windows
            .filter_map(|report| match report {
                Report::Window(window) => Some(window),
                _ => None,
            })
            .collect()
    }

    pub fn utterances(&self) -> Vec<&Utterance> {
        let utterances = self.reports.iter();
        utterances
            .filter_map(|report| match report {
                Report::Utterance(utterance) => Some(utterance),
                _ => None,
            })
            .collect()
    }

    /// Number, end and frame times in seconds of the windows of a sampling.
    pub fn times(&self, sampling: &Sampling) -> Vec<(u64, f64, Vec<f64>)> {
        let seconds = |us: i64| us as f64 / 1e6;
        self.windows()
            .into_iter()
            .filter(|w| w.sampling.as_ref() == Some(sampling))
            .map(|w| {
                let frames = w.frames.iter().map(|f| seconds(f.time_us));
                (w.window, seconds(w.end_position_us), frames.collect())
            })
            .collect()
    }

    pub fn failure(&self) -> &Failure {
        self.end.as_ref().expect_err("it fails")
    }
}

/// Takes these samplings from these windows on, and no audio.
pub fn take(samplings: &[(Sampling, u64)]) -> TakeFrom {
    let wanted = |(sampling, first_window): &(Sampling, u64)| WantedSampling {
        sampling: Some(*sampling),
        first_window: *first_window,
    };
    TakeFrom {
        samplings: samplings.iter().map(wanted).collect(),
        ..TakeFrom::default()
    }
}

/// A file, played as fast as possible.
pub fn file(path: &Path) -> OpenSource {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    OpenSource {
        url: format!("file://{}", path.display()),
        frame_edge: 512,
        ..OpenSource::default()
    }
}

/// Sources of this machine alone.
pub fn here() -> Policy {
    let allow = ["127.0.0.0/8", "::1/128"];
    Policy {
        allow: allow.map(|net| net.parse().expect("a range")).to_vec(),
    }
}

/// Plays to the end.
pub fn play_all(open: &OpenSource, take: TakeFrom) -> Played {
    let reports = Arc::new(Mutex::new(Vec::new()));
    let control = Arc::new(Control::default());
    control.take(take);
    let collected = Arc::clone(&reports);
    let collect = Box::new(move |report| collected.lock().expect("no panic").push(report));
    let end = play(open, &here(), &control, Arc::new(SystemClock), collect);
    let reports = std::mem::take(&mut *reports.lock().expect("no panic"));
    Played { reports, end }
}

/// Plays, and steers by what comes: a change counts before what follows is read, however slow the machine is. Ends when it
/// is stopped so.
pub fn play_steered(
    open: &OpenSource,
    take: TakeFrom,
    mut steer: impl FnMut(Report, &Control) + Send + 'static,
) -> Result<Ended, Failure> {
    let control = Arc::new(Control::default());
    control.take(take);
    let (steered, steer) = (
        Arc::clone(&control),
        Mutex::new(move |report, control: &Control| steer(report, control)),
    );
    let told = Box::new(move |report| steer.lock().expect("no panic")(report, &steered));
    play(open, &here(), &control, Arc::new(SystemClock), told)
}

/// A source that plays beside the test.
pub struct Playing {
    pub control: Arc<Control>,
    pub reports: Receiver<Report>,
    pub thread: std::thread::JoinHandle<Result<Ended, Failure>>,
}

impl Playing {
    pub fn start(open: OpenSource, take: TakeFrom) -> Self {
        let control = Arc::new(Control::default());
        control.take(take);
        let (sender, reports) = sync_channel(1000);
        let steered = Arc::clone(&control);
        let collect = Box::new(move |report| {
            let _ = sender.send(report);
        });
        let thread = std::thread::spawn(move || {
            play(&open, &here(), &steered, Arc::new(SystemClock), collect)
        });
        Self {
            control,
            reports,
            thread,
        }
    }

    /// Waits for its end, without stopping it.
    pub fn end(self) -> Result<Ended, Failure> {
        self.thread.join().expect("no panic")
    }

    pub fn stop(self) -> Result<Ended, Failure> {
        self.control.stop();
        self.end()
    }
}

/// The repository's sample clip.
pub fn demo_clip() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/media/street-demo.mp4")
}

/// Runs ffmpeg, quietly.
pub fn ffmpeg(args: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new("ffmpeg")
        .args(["-hide_banner", "-loglevel", "error", "-nostdin", "-y"])
        .args(args)
        .output()
        .context("ffmpeg")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ffmpeg {args:?}: {complaint}");
    Ok(output.stdout)
}

/// A clip of a test picture; `options` are ffmpeg's for the encoder and may add inputs.
pub fn clip(path: &Path, source: &str, options: &[&str]) -> Result<()> {
    let mut args = vec!["-f", "lavfi", "-i", source];
    args.extend_from_slice(options);
    args.push(path.to_str().context("a plain path")?);
    ffmpeg(&args).map(drop)
}

/// How far pixels are, on average, from those of the frame that ffmpeg decodes at that time, scaled by `scale` to the same size.
pub fn off_from_ffmpeg(path: &Path, time_us: i64, pixels: &[u8], scale: &str) -> Result<f64> {
    // Half a frame early: ffmpeg takes the first frame at or after the time.
    let seek = format!("{}", (time_us as f64 / 1e6 - 0.005).max(0.0));
    let path = path.to_str().context("a plain path")?;
    let theirs = ffmpeg(&[
        "-ss",
        &seek,
        "-i",
        path,
        "-frames:v",
        "1",
        "-vf",
        scale,
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-",
    ])?;
    assert_eq!(pixels.len(), theirs.len());
    let off: u64 = pixels
        .iter()
        .zip(&theirs)
        .map(|(a, b)| u64::from(a.abs_diff(*b)))
        .sum();
    Ok(off as f64 / pixels.len() as f64)
}
