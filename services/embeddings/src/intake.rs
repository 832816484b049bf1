//! From the bus into the store: one consumer for each kind of observation, each in batches. A batch holds what has
//! come while the last one was stored: one observation when little happens, so that it can be found at once, and many under
//! load, so that they share the price of making them durable.
//!
//! The bus acknowledges what the store has made durable. A crash in between stores it again under the same ids.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sightline_bus::{
    BatchHandler, BusError, ObservationKind, Outgoing, Received, Refusal, StreamName, Work,
    work_in_order,
};
use sightline_proto::internal::Observation;
use sightline_service::{Shutdown, chain, failpoint};
use sightline_vectors::{Point, VectorError};
use tokio::time::Instant;

use crate::known::Known;
use crate::point::point;
use crate::similarity::Prompts;
use crate::{BUS, MODEL, STORE, Shared, similarity};

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

/// Stores the observations of a kind until shutdown.
pub(crate) async fn run(
    shared: Arc<Shared>,
    kind: ObservationKind,
    shutdown: Shutdown,
) -> Result<(), BusError> {
    let consumer = Work {
        stream: StreamName::Observations,
        durable: durable(kind, shared.store.identity()),
        filter: format!("obs.*.{}.*", kind.as_str()),
        concurrency: 1,
        ack_wait: ACK_WAIT,
        deadline: DEADLINE,
        max_deliver: -1,
    };
    let bus = shared.bus.clone();
    let batch = shared.config.batch;
    let intake = Intake {
        known: Known::new(shared.catalog.clone()),
        prompts: Prompts::default(),
        shared,
        kind,
        failures: 0,
    };
    work_in_order(&bus, consumer, batch, intake, shutdown).await
}

/// Why a batch was not stored.
enum Fault {
    /// It never will be.
    Lasting(String),
    /// It may be later, when this part is there again.
    Passing(&'static str, String),
}

struct Intake {
    shared: Arc<Shared>,
    kind: ObservationKind,
    known: Known,
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
        let mut kept = Vec::with_capacity(batch.len());
        for received in batch {
            let known = self.known.has(&received.message).await;
            if known.map_err(|error| Fault::Passing(BUS, chain(&error)))? {
                kept.push(&received.message);
            }
        }
        let points = kept.iter().map(|observation| point(observation));
        let mut points = points
            .collect::<Result<Vec<_>, _>>()
            .map_err(Fault::Lasting)?;
        self.embed(&mut points).await?;
        let mut verdicts = Vec::new();
        for (observation, point) in kept.iter().zip(&points) {
            let judging = self
                .prompts
                .judge(&shared, observation, point.vector.as_ref());
            let judged = judging.await;
            verdicts.extend(judged.map_err(|error| Fault::Passing(MODEL, chain(&error)))?);
        }
        self.upsert(points).await?;
        // One after the other: alerts rely on the order of the batches.
        for verdict in verdicts {
            let publishing = similarity::publish(&shared, &verdict).await;
            publishing.map_err(|error| Fault::Passing(BUS, chain(&error)))?;
        }
        Ok(kept.len())
    }

    async fn upsert(&self, points: Vec<Point>) -> Result<(), Fault> {
        failpoint::hit("embeddings.before_upsert");
        let started = Instant::now();
        match self.shared.store.upsert(points).await {
            Ok(()) => {
                self.shared.metrics.stored(started.elapsed());
                Ok(())
            }
            Err(VectorError::Invalid(reason)) => Err(Fault::Lasting(reason)),
            Err(error) => Err(Fault::Passing(STORE, chain(&error))),
        }
    }

    /// Gives each point with a text its vector. One without has none: it is listed, and a search never finds it.
    async fn embed(&self, points: &mut [Point]) -> Result<(), Fault> {
        let mut with_text: Vec<&mut Point> = points
            .iter_mut()
            .filter(|point| !point.record.text.trim().is_empty())
            .collect();
        let texts: Vec<String> = with_text
            .iter()
            .map(|point| point.record.text.clone())
            .collect();
        if texts.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let model = &self.shared.model;
        match model.embed(&texts).await {
            Ok(vectors) => {
                self.shared.metrics.embedded("batch", started.elapsed());
                for (point, vector) in with_text.iter_mut().zip(vectors) {
                    point.vector = Some(vector);
                }
                Ok(())
            }
            // Either this text is at fault or the model: a harmless text tells.
            Err(error) if model.works().await => Err(Fault::Lasting(chain(&error))),
            Err(error) => Err(Fault::Passing(MODEL, chain(&error))),
        }
    }

    fn succeeded(&mut self, count: usize, stored: usize) {
        let kind = self.kind.as_str();
        self.shared.metrics.took(kind, count, stored);
        if self.failures > 0 {
            tracing::info!(kind, "observations are stored again");
        }
        self.failures = 0;
        self.shared.readiness.set(MODEL, true);
        self.shared.readiness.set(STORE, true);
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
        self.shared.readiness.set(part, false);
        let after = (FIRST_PAUSE * (1 << self.failures.min(10))).min(LONGEST_PAUSE);
        self.failures += 1;
        Refusal::Retry { after, reason }
    }
}
