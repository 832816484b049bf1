//! Alerts, events and streams that are changed and deleted while verdicts come.

use anyhow::{Context, Result};
use sightline_bus::StreamName;
use sightline_proto::ids;
use sightline_proto::internal::{
    AlertRecord, Attempt, DeadLetter, EvaluationRecord, EventRecord, RtStreamRecord,
};
use sightline_testkit::until;

use crate::harness::{Answer, Platform, Receiver, STREAM};

/// Waits until how far an alert has come is stored, or is not any more.
async fn evaluated(platform: &Platform, alert: &str, stored: bool) -> Result<()> {
    until("the evaluation", async || {
        let found = platform.catalog.fetch::<EvaluationRecord>(alert).await?;
        Ok((found.is_some() == stored).then_some(()))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_callback_a_firing_is_told_and_nothing_is_delivered() -> Result<()> {
    let platform = Platform::start().await?;
    let mut receiver = Receiver::start([]).await?;
    platform.alert("quiet", "").await?;
    platform.alert("loud", &receiver.url).await?;
    for suffix in ["quiet", "loud"] {
        platform.verdict(suffix, 0, 0.9).await?;
    }
    let (_, body) = receiver.next().await?;
    assert_eq!(body["alert_id"], "alr-loud");
    assert_eq!(platform.firings(2).await?.len(), 2);
    // Counted once it was told.
    platform
        .counted("sightline_alert_firings_total ", 2)
        .await?;
    // Its deliveries would have no endpoint to go to, and stay.
    let left = platform
        .bus
        .subjects(StreamName::Deliveries, "deliver.*")
        .await?;
    let quiet = format!("deliver.{}", ids::endpoint_id("", ""));
    assert!(!left.contains(&quiet), "{left:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_hold_from_the_next_firing_on() -> Result<()> {
    let platform = Platform::start().await?;
    let mut old = Receiver::start([Answer::Status(503)]).await?;
    let mut new = Receiver::start([]).await?;
    platform.alert("a", &old.url).await?;
    platform.verdict("a", 0, 0.9).await?;
    let (_, first) = old.next().await?;
    platform
        .change::<AlertRecord>("alr-a", |record| {
            let alert = record.alert.get_or_insert_default();
            alert.callback_url.clone_from(&new.url);
            alert.threshold = 0.3;
        })
        .await?;
    platform
        .change::<EventRecord>("evt-a", |record| {
            let event = record.event.get_or_insert_default();
            event.prompt = "Detect fire".into();
            event.label = "fire".into();
        })
        .await?;
    platform.verdict("a", 1, 0.1).await?;
    platform.verdict("a", 2, 0.4).await?;
    let (_, body) = new.next().await?;
    assert_eq!(body["label"], "fire");
    assert_eq!(body["start_time"], "2026-11-24T10:00:10.000000+00:00");
    let explanation = body["explanation"].as_str().context("words")?;
    assert!(explanation.starts_with("\"Detect fire\""), "{explanation}");
    // The one before is still delivered where it was to go.
    let (_, again) = old.next().await?;
    assert_eq!((&again, &again["label"]), (&first, &"smoke".into()));
    Ok(())
}

/// Waits until the log says that a delivery of this alert was given up.
async fn given_up(platform: &Platform, alert: &str) -> Result<()> {
    until("the last attempt", async || {
        let attempts: Vec<Attempt> = platform.read(StreamName::Attempts, "attempt.*").await?;
        let last = attempts.iter().rfind(|attempt| attempt.alert_id == alert);
        let is_last = |last: &&Attempt| last.error == "given up: the alert was deleted";
        Ok(last.filter(is_last).map(drop))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_alert_is_forgotten_and_its_deliveries_are_given_up() -> Result<()> {
    let mut platform = Platform::start().await?;
    let mut down = Receiver::start((0..9).map(|_| Answer::Hang)).await?;
    platform.alert("a", &down.url).await?;
    platform.verdict("a", 0, 0.9).await?;
    // While one is under way, and another time while none runs.
    down.next().await?;
    evaluated(&platform, "alr-a", true).await?;
    platform.delete::<AlertRecord>("alr-a").await?;
    evaluated(&platform, "alr-a", false).await?;
    given_up(&platform, "alr-a").await?;

    // The pulls of the service that stops are new, so that the bus still holds them when the delivery is put back.
    platform.restart().await?;
    while down.seen.try_recv().is_ok() {}
    platform.alert("b", &down.url).await?;
    platform.verdict("b", 0, 0.9).await?;
    down.next().await?;
    platform.stop().await?;
    platform.delete::<AlertRecord>("alr-b").await?;
    while down.seen.try_recv().is_ok() {}
    platform.begin();
    given_up(&platform, "alr-b").await?;
    evaluated(&platform, "alr-b", false).await?;
    until("the deliveries", async || {
        let left = platform.bus.subjects(StreamName::Deliveries, "deliver.*");
        Ok(left.await?.is_empty().then_some(()))
    })
    .await?;
    assert!(down.seen.try_recv().is_err(), "nothing more is posted");
    let letters = platform
        .bus
        .read::<DeadLetter>(StreamName::Dlq, "dlq.*", 10)
        .await?;
    assert!(letters.is_empty(), "{letters:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_more_of_a_deleted_stream_is_judged() -> Result<()> {
    let platform = Platform::start().await?;
    let mut receiver = Receiver::start([]).await?;
    platform.alert("a", &receiver.url).await?;
    platform.verdict("a", 0, 0.9).await?;
    receiver.next().await?;
    platform.delete::<RtStreamRecord>(STREAM).await?;
    platform.verdict("a", 1, 0.9).await?;
    platform.verdict("a", 2, 0.1).await?;
    platform.verdict("a", 3, 0.9).await?;
    platform
        .counted("sightline_alert_verdicts_total ", 4)
        .await?;
    platform.quiet().await?;
    assert_eq!(platform.firings(1).await?.len(), 1);
    assert!(receiver.seen.try_recv().is_err());
    Ok(())
}
