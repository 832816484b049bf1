//! From the bus into the store: one consumer for each kind of observation, each in batches. A batch holds what has
//! come while the last one was stored: one observation when little happens, so that it can be found at once, and many under
//! load, so that they share the price of making them durable.
//!
//! The bus acknowledges what the store has made durable. A crash in between stores it again under the same ids.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sightline_bus::{
    BatchHandler, BusError, ObservationKind, Outgoing, Place, Received, Refusal, StreamName, Work,
    work_in_order,
};
use sightline_proto::internal::Observation;
use sightline_service::{Shutdown, chain, failpoint};
use tracing::Instrument;

use crate::similarity::Prompts;
use crate::storing::{Fault, Storing};
use crate::{BUS, KINDS, MODEL, STORE, Shared, similarity};

/// What the names of this service's consumers begin with.
pub(crate) const DURABLE_PREFIX: &str = "embeddings-";
/// How long after a crash unacknowledged observations are taken again.
const ACK_WAIT: Duration = Duration::from_secs(6);
/// How long a batch may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long to hold back after a failure, doubled with each further one …
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// … up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The consumer of a kind for the store of this identity.
pub(crate) fn durable(kind: ObservationKind, identity: &str) -> String {
    format!("{DURABLE_PREFIX}{}-{identity}", kind.as_str())
}

/// The subjects of a kind.
pub(crate) fn filter(kind: ObservationKind) -> String {
    format!("obs.*.{}.*", kind.as_str())
}

/// How far the consumers of a store are, in the order of [`KINDS`]; none while they are not all there or the bus is away.
pub(crate) async fn places(shared: &Shared) -> Option<Vec<Place>> {
    let places = shared.bus.places(StreamName::Observations).await;
    let places = places
        .inspect_err(|error| tracing::debug!(%error, "consumers are looked at later"))
        .ok()?;
    let durables = KINDS.map(|kind| durable(kind, shared.store.identity()));
    durables.iter().map(|d| places.get(d).copied()).collect()
}

/// How far the consumer of a kind is.
pub(crate) async fn place(shared: &Shared, kind: ObservationKind) -> Option<Place> {
    let mut places = KINDS.into_iter().zip(places(shared).await?);
    places.find_map(|(of, place)| (of == kind).then_some(place))
}

/// Stores the observations of a kind until shutdown.
pub(crate) async fn run(
    shared: Arc<Shared>,
    kind: ObservationKind,
    shutdown: Shutdown,
) -> Result<(), BusError> {
    let consumer = Work {
        stream: StreamName::Observations,
        durable: durable(kind, shared.store.identity()),
        filter: filter(kind),
        concurrency: 1,
        ack_wait: ACK_WAIT,
        deadline: DEADLINE,
        max_deliver: -1,
    };
    let bus = shared.bus.clone();
    let batch = shared.config.batch;
    let intake = Intake {
        storing: Storing::new(Arc::clone(&shared)),
        prompts: Prompts::default(),
        shared,
        kind,
        failures: 0,
    };
    work_in_order(&bus, consumer, batch, intake, shutdown).await
}

struct Intake {
    shared: Arc<Shared>,
    kind: ObservationKind,
    storing: Storing,
    prompts: Prompts,
    /// Failures since the last success.
    failures: u32,
}

#[async_trait]
impl BatchHandler<Observation> for Intake {
    async fn handle(&mut self, batch: &[Received<Observation>]) -> Result<Vec<Outgoing>, Refusal> {
        match self.store(batch).await {
            Ok(stored) => {
                failpoint::hit("embeddings.after_upsert");
                self.succeeded(batch.len(), stored);
                Ok(Vec::new())
            }
            Err(Fault::Lasting(reason)) => Err(Refusal::Reject { reason }),
            Err(Fault::Passing(part, reason)) => Err(self.failed(part, reason)),
        }
    }
}

impl Intake {
    /// Stores what is not deleted, and returns how many that are.
    async fn store(&mut self, batch: &[Received<Observation>]) -> Result<usize, Fault> {
        let shared = Arc::clone(&self.shared);
        let _storing = shared.storing.read().await;
        let observations = batch.iter().map(|received| &received.message);
        let (kept, points) = self.storing.points(observations).await?;
        let mut verdicts = Vec::new();
        let judged = kept.iter().zip(&points).filter(|_| shared.leads());
        for (observation, point) in judged {
            let judging = self
                .prompts
                .judge(&shared, observation, point.vector.as_ref());
            let judged = judging.await;
            let judged = judged.map_err(|error| Fault::Passing(MODEL, chain(&error)))?;
            let of = batch.iter().find(|of| of.message.id == observation.id);
            let trace = of.map(|of| of.trace.clone()).unwrap_or_default();
            verdicts.extend(judged.into_iter().map(|verdict| (verdict, trace.clone())));
        }
        self.storing.upsert(points).await?;
        // One after the other: alerts rely on the order of the batches.
        for (verdict, trace) in verdicts {
            let span = trace.above(tracing::info_span!("judge by similarity"));
            let publishing = similarity::publish(&shared, &verdict).instrument(span);
            publishing
                .await
                .map_err(|error| Fault::Passing(BUS, chain(&error)))?;
        }
        Ok(kept.len())
    }

    fn succeeded(&mut self, count: usize, stored: usize) {
        let kind = self.kind.as_str();
        self.shared.metrics.took(kind, count, stored);
        if self.failures > 0 {
            tracing::info!(kind, "observations are stored again");
        }
        self.failures = 0;
        self.shared.ready(MODEL, true);
        self.shared.ready(STORE, true);
    }

    fn failed(&mut self, part: &'static str, reason: String) -> Refusal {
        if self.failures == 0 {
            let kind = self.kind.as_str();
            tracing::warn!(
                kind,
                part,
                reason,
                "observations wait until they can be stored"
            );
        }
        self.shared.ready(part, false);
        let after = (FIRST_PAUSE * (1 << self.failures.min(10))).min(LONGEST_PAUSE);
        self.failures += 1;
        Refusal::Retry { after, reason }
    }
}
