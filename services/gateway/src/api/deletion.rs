//! Deleting streams and indexes with all that hangs on them, to the end, whoever dies on the way.
//!
//! A `DeletionRecord` is written first; then the catalog's records go, and with them the thing for every caller. What other
//! services keep is removed after that. Every gateway goes on with the deletions that it finds: each step may be repeated.

use std::time::Duration;

use sightline_catalog::{CatalogError, Entry, Versioned};
use sightline_proto::internal::{
    AlertRecord, DeleteRecordsRequest, DeletionRecord, IndexRecord, RtStreamRecord,
};
use sightline_proto::reasons::ApiError;
use sightline_service::{Shutdown, chain, failpoint};

use super::{Core, Session, catalog_failed};

/// How often a gateway looks for deletions to go on with.
const PAUSE: Duration = Duration::from_secs(2);
/// After this long a deletion is gone on with: whoever began it has finished or died, and what other roles had taken up
/// before they saw it has arrived and is removed with the rest.
const SETTLES_US: i64 = 30_000_000;
/// How often a record is looked at again when others write it at the same moment.
const ATTEMPTS: usize = 16;

impl Session {
    /// Stops a stream and deletes it with its indexes, alerts, scenes, transcript and recording.
    pub(crate) async fn delete_rtstream(&self, id: &str) -> Result<(), ApiError> {
        self.stream(id).await?;
        let deletion = DeletionRecord {
            rtstream_id: id.to_owned(),
            asked_us: self.clock.now_us(),
            ..Default::default()
        };
        self.delete_all(id, &deletion).await
    }

    /// Deletes an index with its alerts and its scenes.
    pub(crate) async fn delete_index(&self, id: &str) -> Result<(), ApiError> {
        self.find::<IndexRecord>("index_id", id).await?;
        let deletion = DeletionRecord {
            index_id: id.to_owned(),
            asked_us: self.clock.now_us(),
            ..Default::default()
        };
        self.delete_all(id, &deletion).await
    }

    async fn delete_all(&self, id: &str, deletion: &DeletionRecord) -> Result<(), ApiError> {
        match self.catalog.create(id, deletion).await {
            // An earlier try got as far as this.
            Ok(_) | Err(CatalogError::Exists { .. }) => {}
            Err(error) => return Err(catalog_failed(error)),
        }
        failpoint::hit("gateway.after_deletion_record");
        self.remove_records(deletion)
            .await
            .map_err(catalog_failed)?;
        // Nobody finds them any more; that they are gone from the store too can wait.
        self.records.delete(request(deletion)).await;
        Ok(())
    }
}

impl Core {
    /// Goes on with deletions, until shutdown.
    pub(crate) async fn keep_deleting(&self, shutdown: &Shutdown) {
        let look = async {
            loop {
                tokio::time::sleep(PAUSE).await;
                for (id, deletion) in self.catalog.list::<DeletionRecord>() {
                    self.finish(&id, &deletion).await;
                }
            }
        };
        tokio::select! {
            () = look => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn finish(&self, id: &str, deletion: &Versioned<DeletionRecord>) {
        let since_us = self.clock.now_us() - deletion.value.asked_us;
        if since_us < SETTLES_US {
            return;
        }
        let removed = self.remove_records(&deletion.value).await;
        if let Err(error) = removed {
            tracing::warn!(id, error = chain(&error), "a deletion is held up");
            return;
        }
        if !self.records.delete(request(&deletion.value)).await {
            return;
        }
        match self
            .catalog
            .delete::<DeletionRecord>(id, deletion.revision)
            .await
        {
            Ok(()) => tracing::debug!(id, "deleted for good"),
            // Another gateway was faster.
            Err(CatalogError::Conflict { .. }) => {}
            Err(error) => tracing::warn!(id, error = chain(&error), "a deletion is held up"),
        }
    }

    /// Removes what the catalog holds: alerts, then indexes, then the stream, so that nothing is left whose stream or index
    /// is gone already, should it end in between.
    async fn remove_records(&self, deletion: &DeletionRecord) -> Result<(), CatalogError> {
        let hit = |rtstream: &str, index: &str| {
            if deletion.index_id.is_empty() {
                rtstream == deletion.rtstream_id
            } else {
                index == deletion.index_id
            }
        };
        for (id, record) in self.catalog.list::<AlertRecord>() {
            let alert = record.value.alert.as_ref();
            if alert.is_some_and(|alert| hit(&alert.rtstream_id, &alert.index_id)) {
                self.remove::<AlertRecord>(&id).await?;
            }
        }
        for (id, record) in self.catalog.list::<IndexRecord>() {
            let index = record.value.index.as_ref();
            if index.is_some_and(|index| hit(&index.rtstream_id, &id)) {
                self.remove::<IndexRecord>(&id).await?;
            }
        }
        if !deletion.rtstream_id.is_empty() {
            self.remove::<RtStreamRecord>(&deletion.rtstream_id).await?;
        }
        Ok(())
    }

    /// Removes a record as it is now; one that is gone stays gone.
    pub(super) async fn remove<T: Entry>(&self, id: &str) -> Result<(), CatalogError> {
        let mut tries = 0;
        while let Some(found) = self.catalog.fetch::<T>(id).await? {
            tries += 1;
            match self.catalog.delete::<T>(id, found.revision).await {
                Err(CatalogError::Conflict { .. }) if tries < ATTEMPTS => {}
                ended => return ended,
            }
        }
        Ok(())
    }
}

fn request(deletion: &DeletionRecord) -> DeleteRecordsRequest {
    DeleteRecordsRequest {
        rtstream_id: deletion.rtstream_id.clone(),
        index_id: deletion.index_id.clone(),
    }
}
