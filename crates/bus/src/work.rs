//! The worker loop, written once: pull, decode, heartbeat, handle, publish, acknowledge.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{AckKind, Message as Raw};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use prost::Message;
use sightline_service::trace::TraceContext;
use sightline_service::{Shutdown, failpoint};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::Instrument;

use crate::connection::Bus;
use crate::durable::{Durable, PULL_EXPIRES};
use crate::error::BusError;
use crate::settling::{Places, beating, bury, fitting, publish_all, settle, with_heartbeat};
use crate::streams::StreamName;
use crate::subjects::Subject;
use crate::traced;

/// Messages of one pull that are handled side by side.
const BATCH: usize = 100;
/// How long to hold back when the bus is not there.
const BUS_PAUSE: Duration = Duration::from_millis(500);

/// What a worker takes and how.
#[derive(Debug, Clone)]
pub struct Work {
    /// From which stream.
    pub stream: StreamName,
    /// The durable consumer, shared by all workers of one kind.
    pub durable: String,
    /// One subject filter.
    pub filter: String,
    /// How many messages are handled at once.
    pub concurrency: usize,
    /// After how long without a heartbeat a message goes to another worker.
    pub ack_wait: Duration,
    /// How long handling one message may take before it is refused.
    pub deadline: Duration,
    /// After how many deliveries a message is given up; -1 never. A delivery that was extended before its worker died may
    /// not be counted.
    pub max_deliver: i64,
}

/// A message with what the bus says of it.
#[derive(Debug, Clone)]
pub struct Received<M> {
    /// The message.
    pub message: M,
    /// Where it was published.
    pub subject: String,
    /// Its sequence in the stream.
    pub sequence: u64,
    /// How many times it was delivered, 1 for the first.
    pub deliveries: u64,
    /// The span of handling it; of what is only read, the one that published it.
    pub trace: TraceContext,
}

/// Why a message was not handled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It may work later.
    Retry {
        /// When to try again.
        after: Duration,
        /// Why.
        reason: String,
    },
    /// It never will; the message goes to the dead letters.
    Reject {
        /// Why.
        reason: String,
    },
}

/// A message to publish once handling is done.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub(crate) subject: Subject,
    pub(crate) id: String,
    pub(crate) payload: Bytes,
    pub(crate) trace: TraceContext,
}

impl Outgoing {
    /// A message with its de-duplication id. It carries the span in which this is called.
    pub fn new(subject: Subject, id: String, message: &impl Message) -> Self {
        Self {
            subject,
            id,
            payload: message.encode_to_vec().into(),
            trace: TraceContext::current(),
        }
    }

    /// It carries another span: that of the one message of several from which it comes.
    pub fn under(mut self, trace: &TraceContext) -> Self {
        self.trace = trace.clone();
        self
    }
}

/// Handles one message at a time; acknowledging is not its business.
#[async_trait]
pub trait Handler<M>: Send + Sync + 'static {
    /// Handles a message and returns what is to be published.
    async fn handle(&self, received: &Received<M>) -> Result<Vec<Outgoing>, Refusal>;
}

/// Takes messages and hands them to `handler` until shutdown; what is being handled then is finished first.
///
/// For each message: pull, decode (what can't be decoded goes to the dead letters), heartbeat until the deadline, handle,
/// publish the results and wait until the bus has them, acknowledge. Failpoints: `<durable>.before_output`,
/// `<durable>.before_ack`, `<durable>.after_ack`.
///
/// # Errors
/// When the consumer can't be made.
pub async fn work<M, H>(
    bus: &Bus,
    work: Work,
    handler: H,
    shutdown: Shutdown,
) -> Result<(), BusError>
where
    M: Message + Default + 'static,
    H: Handler<M>,
{
    let durable = Durable::make(bus, &work, 1000).await?;
    let worker = Arc::new(Worker {
        bus: bus.clone(),
        durable,
        places: Places::of(&work.durable),
        work,
        handler,
        shutdown,
    });
    let mut loops = JoinSet::new();
    for _ in 0..worker.work.concurrency.max(1) {
        let worker = Arc::clone(&worker);
        loops.spawn(async move { worker.run::<M>().await });
    }
    loops.join_all().await;
    // The process may end now, and what is not acknowledged would be done again.
    bus.flush().await;
    Ok(())
}

/// Like [`work`], for handlers that mostly wait for something: one loop pulls for all of them, so that thousands side by side
/// ask the bus no more than one. When all are taken, messages wait on the bus.
///
/// # Errors
/// When the consumer can't be made.
pub async fn work_side_by_side<M, H>(
    bus: &Bus,
    work: Work,
    handler: H,
    shutdown: Shutdown,
) -> Result<(), BusError>
where
    M: Message + Default + 'static,
    H: Handler<M>,
{
    let most = i64::try_from(work.concurrency).unwrap_or(i64::MAX);
    // Several processes share the consumer.
    let durable = Durable::make(bus, &work, most.saturating_mul(10)).await?;
    let worker = Arc::new(Worker {
        bus: bus.clone(),
        durable,
        places: Places::of(&work.durable),
        work,
        handler,
        shutdown,
    });
    let places = Arc::new(Semaphore::new(worker.work.concurrency.max(1)));
    let mut handling = JoinSet::new();
    while !worker.shutdown.is_cancelled() {
        while handling.try_join_next().is_some() {}
        let pulled = tokio::select! {
            () = worker.shutdown.cancelled() => break,
            pulled = Arc::clone(&worker).pull_some::<M>(&places, &mut handling) => pulled,
        };
        if let Err(error) = pulled {
            pause_without_bus(&worker.work.durable, &error, &worker.shutdown).await;
        }
    }
    handling.join_all().await;
    bus.flush().await;
    Ok(())
}

struct Worker<H> {
    bus: Bus,
    durable: Durable,
    work: Work,
    places: Places,
    handler: H,
    shutdown: Shutdown,
}

impl<H> Worker<H> {
    async fn run<M>(&self)
    where
        M: Message + Default + 'static,
        H: Handler<M>,
    {
        while !self.shutdown.is_cancelled() {
            let pulled = tokio::select! {
                () = self.shutdown.cancelled() => return,
                pulled = self.durable.pull_one() => pulled,
            };
            match pulled {
                Ok(Some(raw)) => self.take_or_pause::<M>(&raw).await,
                Ok(None) => {}
                Err(error) => pause_without_bus(&self.work.durable, &error, &self.shutdown).await,
            }
        }
    }

    /// Waits for a place, then takes messages until all free places are taken or the pull's time is over.
    async fn pull_some<M>(
        self: Arc<Self>,
        places: &Arc<Semaphore>,
        handling: &mut JoinSet<()>,
    ) -> Result<(), crate::error::Cause>
    where
        M: Message + Default + 'static,
        H: Handler<M>,
    {
        let connects = self.bus.connects();
        let mut free = Arc::clone(places).acquire_owned().await?;
        while free.num_permits() < BATCH
            && let Ok(another) = Arc::clone(places).try_acquire_owned()
        {
            free.merge(another);
        }
        let consumer = self.durable.present().await?;
        let pulling = consumer.batch().max_messages(free.num_permits());
        let mut batch = pulling.expires(PULL_EXPIRES).messages().await?;
        loop {
            let raw = tokio::select! {
                biased;
                raw = batch.next() => raw.transpose()?,
                // As in `durable::pull_one`.
                () = self.bus.reconnected(connects) => None,
            };
            let (Some(raw), Some(place)) = (raw, free.split(1)) else {
                return Ok(());
            };
            let worker = Arc::clone(&self);
            handling.spawn(async move {
                worker.take_or_pause::<M>(&raw).await;
                drop(place);
            });
        }
    }

    async fn take_or_pause<M>(&self, raw: &Raw)
    where
        M: Message + Default + 'static,
        H: Handler<M>,
    {
        let span = traced::processing(&self.work, raw);
        if let Err(error) = self.take::<M>(raw).instrument(span).await {
            tracing::warn!(%error, consumer = self.work.durable, "message will be delivered again");
            sleep(BUS_PAUSE).await;
        }
    }

    /// Handles one message and settles it. An error leaves it un-acked: the bus delivers it again.
    async fn take<M>(&self, raw: &Raw) -> Result<(), BusError>
    where
        M: Message + Default + 'static,
        H: Handler<M>,
    {
        let mut received = match decode::<M>(raw) {
            Ok(received) => received,
            Err(error) => return self.give_up(raw, 1, error.to_string()).await,
        };
        received.trace = TraceContext::current();
        if self.tried(received.deliveries.saturating_sub(1)) {
            // Those who had it died of it: refused as often, it would have been given up.
            let reason = "delivered again and again, and never settled".to_owned();
            return self.give_up(raw, received.deliveries, reason).await;
        }
        let handled = with_heartbeat(
            std::slice::from_ref(raw),
            &self.work,
            self.handler.handle(&received),
        )
        .await;
        match handled.and_then(|outputs| fitting(&self.bus, outputs)) {
            Ok(outputs) => {
                self.publish_until_taken(raw, outputs).await?;
                settle(raw, AckKind::Ack).await?;
                failpoint::hit(&self.places.after_ack);
                Ok(())
            }
            Err(Refusal::Retry { after, reason }) => {
                if self.tried(received.deliveries) {
                    return self.give_up(raw, received.deliveries, reason).await;
                }
                traced::failed("put back for later");
                tracing::debug!(
                    consumer = self.work.durable,
                    reason,
                    "message is put back for later"
                );
                settle(raw, AckKind::Nak(Some(after))).await
            }
            Err(Refusal::Reject { reason }) => self.give_up(raw, received.deliveries, reason).await,
        }
    }

    /// Publishes what came of a message until the bus has it: work that is done is neither given up nor done again because
    /// there is no room for it now. An error once shutdown comes.
    async fn publish_until_taken(&self, raw: &Raw, outputs: Vec<Outgoing>) -> Result<(), BusError> {
        let publishing = async {
            let mut is_told = false;
            loop {
                match publish_all(&self.bus, &self.places, &outputs).await {
                    Ok(()) => return Ok(()),
                    Err(error) if self.shutdown.is_cancelled() => return Err(error),
                    Err(error) if !is_told => {
                        tracing::warn!(%error, consumer = self.work.durable, "results were not taken, trying again");
                        is_told = true;
                    }
                    Err(_) => {}
                }
                tokio::select! {
                    () = self.shutdown.cancelled() => {}
                    () = sleep(BUS_PAUSE) => {}
                }
            }
        };
        beating(std::slice::from_ref(raw), self.work.ack_wait, publishing).await
    }

    /// Whether this many deliveries are all that a message gets.
    fn tried(&self, deliveries: u64) -> bool {
        u64::try_from(self.work.max_deliver).is_ok_and(|most| most > 0 && deliveries >= most)
    }

    async fn give_up(&self, raw: &Raw, deliveries: u64, reason: String) -> Result<(), BusError> {
        bury(&self.bus, &self.work.durable, raw, deliveries, reason).await?;
        settle(raw, AckKind::Term).await
    }
}

pub(crate) async fn pause_without_bus(
    durable: &str,
    error: &crate::error::Cause,
    shutdown: &Shutdown,
) {
    tracing::debug!(consumer = durable, %error, "the bus is not there, waiting");
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = sleep(BUS_PAUSE) => {}
    }
}

pub(crate) fn decode<M: Message + Default>(raw: &Raw) -> Result<Received<M>, BusError> {
    let failed = |source: crate::error::Cause| BusError::Message {
        subject: raw.subject.to_string(),
        action: "decoded",
        source,
    };
    let info = raw.info().map_err(failed)?;
    let message = M::decode(raw.payload.clone()).map_err(|source| failed(source.into()))?;
    Ok(Received {
        message,
        subject: raw.subject.to_string(),
        sequence: info.stream_sequence,
        deliveries: u64::try_from(info.delivered).unwrap_or(1),
        trace: traced::publisher(raw.headers.as_ref()),
    })
}
