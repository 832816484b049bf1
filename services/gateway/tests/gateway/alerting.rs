//! Alerts and what came of them: firings and deliveries.

use sightline_bus::{StreamName, Subject};
use sightline_proto::ids;
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{Attempt, FiringBody, Observation};
use sightline_proto::time::timestamp;
use sightline_proto::v1;

use crate::harness::{Gateway, NOW_US};

#[tokio::test]
async fn alerts_are_created_enabled_and_can_be_disabled() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stream = client.camera().await;
    let index = client.index(&stream.id).await;
    let event = client.event().await;
    let alert = client.alert(&event.id, &index.id).await;
    assert_eq!(alert.rtstream_id, stream.id);
    assert_eq!(alert.threshold, 0.6, "the server's default");
    assert_eq!(alert.state(), v1::alert::State::Enabled);

    let alert_id = alert.id.clone();
    let answer = client
        .events
        .disable_alert(v1::DisableAlertRequest { alert_id })
        .await;
    let disabled = answer
        .expect("disables")
        .into_inner()
        .alert
        .expect("an alert");
    assert_eq!(disabled.state(), v1::alert::State::Disabled);
    let alert_id = alert.id.clone();
    let answer = client
        .events
        .enable_alert(v1::EnableAlertRequest { alert_id })
        .await;
    let enabled = answer
        .expect("enables")
        .into_inner()
        .alert
        .expect("an alert");
    assert_eq!(enabled.state(), v1::alert::State::Enabled);

    let other = client.index(&stream.id).await;
    for (index_id, expected) in [(String::new(), 1), (index.id, 1), (other.id, 0)] {
        let request = v1::ListAlertsRequest {
            index_id,
            ..Default::default()
        };
        let answer = client.events.list_alerts(request).await.expect("lists");
        assert_eq!(answer.into_inner().alerts.len(), expected);
    }
    let answer = client
        .events
        .list_events(v1::ListEventsRequest::default())
        .await;
    // Behind it are those that are built in.
    assert_eq!(answer.expect("lists").into_inner().events[0], event);
}

#[tokio::test]
async fn firings_are_merged_and_deliveries_listed_newest_first() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stream = client.camera().await;
    let index = client.index(&stream.id).await;
    let event = client.event().await;
    let alert = client.alert(&event.id, &index.id).await;
    for (number, (firing, start_us, end_us)) in [("f1", 0, 5), ("f1", 0, 10), ("f2", 30, 35)]
        .into_iter()
        .enumerate()
    {
        gateway
            .observe(&Observation {
                id: format!("observation-{number}"),
                rtstream_id: stream.id.clone(),
                start_us,
                end_us,
                body: Some(Body::Firing(FiringBody {
                    firing_id: firing.to_owned(),
                    alert_id: alert.id.clone(),
                    label: "crossing".to_owned(),
                    ..Default::default()
                })),
                ..Default::default()
            })
            .await;
    }
    let request = v1::ListFiringsRequest {
        alert_id: alert.id.clone(),
        ..Default::default()
    };
    let answer = client.events.list_firings(request).await.expect("lists");
    let firings: Vec<_> = answer
        .into_inner()
        .firings
        .into_iter()
        .map(|f| (f.id, f.start_time, f.end_time))
        .collect();
    let expected = [("f2", 30, 35), ("f1", 0, 10)]
        .map(|(id, start, end)| (id.to_owned(), Some(timestamp(start)), Some(timestamp(end))));
    assert_eq!(firings, expected);

    attempts(&gateway, &alert).await;
    let mut request = v1::ListDeliveriesRequest {
        alert_id: alert.id,
        page_size: 2,
        ..Default::default()
    };
    let mut listed = Vec::new();
    loop {
        let answer = client.events.list_deliveries(request.clone()).await;
        let page = answer.expect("a page").into_inner();
        listed.extend(
            page.deliveries
                .into_iter()
                .map(|d| (d.attempt, d.status_code)),
        );
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(listed, [(3, 200), (2, 503), (1, 0)]);
}

/// Three attempts of an alert, and one of another alert at the same endpoint.
async fn attempts(gateway: &Gateway, alert: &v1::Alert) {
    let subject = Subject::Attempt {
        endpoint: ids::endpoint_id("default", &alert.callback_url),
    };
    for (attempt, status_code, alert_id) in [
        (1, 0, &alert.id),
        (2, 503, &alert.id),
        (3, 200, &alert.id),
        (1, 200, &"other".to_owned()),
    ] {
        let message = Attempt {
            firing_id: "f1".to_owned(),
            alert_id: alert_id.clone(),
            attempt,
            status_code,
            ended_us: NOW_US + i64::from(attempt),
            ..Default::default()
        };
        let id = format!("{alert_id}-{attempt}");
        gateway
            .bus
            .publish(&subject, &id, &message)
            .await
            .expect("taken");
    }
    let held = gateway.bus.last_sequence(StreamName::Attempts).await;
    assert_eq!(held.expect("counted"), 4);
}
