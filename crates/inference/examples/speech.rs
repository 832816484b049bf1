//! Transcribes WAV files (16 kHz, mono, 16 bits) one after another: `speech MODEL THREADS FILE…`.
//!
//! `benches/inference/speech` times it. Longer files are cut into pieces of the longest that one call takes.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use sightline_inference::whisper::{MAX_SECONDS, SAMPLE_RATE, Whisper};
use sightline_inference::{Speech, Transcriber};

/// Bytes before the samples.
const HEADER: usize = 44;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().context("MODEL is missing")?;
    let threads = arguments.next().context("THREADS is missing")?.parse()?;
    let model = Whisper::load(Path::new(&file), threads)?;
    for wav in arguments {
        let bytes = std::fs::read(&wav)?;
        ensure!(
            bytes.get(36..40) == Some(b"data"),
            "{wav} has another header"
        );
        let samples = bytes[HEADER..].as_chunks::<2>().0.iter();
        let samples: Vec<f32> = samples
            .map(|s| f32::from(i16::from_le_bytes(*s)) / 32768.0)
            .collect();
        for piece in samples.chunks(MAX_SECONDS * SAMPLE_RATE) {
            for segment in model.transcribe(piece, &Speech::default())?.segments {
                println!("{}", segment.text);
            }
        }
    }
    Ok(())
}
