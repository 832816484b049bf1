//! Receivers that want nothing more, that want it again, and that are asked whether they are there.

use std::time::Duration;

use anyhow::{Context, Result};
use sightline_bus::{Ask, StreamName};
use sightline_catalog::endpoints;
use sightline_proto::ids;
use sightline_proto::internal::{
    Attempt, DeadLetter, EndpointRecord, EndpointTestRequest, EndpointTestResponse,
    RedeliveryRequest, RedeliveryResponse,
};
use sightline_proto::v1::delivery::Outcome;

use crate::harness::{Answer, EPOCH_US, LONG, Platform, Receiver};

async fn redeliver(platform: &Platform, asked: RedeliveryRequest) -> Result<RedeliveryResponse> {
    let asked = RedeliveryRequest {
        alert_id: "alr-a".to_owned(),
        ..asked
    };
    platform.ask(Ask::Redelivery, &asked).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_answers_410_is_disabled_and_gets_what_it_missed_when_it_is_back() -> Result<()> {
    let platform = Platform::start().await?;
    let mut gone = Receiver::start([Answer::Status(410)]).await?;
    platform.alert("a", &gone.url).await?;
    let id = ids::endpoint_id("", &gone.url);
    platform.verdict("a", 0, 0.9).await?;
    let (first_headers, first) = gone.next().await?;
    // The attempt is logged after the endpoint is disabled: the next one is not sent.
    let subject = format!("attempt.{id}");
    platform
        .held::<Attempt>(StreamName::Attempts, &subject, 1)
        .await?;
    platform.verdict("a", 1, 0.1).await?;
    platform.verdict("a", 2, 0.9).await?;
    let attempts: Vec<Attempt> = platform.held(StreamName::Attempts, &subject, 2).await?;
    let seen: Vec<_> = attempts
        .iter()
        .map(|a| (a.status_code, a.outcome(), a.retry_us))
        .collect();
    assert_eq!(seen, [(410, Outcome::Failed, 0), (0, Outcome::Failed, 0)]);
    assert!(attempts[1].error.contains("410"), "{}", attempts[1].error);
    assert!(gone.seen.try_recv().is_err(), "nothing more is posted");
    assert_eq!(
        platform
            .held::<DeadLetter>(StreamName::Dlq, "dlq.*", 2)
            .await?
            .len(),
        2
    );
    let endpoint = platform
        .catalog
        .fetch::<EndpointRecord>(&id)
        .await?
        .context("known")?;
    assert!(endpoint.value.disabled.contains("410"), "{endpoint:?}");
    assert!(endpoint.value.changed_us > 0);
    assert!(
        platform
            .metrics
            .encode()
            .contains("sightline_alert_endpoints_disabled_total 1")
    );

    platform
        .change::<EndpointRecord>(&id, |endpoint| endpoint.disabled.clear())
        .await?;
    let firing_id = first_headers["webhook-id"].to_str()?.to_owned();
    let answer = redeliver(
        &platform,
        RedeliveryRequest {
            firing_id,
            ..Default::default()
        },
    )
    .await?;
    assert_eq!((answer.count, answer.error.as_str()), (1, ""));
    // The same, but that it is over by now.
    let over = |mut body: serde_json::Value| {
        body["state"] = "closed".into();
        body
    };
    let (headers, body) = gone.next().await?;
    assert_eq!(
        (&headers["webhook-id"], &over(body)),
        (&first_headers["webhook-id"], &over(first.clone()))
    );

    let times = RedeliveryRequest {
        start_us: EPOCH_US,
        end_us: EPOCH_US + 3 * platform.window_us,
        ..Default::default()
    };
    assert_eq!(redeliver(&platform, times).await?.count, 2);
    let mut bodies = [gone.next().await?.1, gone.next().await?.1];
    bodies.sort_by_key(|body| body["start_time"].to_string());
    assert_eq!(bodies[0], over(first));
    assert_ne!(bodies[1]["firing_id"], bodies[0]["firing_id"]);
    let attempts: Vec<Attempt> = platform.held(StreamName::Attempts, &subject, 5).await?;
    for attempt in &attempts[2..] {
        assert_eq!(
            (attempt.attempt, attempt.outcome()),
            (1, Outcome::Delivered)
        );
        assert!(!attempt.redelivery.is_empty());
        assert_eq!(attempt.decision_to_2xx_us, 0);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_says_what_follows_from_each_attempt() -> Result<()> {
    let platform = Platform::start().await?;
    let mut busy = Receiver::start([Answer::Later(1), Answer::Status(500)]).await?;
    platform.alert("a", &busy.url).await?;
    platform.verdict("a", 0, 0.9).await?;
    for _ in 0..3 {
        busy.next().await?;
    }
    let id = ids::endpoint_id("", &busy.url);
    let subject = format!("attempt.{id}");
    let attempts: Vec<Attempt> = platform.held(StreamName::Attempts, &subject, 3).await?;
    let seen: Vec<_> = attempts
        .iter()
        .map(|a| (a.status_code, a.outcome()))
        .collect();
    assert_eq!(
        seen,
        [
            (429, Outcome::Retrying),
            (500, Outcome::Retrying),
            (204, Outcome::Delivered)
        ]
    );
    for pair in attempts.windows(2) {
        assert!(pair[1].ended_us >= pair[0].retry_us, "not before its time");
    }
    assert_eq!(attempts[0].retry_us - attempts[0].ended_us, 1_000_000);
    assert_eq!(attempts[2].retry_us, 0);
    for attempt in &attempts {
        assert_eq!(attempt.endpoint_id, id);
        assert!((1..LONG.as_micros() as i64).contains(&attempt.duration_us));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_says_what_the_receiver_answers() -> Result<()> {
    let platform = Platform::start().await?;
    let test = async |url: &str| -> Result<EndpointTestResponse> {
        let (id, _) = endpoints::ensure(&platform.catalog, &platform.seal, "", url, 1).await?;
        platform
            .change::<EndpointRecord>(&id, |endpoint| endpoint.disabled = "410".to_owned())
            .await?;
        let asked = EndpointTestRequest { endpoint_id: id };
        platform.ask(Ask::EndpointTest, &asked).await
    };
    let mut receiver =
        Receiver::start([Answer::Status(204), Answer::Status(500), Answer::Hang]).await?;
    for (status, error) in [
        (204, ""),
        (500, "HTTP status 500"),
        (0, "no answer within 2.5s"),
    ] {
        let answer = test(&receiver.url).await?;
        assert_eq!((answer.status_code, answer.error.as_str()), (status, error));
        let took = Duration::from_micros(u64::try_from(answer.duration_us)?);
        assert_eq!(took >= Duration::from_millis(2500), status == 0, "{took:?}");
        let (headers, body) = receiver.next().await?;
        assert_eq!(
            headers["webhook-id"],
            body["firing_id"].as_str().context("an id")?
        );
        assert!(headers["webhook-signature"].to_str()?.starts_with("v1,"));
    }
    let answer = test("http://169.254.169.254/latest").await?;
    assert!(answer.error.contains("169.254.169.254"), "{}", answer.error);
    Ok(())
}
