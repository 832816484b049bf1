//! Compares model directories with the golden answers that `models/parity` put into them.
//!
//! `cargo run --release -p sightline-inference --example parity -- LIBRARY PRECISION DIRECTORY...`
//!
//! fp32 has to give transformers' tokens, and the engine the same for all cases together; the other formats only have to
//! load and to be fed the same.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use sightline_inference::vlm::engine::{Engine, EngineOptions, Task};
use sightline_inference::vlm::{Precision, Vlm, VlmOptions};
use sightline_inference::{Answer, Prompt, onnx};

#[path = "../tests/inference/compare.rs"]
mod compare;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let library = arguments.next().context("LIBRARY is missing")?;
    let precision: Precision = arguments.next().context("PRECISION is missing")?.parse()?;
    onnx::init(Path::new(&library))?;
    let mut failures = 0;
    for directory in arguments {
        let directory = Path::new(&directory);
        let options = VlmOptions {
            threads: 2,
            precision,
            ..VlmOptions::default()
        };
        let model = Arc::new(Vlm::load(directory, &options)?);
        let cases = compare::cases(directory);
        for case in &cases {
            let different = case.differences(&model, precision == Precision::Fp32);
            let name = directory.file_name().unwrap_or_default().to_string_lossy();
            println!(
                "{name} {precision} {} {:?} {:?}: {}",
                case.view,
                case.sizes,
                case.prompt,
                if different.is_empty() {
                    "equal".to_owned()
                } else {
                    failures += 1;
                    different.join(", ")
                }
            );
        }
        let differ = together(&model, &cases)?;
        println!("{precision} together: {differ} of {} differ", cases.len());
        if precision == Precision::Fp32 {
            failures += differ;
        }
    }
    if failures > 0 {
        bail!("{failures} cases differ from transformers");
    }
    Ok(())
}

/// How many cases get another answer when the engine decodes all of them together.
fn together(model: &Arc<Vlm>, cases: &[compare::Case]) -> Result<usize> {
    let options = EngineOptions {
        max_batch: cases.len(),
        cache_tokens: 64 * 1024,
        ..EngineOptions::default()
    };
    let engine = Engine::start(Arc::clone(model), options, Box::new(|| 0), Box::new(|_| {}))?;
    let mut waiting = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        waiting.push(engine.submit_task(&Task {
            stream: number.to_string(),
            frames: case.frames(),
            seconds: case.seconds,
            view: case.view(),
            questions: Vec::new(),
            prompts: vec![Prompt {
                text: case.prompt.clone(),
                max_new_tokens: case.output_ids.len(),
            }],
            expires_us: None,
        })?);
    }
    let mut differ = 0;
    for (case, mut answers) in cases.iter().zip(waiting) {
        let alone = case
            .window(model)
            .describe(&case.prompt, case.output_ids.len())?;
        while let Some(answer) = answers.blocking_next() {
            if let Answer::Text { text, .. } = answer {
                differ += usize::from(text? != alone);
            }
        }
    }
    Ok(differ)
}
