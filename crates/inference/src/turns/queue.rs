//! A queue that takes one entry of every stream in turn, whoever sends most.

use std::collections::{BTreeMap, VecDeque};

/// Entries by stream, oldest first.
pub(crate) struct FairQueue<T> {
    streams: BTreeMap<String, VecDeque<Entry<T>>>,
    /// Streams that have entries, in the order in which they are served.
    turns: VecDeque<String>,
}

struct Entry<T> {
    /// What says how new it is; one without is as new as the last.
    age: Option<i64>,
    it: T,
}

impl<T> FairQueue<T> {
    pub(crate) fn new() -> Self {
        Self {
            streams: BTreeMap::new(),
            turns: VecDeque::new(),
        }
    }

    /// Adds an entry: before those of its stream that are newer, behind all others. The greater `age` is the newer.
    pub(crate) fn push(&mut self, stream: &str, age: Option<i64>, it: T) {
        let entries = self.streams.entry(stream.to_owned()).or_default();
        if entries.is_empty() {
            self.turns.push_back(stream.to_owned());
        }
        let is_newer = |entry: &&Entry<T>| age.is_some() && entry.age > age;
        let at = entries.len() - entries.iter().rev().take_while(is_newer).count();
        entries.insert(at, Entry { age, it });
    }

    /// Takes out the oldest entry of a stream that has more than `most`.
    pub(crate) fn pop_beyond(&mut self, stream: &str, most: usize) -> Option<T> {
        let entries = self.streams.get_mut(stream)?;
        let oldest = (entries.len() > most.max(1)).then(|| entries.pop_front())?;
        oldest.map(|entry| entry.it)
    }

    /// The oldest entry of the stream whose turn it is.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let stream = self.turns.pop_front()?;
        let entries = self.streams.get_mut(&stream)?;
        let entry = entries.pop_front();
        if entries.is_empty() {
            self.streams.remove(&stream);
        } else {
            self.turns.push_back(stream);
        }
        entry.map(|entry| entry.it)
    }

    /// Takes out what `keep` refuses.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&mut T) -> bool) {
        for entries in self.streams.values_mut() {
            entries.retain_mut(|entry| keep(&mut entry.it));
        }
        self.streams.retain(|_, entries| !entries.is_empty());
        let streams = &self.streams;
        self.turns.retain(|stream| streams.contains_key(stream));
    }

    /// All entries, in no order that matters.
    pub(crate) fn entries(&mut self) -> impl Iterator<Item = &mut T> {
        let entries = self.streams.values_mut().flatten();
        entries.map(|entry| &mut entry.it)
    }
}

#[cfg(test)]
mod tests {
    use super::FairQueue;

    #[test]
    fn streams_take_turns() {
        let mut queue = FairQueue::new();
        for entry in ["a1", "a2", "a3", "b1", "c1", "b2"] {
            queue.push(&entry[..1], None, entry);
        }
        let mut order = vec![queue.pop().unwrap(), queue.pop().unwrap()];
        // A stream that comes back after it had nothing waits for all others once.
        queue.push("d", None, "d1");
        order.extend(std::iter::from_fn(|| queue.pop()));
        assert_eq!(order, ["a1", "b1", "c1", "a2", "b2", "d1", "a3"]);
    }

    #[test]
    fn what_is_taken_out_leaves_no_empty_turn() {
        let mut queue = FairQueue::new();
        for entry in ["a1", "b1", "b2"] {
            queue.push(&entry[..1], None, entry);
        }
        queue.retain(|entry| *entry != "a1");
        assert_eq!(queue.entries().count(), 2);
        assert_eq!(std::iter::from_fn(|| queue.pop()).count(), 2);
    }

    #[test]
    fn the_oldest_of_a_stream_goes_first_whenever_it_came() {
        let mut queue = FairQueue::new();
        for age in [3, 1, 4, 2] {
            queue.push("a", Some(age), age);
        }
        queue.push("a", None, 5);
        assert_eq!(queue.pop_beyond("a", 4), Some(1));
        assert_eq!(queue.pop_beyond("a", 4), None);
        let order: Vec<i64> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [2, 3, 4, 5]);
    }
}
