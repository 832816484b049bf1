//! The loop for consumers that need order.

use std::time::Duration;

use anyhow::Result;
use async_trait::async_trait;
use sightline_bus::{
    BatchHandler, Bus, ObservationKind, Outgoing, Received, Refusal, StreamName, Subject,
    work_in_order,
};
use sightline_proto::internal::{DeadLetter, Observation};
use sightline_service::Shutdown;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::harness::{Platform, next, observation, scenes};

const BATCH: usize = 4;

/// Reports each batch, refuses the first `refusals`, rejects what holds "bad", and repeats the rest as verdicts.
struct Repeats {
    refusals: usize,
    reports: mpsc::Sender<Vec<String>>,
}

#[async_trait]
impl BatchHandler<Observation> for Repeats {
    async fn handle(&mut self, batch: &[Received<Observation>]) -> Result<Vec<Outgoing>, Refusal> {
        let ids: Vec<String> = batch.iter().map(|r| r.message.id.clone()).collect();
        self.reports
            .send(ids.clone())
            .await
            .expect("the test waits");
        if self.refusals > 0 {
            self.refusals -= 1;
            return Err(Refusal::Retry {
                after: Duration::from_millis(10),
                reason: "not now".to_owned(),
            });
        }
        if ids.iter().any(|id| id == "bad") {
            return Err(Refusal::Reject {
                reason: "bad".to_owned(),
            });
        }
        let subject = || Subject::Observation {
            partition: 0,
            kind: ObservationKind::Verdict,
            rtstream: "rts-1".to_owned(),
        };
        let repeated = |id: String| Outgoing::new(subject(), format!("of-{id}"), &observation(&id));
        Ok(ids.into_iter().map(repeated).collect())
    }
}

fn start(bus: &Bus, refusals: usize) -> (JoinHandle<()>, mpsc::Receiver<Vec<String>>) {
    let (reports, reported) = mpsc::channel(1000);
    let bus = bus.clone();
    let handler = Repeats { refusals, reports };
    let task = tokio::spawn(async move {
        work_in_order(&bus, scenes("o", -1), BATCH, handler, Shutdown::new())
            .await
            .expect("works");
    });
    (task, reported)
}

/// What comes out of messages with these ids, in any order: results of one batch are published at the same time.
async fn check(ids: &[&str], expected: &[&str]) -> Result<Platform> {
    let platform = Platform::start().await?;
    for id in ids {
        platform.observe(id).await?;
    }
    let (_task, _reported) = start(&platform.bus, 0);
    let out: Vec<Observation> = platform
        .held(StreamName::Observations, "obs.0.verdict.*", expected.len())
        .await?;
    let mut out: Vec<_> = out.iter().map(|o| o.id.as_str()).collect();
    out.sort_unstable();
    assert_eq!(out, expected);
    Ok(platform)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_accepted_comes_out_once() -> Result<()> {
    let ids = ["0", "1", "2", "3", "4", "5"];
    check(&ids, &ids).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_batch_is_handled_again_before_anything_else() -> Result<()> {
    let platform = Platform::start().await?;
    for id in 0..6 {
        platform.observe(&id.to_string()).await?;
    }
    let (_task, mut reported) = start(&platform.bus, 3);
    let first = next(&mut reported).await?;
    for _ in 0..3 {
        assert_eq!(next(&mut reported).await?, first);
    }
    let mut seen = first;
    while seen.len() < 6 {
        seen.extend(next(&mut reported).await?);
    }
    assert_eq!(seen, ["0", "1", "2", "3", "4", "5"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_message_at_fault_alone_is_given_up() -> Result<()> {
    let platform = check(&["0", "1", "bad", "3"], &["0", "1", "3"]).await?;
    let letters: Vec<DeadLetter> = platform.held(StreamName::Dlq, "dlq.o", 1).await?;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].reason, "bad");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_worker_died_comes_again_in_order() -> Result<()> {
    let platform = Platform::start().await?;
    for id in ["0", "1", "2"] {
        platform.observe(id).await?;
    }
    let (first, mut reported) = start(&platform.bus, usize::MAX);
    let mut taken = next(&mut reported).await?;
    while taken.len() < 3 {
        taken = next(&mut reported).await?;
    }
    first.abort();
    let (_second, mut reported) = start(&platform.bus, 0);
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.extend(next(&mut reported).await?);
    }
    assert_eq!(seen, ["0", "1", "2"]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_removed_while_its_worker_is_busy_is_made_again() -> Result<()> {
    let platform = Platform::start().await?;
    platform.observe("0").await?;
    let (reports, mut reported) = mpsc::channel(1);
    let (bus, handler) = (
        platform.bus.clone(),
        Repeats {
            refusals: 2,
            reports,
        },
    );
    let working = tokio::spawn(async move {
        work_in_order(&bus, scenes("o", -1), BATCH, handler, Shutdown::new()).await
    });
    // It goes on when somebody hears its next reports.
    next(&mut reported).await?;
    let removing = platform
        .bus
        .remove_idle_consumers(StreamName::Observations, "o", &[]);
    assert_eq!(removing.await?, ["o"]);
    tokio::spawn(async move { while reported.recv().await.is_some() {} });
    platform.observe("1").await?;
    let out: Vec<Observation> = platform
        .held(StreamName::Observations, "obs.0.verdict.*", 2)
        .await?;
    assert_eq!([&out[0].id, &out[1].id], ["0", "1"]);
    working.abort();
    Ok(())
}
