//! What a transcription says, in the forms that servers have for it.

use serde_json::Value;

use crate::{SpokenSegment, SpokenWord, Transcript};

/// OpenAI's own rule for a segment in which nothing was said: so sure of silence, and so unsure of the words.
const SILENCE: (f64, f64) = (0.6, -1.0);

/// Reads an answer about `seconds` of sound; Err: what is wrong with it.
pub(super) fn transcript(answer: &Value, seconds: f64) -> Result<Transcript, String> {
    let text = answer["text"].as_str().ok_or("it has no field text")?;
    let segments = match answer["segments"].as_array() {
        Some(segments) => segments
            .iter()
            .filter(|segment| !is_silence(segment))
            .map(|segment| spoken(segment, seconds))
            .collect::<Result<Vec<_>, _>>()?,
        None => vec![segment(text, 0.0, seconds, 1.0)],
    };
    let mut segments: Vec<_> = segments
        .into_iter()
        .filter(|s| !s.text.is_empty())
        .collect();
    if let Some(words) = answer["words"].as_array() {
        place(&mut segments, words, seconds);
    }
    Ok(Transcript {
        language: language(answer["language"].as_str().unwrap_or_default()),
        segments,
    })
}

fn is_silence(segment: &Value) -> bool {
    let number = |field: &str| segment[field].as_f64();
    number("no_speech_prob").is_some_and(|p| p > SILENCE.0)
        && number("avg_logprob").is_some_and(|p| p < SILENCE.1)
}

fn spoken(said: &Value, seconds: f64) -> Result<SpokenSegment, String> {
    let text = said["text"].as_str().ok_or("a segment has no text")?;
    let start = said["start"].as_f64().ok_or("a segment has no start")?;
    let end = said["end"].as_f64().ok_or("a segment has no end")?;
    let start = start.clamp(0.0, seconds);
    let sure = said["avg_logprob"].as_f64().map_or(1.0, f64::exp).min(1.0);
    let mut segment = segment(text, start, end.clamp(start, seconds), sure as f32);
    // whisper.cpp's server has words inside segments.
    if let Some(words) = said["words"].as_array() {
        place(std::slice::from_mut(&mut segment), words, seconds);
    }
    Ok(segment)
}

/// A segment whose words have times in proportion to their letters.
fn segment(text: &str, start: f64, end: f64, probability: f32) -> SpokenSegment {
    let text = text.trim();
    let letters = text.split_whitespace().map(|word| word.chars().count());
    let per_letter = (end - start) / letters.sum::<usize>().max(1) as f64;
    let mut at = start;
    let words = text.split_whitespace().map(|word| {
        // Where the segment is hardly longer than nothing, rounding goes beyond its end.
        let begin = at.min(end);
        at += per_letter * word.chars().count() as f64;
        SpokenWord {
            start: begin,
            end: at.min(end),
            text: word.to_owned(),
            probability,
        }
    });
    SpokenSegment {
        start,
        end,
        text: text.to_owned(),
        words: words.collect(),
    }
}

/// Gives words the times that the server heard. Its words may lack the punctuation of its text, so they are matched one by
/// one by their letters; a word without a match keeps the time that it was given.
fn place(segments: &mut [SpokenSegment], said: &[Value], seconds: f64) {
    let mut said = said.iter().peekable();
    for word in segments.iter_mut().flat_map(|segment| &mut segment.words) {
        let Some(next) = said.peek() else { return };
        let heard = next["word"].as_str().unwrap_or_default();
        if letters(heard) != letters(&word.text) {
            continue;
        }
        if let (Some(start), Some(end)) = (next["start"].as_f64(), next["end"].as_f64()) {
            word.start = start.clamp(0.0, seconds);
            word.end = end.clamp(word.start, seconds);
        }
        if let Some(probability) = next["probability"].as_f64() {
            word.probability = probability.clamp(0.0, 1.0) as f32;
        }
        said.next();
    }
}

fn letters(word: &str) -> String {
    let kept = word.chars().filter(|c| c.is_alphanumeric());
    kept.flat_map(char::to_lowercase).collect()
}

/// Servers say `en` or `english`.
fn language(said: &str) -> String {
    let said = said.to_lowercase();
    // The library panics at a null byte, and complains aloud of what it does not know.
    let word = !said.is_empty() && said.bytes().all(|byte| byte.is_ascii_alphabetic());
    let id = word.then(|| whisper_rs::get_lang_id(&said)).flatten();
    let known = id.and_then(whisper_rs::get_lang_str);
    known.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A text from when to when.
    type Said<'a> = (&'a str, f64, f64);

    fn check(answer: &Value, expected: &[(&str, f64, f64, &[Said<'_>])]) {
        let found = transcript(answer, 4.0).expect("a transcript");
        let flat: Vec<_> = found
            .segments
            .iter()
            .map(|s| {
                let words: Vec<_> = s
                    .words
                    .iter()
                    .map(|w| (w.text.as_str(), w.start, w.end))
                    .collect();
                (s.text.as_str(), s.start, s.end, words)
            })
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|&(t, s, e, w)| (t, s, e, w.to_vec()))
            .collect();
        assert_eq!(flat, expected, "{answer}");
    }

    #[test]
    fn segments_and_words_have_times_whatever_the_server_gives() {
        check(
            &json!({"text": " Go on. "}),
            &[("Go on.", 0.0, 4.0, &[("Go", 0.0, 1.6), ("on.", 1.6, 4.0)])],
        );
        check(&json!({"text": ""}), &[]);
        let segment = json!({"start": 1.0, "end": 9.0, "text": " Go on."});
        let words = json!([{"word": "Go", "start": 1.0, "end": 1.5}, {"word": "on", "start": 2.0, "end": 2.5}]);
        let placed: &[(&str, f64, f64)] = &[("Go", 1.0, 1.5), ("on.", 2.0, 2.5)];
        let mut answer = json!({"text": "Go on.", "segments": [segment], "words": words});
        check(&answer, &[("Go on.", 1.0, 4.0, placed)]);
        answer["segments"][0]["words"] = answer["words"].take();
        check(&answer, &[("Go on.", 1.0, 4.0, placed)]);
        answer["segments"][0]["no_speech_prob"] = json!(0.9);
        answer["segments"][0]["avg_logprob"] = json!(-1.5);
        check(&answer, &[]);
    }

    #[test]
    fn languages_are_codes_and_broken_answers_say_what_is_wrong() {
        for (said, code) in [
            ("english", "en"),
            ("de", "de"),
            ("German", "de"),
            ("", ""),
            ("klingon", ""),
        ] {
            let found = transcript(&json!({"text": "", "language": said}), 1.0).expect("read");
            assert_eq!(found.language, code, "{said}");
        }
        for (answer, part) in [
            (json!({}), "no field text"),
            (
                json!({"text": "", "segments": [{"start": 0, "end": 1}]}),
                "no text",
            ),
            (
                json!({"text": "", "segments": [{"text": "a", "end": 1}]}),
                "no start",
            ),
        ] {
            let problem = transcript(&answer, 1.0).expect_err("broken");
            assert!(problem.contains(part), "{problem}");
        }
    }
}
