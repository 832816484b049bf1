//! Speech: cut into one utterance a sentence, with the right times.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;
use sightline_proto::internal::{OpenSource, TakeFrom, Utterance};

use crate::support::*;

fn heard(open: &OpenSource, audio_from_us: i64) -> Played {
    let take = TakeFrom {
        audio: true,
        audio_from_us,
        ..TakeFrom::default()
    };
    play_all(open, take)
}

/// Starts and ends in microseconds.
fn times(played: &Played) -> Vec<(i64, i64)> {
    let times = |u: &&Utterance| {
        let length_us = u.pcm.len() as i64 / 2 * SECOND / 16_000;
        (u.start_position_us, u.start_position_us + length_us)
    };
    played.utterances().iter().map(times).collect()
}

#[test]
fn each_sentence_of_the_sample_clip_is_one_utterance() -> Result<()> {
    let truth = fs::read(demo_clip().with_extension("truth.json"))?;
    let truth: Value = serde_json::from_slice(&truth)?;
    let speech = truth["speech"].as_array().context("a list")?;
    let times = times(&heard(&file(&demo_clip()), 0));
    assert_eq!(times.len(), speech.len(), "{times:?}");
    for ((start_us, end_us), said) in times.iter().zip(speech) {
        let (start, end) = (*start_us as f64 / 1e6, *end_us as f64 / 1e6);
        let (said_start, said_end) = (said["start"].as_f64(), said["end"].as_f64());
        let before = said_start.context("a time")? - start;
        let after = end - said_end.context("a time")?;
        // The speech model needs a quarter of a second before the first word.
        assert!((0.25..0.35).contains(&before), "{before} before {said}");
        assert!((0.2..0.35).contains(&after), "{after} after {said}");
    }
    Ok(())
}

#[test]
fn whoever_goes_on_after_an_utterance_hears_the_same_ones() -> Result<()> {
    let whole = times(&heard(&file(&demo_clip()), 0));
    for (done, (_, end_us)) in whole.iter().enumerate() {
        let mut open = file(&demo_clip());
        open.start_position_us = *end_us;
        let rest = times(&heard(&open, *end_us));
        // AAC has noise made up by the decoder, so ends may differ by a frame of the detector; starts are in the ids.
        let starts = |times: &[(i64, i64)]| times.iter().map(|t| t.0).collect::<Vec<_>>();
        assert_eq!(starts(&rest), starts(&whole[done + 1..]), "after {end_us}");
    }
    Ok(())
}
