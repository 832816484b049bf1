//! Forgetting alerts that were deleted: nothing of them is stored any longer.
//!
//! That an alert is gone is only believed when the server says so: the view may trail behind.

use std::sync::Arc;
use std::time::Duration;

use sightline_catalog::{Catalog, CatalogError};
use sightline_proto::internal::{AlertRecord, EvaluationRecord};
use sightline_service::{Shutdown, chain};

use crate::Shared;

/// How long changes of the catalog are gathered before they are looked at.
const GATHER: Duration = Duration::from_secs(1);

/// The alert, if there is one.
///
/// # Errors
/// When the server has to be asked and does not answer.
pub(crate) async fn known(
    catalog: &Catalog,
    alert_id: &str,
) -> Result<Option<Arc<AlertRecord>>, CatalogError> {
    let found = match catalog.get::<AlertRecord>(alert_id) {
        None => catalog.fetch::<AlertRecord>(alert_id).await?,
        found => found,
    };
    Ok(found.map(|found| found.value))
}

/// Removes how far deleted alerts had come, until shutdown.
pub(crate) async fn run(shared: Arc<Shared>, shutdown: Shutdown) {
    let mut changes = shared.catalog.changes();
    let forgetting = async {
        loop {
            changes.mark_unchanged();
            for (alert, found) in shared.catalog.list::<EvaluationRecord>() {
                if let Err(error) = forget(&shared.catalog, &alert, found.revision).await {
                    tracing::debug!(
                        alert,
                        error = chain(&error),
                        "how far it had come is removed later"
                    );
                }
            }
            tokio::time::sleep(GATHER).await;
            if changes.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = forgetting => {}
    }
}

async fn forget(catalog: &Catalog, alert_id: &str, revision: u64) -> Result<(), CatalogError> {
    if known(catalog, alert_id).await?.is_some() {
        return Ok(());
    }
    catalog
        .delete::<EvaluationRecord>(alert_id, revision)
        .await?;
    tracing::info!(alert = alert_id, "alert was deleted and is forgotten");
    Ok(())
}
