//! Which store answers: the one in use, and while it is filled anew the new one gets what is deleted too.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use sightline_inference::{Embedder, InferenceError};
use sightline_proto::internal::Record;
use sightline_vectors::{ListQuery, VectorError, VectorStore, WindowCounts};

use crate::model::Model;
use crate::queries::Queries;
use crate::{Config, Parts};

/// What the parts that work on one store share.
pub(crate) struct Shared {
    /// The store's name among the others.
    pub(crate) name: String,
    pub(crate) config: Config,
    pub(crate) parts: Parts,
    pub(crate) model: Model,
    pub(crate) queries: Queries,
    pub(crate) store: Arc<dyn VectorStore>,
    /// Held for reading from looking whether something exists until it is stored, for writing while it is deleted.
    pub(crate) storing: tokio::sync::RwLock<()>,
    leads: AtomicBool,
}

impl std::ops::Deref for Shared {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

impl Shared {
    pub(crate) fn new(
        name: String,
        config: Config,
        parts: Parts,
        embedder: Arc<dyn Embedder>,
        store: Arc<dyn VectorStore>,
    ) -> Self {
        Self {
            name,
            config,
            parts,
            model: Model::new(embedder),
            queries: Queries::default(),
            store,
            storing: tokio::sync::RwLock::default(),
            leads: AtomicBool::new(false),
        }
    }

    /// Whether this store is the one that is searched: it alone judges, and its failures are the service's.
    pub(crate) fn leads(&self) -> bool {
        self.leads.load(Ordering::SeqCst)
    }

    /// Makes it the one.
    pub(crate) fn lead(&self) {
        self.leads.store(true, Ordering::SeqCst);
    }

    /// Says whether a part is there.
    pub(crate) fn ready(&self, part: &'static str, there: bool) {
        if self.leads() {
            self.readiness.set(part, there);
        }
    }
}

/// The stores that are open.
#[derive(Clone)]
pub(crate) struct Open {
    /// Searched.
    pub(crate) search: Arc<Shared>,
    /// Listed and counted: more than one only where the store in use can't be searched, because its model is gone.
    pub(crate) listed: Vec<Arc<Shared>>,
    /// All of them: what is deleted is deleted in each.
    pub(crate) all: Vec<Arc<Shared>>,
}

/// What answers now.
#[derive(Default)]
pub(crate) struct Serving(RwLock<Option<Open>>);

impl Serving {
    /// The stores that answer from now on.
    pub(crate) fn set(&self, open: Open) {
        open.search.lead();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(open);
    }

    /// The stores that answer; none before the first is open, and at the end.
    pub(crate) fn get(&self) -> Option<Open> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Nothing answers any more.
    pub(crate) fn clear(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Open {
    /// A page of all that is listed. What two stores have comes once.
    pub(crate) async fn list(&self, query: &ListQuery) -> Result<Vec<Record>, VectorError> {
        let mut page = Vec::new();
        for shared in &self.listed {
            page.extend(shared.store.list(query).await?);
        }
        if self.listed.len() > 1 {
            page.sort_by(|a, b| (a.start_us, &a.id).cmp(&(b.start_us, &b.id)));
            page.dedup_by(|a, b| a.id == b.id);
            if query.newest_first {
                page.reverse();
            }
            page.truncate(query.limit);
        }
        Ok(page)
    }

    /// Counts an index's windows where there are most.
    pub(crate) async fn count_windows(&self, index_id: &str) -> Result<WindowCounts, VectorError> {
        let mut most = WindowCounts::default();
        for shared in &self.listed {
            let counts = shared.store.count_windows(index_id).await?;
            if counts.described >= most.described {
                most = counts;
            }
        }
        Ok(most)
    }
}

/// In place of a model that can't be loaded any more.
pub(crate) struct Gone(pub(crate) String);

impl Embedder for Gone {
    fn revision(&self) -> &str {
        &self.0
    }

    fn dimension(&self) -> usize {
        0
    }

    fn embed(&self, _texts: &[String]) -> Result<Vec<Vec<f32>>, InferenceError> {
        Err(InferenceError::InvalidInput(
            "the embedding model of the vector store is gone".to_owned(),
        ))
    }
}
