//! Reading without taking: following a stream as it grows, and looking at what it holds.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use futures::stream::unfold;
use futures::{Stream, StreamExt};
use prost::Message;

use tokio::time::{sleep, timeout};

use crate::connection::{Bus, DEADLINE};
use crate::error::BusError;
use crate::streams::StreamName;
use crate::work::{Received, decode};

/// How long to hold back before following goes on after an interruption.
const PAUSE: Duration = Duration::from_millis(200);

/// Where following starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// With the next message.
    New,
    /// With the oldest message that is kept.
    Beginning,
    /// With the first message after this sequence.
    After(u64),
}

impl Bus {
    /// Follows a stream in order, without acknowledging anything. Messages that can't be decoded are skipped with a warning.
    ///
    /// It goes on by itself after interruptions, where it was. An error says that it can't at the moment; whoever polls
    /// again waits on.
    ///
    /// # Errors
    /// When the bus does not answer.
    pub async fn tail<M: Message + Default>(
        &self,
        stream: StreamName,
        filter: &str,
        start: Start,
    ) -> Result<impl Stream<Item = Result<Received<M>, BusError>> + Send + Unpin + use<M>, BusError>
    {
        let after = match start {
            Start::New => self.last_sequence(stream).await?,
            Start::Beginning => 0,
            Start::After(sequence) => sequence,
        };
        let mut tail = Tail {
            bus: self.clone(),
            stream,
            filter: filter.to_owned(),
            after,
            feed: None,
        };
        tail.open().await?;
        Ok(Box::pin(unfold(tail, async |mut tail| {
            let next = tail.next().await;
            Some((next, tail))
        })))
    }

    /// What a stream holds of a subject now, oldest first, at most the newest `newest` messages.
    ///
    /// # Errors
    /// When the bus does not answer.
    pub async fn read<M: Message + Default>(
        &self,
        stream: StreamName,
        filter: &str,
        newest: usize,
    ) -> Result<Vec<Received<M>>, BusError> {
        if newest == 0 {
            return Ok(Vec::new());
        }
        let failed = |source: crate::error::Cause| BusError::Consumer {
            consumer: format!("reader of {filter}"),
            source,
        };
        let config = pull::Config {
            filter_subject: filter.to_owned(),
            ack_policy: AckPolicy::None,
            inactive_threshold: Duration::from_secs(10),
            memory_storage: true,
            ..pull::Config::default()
        };
        let consumer = self
            .stream(stream)
            .await?
            .create_consumer(config)
            .await
            .map_err(|source| failed(source.into()))?;
        let mut pending = consumer.cached_info().num_pending;
        let mut kept = VecDeque::with_capacity(newest.min(1024));
        while pending > 0 {
            let mut batch = consumer
                .fetch()
                .max_messages(256)
                .messages()
                .await
                .map_err(|source| failed(source.into()))?;
            let before = pending;
            // The library itself waits for ever when the server's answer gets lost.
            while let Some(message) = timeout(DEADLINE, batch.next())
                .await
                .map_err(|source| failed(source.into()))?
            {
                let message = message.map_err(failed)?;
                pending = message.info().map_err(failed)?.pending;
                if kept.len() == newest {
                    kept.pop_front();
                }
                match decode::<M>(&message) {
                    Ok(received) => kept.push_back(received),
                    Err(error) => tracing::warn!(%error, "message is skipped"),
                }
            }
            if pending == before {
                break;
            }
        }
        Ok(kept.into())
    }

    /// The sequence of the newest message of a stream; 0 if there never was one.
    ///
    /// # Errors
    /// When the bus does not answer.
    pub async fn last_sequence(&self, stream: StreamName) -> Result<u64, BusError> {
        let info = self.stream(stream).await?.get_info().await;
        info.map(|info| info.state.last_sequence)
            .map_err(|source| BusError::Stream {
                stream: stream.as_str(),
                source: source.into(),
            })
    }
}

/// Following a stream from one sequence on.
struct Tail {
    bus: Bus,
    stream: StreamName,
    filter: String,
    /// The last sequence that needs not be looked at any more.
    after: u64,
    feed: Option<Feed>,
}

/// A consumer, and the connection that it was made on.
struct Feed {
    messages: pull::Ordered,
    connects: u64,
}

impl Tail {
    async fn next<M: Message + Default>(&mut self) -> Result<Received<M>, BusError> {
        loop {
            let Some(feed) = &mut self.feed else {
                sleep(PAUSE).await;
                self.open().await?;
                continue;
            };
            let item = tokio::select! {
                biased;
                item = feed.messages.next() => item,
                // The library would notice by itself, up to 20 s later.
                () = self.bus.reconnected(feed.connects) => None,
            };
            let Some(item) = item else {
                self.feed = None;
                continue;
            };
            let raw = item.map_err(|source| {
                self.feed = None;
                self.failed(source.into())
            })?;
            match decode::<M>(&raw) {
                Ok(received) => {
                    self.after = received.sequence;
                    return Ok(received);
                }
                Err(error) => tracing::warn!(%error, "message is skipped"),
            }
        }
    }

    async fn open(&mut self) -> Result<(), BusError> {
        let connects = self.bus.connects();
        let newest = self.bus.last_sequence(self.stream).await?;
        if newest < self.after {
            let lost = format!("it ends at {newest}, before {}", self.after);
            return Err(self.failed(lost.into()));
        }
        let config = pull::OrderedConfig {
            filter_subject: self.filter.clone(),
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: self.after + 1,
            },
            ..pull::OrderedConfig::default()
        };
        let stream = self.bus.stream(self.stream).await?;
        let consumer = stream.create_consumer(config).await;
        let consumer = consumer.map_err(|source| self.failed(source.into()))?;
        let messages = consumer.messages().await;
        let messages = messages.map_err(|source| self.failed(source.into()))?;
        self.feed = Some(Feed { messages, connects });
        Ok(())
    }

    fn failed(&self, source: crate::error::Cause) -> BusError {
        BusError::Consumer {
            consumer: format!("follower of {}", self.filter),
            source,
        }
    }
}
