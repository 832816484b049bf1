//! Sequences that are decoded together, one token each in every run of the decoder.

use std::sync::Arc;

use crate::describe::Reply;
use crate::vlm::Vlm;
use crate::vlm::cache::Cache;
use crate::vlm::window::{Begun, most_likely};
use crate::{Answer, InferenceError, Outcome};

/// An answer that grows.
pub(super) struct Sequence {
    pub(super) reply: Arc<Reply>,
    /// Which of the job's prompts it answers.
    pub(super) prompt: usize,
    pub(super) max_new_tokens: usize,
    answer: Vec<u32>,
    /// Position of the next token.
    next: i64,
}

impl Sequence {
    pub(super) fn new(reply: Arc<Reply>, prompt: usize, max_new_tokens: usize, next: i64) -> Self {
        Self {
            reply,
            prompt,
            max_new_tokens,
            answer: Vec::new(),
            next,
        }
    }

    /// Takes the likeliest token; sends the answer and is true when it is complete.
    fn take(&mut self, logits: &[f32], model: &Vlm) -> bool {
        if self.max_new_tokens > 0 {
            self.answer.push(most_likely(logits));
        }
        let stopped = self.answer.last().is_some_and(|&id| model.chat.is_stop(id));
        if !stopped && self.answer.len() < self.max_new_tokens {
            return false;
        }
        self.reply.send(Answer::Text {
            prompt: self.prompt,
            text: model.chat.text(&self.answer),
        });
        true
    }
}

/// Sequences side by side in one cache. Where one is complete its row stays empty until the rows are laid out anew.
struct Batch {
    cache: Cache,
    rows: Vec<Option<Sequence>>,
    /// What has begun since the last run.
    joining: Vec<(Sequence, Cache)>,
    /// Width that the longest row may grow to.
    widest: usize,
}

/// All batches: one, unless the decoder cannot take rows of different lengths.
pub(super) struct Batches {
    batches: Vec<Batch>,
    /// Whether rows of different lengths go into one batch.
    mixed: bool,
}

impl Batches {
    pub(super) fn new(mixed: bool) -> Self {
        Self {
            batches: Vec::new(),
            mixed,
        }
    }

    /// Sequences under way.
    pub(super) fn sequences(&self) -> usize {
        self.batches.iter().map(Batch::sequences).sum()
    }

    /// Places that all caches may come to take, with one more sequence that grows to `width` (0 for none).
    pub(super) fn places_with(&self, width: usize) -> usize {
        let places = |batch: &Batch, more: usize| {
            (batch.rows.len() + batch.joining.len() + more.min(1)) * batch.widest.max(more)
        };
        let mut all: usize = self.batches.iter().map(|batch| places(batch, 0)).sum();
        match self.batches.first().filter(|_| self.mixed) {
            Some(batch) => all += places(batch, width) - places(batch, 0),
            None => all += width,
        }
        all
    }

    /// Takes the first token of an answer; it goes on with the others unless it is complete with that.
    pub(super) fn join(&mut self, mut sequence: Sequence, begun: Begun, model: &Vlm) {
        if sequence.take(&begun.logits, model) {
            return;
        }
        let width = begun.cache.width();
        let widest = width + sequence.max_new_tokens;
        let mixed = self.mixed;
        let place = self
            .batches
            .iter_mut()
            .find(|b| mixed || b.width() == width);
        match place {
            Some(batch) => {
                batch.widest = batch.widest.max(widest);
                batch.joining.push((sequence, begun.cache));
            }
            None => self.batches.push(Batch {
                cache: begun.cache,
                rows: vec![Some(sequence)],
                joining: Vec::new(),
                widest,
            }),
        }
    }

    /// Decodes one token for every sequence of the batch whose turn it is; gives their number.
    pub(super) fn step(&mut self, model: &Vlm) -> Option<usize> {
        let mut batch = (!self.batches.is_empty()).then(|| self.batches.remove(0))?;
        let sequences = batch.sequences();
        match batch.step(model) {
            Ok(()) if batch.sequences() > 0 => self.batches.push(batch),
            Ok(()) => {}
            Err(error) => batch.fail(&error),
        }
        Some(sequences)
    }
}

impl Batch {
    fn sequences(&self) -> usize {
        self.rows.iter().flatten().count() + self.joining.len()
    }

    /// Width of the rows that the next run goes on from.
    fn width(&self) -> usize {
        self.cache.width()
    }

    fn step(&mut self, model: &Vlm) -> Result<(), InferenceError> {
        self.settle(model)?;
        // An empty row is run along with any token.
        let ids: Vec<u32> = self.rows.iter().map(last_token).collect();
        let next = |row: &Option<Sequence>| row.as_ref().map_or(0, |sequence| sequence.next);
        let positions: Vec<i64> = self.rows.iter().map(next).collect();
        let (logits, cache) = model.step(&ids, &positions, &self.cache)?;
        self.cache = cache;
        for (row, logits) in self.rows.iter_mut().zip(&logits) {
            if let Some(sequence) = row {
                sequence.next += 1;
                if sequence.take(logits, model) {
                    *row = None;
                }
            }
        }
        Ok(())
    }

    /// Lays the rows out anew if some have come or most have gone: that copies every cache once.
    fn settle(&mut self, model: &Vlm) -> Result<(), InferenceError> {
        let live = self.rows.iter().flatten().count();
        if self.joining.is_empty() && live * 2 > self.rows.len() {
            return Ok(());
        }
        let kept = (0..self.rows.len()).filter(|&row| self.rows[row].is_some());
        let mut rows: Vec<(&Cache, usize)> = kept.map(|row| (&self.cache, row)).collect();
        rows.extend(self.joining.iter().map(|(_, cache)| (cache, 0)));
        let cache = Cache::joined(&rows, model.graph.cache_layout(), 0.0)?;
        let left = |row: &Sequence| row.max_new_tokens - row.answer.len();
        let old = std::mem::take(&mut self.rows).into_iter().flatten();
        let new = std::mem::take(&mut self.joining)
            .into_iter()
            .map(|(s, _)| s);
        self.rows = old.chain(new).map(Some).collect();
        let grown = self.rows.iter().flatten().map(left).max();
        self.widest = cache.width() + grown.unwrap_or(0);
        self.cache = cache;
        Ok(())
    }

    /// Every sequence of it ends with the reason.
    fn fail(self, error: &InferenceError) {
        tracing::warn!(error = %error, "a batch of answers is given up");
        let joining = self.joining.into_iter().map(|(sequence, _)| sequence);
        for sequence in self.rows.into_iter().flatten().chain(joining) {
            let reason = InferenceError::run("decoding a batch", error.to_string());
            sequence.reply.end(Outcome::Failed(reason));
        }
    }
}

fn last_token(row: &Option<Sequence>) -> u32 {
    let answer = row.as_ref().and_then(|sequence| sequence.answer.last());
    answer.copied().unwrap_or_default()
}
