//! Whether what the detector took for speech is a voice, or noise, music and machines that are only a little like one.
//!
//! Speech models write fluent sentences of whatever they are given, so music must not reach them. Measured on steady and pulsing
//! noise, chords, melodies, drums, slams and hums: the detector is half sure (0.3 to 0.8) of them for seconds, and really sure
//! (0.9) of at most 10 % of those frames, or 15 % of any 2 s. Of speech it is sure of 40 % and more, of 22 % with noise or music
//! as loud as the voice, and of 14 % of the shortest word. Whispering it is never sure of: that is not transcribed.

/// Score of a frame that may be speech.
pub(crate) const MAYBE: f32 = 0.3;
/// Score of a frame that is.
const SURE: f32 = 0.9;
/// Sure frames among those that may be speech, for all to be speech: one of so many.
const SHARE: usize = 8;
/// Frames of 2 s. A few words in long music are speech too: see `SHARE_OF_STRETCH`.
const STRETCH: usize = 125;
/// Percent of the frames of a stretch that are sure, for all to be speech.
const SHARE_OF_STRETCH: usize = 30;

/// Whether somebody speaks in an utterance, from the scores of its frames.
pub(crate) fn is_voice(scores: &[f32]) -> bool {
    let is_sure = |score: &f32| *score >= SURE;
    let sure = scores.iter().filter(|s| is_sure(s)).count();
    let maybe = scores.iter().filter(|s| **s >= MAYBE).count();
    if sure == 0 {
        return false;
    }
    sure * SHARE >= maybe
        || scores.windows(STRETCH).step_by(STRETCH / 5).any(|stretch| {
            stretch.iter().filter(|s| is_sure(s)).count() * 100 >= SHARE_OF_STRETCH * STRETCH
        })
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
            (vec![(1000, 0.85)], false),
            (vec![(30, 0.5), (5, 0.95), (60, 0.1)], true),
            (vec![(700, 0.6), (20, 0.92)], false),
            // A short call in long music.
            (vec![(900, 0.6), (50, 0.95), (600, 0.6)], true),
        ] {
            assert_eq!(is_voice(&of(&parts)), expected, "{parts:?}");
        }
    }
}
