//! A store that is open, and who fills it from the bus.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use sightline_bus::BusError;
use sightline_inference::Embedder;
use sightline_service::Shutdown;
use sightline_vectors::{EmbeddingModel, Named, VectorError};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};

use crate::keeping::Keeping;
use crate::serving::{Gone, Shared};
use crate::{KINDS, intake};

/// How long what was begun may take; what is not acknowledged by then comes again.
const FINISH: Duration = Duration::from_secs(10);
/// How long calls may still have a store that closes; none takes longer.
const DRAIN: Duration = Duration::from_secs(15);

/// A store that is open.
pub(crate) struct Side {
    pub(crate) shared: Arc<Shared>,
    /// Whether its model is there.
    pub(crate) whole: bool,
    stop: Shutdown,
    intakes: Vec<JoinHandle<()>>,
}

/// Why taking observations ended.
pub(crate) enum Ended {
    Bus(BusError),
    Panicked(Box<dyn Any + Send>),
}

impl Keeping {
    /// Opens a store and begins to fill it from the bus.
    pub(crate) async fn side(
        &self,
        named: &Named,
        ended: &mpsc::Sender<Ended>,
    ) -> Result<Side, VectorError> {
        let mut named = named.clone();
        let embedder = if named.model.same_as(&self.wanted) {
            named.model.source.clone_from(&self.wanted.source);
            Some(Arc::clone(&self.embedder))
        } else {
            self.load(&named.model).await
        };
        let store = self.stores.open(&named).await?;
        let whole = embedder.is_some();
        let embedder = embedder.unwrap_or_else(|| Arc::new(Gone(named.model.revision.clone())));
        let (config, parts) = (self.config.clone(), self.parts.clone());
        let shared = Arc::new(Shared::new(named.name, config, parts, embedder, store));
        let stop = Shutdown::new();
        let intakes = KINDS.into_iter().filter(|_| whole).map(|kind| {
            let intake = intake::run(Arc::clone(&shared), kind, stop.clone());
            watched(tokio::spawn(intake), ended.clone())
        });
        Ok(Side {
            intakes: intakes.collect(),
            shared,
            whole,
            stop,
        })
    }

    /// The model of a store of another one.
    async fn load(&self, model: &EmbeddingModel) -> Option<Arc<dyn Embedder>> {
        let (loader, of) = (Arc::clone(&self.loader), model.clone());
        let loaded = spawn_blocking(move || loader(&of)).await.ok().flatten();
        let fits = |embedder: &Arc<dyn Embedder>| embedder.revision() == model.revision;
        let loaded = loaded.filter(fits);
        if loaded.is_none() {
            tracing::warn!(
                model = model.revision,
                source = model.source,
                "the embedding model of the vector store in use is gone: until another store is filled, search finds what that has so far"
            );
        }
        loaded
    }
}

impl Side {
    pub(crate) fn durables(&self) -> Vec<String> {
        let identity = self.shared.store.identity();
        KINDS.map(|kind| intake::durable(kind, identity)).to_vec()
    }

    /// Takes no more, and closes the store when the last call has its answer.
    pub(crate) async fn close(mut self) {
        self.stop.cancel();
        let _ = timeout(FINISH, join_all(&mut self.intakes)).await;
        let until = Instant::now() + DRAIN;
        while Arc::strong_count(&self.shared) > 1 && Instant::now() < until {
            sleep(Duration::from_millis(20)).await;
        }
        // Closing waits for what is being written.
        let _ = spawn_blocking(move || drop(self)).await;
    }
}

/// Passes on how a task ends, unless it was told to.
fn watched(task: JoinHandle<Result<(), BusError>>, ended: mpsc::Sender<Ended>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let end = match task.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => Ended::Bus(error),
            Err(panicked) => Ended::Panicked(panicked.into_panic()),
        };
        let _ = ended.try_send(end);
    })
}
