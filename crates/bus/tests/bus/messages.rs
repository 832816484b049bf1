//! What the streams keep, and following them.

use anyhow::{Context, Result};
use futures::StreamExt;
use sightline_bus::{Received, Start, StreamName, Subject};
use sightline_proto::internal::{FrameWindow, Observation};
use tokio::time::timeout;

use crate::harness::{Does, LONG, Platform, eventually, next, observation, scene, scenes, worker};

#[tokio::test]
async fn what_has_the_same_id_is_taken_once() -> Result<()> {
    let platform = Platform::start().await?;
    let mut sequences = Vec::new();
    for id in ["a", "b", "a", "a", "c", "b"] {
        sequences.push(platform.observe(id).await?);
    }
    assert_eq!(sequences, [1, 2, 1, 1, 3, 2]);
    let held: Vec<Observation> = platform.held(StreamName::Observations, "obs.>", 3).await?;
    let ids: Vec<_> = held.iter().map(|o| o.id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "c"]);
    assert_eq!(
        platform.bus.last_sequence(StreamName::Observations).await?,
        3
    );
    Ok(())
}

#[tokio::test]
async fn of_frames_the_newest_two_of_each_sampling_are_kept() -> Result<()> {
    let platform = Platform::start().await?;
    let frames = |rtstream: &str, sampling: &str| Subject::Frames {
        model: "m".to_owned(),
        rtstream: rtstream.to_owned(),
        sampling: sampling.to_owned(),
    };
    for (rtstream, sampling, windows, expected) in [
        ("rts-1", "5000000x2", 5, 2),
        ("rts-1", "1000000x1", 2, 2),
        ("rts-2", "5000000x2", 1, 1),
    ] {
        let subject = frames(rtstream, sampling);
        for window in 0..windows {
            let message = FrameWindow {
                window,
                ..FrameWindow::default()
            };
            let id = format!("{subject}-{window}");
            platform.bus.publish(&subject, &id, &message).await?;
        }
        assert_eq!(platform.bus.outstanding(&subject).await?, expected);
    }
    // Superseded, so never handed to anybody.
    let consumer = sightline_bus::Work {
        stream: StreamName::Frames,
        filter: frames("rts-1", "5000000x2").to_string(),
        ..scenes("caption", -1)
    };
    let (handled, mut windows) = tokio::sync::mpsc::channel(10);
    let bus = platform.bus.clone();
    tokio::spawn(async move {
        let shutdown = sightline_service::Shutdown::new();
        sightline_bus::work(&bus, consumer, Windows(handled), shutdown).await
    });
    assert_eq!(
        (next(&mut windows).await?, next(&mut windows).await?),
        (3, 4)
    );
    platform.outstanding(&frames("rts-1", "5000000x2"), 0).await
}

struct Windows(tokio::sync::mpsc::Sender<u64>);

#[async_trait::async_trait]
impl sightline_bus::Handler<FrameWindow> for Windows {
    async fn handle(
        &self,
        received: &Received<FrameWindow>,
    ) -> Result<Vec<sightline_bus::Outgoing>, sightline_bus::Refusal> {
        let window = received.message.window;
        self.0.send(window).await.expect("the test waits");
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn reading_returns_the_newest_oldest_first() -> Result<()> {
    let platform = Platform::start().await?;
    for id in 0..600 {
        platform.observe(&id.to_string()).await?;
    }
    for (newest, expected) in [(0, 600..600), (2, 598..600), (600, 0..600), (1000, 0..600)] {
        let read = platform
            .bus
            .read::<Observation>(StreamName::Observations, "obs.>", newest)
            .await?;
        let ids: Vec<_> = read.iter().map(|r| r.message.id.clone()).collect();
        let expected: Vec<_> = expected.map(|id| id.to_string()).collect();
        assert_eq!(ids, expected, "newest {newest}");
    }
    Ok(())
}

#[tokio::test]
async fn a_tail_starts_where_it_is_told() -> Result<()> {
    let platform = Platform::start().await?;
    for id in ["1", "2", "3"] {
        platform.observe(id).await?;
    }
    for (start, then, expected) in [
        (Start::Beginning, "4", "1"),
        (Start::After(0), "5", "1"),
        (Start::After(1), "6", "2"),
        (Start::After(6), "7", "7"),
        (Start::New, "8", "8"),
    ] {
        let mut tail = platform
            .bus
            .tail::<Observation>(StreamName::Observations, "obs.>", start)
            .await?;
        platform.observe(then).await?;
        let first = timeout(LONG, tail.next())
            .await?
            .context("the tail ended")?;
        assert_eq!(first?.message.id, expected, "{start:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tails_and_workers_go_on_after_the_server_died() -> Result<()> {
    let platform = Platform::start().await?;
    let mut tail = platform
        .bus
        .tail::<Observation>(StreamName::Observations, "obs.>", Start::New)
        .await?;
    let (_worker, mut handled) = worker(&platform.bus, scenes("w", -1), Does::Accept);
    let mut expected = 0;
    for round in 0..2 {
        if round > 0 {
            platform.kill_server()?;
        }
        for _ in 0..3 {
            let id = expected.to_string();
            expected += 1;
            // The same id until it is confirmed: taken once, however often it is sent.
            eventually(|| async { Ok(platform.observe(&id).await.ok()) }).await?;
            let followed = timeout(LONG, async {
                // Errors say that it can't go on at the moment.
                tail.by_ref()
                    .filter_map(async |item| item.ok())
                    .boxed()
                    .next()
                    .await
            });
            let followed = followed
                .await
                .context("the tail hangs")?
                .context("it ended")?;
            assert_eq!(
                (followed.message.id.as_str(), followed.sequence),
                (id.as_str(), expected)
            );
            // What was acknowledged just before the server died may come again before it.
            while next(&mut handled).await?.0 != id {}
        }
    }
    let held = platform
        .bus
        .publish(&scene(), "0", &observation("0"))
        .await?;
    assert_eq!(held, 1, "ids are known after a restart too");
    Ok(())
}
