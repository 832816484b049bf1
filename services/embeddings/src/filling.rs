//! Fills a new store beside the one in use, until it has all that the other has; then they change places.
//!
//! Both take observations from the bus, each with consumers of its own: the new one's begin with the oldest that the bus has
//! kept. What is older is copied: the old store has the observations. Ids make it harmless that some come both ways.
//!
//! No search misses a text that the one before found: the old store is held still until the new one has taken all that the
//! old one ever took, and only then is the switch written. A process that is killed goes on from what is written.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use sightline_bus::Place;
use sightline_proto::internal::{Observation, Record, RecordFilter};
use sightline_service::{chain, failpoint};
use sightline_vectors::{ListQuery, Position, Progress, Stores, VectorError};
use tokio::sync::RwLockWriteGuard;
use tokio::time::{Instant, sleep, timeout};

use crate::STORE;
use crate::handover::hand_over;
use crate::intake::places;
use crate::serving::Shared;
use crate::storing::{Fault, Storing};

/// Records that are copied together.
const PAGE: usize = 64;
/// How often is looked how far the new store is.
const LOOK: Duration = Duration::from_millis(200);
/// How often others are told.
const TELL: Duration = Duration::from_secs(2);
/// How long the old store is held still at a time: what is observed meanwhile is found that much later.
const HOLD: Duration = Duration::from_secs(3);
const HOLD_LOOK: Duration = Duration::from_millis(20);
/// How long to wait after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Fills `new` from `old`, where that can be read, and from the bus.
pub(crate) struct Filling<'a> {
    pub(crate) stores: &'a dyn Stores,
    pub(crate) old: Option<&'a Arc<Shared>>,
    pub(crate) new: &'a Arc<Shared>,
    /// Copied is only what starts before.
    pub(crate) copy_before_us: Option<i64>,
}

impl Filling<'_> {
    /// Copies what the old store has. What fails is tried again.
    pub(crate) async fn copy(&self) -> Told {
        let mut told = Told::default();
        if let Some(old) = self.old {
            self.copy_from(old, &mut told).await;
        }
        told
    }

    /// Returns when the new store has what the bus has, but for what came just now.
    pub(crate) async fn catch_up(&self, told: &mut Told) {
        while !self.is_close(told).await {
            sleep(LOOK).await;
        }
        told.when = None;
        told.left_on_bus = 0;
        self.tell(told).await;
        tracing::info!(
            copied = told.copied,
            "the new vector store has what the bus has"
        );
        failpoint::hit("embeddings.after_caught_up");
    }

    async fn copy_from(&self, old: &Shared, told: &mut Told) {
        let mut storing = Storing::new(Arc::clone(self.new));
        let mut after = None;
        told.to_copy = until_done(|| async { old.store.count().await }).await;
        loop {
            let query = ListQuery {
                filter: RecordFilter {
                    end_us: self.copy_before_us.unwrap_or(0),
                    ..RecordFilter::default()
                },
                limit: PAGE,
                newest_first: false,
                after,
            };
            let page = until_done(|| async { old.store.list(&query).await }).await;
            let Some(last) = page.last() else {
                told.to_copy = told.copied;
                return;
            };
            after = Position::of(last.start_us, &last.id).ok();
            self.copy_page(&mut storing, &page).await;
            told.copied += page.len() as u64;
            self.tell(told).await;
        }
    }

    /// Stores what of a page is not there yet; what can't be stored is left out.
    async fn copy_page(&self, storing: &mut Storing, page: &[Record]) {
        let ids: Vec<String> = page.iter().map(|record| record.id.clone()).collect();
        let there = until_done(|| async { self.new.store.holds(&ids).await }).await;
        let missing = page.iter().filter(|record| !there.contains(&record.id));
        let missing: Vec<Observation> = missing
            .filter_map(|record| Observation::decode(record.observation.as_ref()).ok())
            .collect();
        if missing.is_empty() || self.store_until_settled(storing, &missing).await.is_ok() {
            return;
        }
        // One after the other tells which it is.
        for one in &missing {
            if let Err(reason) = self
                .store_until_settled(storing, std::slice::from_ref(one))
                .await
            {
                let id = &one.id;
                tracing::warn!(id, reason, "a record can't be copied and is left out");
            }
        }
    }

    /// Stores observations, tried again while what is wrong may pass; fails with why they never will be.
    async fn store_until_settled(
        &self,
        storing: &mut Storing,
        observations: &[Observation],
    ) -> Result<(), String> {
        loop {
            match self.store(storing, observations).await {
                Ok(()) => return Ok(()),
                Err(Fault::Lasting(reason)) => return Err(reason),
                Err(Fault::Passing(part, reason)) => {
                    tracing::warn!(part, reason, "the new vector store waits");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn store(
        &self,
        storing: &mut Storing,
        observations: &[Observation],
    ) -> Result<(), Fault> {
        let _storing = self.new.storing.read().await;
        let (_, points) = storing.points(observations.iter()).await?;
        storing.upsert(points).await
    }

    /// Whether the new store has what the bus has, but for what came just now.
    async fn is_close(&self, told: &mut Told) -> bool {
        let Some(places) = places(self.new).await else {
            return false;
        };
        let open = places.iter().map(|place| place.open).sum();
        told.on_bus = told.on_bus.max(open);
        told.left_on_bus = open;
        self.tell(told).await;
        open <= self.new.config.batch as u64
    }

    /// Makes the new store the one in use, unless it can't keep up; `switched` is called before anything else can be stored
    /// in the old one.
    pub(crate) async fn switch(
        &self,
        name: &str,
        switched: impl FnOnce(),
    ) -> Result<bool, VectorError> {
        let _held = match self.old {
            Some(old) => {
                // From here on the new one judges, and the old one still does: both may judge a batch, but none is left out.
                if let Err(fault) = hand_over(old, self.new).await {
                    tracing::warn!(?fault, "the new vector store can't judge yet");
                    return Ok(false);
                }
                match timeout(HOLD, self.hold(old)).await {
                    Ok(held) => Some(held),
                    Err(_) => return Ok(false),
                }
            }
            None => {
                self.new.lead();
                None
            }
        };
        failpoint::hit("embeddings.before_switch");
        self.stores.switch(name).await?;
        failpoint::hit("embeddings.after_switch");
        switched();
        Ok(true)
    }

    /// Holds the old store still, and waits until the new one has settled all that it has taken.
    async fn hold<'b>(&self, old: &'b Shared) -> RwLockWriteGuard<'b, ()> {
        let held = old.storing.write().await;
        loop {
            if let (Some(old), Some(new)) = (places(old).await, places(self.new).await) {
                let even = |(old, new): (&Place, &Place)| new.settled >= old.taken || new.open == 0;
                if old.iter().zip(&new).all(even) {
                    return held;
                }
            }
            sleep(HOLD_LOOK).await;
        }
    }

    async fn tell(&self, told: &mut Told) {
        if told.when.is_some_and(|when| when.elapsed() < TELL) {
            return;
        }
        told.when = Some(Instant::now());
        let progress = Progress {
            done: told.copied + told.on_bus.saturating_sub(told.left_on_bus),
            total: told.to_copy.max(told.copied) + told.on_bus,
        };
        let Progress { done, total } = progress;
        tracing::info!(done, total, "a new vector store is being filled");
        self.new.metrics.reindexed(progress);
        if let Err(error) = self.stores.note(progress).await {
            tracing::debug!(error = chain(&error), "nobody is told of the progress");
        }
    }
}

/// What is told of the progress.
#[derive(Default)]
pub(crate) struct Told {
    when: Option<Instant>,
    to_copy: u64,
    copied: u64,
    on_bus: u64,
    left_on_bus: u64,
}

/// Does something again until it succeeds.
async fn until_done<T, F>(doing: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, VectorError>>,
{
    loop {
        match doing().await {
            Ok(done) => return done,
            Err(error) => {
                tracing::warn!(part = STORE, error = chain(&error), "filling waits");
                sleep(PAUSE).await;
            }
        }
    }
}
