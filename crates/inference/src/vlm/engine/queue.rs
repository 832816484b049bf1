//! A queue that takes one entry of every stream in turn, whoever sends most.

use std::collections::{BTreeMap, VecDeque};

/// Entries by stream, oldest first.
pub(super) struct FairQueue<T> {
    streams: BTreeMap<String, VecDeque<T>>,
    /// Streams that have entries, in the order in which they are served.
    turns: VecDeque<String>,
}

impl<T> FairQueue<T> {
    pub(super) fn new() -> Self {
        Self {
            streams: BTreeMap::new(),
            turns: VecDeque::new(),
        }
    }

    /// Adds an entry behind the others of its stream.
    pub(super) fn push(&mut self, stream: &str, entry: T) {
        let entries = self.streams.entry(stream.to_owned()).or_default();
        if entries.is_empty() {
            self.turns.push_back(stream.to_owned());
        }
        entries.push_back(entry);
    }

    /// Takes out the oldest entry of a stream that has more than `most`.
    pub(super) fn pop_beyond(&mut self, stream: &str, most: usize) -> Option<T> {
        let entries = self.streams.get_mut(stream)?;
        (entries.len() > most.max(1)).then(|| entries.pop_front())?
    }

    /// The oldest entry of the stream whose turn it is.
    pub(super) fn pop(&mut self) -> Option<T> {
        let stream = self.turns.pop_front()?;
        let entries = self.streams.get_mut(&stream)?;
        let entry = entries.pop_front();
        if entries.is_empty() {
            self.streams.remove(&stream);
        } else {
            self.turns.push_back(stream);
        }
        entry
    }

    /// Takes out what `keep` refuses.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&mut T) -> bool) {
        for entries in self.streams.values_mut() {
            entries.retain_mut(&mut keep);
        }
        self.streams.retain(|_, entries| !entries.is_empty());
        let streams = &self.streams;
        self.turns.retain(|stream| streams.contains_key(stream));
    }

    /// All entries, in no order that matters.
    pub(super) fn entries(&mut self) -> impl Iterator<Item = &mut T> {
        self.streams.values_mut().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::FairQueue;

    #[test]
    fn streams_take_turns() {
        let mut queue = FairQueue::new();
        for entry in ["a1", "a2", "a3", "b1", "c1", "b2"] {
            queue.push(&entry[..1], entry);
        }
        let mut order = vec![queue.pop().unwrap(), queue.pop().unwrap()];
        // A stream that comes back after it had nothing waits for all others once.
        queue.push("d", "d1");
        order.extend(std::iter::from_fn(|| queue.pop()));
        assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "d1", "a3"]);
    }

    #[test]
    fn what_is_taken_out_leaves_no_empty_turn() {
        let mut queue = FairQueue::new();
        for entry in ["a1", "b1", "b2"] {
            queue.push(&entry[..1], entry);
        }
        queue.retain(|entry| *entry != "a1");
        assert_eq!(queue.entries().count(), 2);
        assert_eq!(std::iter::from_fn(|| queue.pop()).count(), 2);
    }
}
