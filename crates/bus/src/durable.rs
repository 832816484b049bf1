//! Durable consumers, and taking one message of them. A nats-server that was restarted may have lost one: those of FRAMES, which
//! lives in memory, with the stream itself. It is made again then.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::jetstream::Message as Raw;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, pull};
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use futures::StreamExt;

use crate::connection::Bus;
use crate::error::{BusError, Cause};
use crate::work::Work;

/// How long one pull waits at the server before it is asked again.
pub(crate) const PULL_EXPIRES: Duration = Duration::from_secs(5);

/// A durable consumer that outlives its server.
pub(crate) struct Durable {
    bus: Bus,
    work: Work,
    max_ack_pending: i64,
    consumer: Consumer<pull::Config>,
    /// The connection on which it was seen last.
    connects: AtomicU64,
}

impl Durable {
    /// Makes or finds it.
    ///
    /// # Errors
    /// When the bus does not answer.
    pub(crate) async fn make(
        bus: &Bus,
        work: &Work,
        max_ack_pending: i64,
    ) -> Result<Self, BusError> {
        let connects = AtomicU64::new(bus.connects());
        Ok(Self {
            consumer: consumer(bus, work, max_ack_pending).await?,
            bus: bus.clone(),
            work: work.clone(),
            max_ack_pending,
            connects,
        })
    }

    /// The consumer, which is there.
    ///
    /// # Errors
    /// When the bus does not say so; ask again after a pause.
    pub(crate) async fn present(&self) -> Result<&Consumer<pull::Config>, Cause> {
        let connects = self.bus.connects();
        // On the same connection it can't have been lost, and nobody would answer for one that is gone.
        if self.connects.load(Ordering::Relaxed) != connects {
            self.make_again().await?;
            self.connects.store(connects, Ordering::Relaxed);
        }
        Ok(&self.consumer)
    }

    /// Waits for one message, as [`pull_one`] does.
    ///
    /// # Errors
    /// When the bus is not there; ask again after a pause.
    pub(crate) async fn pull_one(&self) -> Result<Option<Raw>, Cause> {
        pull_one(&self.bus, self.present().await?).await
    }

    /// Makes it again where the server says that there is none. It keeps its name, by which it is asked.
    async fn make_again(&self) -> Result<(), Cause> {
        use ConsumerInfoErrorKind::{NotFound, StreamNotFound};
        match self.consumer.get_info().await {
            Ok(_) => return Ok(()),
            Err(error) if matches!(error.kind(), NotFound | StreamNotFound) => {}
            Err(error) => return Err(error.into()),
        }
        self.bus.make_again(self.work.stream).await?;
        consumer(&self.bus, &self.work, self.max_ack_pending).await?;
        tracing::info!(
            consumer = self.work.durable,
            "the server had lost the consumer, which is made again"
        );
        Ok(())
    }
}

/// Makes or finds a durable consumer.
pub(crate) async fn consumer(
    bus: &Bus,
    work: &Work,
    max_ack_pending: i64,
) -> Result<Consumer<pull::Config>, BusError> {
    let config = pull::Config {
        durable_name: Some(work.durable.clone()),
        filter_subject: work.filter.clone(),
        ack_policy: AckPolicy::Explicit,
        ack_wait: work.ack_wait,
        // The loop gives up by itself at max_deliver and keeps the message; the server would only stop delivering it.
        max_deliver: -1,
        max_ack_pending,
        ..pull::Config::default()
    };
    bus.stream(work.stream)
        .await?
        .create_consumer(config)
        .await
        .map_err(|source| BusError::Consumer {
            consumer: work.durable.clone(),
            source: source.into(),
        })
}

/// Waits for one message; None when none came within the pull's time. Dropping the future takes back the pull; a message
/// that is on its way at that moment is delivered again after `ack_wait`.
pub(crate) async fn pull_one(
    bus: &Bus,
    consumer: &Consumer<pull::Config>,
) -> Result<Option<Raw>, Cause> {
    let connects = bus.connects();
    let pulling = async {
        let mut batch = consumer
            .batch()
            .max_messages(1)
            .expires(PULL_EXPIRES)
            .messages()
            .await?;
        batch.next().await.transpose()
    };
    tokio::select! {
        biased;
        pulled = pulling => pulled,
        // A server that was restarted knows nothing of the pull. The library would notice after 10 s: it stops reading a
        // batch after the first idle heartbeat, so heartbeats can't tell.
        () = bus.reconnected(connects) => Ok(None),
    }
}
