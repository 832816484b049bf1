//! Cutting speech at its pauses, by voice activity.

use std::collections::VecDeque;

use earshot::Detector;

use crate::voice::{self, is_voice};

/// Samples a second.
pub(crate) const RATE: usize = 16_000;
/// Samples the detector judges at once.
const FRAME: usize = 256;
/// Score from which a frame starts speech.
const STARTS: f32 = 0.5;
/// Score from which a frame keeps speech going.
const GOES_ON: f32 = voice::MAYBE;
/// A pause this long ends an utterance.
const PAUSE: usize = frames(500);
/// What is kept before the first frame that starts speech. The detector is some 70 ms late, and models need a quarter of a
/// second before the first word.
const BEFORE: usize = frames(355);
/// What is kept after the last frame of speech. The detector lets go some 150 ms late.
const AFTER: usize = frames(130);
/// Speech shorter than this is a noise.
const SHORTEST: usize = frames(130);
/// Where the models' 30 s would overflow, minus some room.
const LONGEST: usize = frames(27_900);
/// Where speech has no pause in its longest time, it is cut at the quietest place of this last stretch.
const CUT_WITHIN: usize = frames(8_000);
/// How much of the end of an utterance is told before it is over.
const TOLD: usize = frames(12_000);
/// Samples that are missing for longer than this end an utterance.
const HOLE_US: i64 = 200_000;
/// Clocks that are further apart than this are made up for.
const DRIFT_US: i64 = 5_000;
/// Length of a frame.
const FRAME_US: i64 = FRAME as i64 * 1_000_000 / RATE as i64;

const fn frames(milliseconds: usize) -> usize {
    milliseconds * RATE / 1000 / FRAME
}

/// A stretch of speech.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Speech {
    /// Where it starts.
    pub(crate) start_us: i64,
    /// 16 kHz mono.
    pub(crate) samples: Vec<i16>,
}

impl Speech {
    /// Where it ends.
    #[cfg(test)]
    pub(crate) fn end_us(&self) -> i64 {
        self.start_us + duration_us(self.samples.len())
    }
}

/// Length of that many samples.
pub(crate) fn duration_us(samples: usize) -> i64 {
    samples as i64 * 1_000_000 / RATE as i64
}

/// How many samples that is; none for a time that has passed.
fn samples_in(us: i64) -> usize {
    usize::try_from(us).map_or(0, |us| us.saturating_mul(RATE) / 1_000_000)
}

/// Cuts a run of samples without holes into utterances.
///
/// Frames lie on a grid from media time 0 and the detector hears some of what lies before, so that whoever starts again
/// at the end of an utterance finds the same ones after it.
pub(crate) struct Cutter {
    detector: Box<Detector>,
    /// Nothing before this is part of an utterance.
    from_us: i64,
    /// Samples to leave out until the next frame of the grid.
    skip: usize,
    /// Position of the first sample in `pending` and `judged`.
    start_us: i64,
    /// Judged frames: those of the margin while nobody speaks, the whole utterance while somebody does.
    judged: VecDeque<Judged>,
    /// Samples that do not fill a frame yet.
    pending: Vec<i16>,
    state: State,
}

struct Judged {
    samples: [i16; FRAME],
    score: f32,
}

/// Counts are of frames in `judged`.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Quiet,
    Speaking {
        /// Frames that were speech.
        voiced: usize,
        /// Frames up to the end of the last one that was speech.
        until: usize,
    },
}

impl Cutter {
    /// A cutter for samples that begin at a position, and utterances that do not begin before `from_us`.
    pub(crate) fn starting_at(position_us: i64, from_us: i64) -> Self {
        let into_frame = position_us.rem_euclid(FRAME_US);
        let ahead_us = (FRAME_US - into_frame) % FRAME_US;
        Self {
            detector: Detector::default_boxed(),
            from_us,
            skip: samples_in(ahead_us),
            start_us: position_us + ahead_us,
            judged: VecDeque::new(),
            pending: Vec::with_capacity(FRAME),
            state: State::Quiet,
        }
    }

    /// Position after the last sample.
    pub(crate) fn end_us(&self) -> i64 {
        let samples = self.judged.len() * FRAME + self.pending.len();
        self.start_us + duration_us(samples) - duration_us(self.skip)
    }

    /// Whether samples at this position follow those before; false if there is a hole. Small differences (clocks drift) are
    /// made up for while nobody speaks.
    pub(crate) fn follow(&mut self, position_us: i64) -> bool {
        let ahead_us = position_us - self.end_us();
        if ahead_us.abs() > HOLE_US {
            return false;
        }
        if self.state == State::Quiet && ahead_us.abs() > DRIFT_US {
            self.start_us += ahead_us;
        }
        true
    }

    /// Takes the samples that follow and returns the utterances that are over.
    pub(crate) fn push(&mut self, mut samples: &[i16]) -> Vec<Speech> {
        let mut done = Vec::new();
        let skipped = self.skip.min(samples.len());
        self.skip -= skipped;
        samples = &samples[skipped..];
        while !samples.is_empty() {
            let taken = samples.len().min(FRAME - self.pending.len());
            self.pending.extend_from_slice(&samples[..taken]);
            samples = &samples[taken..];
            if let Ok(frame) = <[i16; FRAME]>::try_from(self.pending.as_slice()) {
                self.pending.clear();
                done.extend(self.judge(frame));
            }
        }
        done
    }

    /// The samples end here. Returns the utterance under way.
    pub(crate) fn finish(&mut self) -> Option<Speech> {
        let State::Speaking { voiced, until } = self.state else {
            return None;
        };
        let end = self.judged.len().min(until + AFTER);
        self.cut(end, voiced)
    }

    /// Whether an utterance may be under way.
    pub(crate) fn is_speaking(&self) -> bool {
        self.state != State::Quiet
    }

    /// What was heard so far of an utterance that is not over: its end, if it is long. Nothing as long as it may be a noise.
    pub(crate) fn so_far(&self) -> Option<Speech> {
        let State::Speaking { voiced, .. } = self.state else {
            return None;
        };
        if voiced < SHORTEST || !self.is_voice(self.judged.len()) {
            return None;
        }
        let left_out = self.judged.len().saturating_sub(TOLD);
        let told = self.judged.iter().skip(left_out);
        Some(Speech {
            start_us: self.start_us + duration_us(left_out * FRAME),
            samples: told.flat_map(|frame| frame.samples).collect(),
        })
    }

    fn judge(&mut self, samples: [i16; FRAME]) -> Option<Speech> {
        let score = self.detector.predict_i16(&samples);
        if self.judged.is_empty() && self.start_us < self.from_us {
            self.start_us += FRAME_US;
            return None;
        }
        self.judged.push_back(Judged { samples, score });
        let now = self.judged.len();
        match self.state {
            State::Quiet => {
                if score >= STARTS {
                    self.state = State::Speaking {
                        voiced: 1,
                        until: now,
                    };
                } else if now > BEFORE {
                    self.forget(1);
                }
                None
            }
            State::Speaking { voiced, until } => {
                if score >= GOES_ON {
                    self.state = State::Speaking {
                        voiced: voiced + 1,
                        until: now,
                    };
                    return (now >= LONGEST).then(|| self.cut_inside()).flatten();
                }
                (now >= until + PAUSE)
                    .then(|| self.cut(until + AFTER, voiced))
                    .flatten()
            }
        }
    }

    /// Ends the utterance at a frame and goes on quietly; nothing if it was only a noise.
    fn cut(&mut self, end: usize, voiced: usize) -> Option<Speech> {
        let is_speech = voiced >= SHORTEST && self.is_voice(end);
        let speech = self.speech(end);
        // What follows is the margin of the next utterance.
        let rest = self.judged.len().saturating_sub(BEFORE).max(end);
        self.forget(rest.min(self.judged.len()));
        self.state = State::Quiet;
        is_speech.then_some(speech)
    }

    /// Cuts speech that has no pause where it is quietest, and goes on speaking.
    fn cut_inside(&mut self) -> Option<Speech> {
        let from = self.judged.len() - CUT_WITHIN;
        let quietest = (from..self.judged.len())
            .min_by(|a, b| self.judged[*a].score.total_cmp(&self.judged[*b].score))
            .unwrap_or(from);
        let is_speech = self.is_voice(quietest + 1);
        let speech = self.speech(quietest + 1);
        self.forget(quietest + 1);
        self.state = State::Speaking {
            voiced: SHORTEST,
            until: self.judged.len(),
        };
        is_speech.then_some(speech)
    }

    fn is_voice(&self, end: usize) -> bool {
        let scores: Vec<f32> = self.judged.iter().take(end).map(|f| f.score).collect();
        is_voice(&scores)
    }

    fn speech(&self, end: usize) -> Speech {
        let kept = self.judged.iter().take(end);
        Speech {
            start_us: self.start_us,
            samples: kept.flat_map(|frame| frame.samples).collect(),
        }
    }

    fn forget(&mut self, frames: usize) {
        self.judged.drain(..frames);
        self.start_us += duration_us(frames * FRAME);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use sightline_testkit::sounds;

    use super::*;

    /// Speech without silence around it, at 16 kHz.
    fn spoken(text: &str) -> Vec<i16> {
        let said = Command::new("espeak-ng")
            .args(["--stdout", "-s", "150", text])
            .output()
            .expect("espeak-ng runs");
        // A WAV of 22 050 Hz with a header of 44 bytes.
        let wav: Vec<i16> = said.stdout[44..]
            .chunks_exact(2)
            .map(|b| i16::from_le_bytes([b[0], b[1]]))
            .collect();
        let loud = |s: &i16| s.unsigned_abs() > 500;
        let start = wav.iter().position(loud).expect("it speaks");
        let end = wav.iter().rposition(loud).expect("it speaks");
        let voice = &wav[start..=end];
        let resampled = |i: usize| voice[i * 22_050 / RATE];
        (0..voice.len() * RATE / 22_050).map(resampled).collect()
    }

    fn silence(milliseconds: usize) -> Vec<i16> {
        vec![0; milliseconds * RATE / 1000]
    }

    /// Cuts the parts, put together. Times of what is found are in microseconds from their start.
    fn cut(parts: &[Vec<i16>]) -> Vec<(i64, i64)> {
        const START_US: i64 = 10_000_000;
        let mut cutter = Cutter::starting_at(START_US, 0);
        let mut found = Vec::new();
        // Uneven pieces, as decoders deliver them.
        for piece in parts.concat().chunks(1111) {
            found.extend(cutter.push(piece));
        }
        found.extend(cutter.finish());
        let times = |s: &Speech| (s.start_us - START_US, s.end_us() - START_US);
        found.iter().map(times).collect()
    }

    #[test]
    fn speech_is_cut_at_pauses_with_a_margin() {
        let first = spoken("control room to all units");
        let second = spoken("a white car is moving fast on the main road");
        let starts = [1_000_000, 2_000_000 + duration_us(first.len())];
        let ends = [
            starts[0] + duration_us(first.len()),
            starts[1] + duration_us(second.len()),
        ];
        let found = cut(&[silence(1000), first, silence(1000), second, silence(1000)]);
        assert_eq!(found.len(), 2, "{found:?}");
        for ((start, end), (speech_start, speech_end)) in found.iter().zip(starts.iter().zip(ends))
        {
            let (before, after) = (speech_start - start, end - speech_end);
            assert!((200_000..=370_000).contains(&before), "{before} before");
            assert!((200_000..=370_000).contains(&after), "{after} after");
        }
    }

    #[test]
    fn silence_and_clicks_are_no_speech() {
        let click: Vec<i16> = (0..200)
            .map(|i| if i % 8 < 4 { 9000 } else { -9000 })
            .collect();
        let found = cut(&[silence(3000), click.clone(), silence(2000), click]);
        assert_eq!(found, []);
    }

    #[test]
    fn noise_and_music_are_no_speech_and_speech_above_them_is() {
        for (name, sound) in sounds::all(12 * RATE) {
            let found = cut(&[silence(500), sound.clone(), silence(1000)]);
            assert_eq!(found, [], "{name}");
            // As loud as a voice, and a voice with it.
            let voice = spoken("the ambulance left at noon and the gate is closed");
            let both = voice.iter().zip(&sound);
            let both: Vec<i16> = both.map(|(v, s)| v.saturating_add(*s / 2)).collect();
            let found = cut(&[silence(500), both, silence(1000)]);
            assert_eq!(found.len(), 1, "a voice and {name}: {found:?}");
        }
    }

    #[test]
    fn what_is_heard_is_told_before_it_is_over() {
        let sentence = spoken("a white car is moving fast on the main road");
        let mut cutter = Cutter::starting_at(0, 0);
        assert_eq!(cutter.push(&silence(500)), []);
        assert_eq!(cutter.so_far(), None);
        let (first, rest) = sentence.split_at(sentence.len() / 2);
        assert_eq!(cutter.push(first), []);
        let told = cutter.so_far().expect("somebody speaks");
        assert_eq!(cutter.push(rest), []);
        let more = cutter.so_far().expect("somebody speaks");
        let done = cutter.push(&silence(1000)).pop().expect("it is over");
        assert_eq!(
            (told.start_us, more.start_us),
            (done.start_us, done.start_us)
        );
        assert!(done.samples.starts_with(&told.samples));
        assert!(more.samples.starts_with(&told.samples));
        assert_eq!(cutter.so_far(), None);
        for _ in 0..8 {
            cutter.push(&sentence);
        }
        let told = cutter.so_far().expect("somebody speaks");
        assert_eq!(told.samples.len(), TOLD * FRAME);
        assert_eq!(
            told.end_us(),
            cutter.end_us() - duration_us(cutter.pending.len())
        );
    }

    #[test]
    fn speech_without_a_pause_is_cut_before_it_overflows_and_nothing_is_lost() {
        let sentence = spoken("traffic is heavy near gate two");
        let talk: Vec<_> = std::iter::repeat_n(sentence, 45).collect();
        let length = duration_us(talk.concat().len());
        let found = cut(&[vec![silence(500)], talk, vec![silence(1000)]].concat());
        assert!(
            length > 60_000_000 && found.len() >= 3,
            "{length} {found:?}"
        );
        for pair in found.windows(2) {
            assert_eq!(pair[0].1, pair[1].0, "{found:?}");
        }
        assert!(found.iter().all(|(start, end)| end - start <= 28_000_000));
        let (start, end) = (found[0].0, found[found.len() - 1].1);
        assert!(start < 500_000 && end > 500_000 + length, "{start} {end}");
    }
}
