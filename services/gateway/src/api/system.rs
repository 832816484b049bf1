//! What the platform consists of at this moment. For operators alone.

use sightline_proto::reasons::ApiError;
use sightline_proto::time::timestamp;
use sightline_proto::v1::{self, Queue, Worker};

use super::{Session, bus_failed};

impl Session {
    /// The workers that answer, and the queues.
    pub(crate) async fn system(&self) -> Result<v1::GetSystemResponse, ApiError> {
        self.operators_alone("workers and queues")?;
        let (present, queues) = tokio::join!(self.bus.present(), self.bus.queues());
        let workers = present.map_err(bus_failed)?.into_iter().map(|one| Worker {
            start_time: Some(timestamp(one.started_us)),
            role: one.role,
            name: one.name,
            version: one.version,
            model: one.model,
            model_revision: one.model_revision,
        });
        let queues = queues.map_err(bus_failed)?.into_iter().map(|queue| Queue {
            stream: queue.stream.as_str().to_owned(),
            consumer: queue.consumer,
            waiting: queue.waiting,
            in_progress: queue.in_progress,
        });
        Ok(v1::GetSystemResponse {
            workers: workers.collect(),
            queues: queues.collect(),
        })
    }
}
