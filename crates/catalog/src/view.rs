//! The bucket in memory.

use std::any::Any;
use std::collections::BTreeMap;
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
            held.insert(key, Held { revision, value });
        }
        self.newest
            .send_modify(|newest| *newest = revision.max(*newest));
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
}

fn versioned<T: Entry>(held: &Held) -> Option<Versioned<T>> {
    let value = Arc::clone(held.value.as_ref()?);
    Some(Versioned {
        value: value.downcast().ok()?,
        revision: held.revision,
    })
}
