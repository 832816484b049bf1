//! Tidying up after consumers that nobody will come back to.

use crate::connection::Bus;
use crate::error::BusError;
use crate::streams::StreamName;

impl Bus {
    /// Removes the durable consumers of a stream whose names begin with `prefix`, except `keep` and those that someone is
    /// waiting on at this moment. Returns their names. Who is busy with what came is not waiting: whoever calls this knows
    /// that nobody needs the others, and `work_in_order` makes its consumer again.
    ///
    /// # Errors
    /// When the bus does not answer.
    pub async fn remove_idle_consumers(
        &self,
        name: StreamName,
        prefix: &str,
        keep: &[String],
    ) -> Result<Vec<String>, BusError> {
        let failed = |source: crate::error::Cause| BusError::Stream {
            stream: name.as_str(),
            source,
        };
        let stream = self.stream(name).await?;
        let mut removed = Vec::new();
        for info in self.consumers(name).await? {
            let durable = info.config.durable_name.unwrap_or_default();
            if !durable.starts_with(prefix) || keep.contains(&durable) || info.num_waiting > 0 {
                continue;
            }
            stream
                .delete_consumer(&durable)
                .await
                .map_err(|source| failed(source.into()))?;
            removed.push(durable);
        }
        Ok(removed)
    }
}
