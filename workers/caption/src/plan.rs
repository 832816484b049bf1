//! What a window has to answer, as the catalog says at that moment.

use std::collections::{BTreeMap, BTreeSet};

use sightline_catalog::Catalog;
use sightline_proto::internal::{AlertRecord, EventRecord, FrameWindow, IndexRecord, Sampling};
use sightline_proto::time::duration_micros;
use sightline_proto::v1::{Alert, Index, TimeSampling, alert, index};

/// An event that an enabled alert watches on an index, with the revision of its prompt.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Watched {
    pub(crate) index_id: String,
    pub(crate) event_id: String,
    pub(crate) prompt_revision: u32,
}

/// An index with the revision of its prompt.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Described {
    pub(crate) index_id: String,
    pub(crate) prompt_revision: u32,
}

/// Each distinct prompt once, with everything that it answers.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) questions: BTreeMap<String, BTreeSet<Watched>>,
    pub(crate) descriptions: BTreeMap<String, BTreeSet<Described>>,
    /// The newest revision among the indexes' records: it changes when one of them is edited, stopped or started.
    pub(crate) revision: u64,
}

impl Plan {
    /// What the running indexes on the window's stream with this model and its sampling ask, and the enabled alerts on them.
    pub(crate) fn of(catalog: &Catalog, window: &FrameWindow, model: &str) -> Self {
        let mut plan = Self::default();
        let mut indexes = BTreeSet::new();
        for (id, record) in catalog.list::<IndexRecord>() {
            let Some(index) = &record.value.index else {
                continue;
            };
            if asks(index, window, model) {
                plan.revision = plan.revision.max(record.revision);
                let described = Described {
                    index_id: id.clone(),
                    prompt_revision: index.prompt_revision,
                };
                plan.descriptions
                    .entry(index.prompt.clone())
                    .or_default()
                    .insert(described);
                indexes.insert(id);
            }
        }
        if indexes.is_empty() {
            return plan;
        }
        for (_, record) in catalog.list::<AlertRecord>() {
            if let Some(alert) = &record.value.alert
                && alert.state() == alert::State::Enabled
                && indexes.contains(&alert.index_id)
            {
                plan.watch(catalog, alert);
            }
        }
        plan
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.descriptions.is_empty()
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

fn asks(index: &Index, window: &FrameWindow, model: &str) -> bool {
    index.kind() != index::Kind::Audio
        && index.state() == index::State::Running
        && index.rtstream_id == window.rtstream_id
        && index.model == model
        && index
            .sampling
            .as_ref()
            .zip(window.sampling.as_ref())
            .is_some_and(|(wanted, taken)| is_same(wanted, taken))
}

fn is_same(wanted: &TimeSampling, taken: &Sampling) -> bool {
    wanted.frame_count == taken.frame_count
        && wanted
            .window
            .as_ref()
            .is_some_and(|window| duration_micros(window) == taken.window_us)
}
