//! What is heard of speech that has not ended: told to whoever listens at this moment, and kept nowhere.

use futures::{Stream, StreamExt};
use prost::Message;
use sightline_proto::internal::Observation;
use tokio::time::timeout;

use crate::connection::{Bus, DEADLINE};
use crate::error::BusError;

/// Every stream's.
const ALL: &str = "interim.*";

impl Bus {
    /// Tells an interim line to whoever listens. One that is lost is made up for by the next, or by the final one.
    ///
    /// # Errors
    /// When it can't be sent.
    pub async fn tell_interim(&self, line: &Observation) -> Result<(), BusError> {
        let subject = format!("interim.{}", line.rtstream_id);
        let failed = |source: crate::error::Cause| BusError::Publish {
            subject: subject.clone(),
            source,
        };
        let client = self.context.client();
        let payload = line.encode_to_vec().into();
        match timeout(DEADLINE, client.publish(subject.clone(), payload)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(failed(source.into())),
            Err(source) => Err(failed(source.into())),
        }
    }

    /// The interim lines of all streams from now on; what can't be decoded is left out. Whoever reads too slowly misses some: the
    /// library's buffer is bounded.
    ///
    /// # Errors
    /// When the bus does not take the subscription. Once it has, it is renewed with every connection.
    pub async fn interim_lines(
        &self,
    ) -> Result<impl Stream<Item = Observation> + Send + Unpin + use<>, BusError> {
        let failed = |source: crate::error::Cause| BusError::Consumer {
            consumer: ALL.to_owned(),
            source,
        };
        let lines = match timeout(DEADLINE, self.context.client().subscribe(ALL)).await {
            Ok(Ok(lines)) => lines,
            Ok(Err(source)) => return Err(failed(source.into())),
            Err(source) => return Err(failed(source.into())),
        };
        let decoded =
            |line: async_nats::Message| std::future::ready(Observation::decode(line.payload).ok());
        Ok(lines.filter_map(decoded))
    }
}
