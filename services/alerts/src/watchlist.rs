//! Which enabled alerts wait for a verdict.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sightline_catalog::Catalog;
use sightline_proto::internal::{AlertRecord, RtStreamRecord};
use sightline_proto::v1::Alert;
use sightline_proto::v1::alert::State;
use tokio::sync::watch;

/// Enabled alerts by what they watch: see [`key`].
pub(crate) type Watched = HashMap<(String, String), Vec<Arc<Alert>>>;

/// What is watched: an event on an index, or on a stream where there is none (its health).
pub(crate) fn key(index_id: &str, rtstream_id: &str, event_id: &str) -> (String, String) {
    let on = if index_id.is_empty() {
        rtstream_id
    } else {
        index_id
    };
    (on.to_owned(), event_id.to_owned())
}

/// The catalog's alerts, arranged for looking them up; shared by all partitions.
pub(crate) struct Watchlist {
    catalog: Catalog,
    arranged: Mutex<Arranged>,
}

struct Arranged {
    /// How far each alert has come is stored all the time, and nothing that matters here.
    alerts: watch::Receiver<u64>,
    streams: watch::Receiver<u64>,
    watched: Arc<Watched>,
}

impl Watchlist {
    pub(crate) fn new(catalog: Catalog) -> Self {
        let arranged = Arranged {
            alerts: catalog.changes_of::<AlertRecord>(),
            streams: catalog.changes_of::<RtStreamRecord>(),
            watched: Arc::new(arrange(&catalog)),
        };
        Self {
            catalog,
            arranged: Mutex::new(arranged),
        }
    }

    /// The alerts as the catalog has them now.
    pub(crate) fn current(&self) -> Arc<Watched> {
        let mut guard = self.arranged.lock().unwrap_or_else(PoisonError::into_inner);
        let Arranged {
            alerts,
            streams,
            watched,
        } = &mut *guard;
        let mut changed = false;
        for changes in [alerts, streams] {
            changed |= changes.has_changed().unwrap_or(false);
            changes.mark_unchanged();
        }
        if changed {
            *watched = Arc::new(arrange(&self.catalog));
        }
        Arc::clone(watched)
    }
}

fn arrange(catalog: &Catalog) -> Watched {
    let mut watched = Watched::new();
    for (_, record) in catalog.list::<AlertRecord>() {
        let Some(alert) = &record.value.alert else {
            continue;
        };
        // A stream that is deleted takes its alerts with it, a moment later.
        let stream = catalog.get::<RtStreamRecord>(&alert.rtstream_id);
        if alert.state() == State::Enabled && stream.is_some() {
            let key = key(&alert.index_id, &alert.rtstream_id, &alert.event_id);
            watched
                .entry(key)
                .or_default()
                .push(Arc::new(alert.clone()));
        }
    }
    watched
}
