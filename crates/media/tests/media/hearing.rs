//! Speech: cut into one utterance a sentence, with the right times.

use std::fs;
use std::sync::mpsc::sync_channel;

use anyhow::{Context, Result};
use serde_json::Value;
use sightline_proto::internal::child_report::Report;
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
    played.utterances().into_iter().map(ends).collect()
}

fn ends(utterance: &Utterance) -> (i64, i64) {
    let length_us = utterance.pcm.len() as i64 / 2 * SECOND / 16_000;
    let start_us = utterance.start_position_us;
    (start_us, start_us + length_us)
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

/// Speech of 15.6 to 18.1 s and of 24.2 to 26.5 s, steered while it is heard.
#[test]
fn what_is_heard_when_transcription_changes_is_finished_in_its_session() -> Result<()> {
    let whole = times(&heard(&file(&demo_clip()), 0));
    let (first, second) = (whole[2], whole[3]);
    let clock = sampling(SECOND / 5, 1);
    let wanted = |audio, audio_session, window| TakeFrom {
        audio,
        audio_session,
        audio_from_us: 15 * SECOND,
        ..take(&[(clock, window)])
    };
    let open = OpenSource {
        real_time: true,
        start_position_us: 15 * SECOND,
        ..file(&demo_clip())
    };
    // In the middle of what is said: another session at once, then off, and later on again.
    let mut changes = vec![
        (19 * SECOND, wanted(true, 3, 95)),
        (17_400_000, wanted(false, 2, 87)),
        (16_600_000, wanted(true, 2, 83)),
    ];
    let (sender, heard) = sync_channel(100);
    let mut utterances = 0;
    play_steered(
        &open,
        wanted(true, 1, 75),
        move |report, control| match report {
            Report::Window(window) => {
                let due = changes.pop_if(|(at_us, _)| window.end_position_us >= *at_us);
                if let Some((_, take)) = due {
                    control.take(take);
                }
            }
            Report::Utterance(utterance) => {
                let _ = sender.send(utterance);
                utterances += 1;
                if utterances == 3 {
                    control.stop();
                }
            }
            _ => {}
        },
    )?;
    let heard: Vec<Utterance> = heard.try_iter().take(3).collect();
    let sessions: Vec<u32> = heard.iter().map(|u| u.session).collect();
    assert_eq!(sessions, [1, 2, 3]);
    let times: Vec<(i64, i64)> = heard.iter().map(ends).collect();
    // Give or take two frames of the detector.
    let close = |a: i64, b: i64| (a - b).abs() <= 32_000;
    assert!(close(times[0].0, first.0), "{times:?}");
    assert!(
        times[0].1 <= times[1].0 && times[1].0 < first.1,
        "{times:?}"
    );
    // Nothing of what was said after it was off.
    assert!(times[1].1 < first.1 - SECOND / 10, "{times:?}");
    assert!(close(times[2].0, second.0), "{times:?}");
    Ok(())
}
