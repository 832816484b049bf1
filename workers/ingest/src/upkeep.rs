//! Removing old recordings, and what is left of deleted streams: one worker of all does a round now and then, whichever finds that
//! one is due.

use std::sync::Arc;
use std::time::Duration;

use sightline_catalog::{Catalog, CatalogError};
use sightline_proto::internal::{RtStreamRecord, RunRecord, UpkeepRecord};
use sightline_proto::v1::rt_stream::State;
use sightline_recordings::{Retention, StoreError, enforce};
use sightline_service::{Shutdown, chain};
use tokio::time::{MissedTickBehavior, interval};

use crate::Shared;
use crate::gone::{self, Gone};

/// How often a worker removes player pages whose links have expired, in microseconds: each of them is read for it.
const PAGES_EVERY_US: i64 = 3_600_000_000;
/// The record's id.
const ID: &str = "recordings";

/// Does the rounds that fall to this worker, until shutdown.
pub(crate) async fn run(shared: Arc<Shared>, shutdown: Shutdown) {
    let every = shared.config.upkeep_every.max(Duration::from_millis(1));
    // Looked at more often than it is due, so that a round of a worker that died is late by little.
    let mut pages_us = 0_i64;
    let mut tick = interval(every.div_f64(4.0));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = tick.tick() => {}
        }
        let now_us = shared.clock.now_us();
        match take(&shared.catalog, &shared.config.worker, every, now_us).await {
            Ok(false) => {}
            Ok(true) => {
                shared.metrics.upkeep_rounds.inc();
                let pages_due = pages_us.saturating_add(PAGES_EVERY_US) <= now_us;
                // Cut off anywhere, it is completed by the next round.
                let looked_through = tokio::select! {
                    () = shutdown.cancelled() => return,
                    looked_through = round(&shared, now_us, pages_due) => looked_through,
                };
                if looked_through {
                    pages_us = now_us;
                }
            }
            Err(error) => {
                tracing::debug!(error = chain(&error), "whether upkeep is due is not known");
            }
        }
    }
}

/// Takes the round that is due, if one is and no other worker was quicker.
pub(crate) async fn take(
    catalog: &Catalog,
    worker: &str,
    every: Duration,
    now_us: i64,
) -> Result<bool, CatalogError> {
    let every_us = i64::try_from(every.as_micros()).unwrap_or(i64::MAX);
    let due = |record: &UpkeepRecord| {
        // A clock that was wrong must not put it off for ever.
        let age_us = now_us.saturating_sub(record.begun_us);
        age_us >= every_us || age_us <= -every_us
    };
    // Mostly it is not: the view says so without asking.
    if catalog
        .get::<UpkeepRecord>(ID)
        .is_some_and(|known| !due(&known.value))
    {
        return Ok(false);
    }
    let found = catalog.fetch::<UpkeepRecord>(ID).await?;
    if found.as_ref().is_some_and(|found| !due(&found.value)) {
        return Ok(false);
    }
    let record = UpkeepRecord {
        holder: worker.to_owned(),
        begun_us: now_us,
    };
    let taken = match found {
        Some(found) => catalog.update(ID, &record, found.revision).await,
        None => catalog.create(ID, &record).await,
    };
    match taken {
        Ok(_) => Ok(true),
        Err(CatalogError::Conflict { .. } | CatalogError::Exists { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// One round; whether it looked through the player pages, which are also `pages_due` when a recording has gone.
pub(crate) async fn round(shared: &Shared, now_us: i64, pages_due: bool) -> bool {
    enforce_all(shared, now_us).await;
    let mut gone = Gone::new(&shared.catalog);
    let pages_due = gone::remove(shared, &mut gone, now_us).await || pages_due;
    if pages_due {
        remove_pages(shared, &mut gone, now_us).await;
    }
    pages_due
}

async fn enforce_all(shared: &Shared, now_us: i64) {
    for (id, record) in shared.catalog.list::<RtStreamRecord>() {
        let Some(stream) = &record.value.rtstream else {
            continue;
        };
        let run = shared.catalog.get::<RunRecord>(&id);
        let run = run
            .map(|run| RunRecord::clone(&run.value))
            .unwrap_or_default();
        if !stream.store && run.recorded_us == 0 {
            continue;
        }
        let said = stream.retention.unwrap_or_default();
        let retention = Retention::of(said, shared.config.retention);
        let written_us = written_up_to(&run, now_us);
        match enforce(&shared.library, &id, retention, written_us, now_us).await {
            Ok(kept) => {
                shared.metrics.segments_expired.inc_by(kept.removed);
                if kept.removed > 0 {
                    tracing::info!(
                        rtstream = id,
                        removed = kept.removed,
                        removed_bytes = kept.removed_bytes,
                        bytes = kept.bytes,
                        "old segments are removed"
                    );
                }
            }
            Err(error) => tracing::warn!(
                rtstream = id,
                error = chain(&error),
                "old segments are not removed, trying again in the next round"
            ),
        }
    }
}

/// Removes player pages whose links have expired or whose stream is gone.
async fn remove_pages(shared: &Shared, gone: &mut Gone<'_>, now_us: i64) {
    let store = shared.library.store();
    let removing = async {
        let mut removed = 0_u64;
        for page in store.pages().await? {
            let expired = page.expires_us != 0 && page.expires_us <= now_us;
            if expired || gone.is(&page.rtstream_id).await {
                store.remove_page(&page.slug).await?;
                removed += 1;
            }
        }
        Ok::<_, StoreError>(removed)
    };
    match removing.await {
        Ok(0) => {}
        Ok(pages) => tracing::info!(pages, "player pages that play nothing any more are removed"),
        Err(error) => tracing::warn!(
            error = chain(&error),
            "player pages are not removed, trying again in the next round"
        ),
    }
}

/// Nothing more is stored that starts before.
fn written_up_to(run: &RunRecord, now_us: i64) -> i64 {
    let running = matches!(
        State::try_from(run.state),
        Ok(State::Connecting | State::Active | State::Reconnecting)
    );
    match run.recorded_us.max(run.epoch_us) {
        0 => now_us,
        reached_us if running => reached_us.min(now_us),
        _ => now_us,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_over_when_the_recording_has_passed_them() {
        let check = |state: State, epoch_us, recorded_us, expected| {
            let run = RunRecord {
                state: state.into(),
                epoch_us,
                recorded_us,
                ..RunRecord::default()
            };
            assert_eq!(written_up_to(&run, 100), expected);
        };
        check(State::Unspecified, 0, 0, 100);
        check(State::Connecting, 0, 0, 100);
        check(State::Active, 50, 0, 50);
        check(State::Reconnecting, 50, 70, 70);
        check(State::Active, 50, 700, 100);
        check(State::Ended, 50, 70, 100);
    }
}
