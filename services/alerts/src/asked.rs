//! What a user asks for, through the gateway: a sample posted to an endpoint, and firings delivered once more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use prost::Message;
use sightline_bus::{Ask, Bus, BusError, ObservationKind, StreamName, Subject};
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{
    AlertRecord, Delivery, EndpointRecord, EndpointTestRequest, EndpointTestResponse, FiringBody,
    Observation, RedeliveryRequest, RedeliveryResponse, RtStreamRecord,
};
use sightline_proto::v1::firing::State;
use sightline_proto::v1::{Alert, Phase};
use sightline_service::{Shutdown, chain};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::attempt::Outcome;
use crate::told::{self, Told};
use crate::{Shared, forget, scenes, webhook};

/// Samples under way at the same time; each ends by the deadline of an attempt.
const TESTS: usize = 16;
/// Redeliveries that are looked up at the same time.
const REDELIVERIES: usize = 2;
/// Deliveries that wait for the bus's confirmation at the same time.
const CONCURRENCY: usize = 32;
/// How many of a stream's newest observations of firings are looked through.
const NEWEST: usize = 10_000;
/// How long to hold back when the bus did not take a subscription.
const PAUSE: Duration = Duration::from_secs(1);

/// Answers until shutdown.
pub(crate) async fn run(shared: Arc<Shared>, shutdown: Shutdown) {
    tokio::join!(
        answer(&shared, Ask::EndpointTest, TESTS, &shutdown, test),
        answer(&shared, Ask::Redelivery, REDELIVERIES, &shutdown, redeliver),
    );
}

async fn answer<Q, A, Fut>(
    shared: &Arc<Shared>,
    ask: Ask<'_>,
    concurrency: usize,
    shutdown: &Shutdown,
    answer: fn(Arc<Shared>, Q) -> Fut,
) where
    Q: Message + Default + 'static,
    A: Message + 'static,
    Fut: Future<Output = A> + Send + 'static,
{
    while !shutdown.is_cancelled() {
        let asked = Arc::clone(shared);
        let answering = shared
            .bus
            .answer(ask, concurrency, shutdown, move |question| {
                answer(Arc::clone(&asked), question)
            });
        if let Err(error) = answering.await {
            tracing::debug!(%error, ?ask, "questions cannot be answered, trying again");
            sleep(PAUSE).await;
        }
    }
}

/// Posts a sample, to a disabled endpoint too: whoever enables it wants to know first.
async fn test(shared: Arc<Shared>, asked: EndpointTestRequest) -> EndpointTestResponse {
    let failed = |error: String| EndpointTestResponse {
        error,
        ..EndpointTestResponse::default()
    };
    let endpoint = match shared
        .catalog
        .fetch::<EndpointRecord>(&asked.endpoint_id)
        .await
    {
        Ok(Some(found)) => found.value,
        Ok(None) => return failed("there is no such endpoint".to_owned()),
        Err(error) => return failed(chain(&error)),
    };
    let now_us = shared.clock.now_us();
    let id = format!("test-{}", Uuid::new_v4());
    let body = sample(&id, now_us);
    let headers = match webhook::headers(&id, &body, &endpoint, &shared.seal, now_us) {
        Ok(headers) => headers,
        Err(error) => return failed(Outcome::unsigned(&error).error),
    };
    let started = Instant::now();
    let headers = webhook::traced(headers);
    let outcome = Outcome::of(&shared.egress.post(&endpoint.url, headers, body).await);
    let took = started.elapsed();
    tracing::info!(
        endpoint = asked.endpoint_id,
        outcome = outcome.label,
        error = outcome.error,
        "endpoint was tested"
    );
    EndpointTestResponse {
        status_code: outcome.status.into(),
        error: outcome.error,
        duration_us: i64::try_from(took.as_micros()).unwrap_or(i64::MAX),
    }
}

fn sample(id: &str, now_us: i64) -> bytes::Bytes {
    let firing = FiringBody {
        firing_id: id.to_owned(),
        label: "test".to_owned(),
        confidence: 1.0,
        explanation: "a test of this endpoint: nothing happened".to_owned(),
        decided_us: now_us,
        ..FiringBody::default()
    };
    let told = Told {
        firing: &firing,
        start_us: now_us,
        end_us: now_us,
        alert: &Alert::default(),
        tenant: "",
        links: None,
        phase: Phase::Fired,
        caption: None,
    };
    told.body()
}

async fn redeliver(shared: Arc<Shared>, asked: RedeliveryRequest) -> RedeliveryResponse {
    let failed = |error| RedeliveryResponse { count: 0, error };
    let record = match forget::known(&shared.catalog, &asked.alert_id).await {
        Ok(Some(record)) => record,
        Ok(None) => return failed("there is no such alert".to_owned()),
        Err(error) => return failed(chain(&error)),
    };
    let alert = record.alert.clone().unwrap_or_default();
    let firings = match firings(&shared, &alert, &asked).await {
        Ok(firings) => firings,
        Err(error) => return failed(chain(&error)),
    };
    let captions = match captions(&shared, &alert).await {
        Ok(captions) => captions,
        Err(error) => return failed(chain(&error)),
    };
    let redelivery = Uuid::new_v4().to_string();
    let deliveries: Vec<Delivery> = firings
        .iter()
        .flat_map(|firing| {
            let caption = captions.get(&firing.start_us).map(String::as_str);
            once_more(&shared, &record, &alert, firing, caption)
        })
        .map(|delivery| Delivery {
            redelivery: redelivery.clone(),
            ..delivery
        })
        .collect();
    let results: Vec<Result<(), BusError>> = stream::iter(deliveries)
        .map(|delivery| put_in_line(shared.bus.clone(), delivery))
        .buffered(CONCURRENCY)
        .collect()
        .await;
    let count = results.iter().filter(|result| result.is_ok()).count();
    let error = results.iter().find_map(|result| result.as_ref().err());
    // Of each firing as many as the alert has receivers.
    let receivers = results.len() / firings.len().max(1);
    let count = count / receivers.max(1);
    tracing::info!(alert = alert.id, count, "firings are delivered once more");
    RedeliveryResponse {
        count: u32::try_from(count).unwrap_or(u32::MAX),
        error: error.map_or_else(String::new, |error| chain(error)),
    }
}

/// A firing as it is now.
#[derive(Debug, PartialEq)]
struct Newest {
    body: FiringBody,
    start_us: i64,
    /// Where its first window ends; of a closed one, its last.
    end_us: i64,
}

/// The firings that are asked for, oldest first.
async fn firings(
    shared: &Shared,
    alert: &Alert,
    asked: &RedeliveryRequest,
) -> Result<Vec<Newest>, BusError> {
    let observed = observed(shared, alert, ObservationKind::Firing).await?;
    Ok(newest(observed, asked))
}

/// What the alert's index said, by where the windows start.
async fn captions(shared: &Shared, alert: &Alert) -> Result<HashMap<i64, String>, BusError> {
    let mut captions = HashMap::new();
    if alert.index_id.is_empty() {
        return Ok(captions);
    }
    for kind in [ObservationKind::Scene, ObservationKind::AudioScene] {
        for observation in observed(shared, alert, kind).await? {
            let (index_id, text) = match observation.body {
                Some(Body::Scene(scene)) => (scene.index_id, scene.text),
                Some(Body::AudioScene(scene)) => (scene.index_id, scene.text),
                _ => continue,
            };
            if index_id == alert.index_id && !text.trim().is_empty() {
                captions.insert(observation.start_us, scenes::caption(text));
            }
        }
    }
    Ok(captions)
}

/// The newest observations of the alert's stream of one kind.
async fn observed(
    shared: &Shared,
    alert: &Alert,
    kind: ObservationKind,
) -> Result<impl Iterator<Item = Observation> + use<>, BusError> {
    let subject = Subject::Observation {
        partition: shared.catalog.partition_of(&alert.rtstream_id),
        kind,
        rtstream: alert.rtstream_id.clone(),
    };
    let observed = shared
        .bus
        .read::<Observation>(StreamName::Observations, &subject.to_string(), NEWEST)
        .await?;
    Ok(observed.into_iter().map(|received| received.message))
}

fn newest(observed: impl Iterator<Item = Observation>, asked: &RedeliveryRequest) -> Vec<Newest> {
    let mut firings: HashMap<String, Newest> = HashMap::new();
    for observation in observed {
        let Some(Body::Firing(body)) = observation.body else {
            continue;
        };
        let wanted = if asked.firing_id.is_empty() {
            (asked.start_us..asked.end_us).contains(&observation.start_us)
        } else {
            body.firing_id == asked.firing_id
        };
        if body.alert_id != asked.alert_id || !wanted {
            continue;
        }
        let known = firings.get(&body.firing_id);
        // What was observed of it later ends later, and is nothing to tell of before it is over.
        let newer = known.is_none_or(|known| {
            known.body.state() != State::Closed
                && (body.state() == State::Closed || observation.end_us < known.end_us)
        });
        if newer {
            let firing = Newest {
                start_us: observation.start_us,
                end_us: observation.end_us,
                body,
            };
            firings.insert(firing.body.firing_id.clone(), firing);
        }
    }
    let mut firings: Vec<_> = firings.into_values().collect();
    firings.sort_by_key(|firing| firing.start_us);
    firings
}

/// The same message again, with what is known by now.
fn once_more(
    shared: &Shared,
    record: &AlertRecord,
    alert: &Alert,
    firing: &Newest,
    caption: Option<&str>,
) -> Vec<Delivery> {
    let stream = shared.catalog.get::<RtStreamRecord>(&alert.rtstream_id);
    let recorded = stream
        .and_then(|stream| Some(stream.value.rtstream.as_ref()?.store))
        .unwrap_or_default();
    let told = Told {
        firing: &firing.body,
        start_us: firing.start_us,
        end_us: firing.end_us,
        alert,
        tenant: &record.tenant,
        links: recorded.then_some(&shared.config.links),
        phase: Phase::Fired,
        caption,
    };
    told.deliveries()
}

async fn put_in_line(bus: Bus, delivery: Delivery) -> Result<(), BusError> {
    told::put_in_line(&bus, &[delivery]).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed((firing, alert, times, state): (&str, &str, (i64, i64), State)) -> Observation {
        let body = FiringBody {
            firing_id: firing.to_owned(),
            alert_id: alert.to_owned(),
            state: state.into(),
            ..FiringBody::default()
        };
        Observation {
            start_us: times.0,
            end_us: times.1,
            body: Some(Body::Firing(body)),
            ..Observation::default()
        }
    }

    #[test]
    fn each_firing_is_taken_as_it_opened_or_is_over() {
        use State::{Closed, Open};
        let observations = [
            ("f2", "a", (20, 30), Open),
            ("f1", "a", (0, 20), Open),
            ("f1", "a", (0, 10), Open),
            ("f3", "b", (5, 9), Open),
            ("f2", "a", (20, 40), Open),
            ("f2", "a", (20, 40), Closed),
            ("f4", "a", (50, 60), Open),
            ("f5", "a", (60, 70), Closed),
            ("f5", "a", (60, 65), Open),
        ];
        let check = |firing: &str, times: (i64, i64), expected: &[(&str, i64, State)]| {
            let asked = RedeliveryRequest {
                alert_id: "a".to_owned(),
                firing_id: firing.to_owned(),
                start_us: times.0,
                end_us: times.1,
            };
            let found = newest(observations.into_iter().map(observed), &asked);
            let found: Vec<_> = found
                .iter()
                .map(|found| (&*found.body.firing_id, found.end_us, found.body.state()))
                .collect();
            assert_eq!(found, expected, "{firing} {times:?}");
        };
        check("", (0, 50), &[("f1", 10, Open), ("f2", 40, Closed)]);
        check("", (1, 51), &[("f2", 40, Closed), ("f4", 60, Open)]);
        check("f5", (0, 0), &[("f5", 70, Closed)]);
        check("f3", (0, 0), &[]);
    }
}
