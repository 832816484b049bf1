//! What servers with OpenAI's interface answer.

use serde_json::Value;
use sightline_egress::Answer;

use self::chat::Judged;

#[path = "../../crates/inference/src/openai/chat.rs"]
mod chat;
#[path = "../../crates/inference/src/openai/error.rs"]
mod error;
#[path = "../../crates/inference/src/openai/heard.rs"]
mod heard;
#[path = "../../crates/inference/src/openai/said.rs"]
mod said;
#[path = "../../crates/inference/src/openai/vectors.rs"]
mod vectors;

/// How long the sound was that was asked about.
const SECONDS: f64 = 4.0;

/// An answer that is taken is a probability, a text, vectors of length 1, words within the sound; no complaint repeats the key.
pub fn model_answers(data: &[u8]) {
    let answer = Answer {
        status: 500,
        retry_after: None,
        content_type: "application/json".to_owned(),
        body: data.to_vec().into(),
    };
    assert!(!said::complaint(&answer, Some("sk-1")).contains("sk-1"));
    let Ok(answer) = said::json("http://server/v1", &answer) else {
        return;
    };
    if let Ok(Judged::Probability(yes)) = chat::judged(&answer) {
        assert!((0.0..=1.0).contains(&yes), "{yes}");
    }
    if let Ok(text) = chat::described(&answer) {
        assert_eq!(text.trim(), text);
    }
    heard(&answer);
    let texts = answer["data"].as_array().map_or(1, Vec::len);
    let first = answer
        .pointer("/data/0/embedding")
        .and_then(Value::as_array);
    let size = first.map_or(1, Vec::len).max(1);
    for vector in vectors::vectors(&answer, texts, size).unwrap_or_default() {
        let square: f32 = vector.iter().map(|n| n * n).sum();
        assert!((square - 1.0).abs() < 1e-3, "{vector:?}");
    }
    let models = answer["data"].as_array().cloned().unwrap_or_default();
    let _ = said::about(&models, "m");
    assert!(!said::names(&models).is_empty());
}

fn heard(answer: &Value) {
    let Ok(transcript) = heard::transcript(answer, SECONDS) else {
        return;
    };
    let within = |start: f64, end: f64| (0.0..=end).contains(&start) && end <= SECONDS;
    for segment in transcript.segments {
        assert!(!segment.text.is_empty() && within(segment.start, segment.end));
        for word in segment.words {
            assert!(
                !word.text.is_empty() && within(word.start, word.end),
                "{word:?}"
            );
            assert!((0.0..=1.0).contains(&word.probability), "{word:?}");
        }
    }
}
