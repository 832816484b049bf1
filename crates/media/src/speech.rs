//! Cutting speech at its pauses, by voice activity.

use std::collections::VecDeque;

use earshot::Detector;

/// Samples a second.
pub(crate) const RATE: usize = 16_000;
/// Samples the detector judges at once.
const FRAME: usize = 256;
/// Score from which a frame starts speech.
const STARTS: f32 = 0.5;
/// Score from which a frame keeps speech going.
const GOES_ON: f32 = 0.3;
/// A pause this long ends an utterance.
const PAUSE: usize = frames(500);
/// What is kept before and after speech: models are trained on speech that does not start at once.
const MARGIN: usize = frames(200);
/// Speech shorter than this is a noise.
const SHORTEST: usize = frames(130);
/// Where the models' 30 s would overflow, minus some room.
const LONGEST: usize = frames(27_900);
/// Where speech has no pause in its longest time, it is cut at the quietest place of this last stretch.
const CUT_WITHIN: usize = frames(8_000);
/// Samples that are missing for longer than this end an utterance.
const HOLE_US: i64 = 200_000;

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

/// Cuts a run of samples without holes into utterances.
pub(crate) struct Cutter {
    detector: Box<Detector>,
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
    /// A cutter for samples that begin at a position.
    pub(crate) fn starting_at(start_us: i64) -> Self {
        Self {
            detector: Detector::default_boxed(),
            start_us,
            judged: VecDeque::new(),
            pending: Vec::with_capacity(FRAME),
            state: State::Quiet,
        }
    }

    /// Position after the last sample.
    pub(crate) fn end_us(&self) -> i64 {
        self.start_us + duration_us(self.judged.len() * FRAME + self.pending.len())
    }

    /// Whether samples at this position follow those before; false if there is a hole. Small differences (clocks drift) are
    /// made up for while nobody speaks.
    pub(crate) fn follow(&mut self, position_us: i64) -> bool {
        let ahead_us = position_us - self.end_us();
        if ahead_us.abs() > HOLE_US {
            return false;
        }
        if self.state == State::Quiet {
            self.start_us += ahead_us;
        }
        true
    }

    /// Takes the samples that follow and returns the utterances that are over.
    pub(crate) fn push(&mut self, mut samples: &[i16]) -> Vec<Speech> {
        let mut done = Vec::new();
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
        let end = self.judged.len().min(until + MARGIN);
        self.cut(end, voiced)
    }

    fn judge(&mut self, samples: [i16; FRAME]) -> Option<Speech> {
        let score = self.detector.predict_i16(&samples);
        self.judged.push_back(Judged { samples, score });
        let now = self.judged.len();
        match self.state {
            State::Quiet => {
                if score >= STARTS {
                    self.state = State::Speaking {
                        voiced: 1,
                        until: now,
                    };
                } else if now > MARGIN {
                    self.forget(now - MARGIN);
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
                    .then(|| self.cut(until + MARGIN, voiced))
                    .flatten()
            }
        }
    }

    /// Ends the utterance at a frame and goes on quietly; nothing if it was only a noise.
    fn cut(&mut self, end: usize, voiced: usize) -> Option<Speech> {
        let speech = self.speech(end);
        // What follows is the margin of the next utterance.
        let rest = self.judged.len().saturating_sub(MARGIN).max(end);
        self.forget(rest.min(self.judged.len()));
        self.state = State::Quiet;
        (voiced >= SHORTEST).then_some(speech)
    }

    /// Cuts speech that has no pause where it is quietest, and goes on speaking.
    fn cut_inside(&mut self) -> Option<Speech> {
        let from = self.judged.len() - CUT_WITHIN;
        let quietest = (from..self.judged.len())
            .min_by(|a, b| self.judged[*a].score.total_cmp(&self.judged[*b].score))
            .unwrap_or(from);
        let speech = self.speech(quietest + 1);
        self.forget(quietest + 1);
        self.state = State::Speaking {
            voiced: SHORTEST,
            until: self.judged.len(),
        };
        Some(speech)
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
    use super::*;

    /// A buzz with the harmonics of a voice, which the detector takes for one, or silence.
    fn sound(voiced: bool, milliseconds: usize) -> Vec<i16> {
        let count = milliseconds * RATE / 1000;
        if !voiced {
            return vec![0; count];
        }
        let sample = |i: usize| {
            let t = i as f32 / RATE as f32;
            let pitch = 120.0 + 15.0 * (t * 9.0).sin();
            let syllable = 0.6 + 0.4 * (t * 25.0).sin();
            let voice: f32 = (1..24)
                .map(|h| {
                    let f = pitch * h as f32;
                    let formant = 1.0 / (1.0 + ((f - 600.0) / 300.0).powi(2))
                        + 0.6 / (1.0 + ((f - 1700.0) / 400.0).powi(2));
                    (std::f32::consts::TAU * f * t).sin() * formant
                })
                .sum();
            (voice * syllable * 4000.0).clamp(-32000.0, 32000.0) as i16
        };
        (0..count).map(sample).collect()
    }

    fn cut(parts: &[(bool, usize)]) -> Vec<Speech> {
        let samples: Vec<i16> = parts
            .iter()
            .flat_map(|(voiced, ms)| sound(*voiced, *ms))
            .collect();
        let mut cutter = Cutter::starting_at(10_000_000);
        let mut found = Vec::new();
        // Uneven pieces, as decoders deliver them.
        for piece in samples.chunks(1111) {
            found.extend(cutter.push(piece));
        }
        found.extend(cutter.finish());
        found
    }

    #[test]
    fn speech_is_cut_at_pauses_with_a_margin() {
        let found = cut(&[
            (false, 1000),
            (true, 1500),
            (false, 1000),
            (true, 1500),
            (false, 300),
        ]);
        let times: Vec<_> = found
            .iter()
            .map(|s| (s.start_us - 10_000_000, s.end_us() - 10_000_000))
            .collect();
        let expected = [(1_000_000, 2_500_000), (3_500_000, 5_000_000)];
        assert_eq!(times.len(), expected.len(), "{times:?}");
        for ((start, end), (speech_start, speech_end)) in times.iter().zip(expected) {
            assert!(
                (speech_start - 300_000..=speech_start).contains(start),
                "{times:?}"
            );
            assert!(
                (speech_end..=speech_end + 300_000).contains(end),
                "{times:?}"
            );
        }
    }

    #[test]
    fn silence_and_clicks_are_no_speech() {
        assert_eq!(
            cut(&[(false, 3000), (true, 40), (false, 2000), (true, 40)]),
            []
        );
    }

    #[test]
    fn speech_without_a_pause_is_cut_before_it_overflows_and_nothing_is_lost() {
        let found = cut(&[(false, 500), (true, 65_000), (false, 1000)]);
        assert!(found.len() >= 3, "{}", found.len());
        for pair in found.windows(2) {
            assert_eq!(pair[0].end_us(), pair[1].start_us);
        }
        for speech in &found {
            assert!(duration_us(speech.samples.len()) <= 28_000_000);
        }
        let whole: i64 = found.iter().map(|s| duration_us(s.samples.len())).sum();
        assert!((65_000_000..66_000_000).contains(&whole), "{whole}");
    }
}
