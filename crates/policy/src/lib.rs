//! When an alert fires: a pure state machine over the verdicts of one alert.
//!
//! Windows are evaluated in the order of their numbers. A window that is judged before an earlier one waits for it until
//! the second window after the missing one was judged; then the missing one counts as unknown. An unknown window neither
//! fires nor closes: windows that fire on both sides of at most [`BRIDGED`] unknown ones are one firing. Verdicts by
//! similarity, of batches of a transcript, come in order: a number that they leave out never comes and is not waited for.
//! Windows that start while the alert sleeps do not count.
//!
//! A firing closes by windows that do not count, by a later epoch, or because somebody says so ([`end`]): by the clock, or
//! because the alert is disabled. The last is stored in the record first and then decided by it ([`settle`]).
//!
//! The state is the [`EvaluationRecord`] itself, so that what is stored is what is computed with. What makes storing it
//! rarely enough ([`must_store`]): for a closed alert with nothing waiting, `next_window` may be too small. The windows in
//! between did not count, so calling them unknown, as this machine does when it meets a later one, leads to the same
//! firings; it only waits for them first, as for any missing window.

mod awake;

use sightline_proto::internal::{EvaluationRecord, JudgedWindow, OpenFiring};
use sightline_proto::time::duration_micros;
use sightline_proto::v1::{Alert, Policy};

use awake::Hours;
pub use awake::is_time_zone;

/// A missing window is waited for until the window this far after it was judged.
const PATIENCE: u64 = 2;
/// How many unknown windows in a row a firing may span.
const BRIDGED: u64 = 2;
/// In place of the number of windows that did not count: the firing is over, and it has yet to be said.
const OVER: u64 = u64::MAX;

/// A firing opens, goes on or closes.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The stream's epoch.
    pub epoch_us: i64,
    /// The firing, with this window in it.
    pub firing: OpenFiring,
    /// The window that counts; the firing's first one where it closes.
    pub window: JudgedWindow,
    /// Whether the firing is over.
    pub closes: bool,
}

impl Decision {
    /// Whether this window opened the firing.
    pub fn opens(&self) -> bool {
        let first = self.firing.first.as_ref().map(|first| first.window);
        !self.closes && first == Some(self.window.window)
    }
}

/// What a window counts by, what windows that count lead to, and when this is decided.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The probability at which a window counts.
    threshold: f32,
    /// When windows count at all.
    awake: Hours,
    /// So many of the last `of` windows have to count for a firing to open.
    required: usize,
    of: u64,
    /// So many windows in a row that do not count close it.
    close_after: u64,
    /// None opens for so long after the end of the one before.
    cooldown_us: i64,
    /// The wall clock.
    now_us: i64,
}

impl Rule {
    /// The alert's rule.
    pub fn of(alert: &Alert, now_us: i64) -> Self {
        let usual = Policy::default();
        let policy = alert.policy.as_ref().unwrap_or(&usual);
        Self {
            threshold: alert.threshold,
            awake: Hours::of(policy),
            required: policy.required.max(1) as usize,
            of: policy.of.max(1).into(),
            close_after: policy.close_after.max(1).into(),
            cooldown_us: policy.cooldown.as_ref().map_or(0, duration_micros),
            now_us,
        }
    }

    /// For how many windows' time nothing has to be heard for a firing to be over: a window that is missing is waited for, and
    /// then so many have to be quiet.
    pub fn silence(&self) -> u64 {
        PATIENCE + self.close_after
    }

    /// False for a probability that is not a number.
    fn counts(&self, judged: &JudgedWindow) -> bool {
        judged.probability >= self.threshold && self.awake.contain(judged.start_us)
    }
}

/// Takes one verdict and returns what opens, goes on and closes. Windows that were evaluated or are waiting already change nothing, nor do those
/// of an earlier epoch. A later epoch ends the one before.
pub fn apply(
    state: &mut EvaluationRecord,
    epoch_us: i64,
    judged: JudgedWindow,
    rule: &Rule,
) -> Vec<Decision> {
    if epoch_us < state.epoch_us {
        return Vec::new();
    }
    let mut decisions = Vec::new();
    if epoch_us > state.epoch_us {
        while give_up(state) {
            decisions.extend(settle(state, rule));
        }
        decisions.extend(close(state));
        *state = EvaluationRecord {
            epoch_us,
            // Epochs lie on the wall clock: a firing's end is the same time in the next.
            ended_us: state.ended_us,
            ..EvaluationRecord::default()
        };
    }
    if judged.by_similarity {
        state.next_window = state.next_window.max(judged.window);
    }
    let place = state.waiting.partition_point(|w| w.window < judged.window);
    let known = state.waiting.get(place).map(|w| w.window) == Some(judged.window);
    if judged.window >= state.next_window && !known {
        state.waiting.insert(place, judged);
    }
    decisions.extend(settle(state, rule));
    decisions
}

/// Takes the missing windows before the first waiting one as unknown; false if nothing waits.
pub fn give_up(state: &mut EvaluationRecord) -> bool {
    match state.waiting.first() {
        Some(first) => {
            state.next_window = first.window;
            true
        }
        None => false,
    }
}

/// The open firing is over whatever comes next, and [`settle`] closes it; false if none is open.
pub fn end(state: &mut EvaluationRecord) -> bool {
    if let Some(open) = &mut state.open {
        open.quiet = OVER;
    }
    state.open.is_some()
}

/// Whether the open firing is over and has yet to be closed.
pub fn is_over(state: &EvaluationRecord) -> bool {
    state.open.is_some_and(|open| open.quiet == OVER)
}

/// Evaluates what need not wait (any longer).
pub fn settle(state: &mut EvaluationRecord, rule: &Rule) -> Vec<Decision> {
    let mut decisions = Vec::new();
    if is_over(state) {
        decisions.extend(close(state));
    }
    while let (Some(first), Some(last)) = (state.waiting.first(), state.waiting.last()) {
        let awaited = (last.window + 1).saturating_sub(PATIENCE);
        state.next_window = first.window.min(awaited.max(state.next_window));
        if first.window > state.next_window {
            break;
        }
        let judged = state.waiting.remove(0);
        state.next_window += 1;
        decisions.extend(evaluate(state, judged, rule));
    }
    decisions
}

/// Whether the state that followed from `before` and led to `decisions` has to be stored before its verdicts are
/// acknowledged.
///
/// A decision alone is reason enough, even when its firing has closed again: a crash may lose the acknowledgement of the
/// firing's last windows only, and they would open another one.
pub fn must_store(
    before: &EvaluationRecord,
    after: &EvaluationRecord,
    decisions: &[Decision],
) -> bool {
    !decisions.is_empty()
        || before.open != after.open
        || before.waiting != after.waiting
        || counted_since(before, after)
}

/// Whether a window counted that may be one of several: the verdict does not come again once it is acknowledged.
fn counted_since(before: &EvaluationRecord, after: &EvaluationRecord) -> bool {
    let last = after.counted.last();
    last.is_some() && (after.epoch_us, last) != (before.epoch_us, before.counted.last())
}

/// A window may close one firing and open the next.
fn evaluate(state: &mut EvaluationRecord, judged: JudgedWindow, rule: &Rule) -> Vec<Decision> {
    let counts = rule.counts(&judged);
    remember(state, judged.window, counts, rule);
    let mut decisions = Vec::from_iter(go_on(state, judged.window, counts, rule));
    if !counts {
        return decisions;
    }
    let firing = match state.open {
        Some(open) => OpenFiring {
            last_window: judged.window,
            end_us: judged.end_us,
            quiet: 0,
            ..open
        },
        None if opens(state, &judged, rule) => OpenFiring {
            first: Some(judged),
            last_window: judged.window,
            end_us: judged.end_us,
            decided_us: rule.now_us,
            quiet: 0,
        },
        None => return decisions,
    };
    state.open = Some(firing);
    decisions.push(Decision {
        epoch_us: state.epoch_us,
        firing,
        window: judged,
        closes: false,
    });
    decisions
}

/// Keeps which of the last windows counted, where that matters.
fn remember(state: &mut EvaluationRecord, window: u64, counts: bool, rule: &Rule) {
    let oldest = (window + 1).saturating_sub(rule.of);
    state.counted.retain(|counted| *counted >= oldest);
    if counts && rule.of > 1 {
        state.counted.push(window);
    }
}

/// Closes the open firing if it does not go on with this window.
fn go_on(state: &mut EvaluationRecord, window: u64, counts: bool, rule: &Rule) -> Option<Decision> {
    let open = state.open.as_mut()?;
    let between = window.saturating_sub(open.last_window + 1);
    let unknown = between.saturating_sub(open.quiet);
    open.quiet += u64::from(!counts);
    if unknown > BRIDGED || open.quiet >= rule.close_after {
        return close(state);
    }
    None
}

/// Closes the open firing, if there is one.
fn close(state: &mut EvaluationRecord) -> Option<Decision> {
    let firing = state.open.take()?;
    state.ended_us = firing.end_us;
    Some(Decision {
        epoch_us: state.epoch_us,
        firing,
        // Only a record that another program wrote lacks it.
        window: firing.first.unwrap_or_default(),
        closes: true,
    })
}

/// Whether a window that counts opens a firing.
fn opens(state: &EvaluationRecord, judged: &JudgedWindow, rule: &Rule) -> bool {
    let enough = rule.of == 1 || state.counted.len() >= rule.required;
    // A later epoch may begin before the end of the one before: files are played faster than they last.
    let rested = rule.cooldown_us == 0
        || state.ended_us == 0
        || judged.start_us >= state.ended_us + rule.cooldown_us;
    enough && rested
}

/// Why a window led to no firing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It does not reach the threshold.
    Below,
    /// The alert was asleep.
    Asleep,
    /// Too few of the last windows count.
    TooFew {
        /// How many do.
        has: usize,
        /// How many have to.
        required: usize,
        /// Of how many.
        of: u64,
    },
    /// The last firing ended a short while ago.
    Resting {
        /// Up to when none opens, in microseconds since the Unix epoch.
        until_us: i64,
    },
}

/// Why the window that was just evaluated, the last one of `state`, is in no firing; none if it is.
pub fn why(state: &EvaluationRecord, judged: &JudgedWindow, rule: &Rule) -> Option<Why> {
    let within = state.open.map(|open| open.last_window) == Some(judged.window);
    if within {
        return None;
    }
    // Neither for a probability that is not a number.
    let enough = judged.probability >= rule.threshold;
    Some(if !enough {
        Why::Below
    } else if !rule.awake.contain(judged.start_us) {
        Why::Asleep
    } else if rule.of > 1 && state.counted.len() < rule.required {
        Why::TooFew {
            has: state.counted.len(),
            required: rule.required,
            of: rule.of,
        }
    } else {
        Why::Resting {
            until_us: state.ended_us + rule.cooldown_us,
        }
    })
}

#[cfg(test)]
mod tests;
