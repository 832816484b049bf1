//! One attempt to deliver: to a webhook or another sink, and what follows from how it ended.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sightline_bus::{Handler, Outgoing, Received, Refusal, Subject};
use sightline_catalog::{CatalogError, endpoints};
use sightline_message::{TemplateError, render};
use sightline_proto::internal::{Attempt, Delivery, EndpointRecord};
use sightline_proto::v1::{Phase, delivery};
use sightline_service::trace::RTSTREAM;
use sightline_service::{chain, failpoint};
use tokio::time::Instant;
use tracing::{Instrument, Span};

use crate::attempt::{Outcome, Then};
use crate::told::{message_id, receiver};
use crate::{Config, Shared, forget, told, webhook};

/// How long to hold back when it is not known whether an alert was deleted.
const PAUSE: Duration = Duration::from_secs(1);

/// Handles the deliveries of one receiver.
pub(crate) struct Delivering {
    pub(crate) shared: Arc<Shared>,
}

#[async_trait]
impl Handler<Delivery> for Delivering {
    async fn handle(&self, received: &Received<Delivery>) -> Result<Vec<Outgoing>, Refusal> {
        let delivery = &received.message;
        Span::current().record(RTSTREAM, &*delivery.rtstream_id);
        let started = Instant::now();
        let outcome = self
            .attempt(delivery)
            .await
            .map_err(|error| Refusal::Retry {
                after: PAUSE,
                reason: chain(&error),
            })?;
        let next = next(&self.shared.config, received, &outcome);
        let attempt = self.record(received, &outcome, started.elapsed(), &next);
        let endpoint = receiver(delivery);
        // By its end, and not by its number alone: nats-server 2.9 counts anew after a delivery that it could not hand to a worker
        // which had just stopped, and takes nothing twice.
        let id = format!(
            "{}-{endpoint}-{}-{}-{}",
            message_id(delivery),
            delivery.redelivery,
            received.deliveries,
            attempt.ended_us
        );
        let subject = Subject::Attempt { endpoint };
        let Err(refusal) = next else {
            return Ok(vec![Outgoing::new(subject, id, &attempt)]);
        };
        if let Err(error) = self.shared.bus.publish(&subject, &id, &attempt).await {
            // Only the log of attempts lacks it: the delivery itself goes on.
            tracing::warn!(%error, firing = delivery.firing_id, "attempt is not logged");
        }
        Err(refusal)
    }
}

impl Delivering {
    /// Posts it, unless nobody is to hear of it any more.
    ///
    /// # Errors
    /// When the catalog does not say.
    async fn attempt(&self, delivery: &Delivery) -> Result<Outcome, CatalogError> {
        let shared = &self.shared;
        let Some(record) = forget::known(&shared.catalog, &delivery.alert_id).await? else {
            return Ok(Outcome::deleted());
        };
        if !delivery.sink.is_empty() {
            return Ok(self.hand_over(delivery).await);
        }
        let (id, endpoint) = endpoints::ensure(
            &shared.catalog,
            &shared.seal,
            &record.tenant,
            &delivery.url,
            shared.clock.now_us(),
        )
        .await?;
        if !endpoint.disabled.is_empty() {
            return Ok(Outcome::disabled(&endpoint.disabled));
        }
        let template = record.alert.as_ref().map_or("", |alert| &alert.template);
        let (body, failed) = body(template, delivery);
        let mut outcome = self.post(delivery, body, &endpoint).await;
        if let Some(error) = failed {
            outcome.mention(&format!(
                "the usual body, since the template failed: {error}"
            ));
        }
        if outcome.is_gone() {
            self.disable(&id, &outcome.error).await;
        }
        Ok(outcome)
    }

    /// To another sink than a webhook.
    async fn hand_over(&self, delivery: &Delivery) -> Outcome {
        let Shared { config, clock, .. } = &*self.shared;
        let named = config
            .sinks
            .iter()
            .find(|sink| sink.name() == delivery.sink);
        let Some(sink) = named else {
            return Outcome::unknown_sink(&delivery.sink);
        };
        failpoint::hit("alerts.before_post");
        let id = message_id(delivery);
        let outcome = Outcome::of_sink(sink.send(&id, delivery, clock.now_us()).await);
        failpoint::hit("alerts.after_post");
        outcome
    }

    async fn post(&self, delivery: &Delivery, body: Bytes, endpoint: &EndpointRecord) -> Outcome {
        failpoint::hit("alerts.before_post");
        let Shared {
            seal,
            clock,
            egress,
            ..
        } = &*self.shared;
        let id = message_id(delivery);
        let headers = match webhook::headers(&id, &body, endpoint, seal, clock.now_us()) {
            Ok(headers) => headers,
            Err(error) => return Outcome::unsigned(&error),
        };
        let span = webhook::span(&delivery.url);
        let posted = async {
            let headers = webhook::traced(headers);
            let outcome = Outcome::of(&egress.post(&delivery.url, headers, body).await);
            webhook::note(&Span::current(), &outcome);
            outcome
        };
        let outcome = posted.instrument(span).await;
        failpoint::hit("alerts.after_post");
        outcome
    }

    /// Nothing more is sent to it. If that can't be stored, its next answer stores it.
    async fn disable(&self, id: &str, why: &str) {
        let now_us = self.shared.clock.now_us();
        let disabling = self
            .shared
            .catalog
            .modify::<EndpointRecord>(id, |endpoint| {
                let enabled = endpoint.disabled.is_empty();
                if enabled {
                    endpoint.disabled = why.to_owned();
                    endpoint.changed_us = now_us;
                }
                enabled
            });
        match disabling.await {
            Ok(_) => {
                self.shared.metrics.disabled.inc();
                tracing::warn!(endpoint = id, why, "endpoint is disabled");
            }
            Err(error) => tracing::warn!(
                endpoint = id,
                error = chain(&error),
                "endpoint is disabled later"
            ),
        }
    }

    /// Counts and measures an attempt that has just ended.
    fn record(
        &self,
        received: &Received<Delivery>,
        outcome: &Outcome,
        took: Duration,
        next: &Result<(), Refusal>,
    ) -> Attempt {
        let delivery = &received.message;
        let ended_us = self.shared.clock.now_us();
        let (then, retry_us) = follows(outcome, next, ended_us);
        let mut attempt = Attempt {
            firing_id: delivery.firing_id.clone(),
            alert_id: delivery.alert_id.clone(),
            attempt: u32::try_from(received.deliveries).unwrap_or(u32::MAX),
            status_code: u32::from(outcome.status),
            error: outcome.error.clone(),
            ended_us,
            endpoint_id: delivery.endpoint_id.clone(),
            duration_us: micros(took),
            outcome: then.into(),
            retry_us,
            redelivery: delivery.redelivery.clone(),
            phase: first_phase(delivery).into(),
            sink: delivery.sink.clone(),
            ..Attempt::default()
        };
        self.shared.metrics.attempted(outcome.label);
        // How long a firing took that somebody asked for once more says nothing, nor when it was explained or over.
        let first = delivery.redelivery.is_empty() && first_phase(delivery) == Phase::Fired;
        if outcome.then == Then::Done && first {
            attempt.decision_to_2xx_us = ended_us - delivery.decided_us;
            attempt.last_frame_to_2xx_us = ended_us - delivery.captured_us;
            self.shared.metrics.delivered(&attempt);
            attempt.capture_to_sampled_us = between(delivery.captured_us, delivery.sampled_us);
            attempt.sampled_to_verdict_us = between(delivery.sampled_us, delivery.judged_us);
            attempt.verdict_to_decision_us = between(delivery.judged_us, delivery.decided_us);
            if matches!(delivery.phase(), Phase::Unspecified | Phase::Fired) {
                self.shared.metrics.staged(&attempt);
            }
        }
        tracing::info!(
            firing = attempt.firing_id,
            alert = attempt.alert_id,
            phase = told::phase(attempt.phase()),
            attempt = attempt.attempt,
            outcome = outcome.label,
            error = attempt.error,
            "delivery was attempted"
        );
        attempt
    }
}

/// What is posted: by the alert's template if it has one, and if that works.
fn body(template: &str, delivery: &Delivery) -> (Bytes, Option<TemplateError>) {
    let usual = delivery.body.clone();
    if template.is_empty() {
        return (usual, None);
    }
    let values: serde_json::Value = serde_json::from_slice(&usual).unwrap_or_default();
    match render(template, &values) {
        Ok(body) => (body, None),
        Err(error) => (usual, Some(error)),
    }
}

/// Deliveries of before there were phases say nothing.
fn first_phase(delivery: &Delivery) -> Phase {
    match delivery.phase() {
        Phase::Unspecified => Phase::Fired,
        phase => phase,
    }
}

/// What becomes of a delivery after an attempt.
fn next(config: &Config, received: &Received<Delivery>, outcome: &Outcome) -> Result<(), Refusal> {
    match outcome.then {
        Then::Done | Then::Drop => Ok(()),
        Then::GiveUp => Err(Refusal::Reject {
            reason: outcome.error.clone(),
        }),
        Then::Retry { asked } => Err(again_or_give_up(config, received, asked, &outcome.error)),
    }
}

/// The same for the log: with the time of the next attempt, 0 if there is none.
fn follows(
    outcome: &Outcome,
    next: &Result<(), Refusal>,
    ended_us: i64,
) -> (delivery::Outcome, i64) {
    match next {
        Ok(()) if outcome.then == Then::Done => (delivery::Outcome::Delivered, 0),
        Err(Refusal::Retry { after, .. }) => {
            let retry_us = ended_us.saturating_add(micros(*after));
            (delivery::Outcome::Retrying, retry_us)
        }
        Ok(()) | Err(_) => (delivery::Outcome::Failed, 0),
    }
}

/// 0 where one of the times is unknown.
fn between(from_us: i64, to_us: i64) -> i64 {
    if from_us == 0 || to_us == 0 {
        return 0;
    }
    to_us.saturating_sub(from_us).max(0)
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

fn again_or_give_up(
    config: &Config,
    received: &Received<Delivery>,
    asked: Option<Duration>,
    error: &str,
) -> Refusal {
    let attempts = received.deliveries;
    let firing = &received.message.firing_id;
    match config.schedule.after(attempts, firing, asked) {
        Some(after) => Refusal::Retry {
            after,
            reason: error.to_owned(),
        },
        None => Refusal::Reject {
            reason: format!("given up after {attempts} attempts: {error}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sightline_egress::Response;
    use sightline_recordings::links::Links;
    use sightline_service::trace::TraceContext;

    #[test]
    fn the_log_tells_the_times_of_a_receiver_that_is_down_for_days() {
        let public = "https://video.example/".parse().expect("a URL");
        let config = Config::new(Links::new(&public, &[7; 32], None));
        let mut received = Received {
            message: Delivery {
                firing_id: "f".to_owned(),
                ..Delivery::default()
            },
            subject: String::new(),
            sequence: 1,
            deliveries: 0,
            trace: TraceContext::default(),
        };
        let mut now_us = 0;
        for minutes in [0.084, 5.0, 30.0, 120.0, 300.0, 600.0, 840.0, 1200.0, 1440.0] {
            received.deliveries += 1;
            let asked = (received.deliveries == 2).then_some(Duration::from_secs(3600));
            let outcome = Outcome::of(&Ok(Response {
                status: 503,
                retry_after: asked,
            }));
            let next = next(&config, &received, &outcome);
            let (then, retry_us) = follows(&outcome, &next, now_us);
            assert_eq!(then, delivery::Outcome::Retrying);
            let scheduled = config.schedule.after(received.deliveries, "f", asked);
            let waited_us = retry_us - now_us;
            assert_eq!(waited_us, micros(scheduled.expect("another attempt")));
            let nominal_us = 60e6 * if asked.is_some() { 60.0 } else { minutes };
            let off = waited_us as f64 / nominal_us;
            assert!((0.79..1.21).contains(&off), "{minutes} min: {waited_us} us");
            now_us = retry_us;
        }
        received.deliveries += 1;
        let outcome = Outcome::of(&Ok(Response {
            status: 503,
            retry_after: Some(Duration::from_secs(1)),
        }));
        let next = next(&config, &received, &outcome);
        assert_eq!(
            follows(&outcome, &next, now_us),
            (delivery::Outcome::Failed, 0)
        );
        let reason = "given up after 10 attempts: HTTP status 503".to_owned();
        assert_eq!(next, Err(Refusal::Reject { reason }));
    }
}
