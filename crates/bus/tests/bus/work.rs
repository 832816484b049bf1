//! The worker loop: redelivery, giving up, and what is published.

use anyhow::{Context, Result};
use async_nats::jetstream::stream::DiscardPolicy;
use async_trait::async_trait;
use futures::StreamExt;
use prost::Message;
use sightline_bus::{Handler, Outgoing, Received, Refusal, StreamName, Subject, Work, work};
use sightline_proto::internal::{ConfigRecord, DeadLetter, Observation};
use sightline_service::Shutdown;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::harness::{ACK_WAIT, Does, LONG, Platform, next, observation, scene, scenes, worker};

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_worker_falls_silent_goes_to_another() -> Result<()> {
    let platform = Platform::start().await?;
    platform.observe("a").await?;
    let (first, mut taken) = worker(&platform.bus, scenes("w", -1), Does::Hang);
    assert_eq!(next(&mut taken).await?, ("a".to_owned(), 1));
    first.abort();
    let (_second, mut taken) = worker(&platform.bus, scenes("w", -1), Does::Accept);
    assert_eq!(next(&mut taken).await?.0, "a");
    // Settled: what comes next is another one.
    platform.observe("b").await?;
    assert_eq!(next(&mut taken).await?, ("b".to_owned(), 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_takes_long_stays_with_its_worker() -> Result<()> {
    let platform = Platform::start().await?;
    platform.observe("a").await?;
    let (_first, mut taken) = worker(&platform.bus, scenes("w", -1), Does::TakeLong);
    assert_eq!(next(&mut taken).await?, ("a".to_owned(), 1));
    let (_second, mut others) = worker(&platform.bus, scenes("w", -1), Does::TakeLong);
    platform.observe("b").await?;
    assert_eq!(next(&mut others).await?, ("b".to_owned(), 1));
    platform.observe("c").await?;
    // Whoever is done first takes it, after longer than a worker may be silent.
    let third = tokio::select! {
        third = next(&mut taken) => third?,
        third = next(&mut others) => third?,
    };
    assert_eq!(third, ("c".to_owned(), 1));
    Ok(())
}

/// Publishes one message, lets workers do as told one after the other (each dies with the message unsettled, the last one
/// lives), and compares what the dead letter says.
async fn check(
    message: &impl Message,
    max_deliver: i64,
    workers: &[Does],
    expected: (u64, &str, usize),
) -> Result<()> {
    let platform = Platform::start().await?;
    platform.bus.publish(&scene(), "id", message).await?;
    let (last, dying) = workers.split_last().expect("at least one");
    for does in dying {
        let (task, mut taken) = worker(&platform.bus, scenes("w", max_deliver), *does);
        next(&mut taken).await?;
        task.abort();
    }
    let (_last, _taken) = worker(&platform.bus, scenes("w", max_deliver), *last);
    let letters: Vec<DeadLetter> = platform.held(StreamName::Dlq, "dlq.w", 1).await?;
    let [letter] = &letters[..] else {
        panic!("one message, {} letters", letters.len());
    };
    assert_eq!(
        (letter.deliveries, letter.payload.len()),
        (expected.0, expected.2),
        "{}",
        letter.reason
    );
    assert!(letter.reason.contains(expected.1), "{}", letter.reason);
    assert_eq!(
        (letter.subject.as_str(), letter.consumer.as_str()),
        ("obs.0.scene.rts-1", "w")
    );
    assert!(message.encode_to_vec().starts_with(&letter.payload));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_for_good_becomes_a_dead_letter() -> Result<()> {
    check(&observation("a"), -1, &[Does::Reject], (1, "never", 3)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_too_often_becomes_a_dead_letter() -> Result<()> {
    check(&observation("a"), 3, &[Does::Retry], (3, "not now", 3)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kills_its_workers_becomes_a_dead_letter() -> Result<()> {
    let workers = [Does::Hang, Does::Hang, Does::Accept];
    check(&observation("a"), 2, &workers, (3, "never settled", 3)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_hangs_is_refused_at_its_deadline() -> Result<()> {
    let platform = Platform::start().await?;
    platform.observe("a").await?;
    let bounded = Work {
        deadline: ACK_WAIT,
        ..scenes("w", 2)
    };
    let (_worker, mut taken) = worker(&platform.bus, bounded, Does::Hang);
    for delivery in [1, 2] {
        assert_eq!(next(&mut taken).await?, ("a".to_owned(), delivery));
    }
    let letters: Vec<DeadLetter> = platform.held(StreamName::Dlq, "dlq.w", 1).await?;
    assert!(letters[0].reason.starts_with("not handled within"));
    // The worker is free again.
    platform.observe("b").await?;
    assert_eq!(next(&mut taken).await?, ("b".to_owned(), 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decoded_becomes_a_dead_letter() -> Result<()> {
    let other = ConfigRecord { partitions: 7 };
    check(&other, -1, &[Does::Accept], (1, "decoded", 2)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_as_large_as_can_be_becomes_a_dead_letter_that_is_cut() -> Result<()> {
    let large = observation(&"a".repeat(1_048_400));
    let expected = (1, "never", 1_048_576 - 4096);
    check(&large, -1, &[Does::Reject], expected).await
}

/// Reports the number of each delivery, and has a result of it.
struct Publishing(mpsc::Sender<u64>);

#[async_trait]
impl Handler<Observation> for Publishing {
    async fn handle(&self, received: &Received<Observation>) -> Result<Vec<Outgoing>, Refusal> {
        self.0
            .send(received.deliveries)
            .await
            .expect("the test waits");
        let id = received.message.id.clone();
        Ok(vec![Outgoing::new(results(), id, &received.message)])
    }
}

fn results() -> Subject {
    Subject::Audio {
        engine: "results".to_owned(),
        rtstream: "rts-1".to_owned(),
    }
}

/// The most messages that the bus takes of results, -1 for any number.
async fn room(platform: &Platform, messages: i64) -> Result<()> {
    let context = async_nats::jetstream::new(platform.client().await?);
    let mut stream = context.get_stream(StreamName::Audio.as_str()).await?;
    let mut config = stream.info().await?.config.clone();
    config.max_messages = messages;
    config.discard = DiscardPolicy::New;
    context.update_stream(config).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_there_is_no_room_for_is_held_until_there_is() -> Result<()> {
    let platform = Platform::start().await?;
    platform
        .bus
        .publish(&results(), "first", &observation("first"))
        .await?;
    room(&platform, 1).await?;
    // What is published is seen by whoever listens, whether it is kept or not.
    let client = platform.client().await?;
    let mut tried = client.subscribe(results().to_string()).await?;
    client.flush().await?;
    platform.observe("a").await?;
    let (sender, mut taken) = mpsc::channel(100);
    let (bus, once) = (platform.bus.clone(), scenes("w", 1));
    tokio::spawn(async move { work(&bus, once, Publishing(sender), Shutdown::new()).await });
    assert_eq!(next(&mut taken).await?, 1);
    for _ in 0..3 {
        timeout(LONG, tried.next())
            .await?
            .context("it is tried again")?;
    }
    room(&platform, -1).await?;
    platform.outstanding(&results(), 2).await?;
    platform.observe("b").await?;
    assert_eq!(next(&mut taken).await?, 1, "it was worked on once");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_no_bus_takes_becomes_a_dead_letter() -> Result<()> {
    let platform = Platform::start().await?;
    let large = observation(&"a".repeat(1_048_000));
    platform.bus.publish(&scene(), "large", &large).await?;
    let (sender, _taken) = mpsc::channel(100);
    let (bus, forever) = (platform.bus.clone(), scenes("w", -1));
    tokio::spawn(async move { work(&bus, forever, Publishing(sender), Shutdown::new()).await });
    let letters: Vec<DeadLetter> = platform.held(StreamName::Dlq, "dlq.w", 1).await?;
    assert!(
        letters[0].reason.starts_with("a result of 1048"),
        "{}",
        letters[0].reason
    );
    Ok(())
}
