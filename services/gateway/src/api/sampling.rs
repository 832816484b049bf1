//! How often an index describes: windows of pictures, batches of the transcript.

use std::ops::RangeInclusive;

use sightline_proto::time::{duration, duration_micros};
use sightline_proto::v1::audio_batching::Batch;
use sightline_proto::v1::{AudioBatching, TimeSampling};

use super::violations::Violations;

const SECOND_US: i64 = 1_000_000;
const SECONDS: RangeInclusive<i64> = 1..=600;
const FRAMES: RangeInclusive<u32> = 1..=16;
const FRAMES_A_SECOND: i64 = 10;
const WORDS: RangeInclusive<u32> = 1..=1000;
const DEFAULT_WORDS: u32 = 10;
const SENTENCES: RangeInclusive<u32> = 1..=100;

/// The sampling asked for, or 2 frames of every 5 s.
pub(super) fn sampling(faults: &mut Violations, asked: Option<TimeSampling>) -> TimeSampling {
    let Some(asked) = asked else {
        return TimeSampling {
            window: Some(duration(5 * SECOND_US)),
            frame_count: 2,
        };
    };
    let window_us = asked.window.as_ref().map_or(0, duration_micros);
    if !is_length(faults, "sampling.window", window_us) {
        // Nothing can be said about its frames.
    } else if i64::from(asked.frame_count) * SECOND_US > window_us * FRAMES_A_SECOND
        && FRAMES.contains(&asked.frame_count)
    {
        let most = window_us * FRAMES_A_SECOND / SECOND_US;
        let allowed = format!(
            "at most {FRAMES_A_SECOND} frames a second, that is {most} for this window, got {}",
            asked.frame_count
        );
        faults.add("sampling.frame_count", allowed);
    }
    if !FRAMES.contains(&asked.frame_count) {
        let (least, most) = (FRAMES.start(), FRAMES.end());
        let allowed = format!("{least} to {most}, got {}", asked.frame_count);
        faults.add("sampling.frame_count", allowed);
    }
    TimeSampling {
        window: Some(duration(window_us)),
        frame_count: asked.frame_count,
    }
}

/// The batching asked for, or 10 words.
pub(super) fn batching(faults: &mut Violations, asked: Option<AudioBatching>) -> AudioBatching {
    let asked = asked.and_then(|asked| asked.batch);
    let batch = asked.unwrap_or(Batch::Words(DEFAULT_WORDS));
    let mut count = |field, allowed: RangeInclusive<u32>, got: u32| {
        if !allowed.contains(&got) {
            let (least, most) = allowed.into_inner();
            faults.add(field, format!("{least} to {most}, got {got}"));
        }
    };
    let batch = match batch {
        Batch::Words(words) => {
            count("batching.words", WORDS, words);
            batch
        }
        Batch::Sentences(sentences) => {
            count("batching.sentences", SENTENCES, sentences);
            batch
        }
        Batch::Time(time) => {
            let time_us = duration_micros(&time);
            is_length(faults, "batching.time", time_us);
            Batch::Time(duration(time_us))
        }
    };
    AudioBatching { batch: Some(batch) }
}

/// A window or a batch is 1 s to 600 s long.
fn is_length(faults: &mut Violations, field: &'static str, us: i64) -> bool {
    let (shortest, longest) = SECONDS.into_inner();
    let fits = (shortest * SECOND_US..=longest * SECOND_US).contains(&us);
    if !fits {
        let got = us as f64 / SECOND_US as f64;
        faults.add(field, format!("{shortest} s to {longest} s, got {got} s"));
    }
    fits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(window_us: i64, frame_count: u32, expected: &[&str]) {
        let mut faults = Violations::default();
        let asked = TimeSampling {
            window: Some(duration(window_us)),
            frame_count,
        };
        let taken = sampling(&mut faults, Some(asked));
        let found = faults.into_result().err().map_or(Vec::new(), |e| e.fields);
        let found: Vec<_> = found
            .iter()
            .map(|(field, allowed)| format!("{field}: {allowed}"))
            .collect();
        assert_eq!(found, expected, "{window_us} us, {frame_count} frames");
        if expected.is_empty() {
            assert_eq!(taken, asked);
        }
    }

    #[test]
    fn samplings_within_the_limits_are_taken_and_others_say_why() {
        check(5_000_000, 2, &[]);
        check(1_000_000, 10, &[]);
        check(600_000_000, 16, &[]);
        check(1_500_000, 15, &[]);
        check(0, 1, &["sampling.window: 1 s to 600 s, got 0 s"]);
        check(-1_000_000, 1, &["sampling.window: 1 s to 600 s, got -1 s"]);
        check(
            999_999,
            1,
            &["sampling.window: 1 s to 600 s, got 0.999999 s"],
        );
        check(
            600_000_001,
            1,
            &["sampling.window: 1 s to 600 s, got 600.000001 s"],
        );
        check(
            i64::MAX,
            1,
            &["sampling.window: 1 s to 600 s, got 9223372036854.775 s"],
        );
        check(5_000_000, 0, &["sampling.frame_count: 1 to 16, got 0"]);
        check(
            5_000_000,
            1000,
            &["sampling.frame_count: 1 to 16, got 1000"],
        );
        check(
            1_000_000,
            11,
            &[
                "sampling.frame_count: at most 10 frames a second, that is 10 for this window, got 11",
            ],
        );
        check(
            0,
            1000,
            &[
                "sampling.window: 1 s to 600 s, got 0 s",
                "sampling.frame_count: 1 to 16, got 1000",
            ],
        );
    }

    #[test]
    fn without_a_sampling_it_is_2_frames_of_every_5_seconds() {
        let mut faults = Violations::default();
        let taken = sampling(&mut faults, None);
        assert_eq!(taken.frame_count, 2);
        assert_eq!(taken.window.as_ref().map(duration_micros), Some(5_000_000));
    }

    #[test]
    fn batchings_within_the_limits_are_taken_and_others_say_why() {
        let time = |us| Batch::Time(duration(us));
        for (batch, expected) in [
            (Batch::Words(1), None),
            (Batch::Words(1000), None),
            (Batch::Sentences(100), None),
            (time(1_000_000), None),
            (time(600_000_000), None),
            (Batch::Words(0), Some("batching.words: 1 to 1000, got 0")),
            (
                Batch::Words(1001),
                Some("batching.words: 1 to 1000, got 1001"),
            ),
            (
                Batch::Sentences(101),
                Some("batching.sentences: 1 to 100, got 101"),
            ),
            (
                time(999_999),
                Some("batching.time: 1 s to 600 s, got 0.999999 s"),
            ),
            (
                time(600_000_001),
                Some("batching.time: 1 s to 600 s, got 600.000001 s"),
            ),
        ] {
            let mut faults = Violations::default();
            let asked = AudioBatching { batch: Some(batch) };
            let taken = batching(&mut faults, Some(asked));
            let refused = faults.into_result().err().map(|error| error.message);
            assert_eq!(refused.as_deref(), expected, "{batch:?}");
            assert_eq!(taken, asked);
        }
    }

    #[test]
    fn without_a_batching_it_is_10_words() {
        let mut faults = Violations::default();
        for asked in [None, Some(AudioBatching { batch: None })] {
            let taken = batching(&mut faults, asked);
            assert_eq!(taken.batch, Some(Batch::Words(10)));
        }
    }
}
