//! Tells a tune from a voice: an instrument holds its notes, a voice glides. Of the frames of speech that have a pitch, at most
//! 5 % are part of a stretch that holds it for 0.2 s, and 25 % with a melody as loud as the voice; of a melody alone, or a hum, 98 %.

/// Periods in samples, of 570 to 73 Hz.
const PERIODS: std::ops::RangeInclusive<usize> = 28..=220;
/// How alike a sound with a pitch is to itself a period later, 0 to 1.
const ALIKE: f32 = 0.7;
/// How much better a longer period has to be: twice a period is as good.
const BETTER: f32 = 0.02;
/// Root of the mean square below which there is nothing to hear, of 32767.
const QUIET: f32 = 100.0;
/// Frames of a note: 0.2 s.
const NOTE: usize = 12;

/// The period of a sound in samples at 16 kHz, if it has one.
pub(crate) fn period(samples: &[i16]) -> Option<usize> {
    let sound: Vec<f32> = samples.iter().map(|s| f32::from(*s)).collect();
    let power: f32 = sound.iter().map(|s| s * s).sum();
    if power < sound.len() as f32 * QUIET * QUIET {
        return None;
    }
    let mut best = (0.0, 0);
    for period in PERIODS {
        let alike = alike(&sound, period);
        if alike > best.0 + BETTER {
            best = (alike, period);
        }
    }
    (best.0 >= ALIKE).then_some(best.1)
}

fn alike(sound: &[f32], period: usize) -> f32 {
    let (mut both, mut first, mut later) = (0.0, 0.0, 0.0);
    for (a, b) in sound.iter().zip(sound.iter().skip(period)) {
        both += a * b;
        first += a * a;
        later += b * b;
    }
    both / f32::max((first * later).sqrt(), 1.0)
}

/// Whether more than half of what has a pitch holds it as notes do, from the periods of the frames.
pub(crate) fn is_tune(periods: &[Option<usize>]) -> bool {
    let pitched = periods.iter().flatten().count();
    let (mut held, mut at) = (0, 0);
    while at < periods.len() {
        let same = |period: &Option<usize>| match (period, periods[at]) {
            (Some(period), Some(first)) => period.abs_diff(first) <= 1,
            _ => false,
        };
        let note = periods[at..]
            .iter()
            .take_while(|period| same(period))
            .count();
        if note >= NOTE {
            held += note;
        }
        at += note.max(1);
    }
    held * 2 > pitched
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pitch_is_found_where_there_is_one() {
        let tone = |hertz: f32, loud: f32| -> Vec<i16> {
            let at = |i: usize| (i as f32 * hertz / 16_000.0).fract() - 0.5;
            (0..512).map(|i| (at(i) * loud) as i16).collect()
        };
        assert_eq!(period(&tone(100.0, 9000.0)), Some(160));
        assert_eq!(period(&tone(200.0, 9000.0)), Some(80));
        assert_eq!(period(&tone(200.0, 90.0)), None);
        assert_eq!(period(&[0; 512]), None);
    }

    #[test]
    fn held_notes_are_a_tune_and_gliding_is_not() {
        let held = |period, frames| vec![Some(period); frames];
        let gliding = |frames: usize| (0..frames).map(|i| Some(80 + i / 3)).collect::<Vec<_>>();
        for (periods, expected) in [
            (vec![], false),
            (vec![None; 50], false),
            ([held(50, 20), held(60, 20), vec![None; 9]].concat(), true),
            (gliding(100), false),
            // A voice above a tune.
            ([held(50, 20), gliding(30)].concat(), false),
            (held(50, NOTE - 1), false),
        ] {
            assert_eq!(is_tune(&periods), expected, "{periods:?}");
        }
    }
}
