//! Asks again for runs that should be and that nobody has taken up: after a gateway died between writing a stream and asking
//! for its run, or when a start met the run before it still stopping.
//!
//! Asking for a run that is asked for already changes nothing, so every gateway does this.

use std::time::Duration;

use sightline_proto::internal::{RtStreamRecord, RunRecord};
use sightline_service::{Shutdown, chain};

use super::Core;
use super::state::run_of;

/// Shortest time between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// Longest time between two looks, for what no change of the catalog announces.
const AT_LEAST: Duration = Duration::from_secs(30);

impl Core {
    /// Looks at every change of the catalog, until shutdown.
    pub(crate) async fn keep_asking_for_runs(&self, shutdown: &Shutdown) {
        let mut changes = self.catalog.changes();
        let look = async {
            loop {
                self.ask_for_missing_runs().await;
                tokio::time::sleep(PAUSE).await;
                let changed = tokio::time::timeout(AT_LEAST, changes.changed()).await;
                if matches!(changed, Ok(Err(_))) {
                    // The catalog is gone, and with it the process.
                    return;
                }
            }
        };
        tokio::select! {
            () = look => {}
            () = shutdown.cancelled() => {}
        }
    }

    async fn ask_for_missing_runs(&self) {
        for (id, record) in self.catalog.list::<RtStreamRecord>() {
            let run = self.catalog.get::<RunRecord>(&id);
            if !record.value.wanted || run_of(&record.value, run.as_ref()).is_some() {
                continue;
            }
            if let Err(error) = self.bus.request_run(&id).await {
                tracing::warn!(error = chain(&error), "runs cannot be asked for");
                return;
            }
        }
    }
}
