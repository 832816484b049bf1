//! Keeping the view: one watch of the whole bucket, begun again after every interruption.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::kv::{Entry, Operation, Store, Watch};
use futures::StreamExt;
use sightline_bus::Bus;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::error::CatalogError;
use crate::view::View;
use crate::{BUCKET, entry, within_deadline};

/// How long the first reading of the bucket may take.
const LOAD_DEADLINE: Duration = Duration::from_secs(30);
/// How long to hold back when the watch can't be begun.
const PAUSE: Duration = Duration::from_millis(500);

/// Fills the view, and keeps it until the returned handle is dropped.
pub(crate) async fn start(
    bus: Bus,
    store: Store,
    view: Arc<View>,
) -> Result<AbortOnDropHandle<()>, CatalogError> {
    let connects = bus.connects();
    let mut watch = begin(&store).await?;
    timeout(LOAD_DEADLINE, load(&mut watch, &view))
        .await
        .map_err(|source| CatalogError::failed("read", BUCKET, source))??;
    let follower = Follower {
        bus,
        store,
        view,
        connects,
    };
    Ok(AbortOnDropHandle::new(tokio::spawn(follower.run(watch))))
}

/// Watches from the first revision: the bucket keeps one revision a key, so that is every key once and then every change.
async fn begin(store: &Store) -> Result<Watch, CatalogError> {
    within_deadline("watched", BUCKET, store.watch_all_from_revision(1))
        .await?
        .map_err(|source| CatalogError::failed("watched", BUCKET, source))
}

/// Applies what the bucket holds; the bucket is not empty.
async fn load(watch: &mut Watch, view: &View) -> Result<(), CatalogError> {
    while let Some(entry) = watch.next().await {
        let entry = entry.map_err(|source| CatalogError::failed("watched", BUCKET, source))?;
        let last = entry.delta == 0;
        apply(view, entry);
        if last {
            return Ok(());
        }
    }
    Err(CatalogError::failed("watched", BUCKET, "the watch ended"))
}

fn apply(view: &View, entry: Entry) {
    let value = match entry.operation {
        Operation::Delete | Operation::Purge => None,
        Operation::Put => entry::decode(&entry.key, entry.value).unwrap_or_else(|error| {
            tracing::warn!(%error, key = entry.key, "a record of the catalog can't be read and is left out");
            None
        }),
    };
    view.put(entry.key, entry.revision, value);
}

struct Follower {
    bus: Bus,
    store: Store,
    view: Arc<View>,
    /// The connection that the watch was begun on.
    connects: u64,
}

impl Follower {
    async fn run(mut self, mut watch: Watch) {
        loop {
            let reason = self.follow(&mut watch).await;
            tracing::debug!(reason, "the catalog is watched anew");
            watch = self.begin_again().await;
        }
    }

    /// Applies what comes until the watch can't be relied on any more; returns why.
    async fn follow(&self, watch: &mut Watch) -> String {
        let reconnected = self.bus.reconnected(self.connects);
        tokio::pin!(reconnected);
        loop {
            tokio::select! {
                entry = watch.next() => match entry {
                    Some(Ok(entry)) => apply(&self.view, entry),
                    Some(Err(error)) => return error.to_string(),
                    None => return "the watch ended".to_owned(),
                },
                // The library would begin the watch again by itself, but up to 10 s later.
                () = &mut reconnected => return "the connection is another one".to_owned(),
            }
        }
    }

    async fn begin_again(&mut self) -> Watch {
        loop {
            self.connects = self.bus.connects();
            match begin(&self.store).await {
                Ok(watch) => return watch,
                Err(error) => {
                    tracing::debug!(%error, "the catalog can't be watched yet");
                    sleep(PAUSE).await;
                }
            }
        }
    }
}
