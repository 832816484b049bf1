//! What a worker tells the bus of a message: that it is being worked on, what came of it, and that it is settled.

use std::time::Duration;

use async_nats::jetstream::{AckKind, Message as Raw};
use sightline_proto::internal::DeadLetter;
use sightline_service::failpoint;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::connection::Bus;
use crate::error::BusError;
use crate::subjects::Subject;
use crate::traced;
use crate::work::{Outgoing, Refusal, Work};

/// Longest reason that a dead letter keeps, in bytes.
const MAX_REASON: usize = 1000;
/// What a dead letter takes beside the payload, in bytes at most.
const LETTER_OVERHEAD: usize = 4096;
/// What a message's headers take of what the server allows, in bytes at most.
const HEADERS: usize = 1024;

/// The failpoints of one consumer.
pub(crate) struct Places {
    pub(crate) before_output: String,
    pub(crate) before_ack: String,
    pub(crate) after_ack: String,
}

impl Places {
    pub(crate) fn of(durable: &str) -> Self {
        Self {
            before_output: format!("{durable}.before_output"),
            before_ack: format!("{durable}.before_ack"),
            after_ack: format!("{durable}.after_ack"),
        }
    }
}

/// Runs `handling` while telling the bus that the messages are being worked on; refused at the deadline.
pub(crate) async fn with_heartbeat<T>(
    raws: &[Raw],
    work: &Work,
    handling: impl Future<Output = Result<T, Refusal>>,
) -> Result<T, Refusal> {
    let handled = timeout(work.deadline, beating(raws, work.ack_wait, handling));
    handled.await.unwrap_or_else(|_| {
        Err(Refusal::Retry {
            after: Duration::from_secs(1),
            reason: format!("not handled within {} s", work.deadline.as_secs_f32()),
        })
    })
}

/// Runs `working` while telling the bus often enough that the messages are being worked on.
pub(crate) async fn beating<T>(
    raws: &[Raw],
    ack_wait: Duration,
    working: impl Future<Output = T>,
) -> T {
    let mut beat = interval(ack_wait / 3);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beat.tick().await;
    tokio::pin!(working);
    loop {
        tokio::select! {
            biased;
            worked = &mut working => return worked,
            _ = beat.tick() => {
                for raw in raws {
                    // A lost heartbeat only means that the message may be delivered again.
                    let _ = raw.ack_with(AckKind::Progress).await;
                }
            }
        }
    }
}

/// The results, if the bus can take them: what is too large would be refused for ever.
pub(crate) fn fitting(bus: &Bus, outputs: Vec<Outgoing>) -> Result<Vec<Outgoing>, Refusal> {
    let most = bus.max_payload().saturating_sub(HEADERS);
    let largest = outputs.iter().map(|out| out.payload.len()).max();
    match largest.filter(|bytes| *bytes > most) {
        None => Ok(outputs),
        Some(bytes) => Err(Refusal::Reject {
            reason: format!("a result of {bytes} bytes is more than the {most} that the bus takes"),
        }),
    }
}

pub(crate) async fn publish_all(
    bus: &Bus,
    places: &Places,
    outputs: &[Outgoing],
) -> Result<(), BusError> {
    failpoint::hit(&places.before_output);
    futures::future::try_join_all(outputs.iter().map(|out| bus.publish_outgoing(out))).await?;
    failpoint::hit(&places.before_ack);
    Ok(())
}

pub(crate) async fn settle(raw: &Raw, kind: AckKind) -> Result<(), BusError> {
    raw.ack_with(kind)
        .await
        .map_err(|source| BusError::Message {
            subject: raw.subject.to_string(),
            action: "acknowledged",
            source,
        })
}

/// Copies a message to the dead letters; a payload that does not fit in there with the rest is cut.
pub(crate) async fn bury(
    bus: &Bus,
    durable: &str,
    raw: &Raw,
    deliveries: u64,
    mut reason: String,
) -> Result<(), BusError> {
    reason.truncate(reason.floor_char_boundary(MAX_REASON));
    traced::failed("kept as a dead letter");
    tracing::warn!(
        consumer = durable,
        subject = raw.subject.as_str(),
        reason,
        "message is given up and kept as a dead letter"
    );
    let most = bus.max_payload().saturating_sub(LETTER_OVERHEAD);
    let letter = DeadLetter {
        subject: raw.subject.to_string(),
        payload: raw.payload.slice(..raw.payload.len().min(most)),
        reason,
        consumer: durable.to_owned(),
        deliveries,
    };
    let sequence = raw.info().map(|info| info.stream_sequence).unwrap_or(0);
    let id = format!("{durable}-{}-{sequence}", raw.subject);
    let subject = Subject::DeadLetter {
        consumer: durable.to_owned(),
    };
    bus.publish(&subject, &id, &letter).await.map(drop)
}
