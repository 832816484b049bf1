//! Tiny models with random weights, one of each family, against transformers: token ids, pixels, logits and answers.
//! `make parity` does the same for models of true shape.

use std::fs;
use std::path::Path;

use sightline_inference::vlm::{Precision, View, Vlm, VlmOptions};

use crate::compare::cases;
use crate::support::{copy_files, init_runtime, parity_data};

fn load(directory: &Path) -> Vlm {
    init_runtime();
    let options = VlmOptions {
        threads: 1,
        precision: Precision::Fp32,
        ..VlmOptions::default()
    };
    Vlm::load(directory, &options).unwrap()
}

fn check(directory: &Path, views: &[&str]) {
    let model = load(directory);
    let cases = cases(directory);
    assert_eq!(cases.len(), 10);
    for view in views {
        assert!(cases.iter().any(|case| case.view == *view), "{view}");
    }
    for case in &cases {
        let different = case.differences(&model, true);
        let what = format!("{} of {:?}: {}", case.view, case.sizes, case.prompt);
        assert!(different.is_empty(), "{what}: {different:?}");
    }
}

#[test]
fn smolvlm_equals_transformers() {
    check(&parity_data("smolvlm"), &["images", "tiles"]);
}

/// The graphs are the same, the files around them are not.
#[test]
fn smolvlm2_equals_transformers() {
    let directory = tempfile::tempdir().unwrap();
    copy_files(&parity_data("smolvlm"), directory.path());
    copy_files(&parity_data("smolvlm2"), directory.path());
    check(directory.path(), &["video", "images", "tiles"]);
}

#[test]
fn qwen2_vl_equals_transformers() {
    check(&parity_data("qwen2-vl"), &["images", "video"]);
}

#[test]
fn frames_are_split_only_where_the_preprocessor_says_so() {
    let directory = tempfile::tempdir().unwrap();
    copy_files(&parity_data("smolvlm"), directory.path());
    let frames = cases(directory.path())[0].frames();
    let tiles = |model: &Vlm, view| model.window(&frames, 5.0, view).unwrap().pictures().count();
    let model = load(directory.path());
    assert_eq!(tiles(&model, View::Tiles), 13);
    assert_eq!(tiles(&model, View::Video), 1);
    let path = directory.path().join("preprocessor_config.json");
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replace(
        r#""do_image_splitting": true"#,
        r#""do_image_splitting": false"#,
    );
    fs::write(&path, text).unwrap();
    assert_eq!(tiles(&load(directory.path()), View::Tiles), 1);
}
