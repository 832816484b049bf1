//! What is missing, damaged or of another kind is named, with what to do about it.

use std::error::Error;
use std::fs;
use std::path::Path;

use sightline_inference::embed::TextEmbedder;
use sightline_inference::vlm::{Precision, View, Vlm, VlmOptions};
use sightline_inference::whisper::Whisper;
use sightline_inference::{InferenceError, onnx};

use crate::support::{copy_of, init_runtime, models};

/// The error and its sources, as a log shows them.
fn report(error: &InferenceError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn check<T>(result: Result<T, InferenceError>, expected: &[&str]) {
    let error = result
        .err()
        .unwrap_or_else(|| panic!("loaded, but {expected:?} was expected"));
    let report = report(&error);
    for part in expected {
        assert!(report.contains(part), "{part:?} is not in {report:?}");
    }
}

fn load_vlm(directory: &Path) -> Result<Vlm, InferenceError> {
    init_runtime();
    Vlm::load(directory, &VlmOptions::default())
}

#[test]
fn a_library_that_is_not_onnx_runtime() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("libonnxruntime.so");
    fs::write(&text, "text").unwrap();
    let missing = directory.path().join("nowhere.so");
    check(
        onnx::init(&missing),
        &["nowhere.so", "No such file", "PyPI wheel onnxruntime"],
    );
    check(onnx::init(&text), &["libonnxruntime.so", "1.24 or newer"]);
    init_runtime();
    init_runtime();
    check(onnx::init(&text), &["libonnxruntime.so", "already uses"]);
}

#[test]
fn missing_files_are_named() {
    let nowhere = Path::new("/nowhere/model");
    check(
        load_vlm(nowhere),
        &["/nowhere/model/config.json", "No such file"],
    );
    check(
        Whisper::load(nowhere, 1),
        &["/nowhere/model", "No such file"],
    );
    check(
        TextEmbedder::load(nowhere, 1),
        &["/nowhere/model", "No such file"],
    );
    for file in [
        "preprocessor_config.json",
        "tokenizer.json",
        "onnx/embed_tokens.onnx",
    ] {
        let copy = copy_of("demo-vlm");
        fs::remove_file(copy.path().join(file)).unwrap();
        check(load_vlm(copy.path()), &[file, "No such file", "complete"]);
    }
    init_runtime();
    let options = VlmOptions {
        threads: 1,
        precision: Precision::Q4,
    };
    let result = Vlm::load(&models().join("demo-vlm"), &options);
    check(result, &["onnx/vision_encoder_q4.onnx", "No such file"]);
}

#[test]
fn a_model_of_another_family() {
    let copy = copy_of("demo-vlm");
    fs::write(copy.path().join("config.json"), r#"{"model_type": "bert"}"#).unwrap();
    check(
        load_vlm(copy.path()),
        &["config.json", "\"bert\"", "SmolVLM family"],
    );
    fs::write(copy.path().join("config.json"), "{").unwrap();
    check(load_vlm(copy.path()), &["config.json", "cannot be used"]);
}

#[test]
fn files_of_different_models() {
    let copy = copy_of("demo-vlm");
    let onnx = copy.path().join("onnx");
    fs::copy(
        onnx.join("embed_tokens.onnx"),
        onnx.join("decoder_model_merged.onnx"),
    )
    .unwrap();
    check(
        load_vlm(copy.path()),
        &["decoder_model_merged.onnx", "no tensor inputs_embeds"],
    );

    let copy = copy_of("demo-vlm");
    let processor = copy.path().join("processor_config.json");
    fs::write(processor, r#"{"image_seq_len": 64}"#).unwrap();
    let model = load_vlm(copy.path()).unwrap();
    let frame = sightline_inference::RgbImage::new(64, 36, vec![100; 64 * 36 * 3]).unwrap();
    check(
        model.window(&[frame], 5.0, View::Video).map(drop),
        &["image_seq_len", "processor_config.json"],
    );
}

#[test]
fn truncated_files() {
    let truncate = |file: &Path| {
        let bytes = fs::read(file).unwrap();
        fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
    };
    let copy = copy_of("demo-vlm");
    truncate(&copy.path().join("onnx/decoder_model_merged.onnx"));
    check(
        load_vlm(copy.path()),
        &["decoder_model_merged.onnx", "truncated or damaged"],
    );

    let copy = copy_of("all-minilm-l6-v2");
    truncate(&copy.path().join("model.onnx"));
    check(
        TextEmbedder::load(copy.path(), 1),
        &["model.onnx", "truncated or damaged"],
    );

    let copy = copy_of("demo-whisper");
    let file = copy.path().join("ggml-demo.en-q5_1.bin");
    truncate(&file);
    check(
        Whisper::load(&file, 1),
        &["ggml-demo.en-q5_1.bin", "truncated or damaged"],
    );
    fs::write(&file, "RIFF, not a model").unwrap();
    check(Whisper::load(&file, 1), &["not a ggml file"]);
    fs::write(&file, "").unwrap();
    check(Whisper::load(&file, 1), &["not a ggml file"]);
}

#[test]
fn names_of_precisions() {
    for precision in ["fp32", "fp16", "int8", "q4", "q4f16"] {
        assert_eq!(
            precision.parse::<Precision>().unwrap().to_string(),
            precision
        );
    }
    check(
        "int9".parse::<Precision>(),
        &["int9", "fp32, fp16, int8, q4, q4f16"],
    );
}
