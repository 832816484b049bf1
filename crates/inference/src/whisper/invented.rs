//! Leaves out the lines that a speech model makes up where nothing is said. whisper.cpp itself leaves out what it takes for silence
//! and is not sure of; and music does not come so far (`sightline_media` cuts voices alone). What remains is told by its form.

use crate::SpokenSegment;

/// Mean of the logarithms of the tokens' probabilities below which a line is a guess: Whisper's own limit, below which it tries
/// again. Here it has tried again.
const GUESS: f32 = -1.0;
/// Words in a second that nobody speaks, even fast speech has 5; and a few more, because times are given in steps.
const WORDS_PER_SECOND: f64 = 12.0;
const WORDS_MORE: f64 = 3.0;
/// Lines in a row with the same words that may really be said between two pauses.
const SAME_LINES: usize = 2;
/// Times in a row that a line may say the same words.
const SAME_WORDS: usize = 5;
/// Words that are said again and again together.
const LONGEST_LOOP: usize = 8;

/// A line with how sure the model is of it: the mean of the logarithms of its tokens' probabilities.
pub(super) struct Line {
    pub(super) segment: SpokenSegment,
    pub(super) sureness: f32,
}

/// Those of an utterance's lines that were said.
pub(super) fn said(lines: impl IntoIterator<Item = Line>) -> Vec<SpokenSegment> {
    let mut kept: Vec<SpokenSegment> = Vec::new();
    let mut last = Vec::new();
    let mut same = 0;
    for Line { segment, sureness } in lines {
        let words = words(&segment.text);
        same = if words == last { same + 1 } else { 1 };
        let seconds = segment.end - segment.start;
        let too_fast = words.len() as f64 > WORDS_MORE + WORDS_PER_SECOND * seconds;
        if sureness >= GUESS && !too_fast && same <= SAME_LINES && !is_loop(&words) {
            kept.push(segment);
        }
        last = words;
    }
    kept
}

/// Lower case, without punctuation.
fn words(text: &str) -> Vec<String> {
    let plain = |word: &str| -> String {
        let letters = word.chars().filter(|c| c.is_alphanumeric());
        letters.flat_map(char::to_lowercase).collect()
    };
    let words = text.split_whitespace().map(plain);
    words.filter(|word| !word.is_empty()).collect()
}

/// Whether the same words follow themselves too often.
fn is_loop(words: &[String]) -> bool {
    (1..=LONGEST_LOOP).any(|length| {
        let mut again = 0;
        (length..words.len()).any(|at| {
            again = if words[at] == words[at - length] {
                again + 1
            } else {
                0
            };
            again >= length * SAME_WORDS
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of 2 s that the model is sure of.
    fn check(texts: &[&str], expected: &[&str]) {
        let lines = texts.iter().map(|text| line(text, 2.0, -0.2));
        let found: Vec<String> = said(lines).into_iter().map(|s| s.text).collect();
        assert_eq!(found, expected);
    }

    fn line(text: &str, seconds: f64, sureness: f32) -> Line {
        let segment = SpokenSegment {
            start: 1.0,
            end: 1.0 + seconds,
            text: text.to_owned(),
            words: Vec::new(),
        };
        Line { segment, sureness }
    }

    #[test]
    fn what_is_said_twice_stays_and_loops_do_not() {
        check(&[], &[]);
        check(
            &["Over and out.", "Over and out!"],
            &["Over and out.", "Over and out!"],
        );
        check(&["Thank you."; 9], &["Thank you."; 2]);
        check(
            &["Stop.", "Go.", "Stop.", "Go."],
            &["Stop.", "Go.", "Stop.", "Go."],
        );
        check(&["No, no, no, no, no."], &["No, no, no, no, no."]);
        check(&["you you you you you you", "Yes."], &["Yes."]);
        check(&[&"to the left ".repeat(6)], &[]);
        // Other alphabets have words too.
        check(&["да да да да да да да"], &[]);
    }

    #[test]
    fn guesses_and_what_nobody_could_speak_so_fast_are_left_out() {
        for (text, seconds, sureness, stays) in [
            ("A car is turning right.", 1.5, -0.9, true),
            ("A car is turning right.", 1.5, -1.1, false),
            ("Stop.", 0.0, -0.1, true),
            ("A car is turning right.", 0.0, -0.1, false),
        ] {
            let found = said([line(text, seconds, sureness)]);
            assert_eq!(found.len() == 1, stays, "{text} {seconds} {sureness}");
        }
    }
}
