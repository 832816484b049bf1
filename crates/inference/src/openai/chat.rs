//! Chat completions: what is asked, and what answers mean.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::About;

/// Most alternatives to the first token that servers tell.
const TOP: usize = 20;

/// What questions and prompts are about, as parts of a message.
pub(super) struct Subject {
    parts: Vec<Value>,
    text: bool,
}

impl Subject {
    pub(super) fn new(about: &About) -> Self {
        match about {
            About::Window { jpegs, seconds } => {
                let lead = match jpegs.len() {
                    1 => "This is a frame of a video.".to_owned(),
                    count => format!(
                        "These are {count} frames of {seconds:.0} s of video, in order of time."
                    ),
                };
                let images = jpegs.iter().map(|jpeg| {
                    let url = format!("data:image/jpeg;base64,{}", STANDARD.encode(jpeg));
                    json!({"type": "image_url", "image_url": {"url": url}})
                });
                // Words that differ come last: servers keep what several requests begin with.
                Self {
                    parts: std::iter::once(text(lead)).chain(images).collect(),
                    text: false,
                }
            }
            About::Text(said) => Self {
                parts: vec![text(format!("This was said:\n\n{said}\n"))],
                text: true,
            },
        }
    }

    /// The request for a word, with its alternatives or without.
    pub(super) fn question(&self, model: &str, event: &str, alternatives: bool) -> Value {
        let what = if self.text { "this" } else { "the video" };
        let words = format!("Is this happening in {what}: {event}? Answer yes or no.");
        let mut request = self.request(model, words, 1);
        if alternatives {
            request["logprobs"] = true.into();
            request["top_logprobs"] = TOP.into();
        }
        request
    }

    /// The request for a description.
    pub(super) fn prompt(&self, model: &str, prompt: &str, max_tokens: usize) -> Value {
        self.request(model, prompt.to_owned(), max_tokens)
    }

    fn request(&self, model: &str, words: String, max_tokens: usize) -> Value {
        let content = if self.text {
            // Some servers of text models take no parts.
            let said = self.parts[0]["text"].as_str().unwrap_or_default();
            Value::String(format!("{said}\n{words}"))
        } else {
            self.parts.iter().cloned().chain([text(words)]).collect()
        };
        json!({
            "model": model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": false,
        })
    }
}

fn text(text: String) -> Value {
    json!({"type": "text", "text": text})
}

/// What a description says; Err: what is wrong with the answer.
pub(super) fn described(answer: &Value) -> Result<String, String> {
    let message = &answer["choices"][0]["message"];
    match message["content"].as_str().map(str::trim) {
        Some("") | None if !message["reasoning_content"].is_null() => {
            Err("the model only thought aloud: use one that answers at once".to_owned())
        }
        Some(text) => Ok(text.to_owned()),
        None => Err("it has no text (choices[0].message.content)".to_owned()),
    }
}

/// A judged question.
#[derive(Debug, PartialEq)]
pub(super) enum Judged {
    /// The probability of "yes" against "no".
    Probability(f32),
    /// The model said something else.
    Neither(String),
}

/// The probability of yes: from the alternatives where the server tells them, else 1 or 0 by the word.
pub(super) fn judged(answer: &Value) -> Result<Judged, String> {
    let choice = &answer["choices"][0];
    let first = choice.pointer("/logprobs/content/0");
    if let Some(probability) = first.and_then(weighed) {
        return Ok(Judged::Probability(probability));
    }
    let word = described(answer)?;
    Ok(match meaning(&word) {
        Some(yes) => Judged::Probability(if yes { 1.0 } else { 0.0 }),
        None => Judged::Neither(word),
    })
}

fn weighed(first: &Value) -> Option<f32> {
    let alternatives = first["top_logprobs"].as_array()?;
    let (mut yes, mut no) = (0.0, 0.0);
    for alternative in alternatives {
        // Of more than 1 there is no sum of many.
        let probability = alternative["logprob"].as_f64()?.min(0.0).exp();
        match meaning(alternative["token"].as_str()?) {
            Some(true) => yes += probability,
            Some(false) => no += probability,
            None => {}
        }
    }
    (yes + no > 0.0).then(|| (yes / (yes + no)) as f32)
}

/// Whether a word, or a token of any tokenizer, says yes or no.
fn meaning(token: &str) -> Option<bool> {
    let around =
        |c: char| c.is_whitespace() || c.is_ascii_punctuation() || matches!(c, '▁' | 'Ġ' | 'Ċ');
    match token.trim_matches(around).to_lowercase().as_str() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(content: &str, alternatives: &[(&str, f64)], expected: Result<f32, &str>) {
        let top: Vec<_> = alternatives
            .iter()
            .map(|(token, p)| json!({"token": token, "logprob": p.ln()}))
            .collect();
        let mut choice = json!({"message": {"content": content}});
        if !top.is_empty() {
            choice["logprobs"] = json!({"content": [{"token": content, "top_logprobs": top}]});
        }
        let expected = match expected {
            Ok(probability) => Judged::Probability(probability),
            Err(word) => Judged::Neither(word.to_owned()),
        };
        let found = judged(&json!({"choices": [choice]}));
        assert_eq!(found, Ok(expected), "{content} {alternatives:?}");
    }

    #[test]
    fn a_verdict_is_the_weight_of_yes_against_no_or_the_word() {
        let mixed = [
            ("Yes", 0.25),
            (" yes", 0.125),
            ("▁No", 0.125),
            ("Maybe", 0.5),
        ];
        check("Maybe", &mixed, Ok(0.75));
        check("No", &[("No", 0.5)], Ok(0.0));
        check(" YES.", &[], Ok(1.0));
        check("no", &[], Ok(0.0));
        check("Perhaps", &[("Perhaps", 0.9)], Err("Perhaps"));
        check("Yes", &[("Yes", f64::MAX), ("No", 1.0)], Ok(0.5));
        // Some servers say logprobs but no alternatives.
        check("Yes", &[("Other", 0.1)], Ok(1.0));
    }

    #[test]
    fn answers_without_text_say_what_is_wrong() {
        let check = |message: Value, expected: &str| {
            let problem =
                described(&json!({"choices": [{"message": message}]})).expect_err("no text");
            assert!(problem.contains(expected), "{problem}");
        };
        check(json!({"content": null}), "no text");
        check(
            json!({"content": "", "reasoning_content": "Hm"}),
            "thought aloud",
        );
        assert!(judged(&json!({"choices": []})).is_err());
    }

    #[test]
    fn what_fuzzing_found_is_a_verdict_or_none() {
        let corpus = sightline_testkit::repository().join("fuzz/corpus/model_answers");
        let mut judged_so = 0;
        for input in std::fs::read_dir(corpus).expect("a corpus") {
            let input = std::fs::read(input.expect("a file").path()).expect("read");
            let answer = serde_json::from_slice(&input).unwrap_or_default();
            if let Ok(Judged::Probability(yes)) = judged(&answer) {
                assert!((0.0..=1.0).contains(&yes), "{yes}");
                judged_so += 1;
            }
        }
        assert!(judged_so > 0);
    }
}
