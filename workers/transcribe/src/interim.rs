//! Interim lines: what is heard so far of an utterance that is not over, told to whoever listens at this moment.
//!
//! Utterances that are over never wait for them: they have threads of their own, and where all of those are taken nothing interim
//! is transcribed at all. One at a time is, and for a line that is not there soon nobody waits; while its thread is still at it, there
//! are no others.

use std::sync::Arc;

use sightline_bus::{Ask, Bus, BusError};
use sightline_proto::internal::{AudioChunk, Observation};
use sightline_service::{Shutdown, chain};
use tokio::sync::OwnedSemaphorePermit;

use crate::handler::Handler;
use crate::metrics::Interim;
use crate::observations::interim;

/// Side by side in this worker.
const CONCURRENCY: usize = 1;

/// Answers until shutdown.
///
/// # Errors
/// When the bus does not take the subscription.
pub(crate) async fn run(
    bus: Bus,
    handler: Arc<Handler>,
    shutdown: Shutdown,
) -> Result<(), BusError> {
    let engine = handler.engine().to_owned();
    let (telling, answering) = (bus.clone(), Arc::clone(&handler));
    let answer = move |chunk: AudioChunk| {
        let (bus, handler) = (telling.clone(), Arc::clone(&answering));
        async move {
            let outcome = tell(&bus, &handler, &chunk).await;
            handler.metrics.told(outcome);
        }
    };
    bus.answer(Ask::Interim(&engine), CONCURRENCY, &shutdown, answer)
        .await
}

async fn tell(bus: &Bus, handler: &Handler, chunk: &AudioChunk) -> Interim {
    let Some(spare) = handler.spare() else {
        return Interim::Busy;
    };
    let line = match line(handler, chunk, spare).await {
        Ok(Some(line)) => line,
        Ok(None) => return Interim::Nothing,
        Err(reason) => {
            tracing::debug!(rtstream = chunk.rtstream_id, reason, "no interim line");
            return Interim::Failed;
        }
    };
    match bus.tell_interim(&line).await {
        Ok(()) => Interim::Told,
        Err(error) => {
            tracing::debug!(error = chain(&error), "an interim line is lost");
            Interim::Failed
        }
    }
}

async fn line(
    handler: &Handler,
    chunk: &AudioChunk,
    spare: OwnedSemaphorePermit,
) -> Result<Option<Observation>, String> {
    if handler.is_stale(chunk) || handler.is_dropped(chunk) {
        return Ok(None);
    }
    let (span, samples) = handler.samples(chunk)?;
    let heard = handler.hear_soon(samples, chunk, spare).await;
    let heard = heard.map_err(|error| chain(&error))?;
    // Its speech may have been dropped meanwhile.
    if handler.is_dropped(chunk) {
        return Ok(None);
    }
    Ok(interim(
        chunk,
        span,
        handler.engine(),
        handler.revision(),
        &heard,
    ))
}
