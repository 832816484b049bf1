//! Deleting all that is stored of a stream or an index: in every store, also in one that another process fills.
//!
//! Whoever asks repeats it half a minute later (the gateway does), so that what a process had in hand at the moment goes too.

use std::sync::Weak;

use sightline_catalog::Catalog;
use sightline_vectors::{EmbeddingModel, Named, Owner, Stores, VectorError};

use crate::known;
use crate::serving::Open;

/// What deleting takes.
pub(crate) struct Deleting {
    pub(crate) catalog: Catalog,
    /// Not kept open: a call may outlive the service for a moment, and the next process wants the place.
    pub(crate) stores: Weak<dyn Stores>,
    /// The model of this process.
    pub(crate) wanted: EmbeddingModel,
}

impl Deleting {
    /// Deletes what there is. When it returns that survives a killed process.
    pub(crate) async fn delete(&self, open: &Open, owner: &Owner) -> Result<(), VectorError> {
        known::forgotten(&self.catalog, owner).await;
        for shared in &open.all {
            let _nothing_is_stored = shared.storing.write().await;
            shared.store.delete(owner).await?;
        }
        let Some(stores) = self.stores.upgrade() else {
            return Ok(());
        };
        let state = stores.state().await?;
        for named in [state.current, state.next].into_iter().flatten() {
            if self.is_anothers(&named, open) {
                stores.open(&named).await?.delete(owner).await?;
            }
        }
        Ok(())
    }

    /// Whether another process alone has a store. One of this process' model that is not open yet will hold nothing of the owner.
    fn is_anothers(&self, named: &Named, open: &Open) -> bool {
        let is_open = open.all.iter().any(|shared| shared.name == named.name);
        !is_open && !named.model.revision.is_empty() && !named.model.same_as(&self.wanted)
    }
}
