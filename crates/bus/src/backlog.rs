//! How much is still to be done.

use async_nats::jetstream::consumer;
use futures::TryStreamExt;

use crate::connection::Bus;
use crate::error::BusError;
use crate::streams::StreamName;

impl Bus {
    /// How many messages of a stream its durable consumers have not yet settled: waiting, being worked on, or put back for
    /// later.
    ///
    /// # Errors
    /// When the bus does not answer.
    pub async fn backlog(&self, name: StreamName) -> Result<u64, BusError> {
        let stream = self.stream(name).await?;
        let infos: Vec<consumer::Info> =
            stream
                .consumers()
                .try_collect()
                .await
                .map_err(|source| BusError::Stream {
                    stream: name.as_str(),
                    source: source.into(),
                })?;
        let durables = infos
            .iter()
            .filter(|info| info.config.durable_name.is_some());
        Ok(durables
            .map(|info| info.num_pending + info.num_ack_pending as u64)
            .sum())
    }
}
