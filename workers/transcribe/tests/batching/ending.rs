//! What waits when nothing more comes.

use std::time::Duration;

use anyhow::{Context, Result};
use sightline_proto::internal::{BatchingRecord, IndexRecord, RtStreamRecord, RunRecord};
use sightline_proto::v1::audio_batching::Batch;
use sightline_proto::v1::rt_stream::{Playback, State};
use tokio::time::{sleep, timeout};

use crate::harness::{EPOCH_US, LONG, Platform, SECOND_US, STREAM, Worker, time, words};

/// An index of each kind with words that wait.
async fn waiting(platform: &Platform, worker: &Worker) -> Result<()> {
    platform.index("idx-words", words(5), 0).await?;
    platform
        .index("idx-sentences", Batch::Sentences(1), 0)
        .await?;
    platform.index("idx-time", time(10), 0).await?;
    for index in ["idx-words", "idx-sentences", "idx-time"] {
        worker.sees(index, |_| true).await?;
    }
    platform.say(12, "so it was").await?;
    for index in ["idx-words", "idx-sentences", "idx-time"] {
        platform.waits(index, 3).await?;
    }
    Ok(())
}

fn run(epoch_us: i64, state: State) -> RunRecord {
    RunRecord {
        epoch_us,
        state: state.into(),
        ..RunRecord::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_over_leaves_nothing_waiting() -> Result<()> {
    for over in [
        run(EPOCH_US, State::Ended),
        run(EPOCH_US, State::Stopped),
        run(EPOCH_US, State::Failed),
        run(EPOCH_US + 1, State::Active),
    ] {
        let platform = Platform::start().await?;
        // It is not over yet: however much later it is, only times on the grid are.
        platform
            .catalog
            .create(STREAM, &run(EPOCH_US, State::Active))
            .await?;
        let worker = platform.serve().await?;
        waiting(&platform, &worker).await?;
        platform.clock.set(EPOCH_US + 900 * SECOND_US);
        let grid = ["1@10-20 so it was"];
        assert_eq!(platform.shown("idx-time", 1).await?, grid);
        let found = platform.catalog.fetch::<RunRecord>(STREAM).await?;
        let revision = found.context("a run")?.revision;
        platform.catalog.update(STREAM, &over, revision).await?;
        for index in ["idx-words", "idx-sentences"] {
            platform.passes_until(index, 1).await?;
            let shown = platform.shown(index, 1).await?;
            assert_eq!(shown, ["0@12-14.5 so it was"], "{over:?}");
        }
        assert_eq!(platform.shown("idx-time", 1).await?, grid);
        worker.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_not_heard_any_more_leaves_nothing_waiting() -> Result<()> {
    let platform = Platform::start().await?;
    let worker = platform.serve().await?;
    waiting(&platform, &worker).await?;
    let muted = platform.catalog.modify::<RtStreamRecord>(STREAM, |record| {
        if let Some(stream) = &mut record.rtstream {
            stream.transcribe = false;
        }
        true
    });
    muted.await?;
    for index in ["idx-words", "idx-sentences"] {
        platform.passes_until(index, 1).await?;
        assert_eq!(platform.shown(index, 1).await?, ["0@12-14.5 so it was"]);
    }
    assert_eq!(platform.shown("idx-time", 1).await?, ["1@10-20 so it was"]);
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_played_fast_has_a_time_of_its_own() -> Result<()> {
    let platform = Platform::start().await?;
    let fast = platform.catalog.modify::<RtStreamRecord>(STREAM, |record| {
        if let Some(stream) = &mut record.rtstream {
            stream.set_playback(Playback::Fast);
        }
        true
    });
    fast.await?;
    platform.clock.set(EPOCH_US + 1000 * SECOND_US);
    let worker = platform.serve().await?;
    waiting(&platform, &worker).await?;
    platform.clock.set(EPOCH_US + 2000 * SECOND_US);
    platform.say(17, "said").await?;
    // Only what is said later ends a time.
    platform.say(31, "later").await?;
    let shown = platform.shown("idx-time", 1).await?;
    assert_eq!(shown, ["1@10-20 so it was said"]);
    platform
        .catalog
        .create(STREAM, &run(EPOCH_US, State::Ended))
        .await?;
    platform.waits("idx-time", 1).await?;
    platform.passes_until("idx-time", 2).await?;
    let shown = platform.shown("idx-time", 2).await?;
    assert_eq!(shown[1], "3@30-40 later");
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_of_a_deleted_index_goes_with_it() -> Result<()> {
    let platform = Platform::start().await?;
    let worker = platform.serve().await?;
    waiting(&platform, &worker).await?;
    let found = platform.catalog.fetch::<IndexRecord>("idx-words").await?;
    let revision = found.context("an index")?.revision;
    platform
        .catalog
        .delete::<IndexRecord>("idx-words", revision)
        .await?;
    let gone = async {
        while platform
            .catalog
            .get::<BatchingRecord>("idx-words")
            .is_some()
        {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, gone).await?;
    assert!(platform.batches("idx-words", 0).await?.is_empty());
    worker.stop().await
}
