//! Where batches of a transcript begin and end: a pure state machine over the words of one audio index.
//!
//! Words wait, in order of time, until they complete a batch. The state is the [`BatchingRecord`] itself, so that what is
//! stored is what is computed with; the same segments in the same order always lead to the same batches. What depends on the
//! clock, that nothing more is waited for, is decided by the caller and stored before anything follows from it.

use sightline_proto::internal::{BatchingRecord, Word};
use sightline_proto::time::duration_micros;
use sightline_proto::v1::{Index, audio_batching::Batch};

/// Words of one index that wait at most, some 350 kB; when there are more, what waits is a batch before its time.
pub(crate) const MOST_WAITING: usize = 10_000;
/// Segments that are remembered, so that one which comes again is known: more than are under way at any time.
const REMEMBERED: usize = 256;
/// Words of a batch where the index does not say how it is cut.
const USUAL_WORDS: usize = 10;
/// What ends a sentence at the end of a word.
const SENTENCE_ENDS: [char; 6] = ['.', '!', '?', '。', '！', '？'];
/// What may stand behind the end of a sentence.
const CLOSING: [char; 8] = ['"', '\'', '”', '’', ')', '」', '』', '）'];
/// Batches that start this close to each other, because their first words do, start a microsecond apart: ids hold the start.
const TOGETHER_US: i64 = 1000;

/// How an index's transcript is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Batching {
    /// After so many words.
    Words(usize),
    /// After so many sentences.
    Sentences(usize),
    /// Each so many microseconds, on the grid from the epoch.
    Time(i64),
}

/// A transcript segment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spoken {
    pub(crate) epoch_us: i64,
    pub(crate) start_us: i64,
    /// In order of time.
    pub(crate) words: Vec<Word>,
    /// Its place in OBSERVATIONS.
    pub(crate) sequence: u64,
}

/// A batch that was cut.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Cut {
    pub(crate) epoch_us: i64,
    pub(crate) number: u64,
    pub(crate) start_us: i64,
    pub(crate) end_us: i64,
    /// None of a time in which nothing was said.
    pub(crate) words: Vec<Word>,
}

impl Batching {
    pub(crate) fn of(index: &Index) -> Self {
        let batch = index.batching.as_ref().and_then(|b| b.batch.as_ref());
        match batch {
            Some(Batch::Words(words)) => Self::Words((*words).max(1) as usize),
            Some(Batch::Sentences(sentences)) => Self::Sentences((*sentences).max(1) as usize),
            Some(Batch::Time(time)) => Self::Time(duration_micros(time).max(1)),
            None => Self::Words(USUAL_WORDS),
        }
    }
}

/// Takes in a segment and returns what it completes. One that was taken in before changes nothing, nor does one of an
/// earlier epoch. A later epoch ends the one before.
pub(crate) fn take(state: &mut BatchingRecord, batching: Batching, spoken: &Spoken) -> Vec<Cut> {
    if spoken.sequence <= state.sequence {
        return Vec::new();
    }
    state.sequence = spoken.sequence;
    if spoken.epoch_us < state.epoch_us {
        return Vec::new();
    }
    let mut cuts = Vec::new();
    if spoken.epoch_us > state.epoch_us {
        cuts = drain(state, batching);
        *state = BatchingRecord {
            epoch_us: spoken.epoch_us,
            sequence: spoken.sequence,
            ..BatchingRecord::default()
        };
    }
    if state.taken_us.contains(&spoken.start_us) {
        return cuts;
    }
    if state.taken_us.len() >= REMEMBERED {
        state.taken_us.remove(0);
    }
    state.taken_us.push(spoken.start_us);
    for word in &spoken.words {
        let place = state
            .waiting
            .partition_point(|w| w.start_us <= word.start_us);
        state.waiting.insert(place, word.clone());
    }
    // Where a later segment starts, no earlier one is to come, as far as one can tell.
    let heard_us = state.taken_us.iter().copied().max().unwrap_or(0);
    cuts.extend(settle(state, batching, heard_us));
    cuts
}

/// Cuts what is complete when nothing more comes of what was said before `until_us`.
pub(crate) fn settle(state: &mut BatchingRecord, batching: Batching, until_us: i64) -> Vec<Cut> {
    let mut cuts = Vec::new();
    while let Some(words) = complete(state, batching, until_us) {
        cuts.push(cut(state, batching, words));
    }
    cuts
}

/// Cuts all that waits: nothing more comes.
pub(crate) fn drain(state: &mut BatchingRecord, batching: Batching) -> Vec<Cut> {
    let mut cuts = settle(state, batching, i64::MAX);
    if !state.waiting.is_empty() {
        cuts.push(cut(state, batching, state.waiting.len()));
    }
    cuts
}

/// The same batches for a model that judges them, `before` being the epoch and the next number before they were cut. Several are
/// judged side by side, and alerts go by their order: where nothing was said in the time before one, that is a batch too, or an
/// alert would wait for it.
pub(crate) fn with_silence(before: (i64, u64), batching: Batching, cuts: Vec<Cut>) -> Vec<Cut> {
    let Batching::Time(time_us) = batching else {
        return cuts;
    };
    let (mut epoch_us, mut next) = before;
    let mut all = Vec::with_capacity(cuts.len());
    for cut in cuts {
        if cut.epoch_us != epoch_us {
            (epoch_us, next) = (cut.epoch_us, 0);
        }
        if cut.number > next {
            all.push(Cut {
                epoch_us,
                number: cut.number - 1,
                start_us: cut.start_us - time_us,
                end_us: cut.start_us,
                words: Vec::new(),
            });
        }
        next = next.max(cut.number + 1);
        all.push(cut);
    }
    all
}

/// How many of the waiting words are a batch; none if it can still grow.
fn complete(state: &BatchingRecord, batching: Batching, until_us: i64) -> Option<usize> {
    let waiting = &state.waiting;
    let first = waiting.first()?;
    let full = (waiting.len() > MOST_WAITING).then_some(waiting.len());
    match batching {
        Batching::Words(words) => (waiting.len() >= words).then_some(words),
        Batching::Sentences(sentences) => {
            let mut ends = waiting
                .iter()
                .enumerate()
                .filter(|(_, w)| ends_sentence(&w.text));
            ends.nth(sentences - 1).map(|(at, _)| at + 1).or(full)
        }
        Batching::Time(time_us) => {
            let slot = slot_of(state, time_us, first);
            let end_us = slot_start(state, time_us, slot + 1);
            let of_it = waiting.partition_point(|w| slot_of(state, time_us, w) <= slot);
            (end_us <= until_us || full.is_some()).then_some(of_it)
        }
    }
}

/// Takes the first `words` waiting ones as the next batch.
fn cut(state: &mut BatchingRecord, batching: Batching, words: usize) -> Cut {
    let words: Vec<Word> = state.waiting.drain(..words).collect();
    let first_us = words.first().map_or(state.epoch_us, |word| word.start_us);
    let last_us = words
        .iter()
        .map(|word| word.end_us)
        .max()
        .unwrap_or(first_us);
    let (number, start_us, end_us) = match (batching, words.first()) {
        (Batching::Time(time_us), Some(first)) => {
            let slot = slot_of(state, time_us, first);
            let grid_us = slot_start(state, time_us, slot);
            if slot < state.next_batch {
                // Said in a time whose batch is out already: it has a scene of its own, from its first word on.
                (slot, first_us.max(grid_us + 1), last_us)
            } else {
                (slot, grid_us, slot_start(state, time_us, slot + 1))
            }
        }
        _ => (
            state.next_batch,
            apart(state.last_start_us, first_us),
            last_us,
        ),
    };
    state.next_batch = state.next_batch.max(number + 1);
    state.last_start_us = start_us;
    Cut {
        epoch_us: state.epoch_us,
        number,
        start_us,
        end_us: end_us.max(start_us),
        words,
    }
}

/// A start that is not the last batch's.
fn apart(last_us: i64, start_us: i64) -> i64 {
    if (0..TOGETHER_US).contains(&(last_us - start_us)) {
        last_us + 1
    } else {
        start_us
    }
}

/// The time on the grid in which a word begins.
fn slot_of(state: &BatchingRecord, time_us: i64, word: &Word) -> u64 {
    let since_us = word.start_us.saturating_sub(state.epoch_us).max(0);
    (since_us / time_us).unsigned_abs()
}

fn slot_start(state: &BatchingRecord, time_us: i64, slot: u64) -> i64 {
    let slot = i64::try_from(slot).unwrap_or(i64::MAX);
    state.epoch_us.saturating_add(slot.saturating_mul(time_us))
}

fn ends_sentence(word: &str) -> bool {
    word.trim_end_matches(CLOSING).ends_with(SENTENCE_ENDS)
}

#[cfg(test)]
#[path = "cutting_tests.rs"]
mod tests;
