//! The loop for consumers that need order: batches in stream order, one at a time.

use std::time::Duration;

use async_nats::jetstream::consumer::{Consumer, pull};
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use async_nats::jetstream::{AckKind, Message as Raw};
use async_trait::async_trait;
use futures::StreamExt;
use prost::Message;
use sightline_service::trace::TraceContext;
use sightline_service::{Shutdown, failpoint};
use tokio::time::{sleep, timeout};
use tracing::{Instrument, Span};

use crate::connection::Bus;
use crate::durable::{consumer, pull_one};
use crate::error::BusError;
use crate::settling::{Places, bury, fitting, publish_all, settle, with_heartbeat};
use crate::traced;
use crate::work::{Outgoing, Received, Refusal, Work, decode, pause_without_bus};

/// How long to hold back after the bus did not take a result.
const OUTPUT_PAUSE: Duration = Duration::from_millis(500);
/// How long the server may take to hand over what is there already.
const REST_DEADLINE: Duration = Duration::from_secs(2);
/// How often is asked whether others have settled what they hold, and how long the server may take to say so.
const LOOK: Duration = Duration::from_millis(20);
const LOOK_DEADLINE: Duration = Duration::from_secs(2);
/// How much longer than `Work::ack_wait` is waited for that: what was held by a process that was killed comes again by then.
const GRACE: Duration = Duration::from_secs(1);

/// Handles batches in stream order; acknowledging is not its business.
#[async_trait]
pub trait BatchHandler<M>: Send + 'static {
    /// Handles a batch and returns what is to be published. A batch may be handled again, whole or message by message. In a batch
    /// of one, this is called in its message's span; otherwise each message says which one is its own.
    async fn handle(&mut self, batch: &[Received<M>]) -> Result<Vec<Outgoing>, Refusal>;
}

/// Takes batches of up to `max_batch` messages in stream order and hands them to `handler` until shutdown.
///
/// Nothing is delivered past an unsettled batch: a refused batch is handled again in place, so that order holds. Where another
/// process works on the same consumer (it begins or ends), or was killed, what it holds is settled first. A batch
/// that is rejected is handled message by message, and the message at fault goes to the dead letters. The whole batch is
/// acknowledged when the bus has its results. `Work::concurrency` and `max_deliver` play no part. A consumer that somebody
/// removed is made again, and begins with the oldest message that is kept.
///
/// # Errors
/// When the consumer can't be made.
pub async fn work_in_order<M, H>(
    bus: &Bus,
    work: Work,
    max_batch: usize,
    handler: H,
    shutdown: Shutdown,
) -> Result<(), BusError>
where
    M: Message + Default + 'static,
    H: BatchHandler<M>,
{
    let max_batch = max_batch.max(1);
    let mut worker = OrderedWorker {
        bus: bus.clone(),
        consumer: consumer(bus, &work, max_batch as i64).await?,
        places: Places::of(&work.durable),
        work,
        handler,
        shutdown: shutdown.clone(),
        next: None,
    };
    while !shutdown.is_cancelled() {
        // Only waiting is cut off: a message that has come is handled, or it would have to wait for its redelivery.
        let first = tokio::select! {
            () = shutdown.cancelled() => break,
            first = pull_one(bus, &worker.consumer) => first,
        };
        match first {
            Ok(Some(first)) => {
                let raws = with_the_rest(&worker.consumer, first, max_batch).await;
                worker.take(raws).await;
            }
            // Nobody answers for a consumer that is gone.
            Ok(None) => worker.make_again(max_batch as i64).await,
            Err(error) => {
                pause_without_bus(&worker.work.durable, &error, &shutdown).await;
                worker.make_again(max_batch as i64).await;
            }
        }
    }
    // The process may end now, and what is not acknowledged would be done again.
    bus.flush().await;
    Ok(())
}

struct OrderedWorker<H> {
    bus: Bus,
    consumer: Consumer<pull::Config>,
    work: Work,
    places: Places,
    handler: H,
    shutdown: Shutdown,
    /// The number of the delivery that follows those that this process settled; nobody else holds one before it.
    next: Option<u64>,
}

impl<H> OrderedWorker<H> {
    /// Makes the consumer again where the server says that there is none, as at the start: nothing is left out, and what comes
    /// once more has the same ids.
    async fn make_again(&mut self, max_ack_pending: i64) {
        let info = timeout(LOOK_DEADLINE, self.consumer.get_info()).await;
        let is_gone =
            matches!(&info, Ok(Err(error)) if error.kind() == ConsumerInfoErrorKind::NotFound);
        if !is_gone || self.shutdown.is_cancelled() {
            return;
        }
        match consumer(&self.bus, &self.work, max_ack_pending).await {
            Ok(made) => {
                tracing::warn!(
                    consumer = self.work.durable,
                    "the consumer was removed and is made again"
                );
                self.consumer = made;
                // Deliveries are counted anew.
                self.next = None;
            }
            Err(error) => {
                tracing::debug!(%error, consumer = self.work.durable, "the consumer is made later");
            }
        }
    }

    async fn take<M>(&mut self, mut raws: Vec<Raw>)
    where
        M: Message + Default + 'static,
        H: BatchHandler<M>,
    {
        // What comes again comes in any order.
        raws.sort_by_key(|raw| place(raw).0);
        let deliveries = || raws.iter().map(|raw| place(raw).1);
        let (first, last) = (deliveries().min(), deliveries().max());
        let next = last.map(|last| last + 1);
        // Otherwise another process holds some in between.
        let together = first.map(|first| first + raws.len() as u64) == next;
        let follows = together && first == self.next;
        self.next = None;
        let (raws, mut batch) = self.decode_all::<M>(raws).await;
        let spans = self.spans(&raws, &mut batch);
        let step = if together { batch.len().max(1) } else { 1 };
        for at in (0..batch.len()).step_by(step) {
            if !follows && !self.turn(&raws[at..]).await {
                return;
            }
            let part = &batch[at..batch.len().min(at + step)];
            let span = spans[at].clone();
            let span = if part.len() == 1 { span } else { Span::none() };
            if self.handle_until_settled(&raws[at..], part, span).await {
                continue;
            }
            for (one, at) in part.iter().zip(at..) {
                let (one, span) = (std::slice::from_ref(one), spans[at].clone());
                self.handle_until_settled(&raws[at..], one, span).await;
            }
        }
        // A span lasts until it was left for the last time.
        spans.iter().for_each(|span| span.in_scope(|| ()));
        self.next = next.filter(|_| !self.shutdown.is_cancelled());
    }

    /// Waits until others who work on this consumer have settled what comes before these messages. Where one of them was
    /// killed that takes until it comes again, behind these, so that all are given back to be taken in order: false, as at
    /// shutdown.
    async fn turn(&self, raws: &[Raw]) -> bool {
        let first = raws.first().map_or(0, |raw| place(raw).0);
        let waiting = async {
            while !self.is_first(first, raws.len()).await {
                sleep(LOOK).await;
            }
            Ok(())
        };
        let patience = self.work.ack_wait + GRACE;
        let waited = timeout(patience, with_heartbeat(raws, &self.work, waiting));
        tokio::select! {
            () = self.shutdown.cancelled() => return false,
            waited = waited => if let Ok(Ok(())) = waited { return true },
        }
        tracing::debug!(
            consumer = self.work.durable,
            "messages are taken again in order"
        );
        for raw in raws {
            // Otherwise it comes again later.
            let _ = settle(raw, AckKind::Nak(None)).await;
        }
        false
    }

    /// Whether nobody holds a message before this one, the first of so many that are held here.
    async fn is_first(&self, first: u64, held: usize) -> bool {
        match timeout(LOOK_DEADLINE, self.consumer.get_info()).await {
            Ok(Ok(info)) => {
                info.num_ack_pending <= held || info.ack_floor.stream_sequence + 1 >= first
            }
            _ => false,
        }
    }

    /// Handles a batch until it is settled or shutdown comes; false if a batch of several was rejected. `raws` are the
    /// batch's messages and those that have to wait for them.
    async fn handle_until_settled<M>(
        &mut self,
        raws: &[Raw],
        batch: &[Received<M>],
        span: Span,
    ) -> bool
    where
        M: Message + Default + 'static,
        H: BatchHandler<M>,
    {
        loop {
            let handling = self.handler.handle(batch).instrument(span.clone());
            let handled = with_heartbeat(raws, &self.work, handling).await;
            let pause = match handled.and_then(|outputs| fitting(&self.bus, outputs)) {
                Ok(outputs) => match self.finish(&raws[..batch.len()], &outputs).await {
                    Ok(()) => return true,
                    Err(error) => {
                        tracing::warn!(%error, consumer = self.work.durable, "results were not taken, trying again");
                        OUTPUT_PAUSE
                    }
                },
                Err(Refusal::Retry { after, reason }) => {
                    tracing::debug!(consumer = self.work.durable, reason, "batch is tried again");
                    after
                }
                Err(Refusal::Reject { .. }) if batch.len() > 1 => return false,
                Err(Refusal::Reject { reason }) => {
                    self.give_up(&raws[0], batch[0].deliveries, reason).await;
                    return true;
                }
            };
            let waited = with_heartbeat(raws, &self.work, async {
                sleep(pause.min(self.work.deadline / 2)).await;
                Ok(())
            });
            tokio::select! {
                // Not acknowledged: whoever works next gets the batch again.
                () = self.shutdown.cancelled() => return true,
                _ = waited => {}
            }
        }
    }

    async fn finish(&self, raws: &[Raw], outputs: &[Outgoing]) -> Result<(), BusError> {
        publish_all(&self.bus, &self.places, outputs).await?;
        for raw in raws {
            settle(raw, AckKind::Ack).await?;
        }
        failpoint::hit(&self.places.after_ack);
        Ok(())
    }

    async fn decode_all<M: Message + Default>(
        &self,
        raws: Vec<Raw>,
    ) -> (Vec<Raw>, Vec<Received<M>>) {
        let mut kept = Vec::with_capacity(raws.len());
        let mut batch = Vec::with_capacity(raws.len());
        for raw in raws {
            match decode::<M>(&raw) {
                Ok(received) => {
                    kept.push(raw);
                    batch.push(received);
                }
                Err(error) => self.give_up(&raw, 1, error.to_string()).await,
            }
        }
        (kept, batch)
    }

    /// A span for each message, until its batch is settled; what comes of it belongs there.
    fn spans<M>(&self, raws: &[Raw], batch: &mut [Received<M>]) -> Vec<Span> {
        let spanned = raws.iter().zip(batch).map(|(raw, received)| {
            let span = traced::processing(&self.work, raw);
            received.trace = span.in_scope(TraceContext::current);
            span
        });
        spanned.collect()
    }

    async fn give_up(&self, raw: &Raw, deliveries: u64, reason: String) {
        let settled = async {
            bury(&self.bus, &self.work.durable, raw, deliveries, reason).await?;
            settle(raw, AckKind::Term).await
        };
        if let Err(error) = settled.await {
            tracing::warn!(%error, consumer = self.work.durable, "message will be delivered again");
        }
    }
}

/// A message's place in the stream, and the number of its delivery.
fn place(raw: &Raw) -> (u64, u64) {
    let info = raw.info();
    info.map_or((0, 0), |info| {
        (info.stream_sequence, info.consumer_sequence)
    })
}

/// Takes along with the first message what else is there already. Whatever goes wrong meanwhile, what has come is handled:
/// redelivered later it would be out of order.
async fn with_the_rest(
    consumer: &Consumer<pull::Config>,
    first: Raw,
    max_batch: usize,
) -> Vec<Raw> {
    let mut raws = vec![first];
    if max_batch > 1 {
        let fetching = async {
            let rest = consumer.fetch().max_messages(max_batch - 1).messages();
            if let Ok(mut rest) = rest.await {
                while let Some(Ok(raw)) = rest.next().await {
                    raws.push(raw);
                }
            }
        };
        // The library itself waits for ever when the server's answer gets lost.
        let _ = timeout(REST_DEADLINE, fetching).await;
    }
    raws
}
