//! How long alerts took from stage to stage, of what was delivered.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt, stream};
use sightline_bus::{StreamName, Subject};
use sightline_proto::ids;
use sightline_proto::internal::{Attempt, EndpointRecord};
use sightline_proto::reasons::ApiError;
use sightline_proto::v1::delivery::Outcome;
use sightline_proto::v1::get_latency_response::Stage;
use sightline_proto::v1::{self, Phase};

use super::{Session, bus_failed};

/// How many of the newest attempts of an endpoint are looked at.
const NEWEST: usize = 10_000;
/// Endpoints whose attempts are read at the same time.
const AT_ONCE: usize = 4;

/// A stage: its name, and how long it took in microseconds, 0 if unknown.
type Measured = (&'static str, fn(&Attempt) -> i64);

/// The stages, the whole last.
const STAGES: [Measured; 5] = [
    ("capture_to_sampled", |a| a.capture_to_sampled_us),
    ("sampled_to_verdict", |a| a.sampled_to_verdict_us),
    ("verdict_to_decision", |a| a.verdict_to_decision_us),
    ("decision_to_2xx", |a| a.decision_to_2xx_us),
    ("capture_to_2xx", |a| a.last_frame_to_2xx_us),
];

impl Session {
    /// Percentiles of each stage, of the deliveries of one alert or of all, as far back as the bus keeps attempts.
    pub(crate) async fn latency(
        &self,
        request: &v1::GetLatencyRequest,
    ) -> Result<v1::GetLatencyResponse, ApiError> {
        if !request.alert_id.is_empty() {
            self.alert(&request.alert_id).await?;
        }
        let kept = self.bus.subjects(StreamName::Attempts, "attempt.*").await;
        let kept: HashSet<String> = kept.map_err(bus_failed)?.into_iter().collect();
        let endpoints = self.all::<EndpointRecord>();
        let subjects: Vec<String> = endpoints
            .map(|record| Subject::Attempt {
                endpoint: ids::endpoint_id(&record.tenant, &record.url),
            })
            .map(|subject| subject.to_string())
            .filter(|subject| kept.contains(subject))
            .collect();
        let read: Vec<Vec<[i64; STAGES.len()]>> = stream::iter(subjects)
            .map(|subject| self.measured(subject, &request.alert_id))
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        Ok(summed(&read.concat()))
    }

    /// What was measured of each delivery to an endpoint.
    async fn measured(
        &self,
        subject: String,
        alert_id: &str,
    ) -> Result<Vec<[i64; STAGES.len()]>, ApiError> {
        let attempts = self
            .bus
            .read::<Attempt>(StreamName::Attempts, &subject, NEWEST)
            .await
            .map_err(bus_failed)?;
        Ok(attempts
            .iter()
            .map(|received| &received.message)
            .filter(|attempt| alert_id.is_empty() || attempt.alert_id == alert_id)
            .filter(|attempt| says_something(attempt))
            .map(|attempt| STAGES.map(|(_, measured)| measured(attempt)))
            .collect())
    }
}

/// Whether it told of a firing for the first time.
fn says_something(attempt: &Attempt) -> bool {
    attempt.outcome() == Outcome::Delivered
        && attempt.redelivery.is_empty()
        && matches!(attempt.phase(), Phase::Unspecified | Phase::Fired)
}

fn summed(deliveries: &[[i64; STAGES.len()]]) -> v1::GetLatencyResponse {
    let stages = STAGES.iter().enumerate().map(|(place, (name, _))| {
        let times = deliveries.iter().map(|times| times[place]);
        let mut known: Vec<i64> = times.filter(|us| *us > 0).collect();
        known.sort_unstable();
        Stage {
            name: (*name).to_owned(),
            p50_ms: percentile(&known, 50),
            p95_ms: percentile(&known, 95),
            p99_ms: percentile(&known, 99),
        }
    });
    v1::GetLatencyResponse {
        stages: stages.collect(),
        deliveries: deliveries.len() as u64,
    }
}

/// The smallest that so many of 100 do not exceed; 0 of none.
fn percentile(sorted: &[i64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100);
    let value = sorted.get(rank.saturating_sub(1));
    value.map_or(0.0, |us| *us as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let hundred: Vec<i64> = (1..=100).map(|ms| ms * 1000).collect();
        for (values, expected) in [
            (&[][..], [0.0, 0.0, 0.0]),
            (&[7000], [7.0, 7.0, 7.0]),
            (&[1000, 2000], [1.0, 2.0, 2.0]),
            (&hundred, [50.0, 95.0, 99.0]),
        ] {
            let found = [50, 95, 99].map(|percent| percentile(values, percent));
            assert_eq!(found, expected);
        }
    }
}
