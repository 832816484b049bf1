//! The hub of Watch: one follower of OBSERVATIONS for the whole gateway, fanned out to every watcher.
//!
//! Each watcher has a buffer of its own, of what passes its filter. When it is full, what comes next is dropped for that
//! watcher and counted; the count goes out with the first message that fits again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use sightline_bus::{Bus, BusError, Start, StreamName};
use sightline_catalog::{Catalog, CatalogError};
use sightline_proto::internal::{IndexRecord, Observation, RtStreamRecord};
use sightline_proto::v1::firing::Basis;
use sightline_proto::v1::watch_response::Message;
use sightline_proto::v1::{self, index};
use sightline_service::admin::Readiness;
use sightline_service::{Shutdown, chain};
use thiserror::Error;
use tokio::sync::mpsc;

use super::OBSERVATIONS;
use super::filter::{Filter, Happening};
use super::interim::Said;
use crate::api::{Linker, tenancy};
use crate::metrics::GatewayMetrics;

/// Messages that wait for one watcher at most.
const BUFFER: usize = 256;
/// Pause before following again after the bus failed.
const PAUSE: Duration = Duration::from_millis(500);
/// The hub's name among the parts that readiness waits for.
pub(crate) const PART: &str = "watch";

/// Fans out what happens.
pub(crate) struct Hub {
    state: Mutex<State>,
    catalog: Catalog,
    linker: Linker,
    metrics: GatewayMetrics,
}

/// Why following stopped.
#[derive(Debug, Error)]
enum Interrupted {
    #[error("the bus does not answer")]
    Bus(#[from] BusError),
    #[error("whose a stream is cannot be looked up")]
    Catalog(#[from] CatalogError),
}

#[derive(Default)]
struct State {
    /// Sequence of the last message that was fanned out.
    position: u64,
    watchers: Vec<Watcher>,
    /// What was said last, so that nothing of it is told as going on.
    said: Said,
}

struct Watcher {
    filter: Filter,
    buffer: mpsc::Sender<Delivered>,
    dropped: Arc<AtomicU64>,
}

/// What the hub put into a watcher's buffer.
pub(crate) struct Delivered {
    /// How many messages were dropped before this one.
    pub(crate) dropped: u64,
    pub(crate) happening: Arc<Happening>,
}

/// A watcher's end of its buffer. Dropping it ends the watch.
pub(crate) struct Subscription {
    buffer: mpsc::Receiver<Delivered>,
    dropped: Arc<AtomicU64>,
}

/// What a watcher takes out of its buffer.
pub(crate) enum Taken {
    /// A message.
    One(Delivered),
    /// The buffer is empty, and this many were dropped after the last one.
    Dropped(u64),
    /// The hub is gone.
    Closed,
}

impl Subscription {
    /// The next thing in the buffer, once there is one.
    pub(crate) async fn take(&mut self) -> Taken {
        match self.buffer.try_recv() {
            Ok(delivered) => return Taken::One(delivered),
            Err(mpsc::error::TryRecvError::Disconnected) => return Taken::Closed,
            Err(mpsc::error::TryRecvError::Empty) => {}
        }
        // Nothing is dropped while the buffer has room, so whatever was dropped came before what comes next.
        let dropped = self.dropped.swap(0, Ordering::AcqRel);
        if dropped > 0 {
            return Taken::Dropped(dropped);
        }
        self.buffer.recv().await.map_or(Taken::Closed, Taken::One)
    }
}

impl Hub {
    /// A hub that starts after the newest observation.
    pub(crate) async fn new(
        bus: &Bus,
        catalog: Catalog,
        linker: Linker,
        metrics: GatewayMetrics,
    ) -> Result<Self, BusError> {
        let position = bus.last_sequence(StreamName::Observations).await?;
        let state = State {
            position,
            ..State::default()
        };
        Ok(Self {
            state: Mutex::new(state),
            catalog,
            linker,
            metrics,
        })
    }

    /// Sequence of the last message that was fanned out.
    pub(crate) fn position(&self) -> u64 {
        self.lock().position
    }

    /// Delivers to a new watcher whatever comes after the position that is returned.
    pub(crate) fn subscribe(&self, filter: Filter) -> (Subscription, u64) {
        let (sender, receiver) = mpsc::channel(BUFFER);
        let dropped = Arc::new(AtomicU64::new(0));
        let mut state = self.lock();
        state.watchers.push(Watcher {
            filter,
            buffer: sender,
            dropped: Arc::clone(&dropped),
        });
        let subscription = Subscription {
            buffer: receiver,
            dropped,
        };
        (subscription, state.position)
    }

    /// Follows the bus until shutdown; goes on where it was after interruptions.
    pub(crate) async fn follow(&self, bus: &Bus, readiness: &Readiness, shutdown: &Shutdown) {
        loop {
            let followed = tokio::select! {
                followed = self.follow_once(bus, readiness) => followed,
                () = shutdown.cancelled() => return,
            };
            readiness.set(PART, false);
            if let Err(error) = followed {
                tracing::warn!(
                    error = chain(&error),
                    "following observations is interrupted"
                );
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn follow_once(&self, bus: &Bus, readiness: &Readiness) -> Result<(), Interrupted> {
        let newest = bus.last_sequence(StreamName::Observations).await?;
        let start = {
            let mut state = self.lock();
            if newest < state.position {
                tracing::warn!("observations were deleted, following starts anew");
                state.position = newest;
            }
            state.position
        };
        let mut tail = bus
            .tail::<Observation>(StreamName::Observations, OBSERVATIONS, Start::After(start))
            .await?;
        readiness.set(PART, true);
        while let Some(received) = tail.next().await {
            let received = received?;
            let happening = self.happening(received.sequence, &received.message).await?;
            self.deliver(received.sequence, happening);
        }
        Ok(())
    }

    /// What watchers see of an observation, with its links; `None` for what is not for them, and for streams that are gone.
    pub(super) async fn happening(
        &self,
        sequence: u64,
        observation: &Observation,
    ) -> Result<Option<Happening>, CatalogError> {
        let Some(tenant) = self.tenant_of(&observation.rtstream_id).await? else {
            return Ok(None);
        };
        let Some(mut happening) = Happening::of(sequence, observation, tenant) else {
            return Ok(None);
        };
        happening.message = match happening.message {
            Message::Scene(scene) => Message::Scene(self.linker.link(scene)),
            Message::AudioScene(scene) => Message::AudioScene(self.linker.link(scene)),
            Message::Transcript(segment) => Message::Transcript(self.linker.link(segment)),
            Message::Alert(firing) => Message::Alert(self.linker.link(firing)),
            Message::Verdict(verdict) => Message::Verdict(self.with_basis(verdict)),
            other => other,
        };
        Ok(Some(happening))
    }

    /// What a model judged by: only the index tells whether that was pictures or words.
    fn with_basis(&self, mut verdict: v1::Verdict) -> v1::Verdict {
        let record = self.catalog.get::<IndexRecord>(&verdict.index_id);
        let index = record
            .as_ref()
            .and_then(|record| record.value.index.as_ref());
        let is_audio = index.is_some_and(|index| index.kind() == index::Kind::Audio);
        if is_audio && verdict.basis() == Basis::Frames {
            verdict.set_basis(Basis::Text);
        }
        verdict
    }

    /// Whose a stream is. The view may trail what others wrote, so the server has the last word on what it lacks.
    pub(super) async fn tenant_of(&self, rtstream: &str) -> Result<Option<String>, CatalogError> {
        let mut record = self.catalog.get::<RtStreamRecord>(rtstream);
        if record.is_none() {
            record = match self.catalog.fetch(rtstream).await {
                // No later try would tell more.
                Err(CatalogError::Unreadable { .. }) => None,
                fetched => fetched?,
            };
        }
        Ok(record.map(|record| tenancy::owner(&record.value.tenant).to_owned()))
    }

    /// Gives every watcher what passes his filter, or counts it as dropped for him.
    pub(super) fn deliver(&self, sequence: u64, happening: Option<Happening>) {
        let happening = happening.map(Arc::new);
        let mut state = self.lock();
        state.position = sequence;
        state.watchers.retain(|watcher| !watcher.buffer.is_closed());
        let Some(happening) = happening else {
            return;
        };
        if let Message::Transcript(segment) = &happening.message {
            state.said.note(segment);
        }
        for watcher in &state.watchers {
            if !watcher.filter.passes(&happening) {
                continue;
            }
            match watcher.buffer.try_reserve() {
                Ok(place) => place.send(Delivered {
                    dropped: watcher.dropped.swap(0, Ordering::AcqRel),
                    happening: Arc::clone(&happening),
                }),
                Err(_) => {
                    watcher.dropped.fetch_add(1, Ordering::AcqRel);
                    self.metrics.dropped(1);
                }
            }
        }
    }

    /// Whether anybody wants interim lines at this moment.
    pub(super) fn reads_along(&self) -> bool {
        let state = self.lock();
        let mut open = state.watchers.iter().filter(|w| !w.buffer.is_closed());
        open.any(|watcher| watcher.filter.wants_interim())
    }

    /// Gives an interim line to every watcher who wants it and has room for more than it: what is over comes first.
    pub(super) fn deliver_interim(&self, mut line: Happening) {
        let state = self.lock();
        if let Message::Transcript(segment) = &line.message
            && state.said.is_over(segment)
        {
            return;
        }
        line.sequence = state.position;
        let line = Arc::new(line);
        for watcher in &state.watchers {
            if watcher.filter.passes(&line) && watcher.buffer.capacity() > BUFFER / 2 {
                // Full or closed a moment later: the next line makes up for it.
                let _ = watcher.buffer.try_send(Delivered {
                    dropped: 0,
                    happening: Arc::clone(&line),
                });
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
