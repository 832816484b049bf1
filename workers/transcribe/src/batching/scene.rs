//! A batch as an observation.

use sightline_proto::ids;
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{AudioSceneBody, Observation};
use sightline_proto::v1::Index;

use super::cutting::Cut;

/// The scene of a batch, as long as no model has applied the index's prompt: its text is the transcript itself.
pub(crate) fn scene(index: &Index, collection_id: &str, cut: Cut) -> Observation {
    let id = ids::observation_id(
        "audio_scene",
        &index.rtstream_id,
        cut.epoch_us,
        cut.start_us,
        &index.id,
        index.prompt_revision,
        "",
    );
    let transcript = text(cut.words.iter().map(|word| word.text.as_str()));
    let body = AudioSceneBody {
        index_id: index.id.clone(),
        prompt_revision: index.prompt_revision,
        text: transcript.clone(),
        transcript,
        prompt_applied: false,
        batch: cut.number,
    };
    Observation {
        id,
        rtstream_id: index.rtstream_id.clone(),
        collection_id: collection_id.to_owned(),
        epoch_us: cut.epoch_us,
        start_us: cut.start_us,
        end_us: cut.end_us,
        model_revision: String::new(),
        body: Some(Body::AudioScene(body)),
    }
}

/// Words as people write them: with spaces between, except where both neighbours belong to a script that has none.
fn text<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut text = String::new();
    for word in words.map(str::trim).filter(|word| !word.is_empty()) {
        let before = text.chars().next_back();
        let joined =
            before.is_some_and(is_unspaced) && word.chars().next().is_some_and(is_unspaced);
        if before.is_some() && !joined {
            text.push(' ');
        }
        text.push_str(word);
    }
    text
}

/// Chinese characters, kana, and their punctuation.
fn is_unspaced(c: char) -> bool {
    matches!(c, '\u{3000}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{ff00}'..='\u{ffef}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_a_text() {
        for (words, expected) in [
            (&["The", "train", "is", "late."][..], "The train is late."),
            (&["急", "いで。", "早", "く！"], "急いで。早く！"),
            (&["Tokyo", "東京", "へ", "go"], "Tokyo 東京へ go"),
            (&[" so", "", "it "], "so it"),
            (&[], ""),
        ] {
            assert_eq!(text(words.iter().copied()), expected);
        }
    }
}
