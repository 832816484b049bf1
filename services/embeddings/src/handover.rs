//! From one store to the next: each batch of a transcript is judged, whichever of them was faster.
//!
//! The store in use judges what it stores. The next one stores batches as well, and judges none before it leads. So what the
//! next one has by then, and the one in use has not got to, is judged here.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use sightline_bus::{ObservationKind, Place, Received, Start, StreamName};
use sightline_proto::internal::Observation;
use sightline_service::chain;
use tokio::time::{Instant, sleep, timeout};

use crate::serving::Shared;
use crate::similarity::Prompts;
use crate::storing::{Fault, Storing};
use crate::{BUS, MODEL, intake, similarity};

/// Of what is judged.
const KIND: ObservationKind = ObservationKind::AudioScene;
/// How long the old store may take to get as far as the new one: as a rule it is, but for what came just now.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(20);
/// How long judging holds up storing at a time.
const SLICE: Duration = Duration::from_secs(5);
/// How long the next batch may take to come from the bus, which may have dropped the last that is looked for.
const QUIET: Duration = Duration::from_secs(2);

/// Makes `new` lead: what it has stored is judged, by `old` or here, and what it stores from now on it judges itself.
pub(crate) async fn hand_over(old: &Shared, new: &Arc<Shared>) -> Result<(), Fault> {
    if new.leads() {
        return Ok(());
    }
    let mut judged = 0;
    loop {
        // It stores nothing meanwhile: verdicts on an index come in the order of its batches.
        let _new_waits = new.storing.write().await;
        let until = place(new).await?.taken;
        if timeout(PATIENCE, settles(old, until)).await.is_err() {
            let after = place(old).await?.settled.max(judged);
            tracing::info!(
                after,
                until,
                "the new vector store judges what the old one has not got to"
            );
            judged = judge(new, after, until).await?;
            if judged < until {
                // What has come meanwhile is stored before it goes on.
                continue;
            }
        }
        new.lead();
        return Ok(());
    }
}

async fn place(store: &Shared) -> Result<Place, Fault> {
    let unknown = || Fault::Passing(BUS, "nobody knows how far a store is".to_owned());
    intake::place(store, KIND).await.ok_or_else(unknown)
}

/// Waits until a store has settled all up to a sequence.
async fn settles(store: &Shared, until: u64) {
    loop {
        let place = intake::place(store, KIND).await;
        if place.is_some_and(|place| place.settled >= until || place.open == 0) {
            return;
        }
        sleep(LOOK).await;
    }
}

/// Judges the batches between two sequences, the last included, for a while. Returns up to which all are judged.
async fn judge(new: &Arc<Shared>, after: u64, until: u64) -> Result<u64, Fault> {
    let failed = |error| Fault::Passing(BUS, chain(&error));
    let filter = intake::filter(KIND);
    let following = new
        .bus
        .tail(StreamName::Observations, &filter, Start::After(after));
    let mut batches = following.await.map_err(failed)?;
    let (mut storing, mut prompts) = (Storing::new(Arc::clone(new)), Prompts::default());
    let (mut seen, started) = (after, Instant::now());
    while seen < until && started.elapsed() < SLICE {
        let Ok(Some(batch)) = timeout(QUIET, batches.next()).await else {
            return nothing_left(new, seen, until).await.map(|()| until);
        };
        let batch: Received<Observation> = batch.map_err(failed)?;
        if batch.sequence > until {
            return Ok(until);
        }
        match judge_one(new, &batch.message, &mut storing, &mut prompts).await {
            Ok(()) => {}
            // It is in no store, and is given up by both.
            Err(Fault::Lasting(reason)) => {
                tracing::debug!(id = batch.message.id, reason, "a batch is not judged");
            }
            Err(passing) => return Err(passing),
        }
        seen = batch.sequence;
    }
    Ok(seen)
}

/// Tells silence because the bus has dropped what comes next from silence because it does not send it.
async fn nothing_left(new: &Shared, seen: u64, until: u64) -> Result<(), Fault> {
    let filter = intake::filter(KIND);
    let next = new
        .bus
        .next_after::<Observation>(StreamName::Observations, &filter, seen);
    match next.await {
        Ok(next) if next.is_none_or(|next| next > until) => Ok(()),
        Ok(_) => Err(Fault::Passing(BUS, "a batch does not come".to_owned())),
        Err(error) => Err(Fault::Passing(BUS, chain(&error))),
    }
}

async fn judge_one(
    new: &Shared,
    batch: &Observation,
    storing: &mut Storing,
    prompts: &mut Prompts,
) -> Result<(), Fault> {
    let (kept, points) = storing.points(std::iter::once(batch)).await?;
    for (batch, point) in kept.into_iter().zip(&points) {
        let judged = prompts.judge(new, batch, point.vector.as_ref()).await;
        for verdict in judged.map_err(|error| Fault::Passing(MODEL, chain(&error)))? {
            let published = similarity::publish(new, &verdict).await;
            published.map_err(|error| Fault::Passing(BUS, chain(&error)))?;
        }
    }
    Ok(())
}
