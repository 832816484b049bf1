//! What windows have to answer, as the catalog says: worked out anew when it changes, not for each window.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use sightline_catalog::Catalog;
use sightline_proto::internal::{AlertRecord, EventRecord, FrameWindow, IndexRecord, Sampling};
use sightline_proto::time::duration_micros;
use sightline_proto::v1::{Alert, Index, alert, index};
use tokio::sync::watch;

/// The proto's bound for `ModelConfig.max_new_tokens`.
const MAX_NEW_TOKENS: usize = 1024;

/// An event that an enabled alert watches on an index, with the revision of its prompt.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Watched {
    pub(crate) index_id: String,
    pub(crate) event_id: String,
    pub(crate) prompt_revision: u32,
}

/// An index with the revision of its prompt.
#[derive(Debug, Clone)]
pub(crate) struct Described {
    pub(crate) index_id: String,
    pub(crate) prompt_revision: u32,
    /// See `Index.reuse_below`.
    pub(crate) reuse_below: f32,
}

/// A description that is wanted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wanted {
    pub(crate) prompt: String,
    pub(crate) max_new_tokens: usize,
}

/// Each distinct prompt once, with everything that it answers.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) questions: BTreeMap<String, BTreeSet<Watched>>,
    pub(crate) descriptions: BTreeMap<Wanted, Vec<Described>>,
    /// The newest revision among the indexes' records: it changes when one of them is edited, stopped or started.
    pub(crate) revision: u64,
}

/// The plans of all streams with indexes for one model.
pub(crate) struct Plans {
    catalog: Catalog,
    model: String,
    max_new_tokens: usize,
    known: Mutex<Known>,
}

struct Known {
    changes: [watch::Receiver<u64>; 3],
    plans: Option<HashMap<Key, Arc<Plan>>>,
}

/// A stream and its sampling: length of windows, frames.
type Key = (String, i64, u32);

impl Plans {
    /// `max_new_tokens` counts for indexes that say nothing else.
    pub(crate) fn new(catalog: Catalog, model: String, max_new_tokens: usize) -> Self {
        let known = Known {
            changes: [
                catalog.changes_of::<IndexRecord>(),
                catalog.changes_of::<AlertRecord>(),
                catalog.changes_of::<EventRecord>(),
            ],
            plans: None,
        };
        Self {
            catalog,
            model,
            max_new_tokens,
            known: Mutex::new(known),
        }
    }

    /// What the running indexes on the window's stream with this model and its sampling ask, and the enabled alerts on
    /// them; None if there are none.
    pub(crate) fn of(&self, window: &FrameWindow, sampling: &Sampling) -> Option<Arc<Plan>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = known.plans.is_none();
        for changes in &mut known.changes {
            // Taken note of before the records are read: what changes meanwhile is read again.
            changed |= changes.has_changed().unwrap_or(true);
            changes.borrow_and_update();
        }
        if changed {
            known.plans = Some(self.read());
        }
        let key = key(
            &window.rtstream_id,
            sampling.window_us,
            sampling.frame_count,
        );
        known.plans.as_ref()?.get(&key).map(Arc::clone)
    }

    fn read(&self) -> HashMap<Key, Arc<Plan>> {
        let mut plans: HashMap<Key, Plan> = HashMap::new();
        let mut indexes = HashMap::new();
        for (id, record) in self.catalog.list::<IndexRecord>() {
            let index = record.value.index.as_ref();
            let Some((index, key)) = index.and_then(|i| Some((i, self.key_of(i)?))) else {
                continue;
            };
            let plan = plans.entry(key.clone()).or_default();
            plan.revision = plan.revision.max(record.revision);
            plan.describe(&id, index, self.max_new_tokens);
            indexes.insert(id, key);
        }
        for (_, record) in self.catalog.list::<AlertRecord>() {
            if let Some(alert) = &record.value.alert
                && alert.state() == alert::State::Enabled
                && let Some(plan) = indexes.get(&alert.index_id).and_then(|k| plans.get_mut(k))
            {
                plan.watch(&self.catalog, alert);
            }
        }
        let shared = plans.into_iter().map(|(key, plan)| (key, Arc::new(plan)));
        shared.collect()
    }

    /// Which windows an index describes, if it does with this model.
    fn key_of(&self, index: &Index) -> Option<Key> {
        let sampling = index.sampling.as_ref()?;
        let window_us = duration_micros(sampling.window.as_ref()?);
        let describes = index.kind() != index::Kind::Audio
            && index.state() == index::State::Running
            && index.model == self.model;
        describes.then(|| key(&index.rtstream_id, window_us, sampling.frame_count))
    }
}

impl Plan {
    fn describe(&mut self, id: &str, index: &Index, max_new_tokens: usize) {
        let given = index.model_config.as_ref().map_or(0, |c| c.max_new_tokens);
        let wanted = Wanted {
            prompt: index.prompt.clone(),
            max_new_tokens: match given {
                0 => max_new_tokens,
                given => (given as usize).min(MAX_NEW_TOKENS),
            },
        };
        self.descriptions
            .entry(wanted)
            .or_default()
            .push(Described {
                index_id: id.to_owned(),
                prompt_revision: index.prompt_revision,
                reuse_below: index.reuse_below,
            });
    }

    fn watch(&mut self, catalog: &Catalog, alert: &Alert) {
        let Some(record) = catalog.get::<EventRecord>(&alert.event_id) else {
            return;
        };
        let Some(event) = &record.value.event else {
            return;
        };
        let watched = Watched {
            index_id: alert.index_id.clone(),
            event_id: alert.event_id.clone(),
            prompt_revision: event.prompt_revision,
        };
        self.questions
            .entry(event.prompt.clone())
            .or_default()
            .insert(watched);
    }
}

fn key(rtstream_id: &str, window_us: i64, frame_count: u32) -> Key {
    (rtstream_id.to_owned(), window_us, frame_count)
}
