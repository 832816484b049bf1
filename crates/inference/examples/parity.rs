//! Compares model directories with the golden answers that `models/parity` put into them.
//!
//! `cargo run --release -p sightline-inference --example parity -- LIBRARY PRECISION DIRECTORY...`
//!
//! fp32 has to give transformers' tokens; the other formats only have to load and to be fed the same.

use std::path::Path;

use anyhow::{Context, Result, bail};
use sightline_inference::onnx;
use sightline_inference::vlm::{Precision, Vlm, VlmOptions};

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
        };
        let model = Vlm::load(directory, &options)?;
        for case in compare::cases(directory) {
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
    }
    if failures > 0 {
        bail!("{failures} cases differ from transformers");
    }
    Ok(())
}
