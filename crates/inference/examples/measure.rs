//! What the demo models cost here: time of each step and memory with all of them loaded.
//!
//! `cargo run --release -p sightline-inference --example measure -- LIBRARY PRECISION THREADS`

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use sightline_inference::embed::TextEmbedder;
use sightline_inference::vlm::{View, Vlm, VlmOptions};
use sightline_inference::whisper::{SAMPLE_RATE, Whisper};
use sightline_inference::{Embedder, RgbImage, Speech, Transcriber, onnx};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |name| {
        arguments
            .next()
            .with_context(|| format!("{name} is missing"))
    };
    let (library, precision) = (next("LIBRARY")?, next("PRECISION")?.parse()?);
    let threads = next("THREADS")?.parse()?;
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let models = crate_root.join("../../models");
    println!("{precision}, {threads} threads");
    memory("start")?;
    onnx::init(Path::new(&library))?;
    memory("onnx runtime")?;
    let vlm = Vlm::load(
        &models.join("demo-vlm"),
        &VlmOptions {
            threads,
            precision,
            ..VlmOptions::default()
        },
    )?;
    memory("+ vision-language model")?;
    let embedder = TextEmbedder::load(&models.join("all-minilm-l6-v2"), threads)?;
    memory("+ text embedder")?;
    let whisper = Whisper::load(&models.join("demo-whisper/ggml-demo.en-q5_1.bin"), threads)?;
    memory("+ whisper")?;

    let jpeg = fs::read(crate_root.join("tests/data/street.jpg"))?;
    let frame = RgbImage::from_jpeg(&jpeg)?;
    let frames = [frame.clone(), frame.clone()];
    let window = vlm.window(&frames, 5.0, View::Video)?;
    time("decode a JPEG of 640x360", || {
        RgbImage::from_jpeg(&jpeg).map(drop)
    })?;
    time("scale and encode a frame", || {
        vlm.image_features(&frame).map(drop)
    })?;
    time("open a window of 2 frames", || {
        vlm.window(&frames, 5.0, View::Video).map(drop)
    })?;
    time("judge an event", || {
        window
            .judge("Detect pedestrians crossing the zebra")
            .map(drop)
    })?;
    let tokens = window.describe_ids("Describe the scene", 96)?.len();
    let name = format!("describe in {tokens} tokens");
    time(&name, || {
        window.describe("Describe the scene", 96).map(drop)
    })?;
    memory("after windows")?;

    let text = ["A white car is moving fast to the left.".to_owned()];
    time("embed a sentence", || embedder.embed(&text).map(drop))?;
    let silence = vec![0.0; 5 * SAMPLE_RATE];
    time("transcribe 5 s of silence", || {
        whisper.transcribe(&silence, &Speech::default()).map(drop)
    })?;
    memory("at the end")
}

/// Prints the median of 21 runs after one to warm up.
fn time<E: Into<anyhow::Error>>(name: &str, mut run: impl FnMut() -> Result<(), E>) -> Result<()> {
    run().map_err(Into::into)?;
    let mut times = Vec::new();
    for _ in 0..21 {
        let start = Instant::now();
        run().map_err(Into::into)?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    println!(
        "{name:32} {:8.2} ms",
        times[times.len() / 2].as_secs_f64() * 1000.0
    );
    Ok(())
}

/// Prints this process's resident memory now and at its highest (Linux).
fn memory(when: &str) -> Result<()> {
    let status = fs::read_to_string("/proc/self/status")?;
    let kilobytes = |field: &str| -> Option<u64> {
        let line = status.lines().find(|line| line.starts_with(field))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    let megabytes = |field| kilobytes(field).unwrap_or(0) / 1024;
    println!(
        "{when:32} {:5} MB, peak {} MB",
        megabytes("VmRSS"),
        megabytes("VmHWM")
    );
    Ok(())
}
