//! Whether what the detector took for speech is a voice, or noise, music and machines that are only a little like one.
//!
//! Speech models write fluent sentences of whatever they are given, so music must not reach them. Measured on steady and pulsing
//! noise, chords, drums, slams and hums: the detector is half sure (0.3 to 0.8) of them for seconds, and really sure (0.9) of at
//! most 25 % of those frames in their best 2 s. Of the best 2 s of speech it is sure of 80 % and more, of 42 % with noise as loud as the
//! voice; of short words of 23 % and more. Whispering it is never sure of: that is not transcribed. Of single notes it is as
//! sure as of speech: `pitch` tells them.

use crate::pitch::is_tune;

/// Score of a frame that may be speech.
pub(crate) const MAYBE: f32 = 0.3;
/// Score of a frame that is.
const SURE: f32 = 0.9;
/// Frames of 2 s: some words in long music are speech.
const STRETCH: usize = 125;
/// Frames between stretches that are looked at.
const STEP: usize = 25;
/// Frames of a stretch that have to be speech, perhaps, for it to tell anything.
const LEAST: usize = 16;
/// Percent of the frames that may be speech which are, for a stretch to be speech; and for what is shorter than one.
const PERCENT: usize = 37;
const PERCENT_OF_SHORT: usize = 20;

/// Whether somebody speaks in an utterance, from the scores and the pitches (`pitch::period`) of its frames: in 2 s of it, or in
/// the whole of a shorter one. The rest may be a chime, or music on hold.
pub(crate) fn is_voice(scores: &[f32], periods: &[Option<usize>]) -> bool {
    if scores.len() <= STRETCH {
        let (sure, maybe) = count(scores);
        return sure > 0 && sure * 100 >= maybe * PERCENT_OF_SHORT && !is_tune(periods);
    }
    // The last stretch ends where the utterance does.
    let last = scores.len() - STRETCH;
    let mut starts = (0..last).step_by(STEP).chain([last]);
    starts.any(|start| {
        let stretch = start..start + STRETCH;
        let (sure, maybe) = count(&scores[stretch.clone()]);
        maybe >= LEAST && sure * 100 >= maybe * PERCENT && !is_tune(&periods[stretch])
    })
}

/// Frames that are speech, and those that may be.
fn count(scores: &[f32]) -> (usize, usize) {
    let above = |least: f32| scores.iter().filter(|score| **score >= least).count();
    (above(SURE), above(MAYBE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_sure_words_are_enough_and_being_half_sure_for_long_is_not() {
        let of = |parts: &[(usize, f32)]| -> Vec<f32> {
            let part = |&(frames, score)| std::iter::repeat_n(score, frames);
            parts.iter().flat_map(part).collect()
        };
        for (parts, expected) in [
            (vec![], false),
            (vec![(100, 0.85)], false),
            (vec![(1000, 0.85)], false),
            (vec![(30, 0.5), (9, 0.95), (60, 0.1)], true),
            (vec![(60, 0.6), (9, 0.95)], false),
            (vec![(700, 0.6), (20, 0.92)], false),
            // A short call in long music, and at its end.
            (vec![(900, 0.6), (80, 0.95), (600, 0.6)], true),
            (vec![(913, 0.6), (50, 0.95)], true),
            // A word after a long noise that the detector does not take for speech.
            (vec![(300, 0.1), (20, 0.95), (30, 0.1)], true),
        ] {
            let scores = of(&parts);
            let periods = vec![None; scores.len()];
            assert_eq!(is_voice(&scores, &periods), expected, "{parts:?}");
        }
    }

    #[test]
    fn a_voice_beside_a_tune_is_one_and_a_tune_alone_is_none() {
        let tune = |frames: usize| (0..frames).map(|i| Some(50 + 5 * (i / 20)));
        let voice = |frames: usize| (0..frames).map(|i| Some(80 + i / 3));
        for (name, periods, expected) in [
            ("a tune", tune(100).collect(), false),
            ("a long tune", tune(1500).collect(), false),
            ("a voice", voice(100).collect(), true),
            ("after it", tune(1500).chain(voice(100)).collect(), true),
            ("before it", voice(100).chain(tune(1500)).collect(), true),
            (
                "inside",
                tune(300).chain(voice(150)).chain(tune(300)).collect(),
                true,
            ),
        ] {
            let periods: Vec<Option<usize>> = periods;
            let scores = vec![0.95; periods.len()];
            assert_eq!(is_voice(&scores, &periods), expected, "{name}");
        }
    }
}
