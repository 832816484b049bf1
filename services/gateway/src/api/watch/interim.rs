//! Interim lines: what is heard while somebody still speaks, for those who want it, and only while somebody does.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt;
use sightline_bus::{Ask, Bus, BusError};
use sightline_proto::internal::Observation;
use sightline_proto::time::micros;
use sightline_proto::v1::TranscriptSegment;
use sightline_service::{Shutdown, chain};
use tokio::time::interval;

use super::filter::Happening;
use super::hub::Hub;

/// How often to look whether anybody wants them, which changes with every connection and subscription.
const LOOK: Duration = Duration::from_millis(500);
/// Ingest workers that are answered at a time.
const ANSWERS: usize = 64;
/// Streams of which is known how far they were heard. More are forgotten all at once: then a late line may be told once.
const STREAMS: usize = 10_000;

/// Up to when speech is over, of each stream.
#[derive(Default)]
pub(super) struct Said(HashMap<String, i64>);

impl Said {
    /// A final line was told.
    pub(super) fn note(&mut self, line: &TranscriptSegment) {
        if self.0.len() >= STREAMS && !self.0.contains_key(&line.rtstream_id) {
            self.0.clear();
        }
        let end_us = line.end_time.as_ref().map_or(0, micros);
        self.0.insert(line.rtstream_id.clone(), end_us);
    }

    /// Whether the final line of what an interim one tells of came before it.
    pub(super) fn is_over(&self, line: &TranscriptSegment) -> bool {
        let start_us = line.start_time.as_ref().map_or(0, micros);
        let end_us = self.0.get(&line.rtstream_id);
        end_us.is_some_and(|end_us| start_us < *end_us)
    }
}

impl Hub {
    /// Fans out interim lines until shutdown, and has them made, while anybody wants them.
    pub(crate) async fn follow_interim(&self, bus: &Bus, shutdown: &Shutdown) {
        let mut look = interval(LOOK);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = look.tick() => {}
            }
            if !self.reads_along() {
                continue;
            }
            let unread = async {
                while self.reads_along() {
                    look.tick().await;
                }
            };
            let stop = shutdown.child_token();
            let relayed = tokio::select! {
                relayed = self.relay(bus, &stop) => relayed,
                () = unread => Ok(()),
            };
            if let Err(error) = relayed {
                tracing::debug!(error = chain(&error), "interim lines are interrupted");
            }
        }
    }

    async fn relay(&self, bus: &Bus, stop: &Shutdown) -> Result<(), BusError> {
        let mut lines = bus.interim_lines().await?;
        let relaying = async {
            while let Some(line) = lines.next().await {
                self.relay_one(&line).await;
            }
            Ok(())
        };
        tokio::select! {
            answered = bus.answer(Ask::Listening, ANSWERS, stop, |()| async {}) => answered,
            relayed = relaying => relayed,
        }
    }

    async fn relay_one(&self, line: &Observation) {
        // A line that is not told is made up for by the next.
        if let Ok(Some(tenant)) = self.tenant_of(&line.rtstream_id).await
            && let Some(line) = Happening::of(0, line, tenant).filter(|line| line.interim)
        {
            self.deliver_interim(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use sightline_proto::time::timestamp;

    use super::*;

    #[test]
    fn what_is_over_is_not_told_as_going_on() {
        let line = |rtstream_id: &str, start_us, end_us| TranscriptSegment {
            rtstream_id: rtstream_id.to_owned(),
            start_time: Some(timestamp(start_us)),
            end_time: Some(timestamp(end_us)),
            ..TranscriptSegment::default()
        };
        let mut said = Said::default();
        assert!(!said.is_over(&line("rts-1", 0, 5)));
        said.note(&line("rts-1", 10, 20));
        for (stream, start_us, over) in [
            ("rts-1", 10, true),
            ("rts-1", 20, false),
            ("rts-2", 10, false),
        ] {
            assert_eq!(
                said.is_over(&line(stream, start_us, 30)),
                over,
                "{stream} {start_us}"
            );
        }
    }
}
