//! Reading without taking: following a stream as it grows, and looking at what it holds.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use futures::{Stream, StreamExt};
use prost::Message;

use crate::connection::Bus;
use crate::error::BusError;
use crate::streams::StreamName;
use crate::work::{Received, decode};

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
    /// Follows a stream in order, without acknowledging anything; resumes by itself after interruptions. Messages that
    /// can't be decoded are skipped with a warning.
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
        let failed = |source: crate::error::Cause| BusError::Consumer {
            consumer: format!("follower of {filter}"),
            source,
        };
        let config = pull::OrderedConfig {
            filter_subject: filter.to_owned(),
            deliver_policy: match start {
                Start::New => DeliverPolicy::New,
                Start::Beginning => DeliverPolicy::All,
                Start::After(sequence) => DeliverPolicy::ByStartSequence {
                    start_sequence: sequence + 1,
                },
            },
            ..pull::OrderedConfig::default()
        };
        let messages = self
            .stream(stream)
            .await?
            .create_consumer(config)
            .await
            .map_err(|source| failed(source.into()))?
            .messages()
            .await
            .map_err(|source| failed(source.into()))?;
        let filter = filter.to_owned();
        Ok(Box::pin(messages.filter_map(move |item| {
            let result = match item {
                Ok(message) => decode::<M>(&message)
                    .inspect_err(|error| tracing::warn!(%error, "message is skipped"))
                    .ok()
                    .map(Ok),
                Err(source) => Some(Err(BusError::Consumer {
                    consumer: format!("follower of {filter}"),
                    source: source.into(),
                })),
            };
            std::future::ready(result)
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
            while let Some(message) = batch.next().await {
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
