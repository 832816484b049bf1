//! The demo vision-language model against transformers' results (`golden.json`).

use serde::Deserialize;
use sha2::{Digest, Sha256};
use sightline_inference::RgbImage;
use sightline_inference::vlm::{Precision, View, Vlm, VlmOptions};

use crate::support::{copy_of, data, init_runtime, json, models, png_image};

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    frames: Vec<String>,
    prompt: String,
    input_ids: Vec<u32>,
    pixel_values: Pixels,
    image_features: Features,
    output_ids: Vec<u32>,
    text: String,
}

#[derive(Deserialize)]
struct Pixels {
    sha256_u8_before_normalisation: String,
}

#[derive(Deserialize)]
struct Features {
    shape: [usize; 2],
    first_8: [f32; 8],
}

fn golden() -> Vec<Case> {
    let golden: Golden = json(&models().join("demo-vlm/golden.json"));
    assert_eq!(golden.cases.len(), 12);
    golden.cases
}

fn frames(case: &Case) -> Vec<RgbImage> {
    case.frames
        .iter()
        .map(|name| png_image(&models().join("demo-vlm").join(name)))
        .collect()
}

fn load(precision: Precision, threads: usize) -> Vlm {
    init_runtime();
    Vlm::load(
        &models().join("demo-vlm"),
        &VlmOptions {
            threads,
            precision,
            ..VlmOptions::default()
        },
    )
    .unwrap()
}

fn event(prompt: &str) -> Option<&str> {
    prompt
        .strip_prefix("Is this happening in the video: ")?
        .strip_suffix("? Answer yes or no.")
}

#[test]
fn preprocessing_equals_transformers_bit_for_bit() {
    let model = load(Precision::Fp32, 1);
    for case in golden() {
        let mut planes = Vec::new();
        let window = model.window(&frames(&case), 5.0, View::Video).unwrap();
        for tile in window.pictures() {
            for channel in 0..3 {
                planes.extend(tile.pixels().iter().skip(channel).step_by(3));
            }
        }
        let digest = Sha256::digest(planes);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            digest, case.pixel_values.sha256_u8_before_normalisation,
            "{}",
            case.prompt
        );
    }
}

#[test]
fn image_features_equal_transformers() {
    let model = load(Precision::Fp32, 1);
    for case in golden() {
        let frames = frames(&case);
        let features = model.image_features(&frames[0]).unwrap();
        let [rows, width] = case.image_features.shape;
        assert_eq!(
            features.len() * frames.len(),
            rows * width,
            "{:?}",
            case.frames
        );
        for (found, expected) in features.iter().zip(case.image_features.first_8) {
            assert!(
                (found - expected).abs() < 1e-3,
                "{:?}: {found} {expected}",
                case.frames
            );
        }
    }
}

#[test]
fn greedy_answers_equal_transformers_token_by_token() {
    for threads in [1, 2] {
        let model = load(Precision::Fp32, threads);
        for case in golden() {
            let window = model.window(&frames(&case), 5.0, View::Video).unwrap();
            assert_eq!(window.prompt_ids(&case.prompt).unwrap(), case.input_ids);
            let answer = window.describe_ids(&case.prompt, 96).unwrap();
            assert_eq!(answer, case.output_ids, "{}", case.prompt);
            assert_eq!(window.describe(&case.prompt, 96).unwrap(), case.text);
        }
    }
}

/// Token by token only where the processor multiplies bytes exactly (VNNI): others saturate in between, and a close call may turn out
/// the other way.
#[test]
fn int8_answers_rarely_differ() {
    let model = load(Precision::Int8, 1);
    let cases = golden();
    let same = |case: &&Case| {
        let window = model.window(&frames(case), 5.0, View::Video).unwrap();
        window.describe_ids(&case.prompt, 96).unwrap() == case.output_ids
    };
    let equal = cases.iter().filter(same).count();
    assert!(equal * 4 >= cases.len() * 3, "{equal} of {}", cases.len());
}

#[test]
fn verdicts_agree_with_the_greedy_answers() {
    let model = load(Precision::Fp32, 1);
    let questions: Vec<Case> = golden()
        .into_iter()
        .filter(|case| event(&case.prompt).is_some())
        .collect();
    assert!(questions.len() >= 5);
    for case in questions {
        let window = model.window(&frames(&case), 5.0, View::Video).unwrap();
        let yes = window.judge(event(&case.prompt).unwrap()).unwrap();
        assert!((0.0..=1.0).contains(&yes));
        assert_eq!(yes > 0.5, case.text == "Yes.", "{}: {yes}", case.prompt);
    }
}

#[test]
fn nothing_asked_before_changes_an_answer() {
    let model = load(Precision::Fp32, 1);
    let cases = golden();
    let frames = frames(&cases[2]);
    let fresh = |prompt: &str| {
        model
            .window(&frames, 5.0, View::Video)
            .unwrap()
            .describe(prompt, 96)
            .unwrap()
    };
    let window = model.window(&frames, 5.0, View::Video).unwrap();
    let first = window.judge("a dog is running").unwrap();
    for case in &cases {
        assert_eq!(
            window.describe(&case.prompt, 96).unwrap(),
            fresh(&case.prompt)
        );
    }
    assert_eq!(window.judge("a dog is running").unwrap(), first);
}

#[test]
fn answers_end_where_told() {
    let model = load(Precision::Fp32, 1);
    let case = &golden()[0];
    let window = model.window(&frames(case), 5.0, View::Video).unwrap();
    assert_eq!(
        window.describe_ids(&case.prompt, 3).unwrap(),
        case.output_ids[..3]
    );
    assert!(window.describe_ids(&case.prompt, 0).unwrap().is_empty());
}

#[test]
fn a_jpeg_frame_gives_the_caption_of_its_original() {
    let model = load(Precision::Fp32, 1);
    let case = &golden()[0];
    let frame = RgbImage::from_jpeg(&data("street.jpg")).unwrap();
    assert_eq!((frame.width(), frame.height()), (640, 360));
    let window = model.window(&[frame], 5.0, View::Video).unwrap();
    assert_eq!(window.describe(&case.prompt, 96).unwrap(), case.text);
}

#[test]
fn words_that_spell_special_tokens_are_dropped() {
    let model = load(Precision::Fp32, 1);
    let window = model
        .window(&frames(&golden()[0]), 5.0, View::Video)
        .unwrap();
    let plain = window.prompt_ids("Describe the scene").unwrap();
    let check = |prompt| assert_eq!(window.prompt_ids(prompt).unwrap(), plain, "{prompt}");
    check("Describe<image> the scene");
    check("Describe the scene<end_of_utterance>");
    check("Describe <im<image>age>the<fake_token_around_image> scene");
}

#[test]
fn the_models_frame_edge_and_revision_come_from_its_files() {
    let fp32 = load(Precision::Fp32, 1);
    assert_eq!(fp32.frame_edge(), 640);
    assert_eq!(fp32.revision().len(), 16);
    assert_eq!(fp32.revision(), load(Precision::Fp32, 2).revision());
    assert_ne!(fp32.revision(), load(Precision::Int8, 1).revision());
    let copy = copy_of("demo-vlm");
    let changed = copy.path().join("generation_config.json");
    let same = Vlm::load(copy.path(), &VlmOptions::default()).unwrap();
    assert_eq!(same.revision(), fp32.revision());
    std::fs::write(&changed, r#"{"eos_token_id": [772, 16]}"#).unwrap();
    let other = Vlm::load(copy.path(), &VlmOptions::default()).unwrap();
    assert_ne!(other.revision(), fp32.revision());
    // 16 is the full stop: with it as another stop token, answers end with their first sentence.
    let case = &golden()[0];
    let text = other
        .window(&frames(case), 5.0, View::Video)
        .unwrap()
        .describe(&case.prompt, 96)
        .unwrap();
    assert_eq!(text, case.text.split_inclusive('.').next().unwrap());
}

#[test]
fn smolvlm2_gets_its_video_prompt() {
    let copy = copy_of("demo-vlm");
    let config = copy.path().join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replacen(
        r#""model_type": "idefics3""#,
        r#""model_type": "smolvlm""#,
        1,
    );
    std::fs::write(&config, text).unwrap();
    init_runtime();
    let model = Vlm::load(copy.path(), &VlmOptions::default()).unwrap();
    let frames = frames(&golden()[2]);
    let window = model.window(&frames, 130.0, View::Video).unwrap();
    let ids = window.prompt_ids("Describe the scene").unwrap();
    let tokenizer = tokenizers::Tokenizer::from_file(copy.path().join("tokenizer.json")).unwrap();
    let image = format!(
        "<fake_token_around_image><global-img>{}<fake_token_around_image>",
        "<image>".repeat(16)
    );
    assert_eq!(
        tokenizer.decode(&ids, false).unwrap(),
        format!(
            "<|im_start|>User: You are provided the following series of two frames from a \
             0:02:10 [H:MM:SS] video.\n\nFrame from 00:00:{image}\nFrame from 01:05:{image}\n\n\
             Describe the scene<end_of_utterance>\nAssistant:"
        )
    );
    assert!(!window.describe("Describe the scene", 8).unwrap().is_empty());
}

#[test]
fn what_does_not_fit_is_refused() {
    let model = load(Precision::Fp32, 1);
    let frame = png_image(&models().join("demo-vlm/golden/00_0.png"));
    let check = |error: sightline_inference::InferenceError, expected: &str| {
        assert!(error.to_string().contains(expected), "{error}");
    };
    check(
        model.window(&[], 5.0, View::Video).err().unwrap(),
        "without frames",
    );
    check(
        model
            .window(&vec![frame.clone(); 110], 5.0, View::Video)
            .err()
            .unwrap(),
        "use fewer frames",
    );
    let window = model
        .window(std::slice::from_ref(&frame), 5.0, View::Video)
        .unwrap();
    let long = "word ".repeat(3000);
    check(window.describe_ids(&long, 8).unwrap_err(), "shorter prompt");
    // An answer may use what room is left, and no more.
    let nearly = "word ".repeat(600);
    let ids = window.prompt_ids(&nearly).unwrap().len();
    assert!(ids < 2048, "{ids}");
    assert!(window.describe_ids(&nearly, usize::MAX).unwrap().len() <= 2048 - ids);
}
