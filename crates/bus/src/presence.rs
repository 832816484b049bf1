//! Who works on the bus, and what waits for them: asked for when somebody wants to see it, and kept nowhere.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use prost::Message;
use sightline_proto::internal::{Presence, PresenceRequest};
use sightline_service::Shutdown;
use tokio::time::{Instant, timeout, timeout_at};

use crate::connection::{Bus, DEADLINE};
use crate::error::BusError;
use crate::streams::StreamName;

/// Everyone answers here, so there is no queue group.
const SUBJECT: &str = "ask.presence";
/// How long answers are waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// When no more came for so long, all have answered.
const SILENCE: Duration = Duration::from_millis(250);
/// Answers that are taken.
const MOST: usize = 10_000;

/// Work that waits for one kind of workers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Queue {
    /// From which stream they take it.
    pub stream: StreamName,
    /// Their durable consumers, without the number of a partition or the name of a receiver.
    pub consumer: String,
    /// Messages that nobody has taken yet.
    pub waiting: u64,
    /// Messages that are worked on, or were put back for later.
    pub in_progress: u64,
}

impl Bus {
    /// Answers with `presence` whenever somebody asks, until shutdown.
    ///
    /// # Errors
    /// When the bus does not take the subscription. Once it has, it is renewed with every connection.
    pub async fn be_present(
        &self,
        presence: &Presence,
        shutdown: &Shutdown,
    ) -> Result<(), BusError> {
        let failed = |source: crate::error::Cause| BusError::Consumer {
            consumer: SUBJECT.to_owned(),
            source,
        };
        let client = self.context.client();
        let mut asked = match timeout(DEADLINE, client.subscribe(SUBJECT)).await {
            Ok(Ok(asked)) => asked,
            Ok(Err(source)) => return Err(failed(source.into())),
            Err(source) => return Err(failed(source.into())),
        };
        let payload = bytes::Bytes::from(presence.encode_to_vec());
        loop {
            let question = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                question = asked.next() => question,
            };
            let Some(question) = question else {
                return Ok(());
            };
            if let Some(to) = question.reply {
                // Whoever asked asks again.
                let _ = timeout(DEADLINE, client.publish(to, payload.clone())).await;
            }
        }
    }

    /// Those that answer within a second, by role and name.
    ///
    /// # Errors
    /// When the question can't be asked.
    pub async fn present(&self) -> Result<Vec<Presence>, BusError> {
        let unanswered = |source: crate::error::Cause| BusError::Unanswered {
            subject: SUBJECT.to_owned(),
            source,
        };
        let client = self.context.client();
        let inbox = client.new_inbox();
        let asking = async {
            let answers = client.subscribe(inbox.clone()).await?;
            let question = PresenceRequest {}.encode_to_vec().into();
            client
                .publish_with_reply(SUBJECT, inbox.clone(), question)
                .await?;
            Ok::<_, crate::error::Cause>(answers)
        };
        let mut answers = match timeout(DEADLINE, asking).await {
            Ok(answers) => answers.map_err(unanswered)?,
            Err(source) => return Err(unanswered(source.into())),
        };
        let until = Instant::now() + PATIENCE;
        let mut present = Vec::new();
        while present.len() < MOST {
            let soon = until.min(Instant::now() + SILENCE);
            let Ok(Some(answer)) = timeout_at(soon, answers.next()).await else {
                break;
            };
            if let Ok(one) = Presence::decode(answer.payload) {
                present.push(one);
            }
        }
        present.sort_by(|a, b| (&a.role, &a.name).cmp(&(&b.role, &b.name)));
        Ok(present)
    }

    /// What waits for whom.
    ///
    /// # Errors
    /// When the bus does not answer.
    pub async fn queues(&self) -> Result<Vec<Queue>, BusError> {
        let mut queues = BTreeMap::new();
        for name in StreamName::ALL {
            for info in self.consumers(name).await? {
                let Some(durable) = info.config.durable_name else {
                    continue;
                };
                let consumer = kind_of(&durable).to_owned();
                let queue = queues
                    .entry((name.as_str(), consumer.clone()))
                    .or_insert(Queue {
                        stream: name,
                        consumer,
                        waiting: 0,
                        in_progress: 0,
                    });
                queue.waiting += info.num_pending;
                queue.in_progress += info.num_ack_pending as u64;
            }
        }
        Ok(queues.into_values().collect())
    }
}

/// Partitions are numbered, and there is a consumer for every receiver.
fn kind_of(durable: &str) -> &str {
    if durable.starts_with("deliver-") {
        return "deliver";
    }
    match durable.rsplit_once('-') {
        Some((kind, number)) if number.bytes().all(|c| c.is_ascii_digit()) => kind,
        _ => durable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_and_receivers_are_one() {
        for (durable, kind) in [
            ("alerts-12", "alerts"),
            ("deliver-ep-c7e1e35f-e760-5607-97ed-59c144b29886", "deliver"),
            ("deliver-sink-mail", "deliver"),
            ("caption-demo-vlm", "caption-demo-vlm"),
            ("runs", "runs"),
        ] {
            assert_eq!(kind_of(durable), kind);
        }
    }
}
