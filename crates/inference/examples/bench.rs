//! What describing windows costs: one scenario a process, its figures as JSON on standard output (Linux).
//!
//! `bench LIBRARY MODEL_DIRECTORY PRECISION THREADS SCENARIO [WINDOWS] [FRAMES] [TOKENS]`
//!
//! `benches/inference/run` calls it and compares.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use sightline_inference::vlm::engine::{Engine, EngineOptions, Step, Task};
use sightline_inference::vlm::{View, Vlm, VlmOptions};
use sightline_inference::{Answer, Answers, Outcome, Prompt, RgbImage, onnx};

const PROMPTS: [&str; 3] = [
    "Describe the scene",
    "Describe activity and detect unusual behavior",
    "Describe the scene and highlight congestion",
];
const EVENTS: [&str; 5] = [
    "a white car moving fast",
    "Detect traffic congestion",
    "a person enters the restricted area",
    "Detect pedestrians crossing the zebra",
    "Detect a vehicle on fire",
];

/// CPU-seconds and tokens of each kind of step.
#[derive(Default)]
struct Costs {
    cpu: BTreeMap<&'static str, f64>,
    decoded: usize,
    last: f64,
}

struct Bench {
    engine: Engine,
    costs: Arc<Mutex<Costs>>,
    frames: Vec<RgbImage>,
    tokens: usize,
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |name| {
        arguments
            .next()
            .with_context(|| format!("{name} is missing"))
    };
    let (library, directory) = (next("LIBRARY")?, next("MODEL_DIRECTORY")?);
    let (precision, threads) = (next("PRECISION")?.parse()?, next("THREADS")?.parse()?);
    let scenario = next("SCENARIO")?;
    let mut number =
        |name, or| -> Result<usize> { Ok(next(name).ok().map_or(Ok(or), |n| n.parse())?) };
    let (windows, frames) = (number("WINDOWS", 8)?, number("FRAMES", 2)?);
    let tokens = number("TOKENS", 32)?;
    onnx::init(Path::new(&library))?;
    let options = VlmOptions {
        threads,
        precision,
        ..VlmOptions::default()
    };
    let model = Arc::new(Vlm::load(Path::new(&directory), &options)?);
    let start = |max_batch| Bench::start(&model, max_batch, frames, tokens);
    match scenario.as_str() {
        "captions" => start(8)?.captions(windows),
        "one_by_one" => start(1)?.captions(windows),
        "together" => start(8)?.questions(true),
        "separately" => start(8)?.questions(false),
        "unloaded" => start(8)?.verdicts(windows, false),
        "loaded" => start(8)?.verdicts(windows, true),
        other => bail!("no scenario {other}"),
    }
}

impl Bench {
    fn start(model: &Arc<Vlm>, max_batch: usize, frames: usize, tokens: usize) -> Result<Self> {
        let costs = Arc::new(Mutex::new(Costs::default()));
        let noted = Arc::clone(&costs);
        let options = EngineOptions {
            max_batch,
            ..EngineOptions::default()
        };
        let on_step = Box::new(move |step| {
            let mut costs = noted.lock().expect("no step panics");
            costs.note(step);
        });
        let engine = Engine::start(Arc::clone(model), options, Box::new(|| 0), on_step)?;
        let costs_from_here = cpu_seconds();
        costs.lock().expect("no step panics").last = costs_from_here;
        Ok(Self {
            engine,
            costs,
            frames: (0..frames).map(frame).collect(),
            tokens,
        })
    }

    fn submit(&self, stream: usize, questions: &[&str], prompts: &[&str]) -> Result<Answers> {
        let prompt = |text: &&str| Prompt {
            text: (*text).to_owned(),
            max_new_tokens: self.tokens,
        };
        Ok(self.engine.submit_task(&Task {
            stream: stream.to_string(),
            frames: self.frames.clone(),
            seconds: 5.0,
            view: View::Video,
            questions: questions.iter().map(|q| (*q).to_owned()).collect(),
            prompts: prompts.iter().map(prompt).collect(),
            expires_us: None,
        })?)
    }

    /// Windows of several streams that wait together, each for one description.
    fn captions(&self, windows: usize) -> Result<()> {
        let started = Instant::now();
        let waiting: Result<Vec<_>> = (0..windows)
            .map(|w| self.submit(w, &[], &PROMPTS[..1]))
            .collect();
        for answers in waiting? {
            finish(answers)?;
        }
        self.report(started)
    }

    /// Three prompts and five questions about one window, or about a window each.
    fn questions(&self, together: bool) -> Result<()> {
        let started = Instant::now();
        let mut waiting = Vec::new();
        if together {
            waiting.push(self.submit(0, &EVENTS, &PROMPTS)?);
        } else {
            for event in EVENTS {
                waiting.push(self.submit(0, &[event], &[])?);
                finish(waiting.pop().context("just submitted")?)?;
            }
            for prompt in PROMPTS {
                waiting.push(self.submit(0, &[], &[prompt])?);
                finish(waiting.pop().context("just submitted")?)?;
            }
        }
        for answers in waiting {
            finish(answers)?;
        }
        self.report(started)
    }

    /// The time from a window's coming to its verdict, with nothing else to do or beside descriptions without end.
    fn verdicts(&self, windows: usize, loaded: bool) -> Result<()> {
        let started = Instant::now();
        let mut captions = Vec::new();
        let mut times = Vec::new();
        for window in 0..windows {
            while loaded && self.engine.jobs() < 16 {
                captions.push(self.submit(1 + window % 4, &[], &PROMPTS[..1])?);
            }
            let asked = Instant::now();
            finish(self.submit(0, &EVENTS[..1], &[])?)?;
            times.push(asked.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        println!(
            "{{\"times\": {times:?}, \"wall\": {}}}",
            started.elapsed().as_secs_f64()
        );
        Ok(())
    }

    fn report(&self, started: Instant) -> Result<()> {
        let costs = self.costs.lock().expect("no step panics");
        println!(
            "{{\"wall\": {}, \"cpu\": {}, \"steps\": {:?}, \"decoded\": {}, \"peak_mb\": {}}}",
            started.elapsed().as_secs_f64(),
            costs.cpu.values().sum::<f64>(),
            costs.cpu,
            costs.decoded,
            peak_megabytes()?
        );
        Ok(())
    }
}

impl Costs {
    fn note(&mut self, step: Step) {
        let now = cpu_seconds();
        let name = match step {
            Step::Encode => "encode",
            Step::Prefill => "prefill",
            Step::Judge => "judge",
            Step::Begin => "begin",
            Step::Decode { sequences } => {
                self.decoded += sequences;
                "decode"
            }
            Step::Failed => "failed",
        };
        *self.cpu.entry(name).or_default() += now - self.last;
        self.last = now;
    }
}

fn finish(mut answers: Answers) -> Result<()> {
    while let Some(answer) = answers.blocking_next() {
        if let Answer::Ended(outcome) = answer {
            match outcome {
                Outcome::Answered => return Ok(()),
                other => bail!("a window ended as {other:?}"),
            }
        }
    }
    bail!("a window did not end")
}

/// As `frame` of models/parity/common.py.
fn frame(index: usize) -> RgbImage {
    let (width, height) = (640, 360);
    let level = |i: usize| {
        let (x, y, c) = (i / 3 % width, i / 3 / width, i % 3);
        let wave = (x * (3 + c) + y * (5 - c) + index * 40) / 4;
        let block = (x / 24 + y / 17 + index) % 5 * 30;
        ((wave + block + c * 60 + x * y / 97) % 256) as u8
    };
    let pixels = (0..width * height * 3).map(level).collect();
    RgbImage::new(width, height, pixels).expect("a frame")
}

/// CPU time of this process so far, to 10 ms.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after.split_whitespace().skip(11).take(2);
    ticks.filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn peak_megabytes() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    let kilobytes = line
        .and_then(|l| l.split_whitespace().nth(1))
        .context("VmHWM")?;
    Ok(kilobytes.parse::<u64>()? / 1024)
}
