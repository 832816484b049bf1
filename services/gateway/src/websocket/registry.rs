//! Which WebSockets are open here, and what each is told of.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sightline_catalog::Catalog;
use sightline_proto::internal::SubscriptionRecord;

use crate::api::watch::Subscribed;

/// All open WebSockets of this gateway.
#[derive(Clone)]
pub(crate) struct Registry(Arc<Shared>);

struct Shared {
    catalog: Catalog,
    most: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    /// A connection that is gone on with may be here twice for a moment.
    entries: HashMap<u64, Entry>,
}

struct Entry {
    connection_id: String,
    /// Of the record that `subscribed` was set to.
    revision: u64,
    subscribed: Subscribed,
}

/// A WebSocket's place among the open ones, which it leaves when it ends.
pub(super) struct Place {
    registry: Registry,
    number: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.registry.lock().entries.remove(&self.number);
    }
}

impl Registry {
    /// None is open, and `most` can be at once.
    pub(crate) fn new(catalog: Catalog, most: usize) -> Self {
        Self(Arc::new(Shared {
            catalog,
            most,
            open: Mutex::default(),
        }))
    }

    /// Whether another one may be opened.
    pub(super) fn has_room(&self) -> bool {
        self.lock().entries.len() < self.0.most
    }

    /// A place, and what the connection is told of; none if all are taken.
    pub(super) fn enter(&self, id: &str) -> Option<(Place, Subscribed)> {
        let mut open = self.lock();
        if open.entries.len() >= self.0.most {
            return None;
        }
        let mut entry = Entry {
            connection_id: id.to_owned(),
            revision: 0,
            subscribed: Subscribed::default(),
        };
        // Under the lock: a change is either in the record by now, or comes to `refresh` later.
        self.update(&mut entry);
        let subscribed = entry.subscribed.clone();
        let number = open.next;
        open.next += 1;
        open.entries.insert(number, entry);
        let registry = self.clone();
        Some((Place { registry, number }, subscribed))
    }

    /// Has connections told of what their records say by now.
    pub(super) fn refresh(&self) {
        for entry in self.lock().entries.values_mut() {
            self.update(entry);
        }
    }

    /// The ids of the connections.
    pub(super) fn ids(&self) -> Vec<String> {
        let open = self.lock();
        let ids = open.entries.values();
        ids.map(|entry| entry.connection_id.clone()).collect()
    }

    fn update(&self, entry: &mut Entry) {
        let record = self
            .0
            .catalog
            .get::<SubscriptionRecord>(&entry.connection_id);
        if let Some(record) = record.filter(|record| record.revision != entry.revision) {
            entry.revision = record.revision;
            entry.subscribed.set(&record.value);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
