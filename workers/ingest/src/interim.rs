//! Has what is heard so far of an utterance transcribed for those who read along, if anybody does.
//!
//! Nothing waits for it and nothing is kept: a stream has one such question under way, what comes meanwhile is left out, and nobody
//! is asked while no gateway says that somebody listens.

use std::sync::Arc;
use std::time::Duration;

use sightline_bus::{Ask, Bus};
use sightline_proto::internal::AudioChunk;
use tokio::sync::Semaphore;

use crate::Shared;

/// How long the gateways may take to say that somebody listens. Where nobody does, the bus says so at once.
const LISTENING: Duration = Duration::from_millis(500);
/// How long the line may take: an older one is of no use.
const PATIENCE: Duration = Duration::from_secs(2);

/// The interim lines of one stream.
pub(crate) struct Interims(Arc<Semaphore>);

impl Interims {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }

    /// Has a line made of what was heard so far, unless one is being made.
    pub(crate) fn ask(&self, shared: &Arc<Shared>, chunk: AudioChunk) {
        let Ok(place) = Arc::clone(&self.0).try_acquire_owned() else {
            return;
        };
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            if is_heard(&shared.bus).await {
                shared.metrics.interim.inc();
                let ask = Ask::Interim(&shared.config.engine);
                if let Err(error) = shared.bus.ask::<()>(ask, &chunk, PATIENCE).await {
                    tracing::debug!(%error, rtstream = chunk.rtstream_id, "no interim line");
                }
            }
            drop(place);
        });
    }
}

async fn is_heard(bus: &Bus) -> bool {
    bus.ask::<()>(Ask::Listening, &(), LISTENING).await.is_ok()
}
