//! Cutting speech at its pauses, by voice activity.

use std::collections::VecDeque;

use earshot::Detector;

use crate::pitch::period;
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
    /// Of its pitch, if it has one and may be speech.
    period: Option<usize>,
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
        let before = self.judged.back().filter(|_| score >= GOES_ON);
        let period = before.and_then(|b| period(&[b.samples, samples].concat()));
        self.judged.push_back(Judged {
            samples,
            score,
            period,
        });
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
        let frames = self.judged.iter().take(end);
        let (scores, periods): (Vec<f32>, Vec<_>) = frames.map(|f| (f.score, f.period)).unzip();
        is_voice(&scores, &periods)
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
mod tests;
