//! `sightline system`: which workers there are, and what waits for them.

use anyhow::Result;
use sightline_proto::client::Client;
use sightline_proto::v1::{GetSystemRequest, Queue, Worker};

use super::call::{answer, ask};
use super::moment::View;
use super::output::{Output, Shown, line};

/// Shows it.
///
/// # Errors
/// When the server refuses.
pub async fn run(mut client: Client, out: &Output) -> Result<()> {
    let system = answer(client.system.get_system(ask(GetSystemRequest {}))).await?;
    if out.json {
        return out.line(&line(&system)?);
    }
    out.list(&system.workers)?;
    out.line("")?;
    out.list(&system.queues)
}

impl Shown for Worker {
    const COLUMNS: &'static [&'static str] =
        &["ROLE", "WORKER", "UP", "VERSION", "MODEL", "REVISION"];

    fn row(&self, view: &View) -> Vec<String> {
        vec![
            self.role.clone(),
            self.name.clone(),
            view.age(self.start_time.as_ref()),
            self.version.clone(),
            self.model.clone(),
            self.model_revision.clone(),
        ]
    }
}

impl Shown for Queue {
    const COLUMNS: &'static [&'static str] = &["QUEUE", "FOR", "WAITING", "IN PROGRESS"];

    fn row(&self, _view: &View) -> Vec<String> {
        vec![
            self.stream.clone(),
            self.consumer.clone(),
            self.waiting.to_string(),
            self.in_progress.to_string(),
        ]
    }
}
