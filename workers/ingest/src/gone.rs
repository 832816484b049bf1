//! Removing what is left of streams that were deleted: recordings, exports, player pages and their records.
//!
//! That a stream is gone is believed of nothing less than the mark that its deletion left in the catalog, asked of the server.
//! A view that trails, a server that does not answer, and a catalog that was lost or belongs to another platform on the same
//! store, all remove nothing.

use std::collections::HashMap;

use sightline_catalog::Catalog;
use sightline_proto::internal::{ExportRecord, RtStreamRecord, RunRecord};
use sightline_proto::time::micros;
use sightline_proto::v1::Export;
use sightline_proto::v1::export::State;
use sightline_recordings::{Retention, StoreError};
use sightline_service::chain;

use crate::Shared;
use crate::record::RunState;

/// Which streams are gone, as far as one round has asked.
pub(crate) struct Gone<'a> {
    catalog: &'a Catalog,
    asked: HashMap<String, bool>,
}

impl<'a> Gone<'a> {
    pub(crate) fn new(catalog: &'a Catalog) -> Self {
        Self {
            catalog,
            asked: HashMap::new(),
        }
    }

    /// Whether a stream was deleted; false as long as that is not sure.
    pub(crate) async fn is(&mut self, rtstream_id: &str) -> bool {
        if self.catalog.get::<RtStreamRecord>(rtstream_id).is_some() {
            return false;
        }
        if let Some(known) = self.asked.get(rtstream_id) {
            return *known;
        }
        let asked = self.catalog.is_deleted::<RtStreamRecord>(rtstream_id).await;
        let gone = asked.unwrap_or_else(|error| {
            tracing::warn!(
                rtstream = rtstream_id,
                error = chain(&error),
                "whether the stream was deleted is not known, asking again in the next round"
            );
            false
        });
        self.asked.insert(rtstream_id.to_owned(), gone);
        gone
    }
}

/// Removes the recordings and records of deleted streams, and exports that are as old as their stream's retention; whether there
/// were any recordings.
pub(crate) async fn remove(shared: &Shared, gone: &mut Gone<'_>, now_us: i64) -> bool {
    remove_exports(shared, gone, now_us).await;
    for (id, _) in shared.catalog.list::<RunRecord>() {
        if gone.is(&id).await
            && let Err(error) = RunState::forget(shared, &id).await
        {
            let error = chain(&error);
            tracing::warn!(rtstream = id, error, "its run is removed in the next round");
        }
    }
    let recorded = match shared.library.store().streams().await {
        Ok(recorded) => recorded,
        Err(error) => {
            let error = chain(&error);
            tracing::warn!(error, "recordings of deleted streams are looked for later");
            return false;
        }
    };
    let mut any = false;
    for id in recorded {
        if !gone.is(&id).await {
            continue;
        }
        any = true;
        match shared.library.store().remove_stream(&id).await {
            Ok(()) => tracing::info!(
                rtstream = id,
                "the recording of a deleted stream is removed"
            ),
            Err(error) => tracing::warn!(
                rtstream = id,
                error = chain(&error),
                "the recording of a deleted stream is not removed, trying again in the next round"
            ),
        }
    }
    any
}

async fn remove_exports(shared: &Shared, gone: &mut Gone<'_>, now_us: i64) {
    for (id, record) in shared.catalog.list::<ExportRecord>() {
        let Some(export) = &record.value.export else {
            continue;
        };
        if !is_old(shared, export, now_us) && !gone.is(&export.rtstream_id).await {
            continue;
        }
        // The file first: as long as there is the record, the next round goes on.
        let file = shared.library.store().remove_export(&id).await;
        let file = file.or_else(|error| match error {
            StoreError::NotFound { .. } => Ok(()),
            error => Err(chain(&error)),
        });
        let removed = match file {
            Ok(()) => {
                let removed = shared
                    .catalog
                    .delete::<ExportRecord>(&id, record.revision)
                    .await;
                removed.map_err(|error| chain(&error))
            }
            Err(error) => Err(error),
        };
        match removed {
            Ok(()) => tracing::info!(export = id, "an export is removed"),
            Err(error) => tracing::warn!(
                export = id,
                error,
                "an export is not removed, trying again in the next round"
            ),
        }
    }
}

/// Whether an export that nobody works on is older than what its stream keeps.
fn is_old(shared: &Shared, export: &Export, now_us: i64) -> bool {
    let stream = shared.catalog.get::<RtStreamRecord>(&export.rtstream_id);
    let Some(stream) = stream.and_then(|stream| stream.value.rtstream.clone()) else {
        return false;
    };
    let said = stream.retention.unwrap_or_default();
    let kept = Retention::of(said, shared.config.retention);
    let made_us = export.create_time.as_ref().map_or(now_us, micros);
    let idle = export.state() != State::Running;
    idle && kept.max_age_us != 0 && made_us.saturating_add(kept.max_age_us) < now_us
}
