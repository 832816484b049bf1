//! Endpoints: secrets that are shown and rotated, and what alerts services are asked.

use sightline_bus::Ask;
use sightline_catalog::endpoints::OVERLAP_US;
use sightline_proto::client::Client;
use sightline_proto::ids;
use sightline_proto::internal::{
    EndpointRecord, EndpointTestRequest, EndpointTestResponse, RedeliveryRequest,
    RedeliveryResponse,
};
use sightline_proto::time::timestamp;
use sightline_proto::v1::{self, Endpoint, endpoint::State};
use tonic::Code;

use crate::harness::{Gateway, NOW_US, reason_of};

/// An alert of a new gateway, and the endpoint that it posts to.
async fn alerting() -> (Gateway, Client, v1::Alert, Endpoint) {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stream = client.camera().await;
    let index = client.index(&stream.id).await;
    let event = client.event().await;
    let alert = client.alert(&event.id, &index.id).await;
    let mut client = gateway.operator().await;
    let endpoints = list(&mut client).await;
    assert_eq!(endpoints.len(), 1);
    let endpoint = endpoints[0].clone();
    (gateway, client, alert, endpoint)
}

async fn list(client: &mut Client) -> Vec<Endpoint> {
    let request = v1::ListEndpointsRequest::default();
    let listed = client.endpoints.list_endpoints(request).await;
    listed.expect("lists").into_inner().endpoints
}

async fn secret(client: &mut Client, endpoint_id: &str) -> String {
    let request = v1::GetEndpointSecretRequest {
        endpoint_id: endpoint_id.to_owned(),
    };
    let found = client.endpoints.get_endpoint_secret(request).await;
    found.expect("a secret").into_inner().secret
}

#[tokio::test]
async fn an_alert_makes_its_endpoint_and_another_at_the_same_url_shares_it() {
    let (_gateway, mut client, alert, endpoint) = Box::pin(alerting()).await;
    let expected = Endpoint {
        id: ids::endpoint_id("default", &alert.callback_url),
        url: alert.callback_url.clone(),
        state: State::Enabled.into(),
        create_time: Some(timestamp(NOW_US)),
        ..Default::default()
    };
    assert_eq!(endpoint, expected);
    for (url, count) in [
        (&alert.callback_url, 1),
        (&"https://hooks.example/2".to_owned(), 2),
    ] {
        let request = v1::UpdateAlertRequest {
            alert_id: alert.id.clone(),
            callback_url: Some(url.clone()),
            ..Default::default()
        };
        client.events.update_alert(request).await.expect("updates");
        assert_eq!(list(&mut client).await.len(), count);
    }
}

#[tokio::test]
async fn a_secret_is_rotated_once_a_day() {
    let (gateway, mut client, _, Endpoint { id, .. }) = Box::pin(alerting()).await;
    let first = secret(&mut client, &id).await;
    assert!(
        first.starts_with("whsec_") && first.len() == 6 + 32,
        "{first}"
    );
    let request = v1::RotateEndpointSecretRequest {
        endpoint_id: id.clone(),
    };
    let rotated = client
        .endpoints
        .rotate_endpoint_secret(request.clone())
        .await;
    let rotated = rotated.expect("rotates").into_inner();
    let until = Some(timestamp(NOW_US + OVERLAP_US));
    assert_ne!(rotated.secret, first);
    assert_eq!(rotated.old_expire_time, until);
    assert_eq!(secret(&mut client, &id).await, rotated.secret);
    assert_eq!(list(&mut client).await[0].old_expire_time, until);

    let refused = client.endpoints.rotate_endpoint_secret(request).await;
    let (reason, field, _) = reason_of(&refused.expect_err("a repetition"));
    assert_eq!(
        (reason.as_str(), field.as_str()),
        ("FAILED_PRECONDITION", "endpoint_id")
    );
    assert_eq!(secret(&mut client, &id).await, rotated.secret);
    let record = gateway.catalog.get::<EndpointRecord>(&id).expect("stored");
    let sealed = String::from_utf8_lossy(&record.value.sealed_secret).into_owned();
    assert!(!sealed.contains("whsec"), "sealed");
}

#[tokio::test]
async fn a_disabled_endpoint_says_why_and_can_be_enabled() {
    let (gateway, mut client, _, Endpoint { id, .. }) = Box::pin(alerting()).await;
    let disable = |endpoint: &mut EndpointRecord| {
        endpoint.disabled = "HTTP status 410".to_owned();
        endpoint.changed_us = 5;
        true
    };
    gateway
        .catalog
        .modify(&id, disable)
        .await
        .expect("modified");
    let shown = &list(&mut client).await[0];
    assert_eq!(
        (shown.state(), shown.detail.as_str()),
        (State::Disabled, "HTTP status 410")
    );
    assert_eq!(shown.change_time, Some(timestamp(5)));
    let request = v1::EnableEndpointRequest { endpoint_id: id };
    let enabled = client.endpoints.enable_endpoint(request).await;
    let enabled = enabled
        .expect("enables")
        .into_inner()
        .endpoint
        .expect("set");
    assert_eq!(
        (enabled.state(), enabled.detail.as_str()),
        (State::Enabled, "")
    );
    assert_eq!(enabled.change_time, Some(timestamp(NOW_US)));
}

#[tokio::test]
async fn tests_and_redeliveries_are_asked_of_an_alerts_service() {
    let (gateway, mut client, alert, Endpoint { id, .. }) = Box::pin(alerting()).await;
    let test = v1::TestEndpointRequest {
        endpoint_id: id.clone(),
    };
    let alone = client.endpoints.test_endpoint(test.clone()).await;
    assert_eq!(
        alone.expect_err("nobody is there").code(),
        Code::Unavailable
    );

    let (bus, shutdown) = (gateway.bus.clone(), gateway.shutdown.clone());
    let tested = async |asked: EndpointTestRequest| EndpointTestResponse {
        status_code: 503,
        error: asked.endpoint_id,
        duration_us: 1500,
    };
    tokio::spawn(async move { bus.answer(Ask::EndpointTest, 1, &shutdown, tested).await });
    let (bus, shutdown) = (gateway.bus.clone(), gateway.shutdown.clone());
    let put_in_line = async |asked: RedeliveryRequest| RedeliveryResponse {
        count: match (asked.firing_id.as_str(), asked.start_us, asked.end_us) {
            ("known", 0, _) => 1,
            ("", 1_000_000, 2_000_000) => 7,
            ("", 1_000_000, NOW_US) => 9,
            _ => 0,
        },
        error: String::new(),
    };
    tokio::spawn(async move { bus.answer(Ask::Redelivery, 1, &shutdown, put_in_line).await });

    let answer = sightline_testkit::until("an alerts service", async || {
        Ok(client.endpoints.test_endpoint(test.clone()).await.ok())
    });
    let answer = answer.await.expect("an answer").into_inner();
    assert_eq!(
        (answer.status_code, answer.error, answer.duration_ms),
        (503, id, 1.5)
    );

    let seconds = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let mut redeliver = async |firing: &str, start_time, end_time| {
        let request = v1::RedeliverRequest {
            alert_id: alert.id.clone(),
            firing_id: firing.to_owned(),
            start_time,
            end_time,
        };
        let answer = client.events.redeliver(request).await;
        answer.map(|answer| answer.into_inner().count)
    };
    let known = sightline_testkit::until("an alerts service", async || {
        Ok(redeliver("known", None, None).await.ok())
    });
    assert_eq!(known.await.expect("an answer"), 1);
    for (start, end, count) in [(1, 2, 7), (1, 0, 9), (3, 4, 0)] {
        let end = (end != 0).then_some(end).and_then(seconds);
        assert_eq!(
            redeliver("", seconds(start), end).await.expect("done"),
            count
        );
    }
    for (firing, start, end, code, at) in [
        ("unknown", None, None, Code::NotFound, "firing_id"),
        ("", None, None, Code::InvalidArgument, "firing_id"),
        (
            "known",
            seconds(1),
            None,
            Code::InvalidArgument,
            "firing_id",
        ),
        (
            "",
            seconds(2),
            seconds(2),
            Code::InvalidArgument,
            "end_time",
        ),
    ] {
        let refused = redeliver(firing, start, end).await.expect_err("refused");
        assert_eq!((refused.code(), reason_of(&refused).1.as_str()), (code, at));
    }
}
