//! What the catalog still knows: observations of deleted streams and indexes stay on the bus for days, and are not taken in
//! again, or a store that fills anew would bring back what was deleted.

use std::collections::HashSet;
use std::time::Duration;

use sightline_catalog::{Catalog, CatalogError, Entry};
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{IndexRecord, Observation, RtStreamRecord};
use sightline_vectors::Owner;
use tokio::time::timeout;

/// Deleted ids that are remembered; more are asked for again.
const MOST_GONE: usize = 10_000;
/// How long the view may take to show a deletion.
const TRAILS: Duration = Duration::from_secs(2);

/// Tells observations of what was deleted.
pub(crate) struct Known {
    catalog: Catalog,
    /// Ids that the server does not have: an id never comes back.
    gone: HashSet<String>,
}

impl Known {
    pub(crate) fn new(catalog: Catalog) -> Self {
        Self {
            catalog,
            gone: HashSet::new(),
        }
    }

    /// Whether the stream and the index of an observation exist.
    ///
    /// # Errors
    /// When the view has not both and the server does not answer.
    pub(crate) async fn has(&mut self, observation: &Observation) -> Result<bool, CatalogError> {
        let index_id = match &observation.body {
            Some(Body::Scene(scene)) => &scene.index_id,
            Some(Body::AudioScene(scene)) => &scene.index_id,
            _ => "",
        };
        Ok(self
            .exists::<RtStreamRecord>(&observation.rtstream_id)
            .await?
            && (index_id.is_empty() || self.exists::<IndexRecord>(index_id).await?))
    }

    /// The view may not have it yet, so the server has the last word.
    async fn exists<T: Entry>(&mut self, id: &str) -> Result<bool, CatalogError> {
        if self.catalog.get::<T>(id).is_some() {
            return Ok(true);
        }
        if self.gone.contains(id) {
            return Ok(false);
        }
        if self.catalog.fetch::<T>(id).await?.is_some() {
            return Ok(true);
        }
        if self.gone.len() >= MOST_GONE {
            self.gone.clear();
        }
        self.gone.insert(id.to_owned());
        Ok(false)
    }
}

/// Waits until the view shows that the owner is deleted, so that from then on nothing of it is taken in. One that is not
/// deleted is waited for in vain, for a moment.
pub(crate) async fn forgotten(catalog: &Catalog, owner: &Owner) {
    let mut changes = catalog.changes();
    let waiting = async {
        while match owner {
            Owner::RtStream(id) => catalog.get::<RtStreamRecord>(id).is_some(),
            Owner::Index(id) => catalog.get::<IndexRecord>(id).is_some(),
        } {
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    if timeout(TRAILS, waiting).await.is_err() {
        tracing::warn!(?owner, "records of what is not deleted are asked to be");
    }
}
