//! The bucket in memory.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use crate::Versioned;
use crate::entry::{self, Entry};

/// A decoded record of any kind.
pub(crate) type Value = Arc<dyn Any + Send + Sync>;

/// Every key with its newest known revision. As large as the bucket.
#[derive(Default)]
pub(crate) struct View {
    held: RwLock<BTreeMap<String, Held>>,
    newest: watch::Sender<u64>,
    /// The same of those kinds that someone follows.
    newest_of: RwLock<HashMap<&'static str, watch::Sender<u64>>>,
}

struct Held {
    revision: u64,
    /// None if the record was deleted or can't be read here.
    value: Option<Value>,
}

impl View {
    /// Takes a revision of a key unless a newer one is known: the watch may be behind one's own writes.
    pub(crate) fn put(&self, key: String, revision: u64, value: Option<Value>) {
        {
            let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
            if held
                .get(&key)
                .is_some_and(|known| known.revision >= revision)
            {
                return;
            }
            held.insert(key.clone(), Held { revision, value });
        }
        let raise = |newest: &mut u64| *newest = revision.max(*newest);
        self.newest.send_modify(raise);
        let kind = key.split_once('.').map_or("", |(kind, _)| kind);
        let newest_of = self.newest_of.read();
        if let Some(newest) = newest_of.unwrap_or_else(PoisonError::into_inner).get(kind) {
            newest.send_modify(raise);
        }
    }

    pub(crate) fn get<T: Entry>(&self, id: &str) -> Option<Versioned<T>> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        versioned(held.get(&entry::key::<T>(id))?)
    }

    pub(crate) fn list<T: Entry>(&self) -> Vec<(String, Versioned<T>)> {
        let prefix = entry::key::<T>("");
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        held.range(prefix.clone()..)
            .map_while(|(key, held)| Some((key.strip_prefix(&prefix)?, held)))
            .filter_map(|(id, held)| Some((id.to_owned(), versioned(held)?)))
            .collect()
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    pub(crate) fn changes_of<T: Entry>(&self) -> watch::Receiver<u64> {
        let newest_of = self.newest_of.write();
        let mut newest_of = newest_of.unwrap_or_else(PoisonError::into_inner);
        newest_of.entry(T::KIND).or_default().subscribe()
    }
}

fn versioned<T: Entry>(held: &Held) -> Option<Versioned<T>> {
    let value = Arc::clone(held.value.as_ref()?);
    Some(Versioned {
        value: value.downcast().ok()?,
        revision: held.revision,
    })
}
