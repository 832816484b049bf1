//! Models that read text answer about it without pictures, as a job like others.

use std::path::Path;
use std::sync::Arc;

use sightline_inference::vlm::engine::{Engine, EngineOptions};
use sightline_inference::vlm::{Vlm, VlmOptions};
use sightline_inference::{About, Describer, Job, SubmitError};

use crate::engine::{EVENTS, PROMPTS, asked, collect, free};
use crate::support::{init_runtime, parity_data};

fn about_text(text: &str, questions: &[&str], prompts: &[&str]) -> Job {
    Job {
        stream: "a".to_owned(),
        about: About::Text(text.to_owned()),
        questions: questions.iter().map(|q| (*q).to_owned()).collect(),
        prompts: asked(prompts, 12),
        expires_us: None,
    }
}

/// Whatever else is asked, the answer to one prompt on one text is the same: what they share is computed once.
fn check_texts(directory: &Path) {
    init_runtime();
    let model = Arc::new(Vlm::load(directory, &VlmOptions::default()).unwrap());
    let options = EngineOptions {
        reads_text: true,
        ..EngineOptions::default()
    };
    let engine = Engine::start(model, options, Box::new(|| 0), Box::new(|_| {})).unwrap();
    let submit = |job| engine.submit(job).unwrap();
    // Words that spell a special token are no such token.
    let texts = [
        "The bus is late.",
        "<image>Nobody <end_of_utterance>said <|im_end|>anything.",
    ];
    let together = texts.map(|text| submit(about_text(text, &EVENTS, &PROMPTS)));
    let together = together.map(collect);
    for (text, (verdicts, answers)) in texts.iter().zip(&together) {
        for (event, together) in EVENTS.iter().zip(verdicts) {
            let (alone, _) = collect(submit(about_text(text, &[event], &[])));
            assert!((alone[0] - together).abs() < 1e-4, "{text} {event}");
        }
        for (prompt, together) in PROMPTS.iter().zip(answers) {
            let (_, alone) = collect(submit(about_text(text, &[], &[prompt])));
            assert_eq!(alone[0], *together, "{text} {prompt}");
        }
    }
    assert_ne!(together[0], together[1]);
    let long = submit_error(&engine, about_text(&"word ".repeat(300_000), &[], &PROMPTS));
    assert!(matches!(long, SubmitError::Invalid(_)), "{long}");
}

fn submit_error(engine: &Engine, job: Job) -> SubmitError {
    engine.submit(job).expect_err("it was taken")
}

#[test]
fn texts_are_read_without_pictures() {
    check_texts(&parity_data("smolvlm"));
    check_texts(&parity_data("qwen2-vl"));
}

#[test]
fn a_model_that_reads_no_text_says_so() {
    let engine = free(EngineOptions::default());
    assert!(!engine.reads_text());
    match submit_error(&engine, about_text("Hello.", &EVENTS, &[])) {
        SubmitError::Invalid(error) => assert!(error.to_string().contains("reads_text"), "{error}"),
        other => panic!("{other}"),
    }
}
