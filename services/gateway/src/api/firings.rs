//! What came of alerts, read from the bus: firings and the attempts to deliver them.

use std::collections::HashMap;

use sightline_bus::{ObservationKind, StreamName, Subject};
use sightline_proto::ids;
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{Attempt, Observation};
use sightline_proto::reasons::ApiError;
use sightline_proto::time::{micros, timestamp};
use sightline_proto::v1::firing::State;
use sightline_proto::v1::{self, Delivery, Firing};

use super::paging::Position;
use super::violations::Violations;
use super::{Session, bus_failed, convert};

/// How many of the newest messages of a subject are looked through.
const NEWEST: usize = 10_000;

impl Session {
    /// The firings of an alert, newest first, as far back as the bus keeps observations (72 h).
    pub(crate) async fn list_firings(
        &self,
        request: v1::ListFiringsRequest,
    ) -> Result<v1::ListFiringsResponse, ApiError> {
        let mut faults = Violations::default();
        let size = faults.page_size(request.page_size);
        faults.into_result()?;
        let alert = self.alert(&request.alert_id).await?;
        let pages = self.pages(
            "ListFirings",
            &v1::ListFiringsRequest {
                alert_id: request.alert_id,
                ..Default::default()
            },
        );
        let subject = Subject::Observation {
            partition: self.catalog.partition_of(&alert.rtstream_id),
            kind: ObservationKind::Firing,
            rtstream: alert.rtstream_id,
        };
        let observed = self
            .bus
            .read::<Observation>(StreamName::Observations, &subject.to_string(), NEWEST)
            .await
            .map_err(bus_failed)?;
        let firings = merge(observed.iter().map(|received| &received.message), &alert.id);
        let (firings, next_page_token) =
            pages.cut(firings, &request.page_token, size, true, position_of_firing)?;
        Ok(v1::ListFiringsResponse {
            firings: firings.into_iter().map(|f| self.linker.link(f)).collect(),
            next_page_token,
        })
    }

    /// The attempts to deliver an alert's firings, newest first.
    pub(crate) async fn list_deliveries(
        &self,
        request: v1::ListDeliveriesRequest,
    ) -> Result<v1::ListDeliveriesResponse, ApiError> {
        let mut faults = Violations::default();
        let size = faults.page_size(request.page_size);
        faults.into_result()?;
        let alert = self.alert(&request.alert_id).await?;
        let pages = self.pages(
            "ListDeliveries",
            &v1::ListDeliveriesRequest {
                alert_id: request.alert_id,
                ..Default::default()
            },
        );
        let webhook = ids::endpoint_id(&self.tenant(), &alert.callback_url);
        let sinks = alert.sinks.iter().map(|sink| format!("sink-{sink}"));
        let mut deliveries: Vec<Delivery> = Vec::new();
        for endpoint in std::iter::once(webhook).chain(sinks) {
            let subject = Subject::Attempt { endpoint }.to_string();
            let attempts = self
                .bus
                .read::<Attempt>(StreamName::Attempts, &subject, NEWEST)
                .await
                .map_err(bus_failed)?;
            let attempts = attempts.into_iter().map(|received| received.message);
            let of_alert = attempts.filter(|attempt| attempt.alert_id == alert.id);
            deliveries.extend(of_alert.map(delivery));
        }
        deliveries.sort_by_key(|delivery| std::cmp::Reverse(position_of_delivery(delivery)));
        let (deliveries, next_page_token) = pages.cut(
            deliveries,
            &request.page_token,
            size,
            true,
            position_of_delivery,
        )?;
        Ok(v1::ListDeliveriesResponse {
            deliveries,
            next_page_token,
        })
    }
}

/// One alert's firings out of the observations of its stream, newest first. A firing that went on was observed again, with
/// a later end, and so was one that closed.
fn merge<'a>(observations: impl Iterator<Item = &'a Observation>, alert_id: &str) -> Vec<Firing> {
    let mut firings: HashMap<&str, Firing> = HashMap::new();
    for observation in observations {
        let Some(Body::Firing(body)) = &observation.body else {
            continue;
        };
        if body.alert_id != alert_id {
            continue;
        }
        let seen = convert::firing(observation, body);
        match firings.get_mut(body.firing_id.as_str()) {
            Some(firing) => extend(firing, seen),
            None => {
                firings.insert(&body.firing_id, seen);
            }
        }
    }
    let mut firings: Vec<Firing> = firings.into_values().collect();
    firings.sort_by_key(|firing| std::cmp::Reverse(position_of_firing(firing)));
    firings
}

/// The opening's words and confidence stay; the times cover both, and what is closed stays so.
fn extend(firing: &mut Firing, seen: Firing) {
    let (known_start, seen_start) = (start_of(firing), start_of(&seen));
    let later_end = end_of(&seen) > end_of(firing);
    let end_time = if later_end {
        seen.end_time
    } else {
        firing.end_time
    };
    let closed = [firing.state(), seen.state()].contains(&State::Closed);
    if seen_start < known_start {
        *firing = seen;
    }
    firing.end_time = end_time;
    if closed {
        firing.set_state(State::Closed);
    }
}

fn start_of(firing: &Firing) -> i64 {
    firing.start_time.as_ref().map_or(0, micros)
}

fn end_of(firing: &Firing) -> i64 {
    firing.end_time.as_ref().map_or(0, micros)
}

fn position_of_firing(firing: &Firing) -> Position {
    Position {
        time_us: start_of(firing),
        id: firing.id.clone(),
    }
}

fn position_of_delivery(delivery: &Delivery) -> Position {
    Position {
        time_us: delivery.end_time.as_ref().map_or(0, micros),
        id: format!(
            "{} {:010} {} {}",
            delivery.firing_id, delivery.attempt, delivery.phase, delivery.sink
        ),
    }
}

fn delivery(attempt: Attempt) -> Delivery {
    let milliseconds = |us: i64| us as f64 / 1000.0;
    Delivery {
        firing_id: attempt.firing_id,
        alert_id: attempt.alert_id,
        attempt: attempt.attempt,
        status_code: attempt.status_code,
        error: attempt.error,
        end_time: Some(timestamp(attempt.ended_us)),
        decision_to_2xx_ms: milliseconds(attempt.decision_to_2xx_us),
        last_frame_to_2xx_ms: milliseconds(attempt.last_frame_to_2xx_us),
        endpoint_id: attempt.endpoint_id,
        duration_ms: milliseconds(attempt.duration_us),
        outcome: attempt.outcome,
        retry_time: (attempt.retry_us != 0).then(|| timestamp(attempt.retry_us)),
        redelivery: !attempt.redelivery.is_empty(),
        phase: attempt.phase,
        sink: attempt.sink,
    }
}

#[cfg(test)]
mod tests {
    use sightline_proto::internal::FiringBody;

    use super::*;

    fn observed(firing: &str, alert: &str, start_us: i64, end_us: i64) -> Observation {
        Observation {
            start_us,
            end_us,
            body: Some(Body::Firing(FiringBody {
                firing_id: firing.to_owned(),
                alert_id: alert.to_owned(),
                confidence: start_us as f32,
                ..Default::default()
            })),
            ..Default::default()
        }
    }

    /// Merges (firing, alert, start, end) of alert "a" into (firing, start, end, confidence).
    fn check(observations: &[(&str, &str, i64, i64)], expected: &[(&str, i64, i64, f32)]) {
        let observations: Vec<_> = observations
            .iter()
            .map(|&(firing, alert, start, end)| observed(firing, alert, start, end))
            .collect();
        let merged = merge(observations.iter(), "a");
        let found: Vec<_> = merged
            .iter()
            .map(|f| (f.id.as_str(), start_of(f), end_of(f), f.confidence))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn extensions_are_one_firing_and_the_newest_comes_first() {
        check(&[], &[]);
        check(&[("f1", "b", 0, 5)], &[]);
        check(
            &[("f1", "a", 5, 10), ("f1", "a", 5, 15)],
            &[("f1", 5, 15, 5.0)],
        );
        check(
            &[("f1", "a", 5, 10), ("f1", "a", 10, 15), ("f2", "a", 30, 35)],
            &[("f2", 30, 35, 30.0), ("f1", 5, 15, 5.0)],
        );
        check(
            &[("f1", "a", 10, 15), ("f1", "a", 5, 10)],
            &[("f1", 5, 15, 5.0)],
        );
    }

    #[test]
    fn a_firing_that_closed_is_closed_whatever_came_when() {
        let closed = |firing: &str, closed: bool| {
            let mut seen = observed(firing, "a", 5, 10);
            if let Some(Body::Firing(body)) = &mut seen.body {
                let state = if closed { State::Closed } else { State::Open };
                body.set_state(state);
            }
            seen
        };
        for (seen, expected) in [
            (&[false][..], State::Open),
            (&[false, true], State::Closed),
            (&[true, false], State::Closed),
            (&[true], State::Closed),
        ] {
            let observations: Vec<_> = seen.iter().map(|over| closed("f1", *over)).collect();
            let found = merge(observations.iter(), "a");
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].state(), expected, "{seen:?}");
        }
    }
}
