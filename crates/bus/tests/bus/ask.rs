//! Asking and answering.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;
use sightline_bus::{Ask, Bus, BusError};
use sightline_proto::internal::{ThumbnailRequest, ThumbnailResponse};
use sightline_service::Shutdown;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::harness::{LONG, Platform, eventually};

/// A worker that answers with its name, and takes its time when asked for the moment -1: longer than a busy machine takes to
/// have others ask and give up.
fn answering(
    bus: &Bus,
    name: &'static str,
    asked: &Arc<AtomicUsize>,
    shutdown: &Shutdown,
) -> JoinHandle<Result<(), BusError>> {
    let (bus, asked, shutdown) = (bus.clone(), Arc::clone(asked), shutdown.clone());
    tokio::spawn(async move {
        let answer = move |question: ThumbnailRequest| {
            asked.fetch_add(1, Ordering::SeqCst);
            async move {
                if question.at_us == -1 {
                    sleep(Duration::from_secs(3)).await;
                }
                ThumbnailResponse {
                    error: format!("{name} {}", question.at_us),
                    ..ThumbnailResponse::default()
                }
            }
        };
        bus.answer(Ask::Thumbnail, 2, &shutdown, answer).await
    })
}

async fn ask(bus: &Bus, at_us: i64, deadline: Duration) -> Result<String, BusError> {
    let question = ThumbnailRequest {
        at_us,
        ..ThumbnailRequest::default()
    };
    let answer = bus.ask::<ThumbnailResponse>(Ask::Thumbnail, &question, deadline);
    Ok(answer.await?.error)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_all_answers_and_nobody_is_told_at_once() -> Result<()> {
    let platform = Platform::start().await?;
    let bus = &platform.bus;
    let started = Instant::now();
    assert!(matches!(
        ask(bus, 1, LONG).await,
        Err(BusError::Unanswered { .. })
    ));
    assert!(started.elapsed() < LONG / 2);

    let (asked, shutdown) = (Arc::default(), Shutdown::new());
    let workers = ["a", "b"].map(|name| answering(bus, name, &asked, &shutdown));
    eventually(|| async { Ok(ask(bus, 0, LONG).await.ok()) }).await?;
    asked.store(0, Ordering::SeqCst);
    for at_us in 1..=20 {
        let answer = ask(bus, at_us, LONG).await?;
        assert!(answer.ends_with(&format!(" {at_us}")), "{answer}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 20);

    // After the server died they are asked again; a question that was on its way then is lost.
    platform.kill_server()?;
    eventually(|| async { Ok(ask(bus, 7, Duration::from_secs(1)).await.ok()) }).await?;
    shutdown.cancel();
    for worker in workers {
        worker.await??;
    }
    assert!(ask(bus, 8, LONG).await.is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_gone_is_not_answered() -> Result<()> {
    let platform = Platform::start().await?;
    let bus = &platform.bus;
    let (asked, shutdown) = (Arc::default(), Shutdown::new());
    let worker = answering(bus, "a", &asked, &shutdown);
    eventually(|| async { Ok(ask(bus, 0, LONG).await.ok()) }).await?;
    asked.store(0, Ordering::SeqCst);
    // Two places are taken for a while; who asks meanwhile and gives up before that costs no work.
    let long = [0, 1].map(|_| {
        let bus = bus.clone();
        tokio::spawn(async move { ask(&bus, -1, LONG).await })
    });
    eventually(|| async { Ok((asked.load(Ordering::SeqCst) == 2).then_some(())) }).await?;
    let impatient = (0..20).map(|at_us| ask(bus, at_us, Duration::from_millis(50)));
    for answer in futures::future::join_all(impatient).await {
        assert!(matches!(answer, Err(BusError::Unanswered { .. })));
    }
    for long in long {
        assert_eq!(long.await??, "a -1");
    }
    assert_eq!(ask(bus, 5, LONG).await?, "a 5");
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    // What is being answered at the shutdown is finished.
    let last = {
        let bus = bus.clone();
        tokio::spawn(async move { ask(&bus, -1, LONG).await })
    };
    eventually(|| async { Ok((asked.load(Ordering::SeqCst) == 4).then_some(())) }).await?;
    shutdown.cancel();
    assert_eq!(last.await??, "a -1");
    worker.await??;
    Ok(())
}
