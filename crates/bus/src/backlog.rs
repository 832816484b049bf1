//! Looking at a stream: how much is still to be done, and what came last.

use std::collections::HashMap;

use async_nats::jetstream::consumer;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use futures::TryStreamExt;
use prost::Message;

use crate::connection::{Bus, stream_of};
use crate::error::BusError;
use crate::streams::StreamName;
use crate::subjects::Subject;

/// How often consumers are listed before it fails.
const LISTINGS: u32 = 3;

/// How far a durable consumer is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    /// Messages that nobody has settled yet: they wait, are worked on, or were put back for later.
    pub open: u64,
    /// The sequence of the newest message that was given out; 0 if none was.
    pub taken: u64,
    /// Every message up to this sequence is settled.
    pub settled: u64,
}

impl Bus {
    /// How far each durable consumer of a stream is, by its name.
    ///
    /// # Errors
    /// When the bus does not answer.
    pub async fn places(&self, name: StreamName) -> Result<HashMap<String, Place>, BusError> {
        let infos = self.consumers(name).await?.into_iter();
        let places = infos.filter_map(|info| {
            let place = Place {
                open: info.num_pending + info.num_ack_pending as u64,
                taken: info.delivered.stream_sequence,
                settled: info.ack_floor.stream_sequence,
            };
            Some((info.config.durable_name?, place))
        });
        Ok(places.collect())
    }

    /// How many messages of a stream its durable consumers have not yet settled: waiting, being worked on, or put back for
    /// later.
    ///
    /// # Errors
    /// When the bus does not answer.
    pub async fn backlog(&self, name: StreamName) -> Result<u64, BusError> {
        let infos = self.consumers(name).await?;
        let durables = infos
            .iter()
            .filter(|info| info.config.durable_name.is_some());
        Ok(durables
            .map(|info| info.num_pending + info.num_ack_pending as u64)
            .sum())
    }

    /// The consumers of a stream. A list that the server makes while some come and go can't always be read: it is asked again.
    pub(crate) async fn consumers(
        &self,
        name: StreamName,
    ) -> Result<Vec<consumer::Info>, BusError> {
        let stream = self.stream(name).await?;
        let mut tries = LISTINGS;
        loop {
            tries -= 1;
            match stream.consumers().try_collect().await {
                Ok(infos) => return Ok(infos),
                Err(error) if tries > 0 => {
                    tracing::debug!(%error, stream = name.as_str(), "consumers are listed again");
                }
                Err(source) => {
                    return Err(BusError::Stream {
                        stream: name.as_str(),
                        source: source.into(),
                    });
                }
            }
        }
    }

    /// The subjects for which a stream holds messages.
    ///
    /// # Errors
    /// When the bus does not answer.
    pub async fn subjects(&self, name: StreamName, filter: &str) -> Result<Vec<String>, BusError> {
        let failed = |source: crate::error::Cause| BusError::Stream {
            stream: name.as_str(),
            source,
        };
        let stream = self.stream(name).await?;
        let subjects = stream.info_with_subjects(filter).await;
        subjects
            .map_err(|source| failed(source.into()))?
            .map_ok(|(subject, _)| subject)
            .try_collect()
            .await
            .map_err(|source| failed(source.into()))
    }

    /// The sequence of the next message of a filter after another sequence; none if the bus holds none that can be decoded.
    ///
    /// # Errors
    /// When the bus does not answer.
    pub async fn next_after<M: Message + Default>(
        &self,
        name: StreamName,
        filter: &str,
        mut after: u64,
    ) -> Result<Option<u64>, BusError> {
        let stream = self.stream(name).await?;
        loop {
            let next = stream.get_first_raw_message_by_subject(filter, after + 1);
            match next.await {
                Ok(message) if M::decode(message.payload.clone()).is_ok() => {
                    return Ok(Some(message.sequence));
                }
                Ok(message) => after = message.sequence,
                Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => {
                    return Ok(None);
                }
                Err(source) => {
                    return Err(BusError::Stream {
                        stream: name.as_str(),
                        source: source.into(),
                    });
                }
            }
        }
    }

    /// The newest message that the bus holds for a subject; none as well if it can't be decoded.
    ///
    /// # Errors
    /// When the bus does not answer.
    pub async fn newest<M: Message + Default>(
        &self,
        subject: &Subject,
    ) -> Result<Option<M>, BusError> {
        let name = stream_of(subject);
        let stream = self.stream(name).await?;
        match stream
            .get_last_raw_message_by_subject(&subject.to_string())
            .await
        {
            Ok(message) => Ok(M::decode(message.payload).ok()),
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(source) => Err(BusError::Stream {
                stream: name.as_str(),
                source: source.into(),
            }),
        }
    }
}
