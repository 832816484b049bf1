//! One stream under one lease: from taking it to giving it back.

use std::sync::Arc;

use sightline_bus::Lease;
use sightline_catalog::{CatalogError, source};
use sightline_proto::internal::RtStreamRecord;
use sightline_proto::v1::rt_stream::{Playback, State};
use sightline_service::{Shutdown, chain};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::presence::{self, Camera};
use crate::record::{RecordError, RunState};
use crate::supervise::{Source, Supervisor};
use crate::{ACK_WAIT, PAUSE, Shared};

/// What becomes of the lease.
enum Outcome {
    /// Nobody is to run the stream.
    Over,
    /// Another worker is to go on at once.
    HandOver,
    /// It is lost already, or the bus is not there: it runs out by itself.
    Lost,
}

/// Runs a stream for as long as the lease can be kept.
pub(crate) async fn run(shared: Arc<Shared>, lease: Lease, shutdown: Shutdown) {
    let id = lease.rtstream_id().to_owned();
    let outcome = tokio::select! {
        outcome = begin(&shared, &id, &shutdown) => outcome,
        () = keep(&lease) => Ok(Outcome::Lost),
    };
    let outcome = outcome.unwrap_or_else(|error| {
        match error {
            RecordError::Fenced => tracing::info!(rtstream = id, "another worker has the stream"),
            error => tracing::warn!(
                rtstream = id,
                error = chain(&error),
                "the stream is given up for now"
            ),
        }
        Outcome::Lost
    });
    let settled = match outcome {
        Outcome::Over => lease.release().await,
        Outcome::HandOver => lease.hand_over().await,
        Outcome::Lost => Ok(()),
    };
    if let Err(error) = settled {
        tracing::warn!(
            rtstream = id,
            error = chain(&error),
            "the lease runs out by itself"
        );
    }
}

/// Extends the lease; returns when that failed for as long as the lease lasts.
async fn keep(lease: &Lease) {
    let mut beat = interval(ACK_WAIT / 3);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut extended = Instant::now();
    loop {
        beat.tick().await;
        match lease.extend().await {
            Ok(()) => extended = Instant::now(),
            Err(error) if extended.elapsed() >= ACK_WAIT => {
                tracing::warn!(
                    rtstream = lease.rtstream_id(),
                    error = chain(&error),
                    "the lease is lost"
                );
                return;
            }
            Err(error) => tracing::debug!(%error, "the lease is not extended"),
        }
    }
}

async fn begin(
    shared: &Arc<Shared>,
    id: &str,
    shutdown: &Shutdown,
) -> Result<Outcome, RecordError> {
    let found = shared.catalog.fetch::<RtStreamRecord>(id).await?;
    let Some(stream) = found.map(|found| found.value) else {
        RunState::forget(shared, id).await?;
        return Ok(Outcome::Over);
    };
    let Some(mut state) = RunState::claim(shared, id, &stream).await? else {
        return Ok(Outcome::Over);
    };
    if !stream.wanted {
        state.set(State::Stopped, "", 0).await?;
        return Ok(Outcome::Over);
    }
    match open_source(shared, &stream).await {
        Ok(source) => run_source(shared, id, source, state, shutdown).await,
        Err(reason) => {
            state.set(State::Failed, &reason, 0).await?;
            Ok(Outcome::Over)
        }
    }
}

/// Runs an opened source until it is over or another worker is to go on.
async fn run_source(
    shared: &Arc<Shared>,
    id: &str,
    source: Source,
    mut state: RunState,
    shutdown: &Shutdown,
) -> Result<Outcome, RecordError> {
    let start_count = state.run.start_count;
    // An alert that was made just before the start misses nothing.
    shared.look_up_wishes();
    let camera = (!source.is_file).then(|| Camera::of(shared, id, &state));
    let mut supervisor = Supervisor::new(shared, id, source, &mut state).await?;
    let end = tokio::select! {
        ended = supervisor.run() => Some(ended?),
        never = Box::pin(presence::watch(camera.as_ref())) => match never {},
        () = unwanted(shared, id, start_count) => Some((State::Stopped, String::new())),
        () = shutdown.cancelled() => None,
    };
    if is_gone(shared, id).await? {
        // Nobody is told how it ended, and nothing of it is kept.
        drop(supervisor);
        tracing::info!(rtstream = id, "the stream was deleted");
        RunState::forget(shared, id).await?;
        return Ok(Outcome::Over);
    }
    supervisor.finish(end.is_some()).await?;
    drop(supervisor);
    let Some((end, detail)) = end else {
        state.store().await?;
        return Ok(Outcome::HandOver);
    };
    state.end_recording();
    state.set(end, &detail, 0).await?;
    if let Some(camera) = camera.filter(|_| end == State::Failed) {
        camera.given_up().await;
    }
    Ok(Outcome::Over)
}

/// The source of a stream, with its credentials; or why it can't be opened, in words.
async fn open_source(shared: &Arc<Shared>, stream: &RtStreamRecord) -> Result<Source, String> {
    let url = shared
        .seal
        .open(&stream.sealed_url)
        .map_err(|error| format!("{error}: gateway and ingest workers need the same seal.key"))?;
    let (checked, root) = (url.clone(), shared.config.media_root.clone());
    // File systems may be slow, so the check has a thread of its own.
    let check = tokio::task::spawn_blocking(move || source::check(&checked, root.as_deref()));
    let checked = check
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())?;
    let playback = stream
        .rtstream
        .as_ref()
        .map_or(Playback::RealTime, |s| s.playback());
    Ok(Source {
        url: checked.url().to_string(),
        is_file: checked.is_file(),
        fast: playback == Playback::Fast,
    })
}

/// Whether the stream is deleted: the server is asked, because the view may trail behind.
async fn is_gone(shared: &Shared, id: &str) -> Result<bool, CatalogError> {
    let catalog = &shared.catalog;
    Ok(catalog.get::<RtStreamRecord>(id).is_none()
        && catalog.fetch::<RtStreamRecord>(id).await?.is_none())
}

/// Waits until this start of the stream is not wanted any more, or the stream is deleted.
async fn unwanted(shared: &Shared, id: &str, start_count: u64) {
    let mut changes = shared.catalog.changes();
    loop {
        changes.mark_unchanged();
        let stream = shared.catalog.get::<RtStreamRecord>(id);
        let wanted = match stream {
            Some(stream) => stream.value.wanted && stream.value.start_count == start_count,
            None => match is_gone(shared, id).await {
                Ok(gone) => !gone,
                Err(error) => {
                    tracing::debug!(%error, "whether the stream was deleted is asked again");
                    sleep(PAUSE).await;
                    continue;
                }
            },
        };
        if !wanted {
            return;
        }
        if changes.changed().await.is_err() {
            // The catalog is gone, and with it the process.
            return std::future::pending().await;
        }
    }
}
