//! Texts per second of the embedder at a batch size, for `benches/embedding`:
//! `bench_embedding ONNXRUNTIME MODEL TEXTS.json THREADS BATCH SECONDS`. The last line is one JSON object.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sightline_inference::embed::TextEmbedder;
use sightline_inference::{Embedder, onnx};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [runtime, model, texts, threads, batch, seconds] = arguments.as_slice() else {
        anyhow::bail!("ONNXRUNTIME MODEL TEXTS.json THREADS BATCH SECONDS");
    };
    onnx::init(Path::new(runtime))?;
    let model = TextEmbedder::load(Path::new(model), threads.parse()?)?;
    let texts: Vec<String> = serde_json::from_slice(&std::fs::read(texts)?)?;
    let batches: Vec<_> = texts.chunks_exact(batch.parse()?).collect();
    let length = Duration::from_secs_f64(seconds.parse()?);
    model.embed(batches.first().context("too few texts")?)?;
    let (mut done, mut last) = (0, Vec::new());
    let (started, cpu) = (Instant::now(), cpu_seconds()?);
    while started.elapsed() < length {
        for batch in &batches {
            last = model.embed(batch)?.swap_remove(0);
            done += batch.len();
        }
    }
    let (took, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
    let line = serde_json::json!({
        "texts_per_second": f64::from(u32::try_from(done)?) / took,
        "texts_per_cpu_second": f64::from(u32::try_from(done)?) / cpu,
        "last": last[..4],
    });
    println!("{line}");
    Ok(())
}

/// CPU time that this process took so far, user and system.
fn cpu_seconds() -> Result<f64> {
    const TICKS: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').context("no fields")?;
    let mut times = fields.split_whitespace().skip(11);
    let mut next = || -> Result<f64> { Ok(times.next().context("no times")?.parse()?) };
    Ok((next()? + next()?) / TICKS)
}
