//! What is missing, damaged or of another kind is named, with what to do about it.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;

use sightline_inference::embed::TextEmbedder;
use sightline_inference::vlm::{Precision, View, Vlm, VlmOptions};
use sightline_inference::whisper::Whisper;
use sightline_inference::{InferenceError, onnx};

use crate::support::{copy_files, copy_of, init_runtime, models, parity_data};

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
        ..VlmOptions::default()
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
fn a_chat_template_that_would_go_on_for_ever() {
    let copy = copy_of("demo-vlm");
    let numbers = "{% for n in range(9999) %}";
    let template =
        format!("{numbers}{numbers}{numbers}x{{% endfor %}}{{% endfor %}}{{% endfor %}}");
    let file = format!(r#"{{"chat_template": "{template}"}}"#);
    fs::write(copy.path().join("chat_template.json"), file).unwrap();
    let asked = load_vlm(copy.path()).and_then(|model| {
        let frame = sightline_inference::RgbImage::new(64, 36, vec![100; 64 * 36 * 3])?;
        model.window(&[frame], 5.0, View::Video).map(drop)
    });
    check(asked, &["rendering the chat template", "ran out of fuel"]);
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
fn damaged_files() {
    for (file, content, expected) in [
        (
            "onnx/vision_encoder.onnx",
            "no graph",
            "truncated or damaged",
        ),
        ("onnx/embed_tokens.onnx", "", "truncated or damaged"),
        ("tokenizer.json", "{}", "truncated or damaged"),
        ("config.json", "[", "cannot be used"),
        ("config.json", "\u{0}\u{1}", "cannot be used"),
        ("preprocessor_config.json", "{}", "missing field"),
        ("processor_config.json", "{}", "image_seq_len"),
        ("generation_config.json", "{}", "eos_token_id"),
        (
            "chat_template.json",
            r#"{"chat_template": "{% if %}"}"#,
            "cannot be used",
        ),
    ] {
        let copy = copy_of("demo-vlm");
        fs::write(copy.path().join(file), content).unwrap();
        check(load_vlm(copy.path()), &[file, expected]);
    }
    let copy = copy_of("all-minilm-l6-v2");
    fs::write(copy.path().join("tokenizer.json"), "{").unwrap();
    check(TextEmbedder::load(copy.path(), 1), &["tokenizer.json"]);
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

/// A library with ONNX Runtime's entry point that says it is an old one.
#[test]
fn an_onnx_runtime_that_is_too_old() {
    let directory = tempfile::tempdir().unwrap();
    let (source, library) = (
        directory.path().join("old.c"),
        directory.path().join("libonnxruntime.so.1.17.3"),
    );
    let code = r#"
        struct base { const void *(*api)(unsigned); const char *(*version)(void); };
        static const void *api(unsigned version) { return 0; }
        static const char *version(void) { return "1.17.3"; }
        static const struct base base = { api, version };
        const struct base *OrtGetApiBase(void) { return &base; }
    "#;
    fs::write(&source, code).unwrap();
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-o"]);
    assert!(
        compile
            .args([&library, &source])
            .status()
            .unwrap()
            .success()
    );
    check(
        onnx::init(&library),
        &[
            "libonnxruntime.so.1.17.3",
            "1.17.3 is too old",
            "1.24 or newer",
        ],
    );
}

#[test]
fn files_that_are_absurdly_large() {
    let enlarge = |file: &Path, bytes: u64| {
        fs::remove_file(file).ok();
        fs::File::create(file).unwrap().set_len(bytes).unwrap();
    };
    // Sparse: they take no space.
    let copy = copy_of("demo-vlm");
    enlarge(&copy.path().join("tokenizer.json"), 1 << 32);
    check(load_vlm(copy.path()), &["tokenizer.json", "too much"]);
    let copy = copy_of("demo-vlm");
    let data = copy.path().join("onnx/vision_encoder.onnx_data");
    enlarge(&data, 1 << 42);
    check(
        load_vlm(copy.path()),
        &["vision_encoder.onnx_data", "of memory are free"],
    );
    let copy = copy_of("demo-vlm");
    replace(
        &copy.path().join("config.json"),
        r#""max_position_embeddings": 2048"#,
        r#""max_position_embeddings": 99999999999"#,
    );
    check(
        load_vlm(copy.path()),
        &["config.json", "max_position_embeddings is 99999999999"],
    );
}

#[test]
fn external_data_that_is_missing_or_truncated() {
    init_runtime();
    let copy = tempfile::tempdir().unwrap();
    copy_files(&parity_data("smolvlm"), copy.path());
    let data = copy.path().join("onnx/decoder_model_merged.onnx_data");
    let bytes = fs::read(&data).unwrap();
    fs::write(&data, &bytes[..bytes.len() / 2]).unwrap();
    let expected = ["decoder_model_merged.onnx", "truncated or damaged"];
    check(load_vlm(copy.path()), &expected);
    fs::remove_file(&data).unwrap();
    check(load_vlm(copy.path()), &expected);
}

#[test]
fn tokenizers_without_the_tokens_that_are_needed() {
    for (token, expected) in [
        ("<image>", "there is no token <image>"),
        (
            "<fake_token_around_image>",
            "no token <fake_token_around_image>",
        ),
        ("<global-img>", "no token <global-img>"),
    ] {
        let copy = copy_of("demo-vlm");
        let file = copy.path().join("tokenizer.json");
        replace(&file, &format!("\"{token}\""), "\"<another>\"");
        check(load_vlm(copy.path()), &["tokenizer.json", expected]);
    }
    // A tokenizer with the right names and a larger vocabulary than the model's.
    let copy = copy_of("demo-vlm");
    fs::write(
        copy.path().join("generation_config.json"),
        r#"{"eos_token_id": 49279}"#,
    )
    .unwrap();
    check(
        load_vlm(copy.path()),
        &["tokenizer.json", "token 49279", "knows 773 tokens"],
    );
    let copy = copy_of("demo-vlm");
    let onnx = copy.path().join("onnx");
    copy_files(&parity_data("smolvlm").join("onnx"), &onnx);
    fs::copy(
        models().join("demo-vlm/onnx/vision_encoder.onnx"),
        onnx.join("vision_encoder.onnx"),
    )
    .unwrap();
    fs::copy(
        models().join("demo-vlm/onnx/embed_tokens.onnx"),
        onnx.join("embed_tokens.onnx"),
    )
    .unwrap();
    check(
        load_vlm(copy.path()),
        &["embed_tokens.onnx", "192 wide", "the decoder 48"],
    );
}

#[test]
fn a_family_that_is_fed_another_familys_graphs() {
    let copy = tempfile::tempdir().unwrap();
    copy_files(&parity_data("qwen2-vl"), copy.path());
    let onnx = copy.path().join("onnx");
    copy_files(&parity_data("smolvlm").join("onnx"), &onnx);
    check(
        load_vlm(copy.path()),
        &["vision_encoder.onnx", "pixel_values is", "one export"],
    );
}

fn replace(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{from} is in {}", file.display());
    fs::write(file, text.replace(from, to)).unwrap();
}
