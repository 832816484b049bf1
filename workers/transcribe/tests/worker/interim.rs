//! What is still being said.

use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use sightline_bus::Ask;
use sightline_inference::whisper::SAMPLE_RATE;
use tokio::time::{sleep, timeout};

use crate::harness::{ENGINE, EPOCH_US, LONG, Platform, chunk, example, transcript};

/// How long a line may take from its answer to whoever listens.
const A_MOMENT: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn what_is_heard_so_far_is_told_to_who_listens_and_kept_nowhere() -> Result<()> {
    let platform = Platform::start().await?;
    let mut lines = platform.bus.interim_lines().await?;
    let start_us = EPOCH_US + 7_000_000;
    let whole = example("ex3.wav")?;
    let so_far = chunk(start_us, whole[..SAMPLE_RATE * 2 * 12 / 5].to_vec());
    let ask = || async {
        let ask = Ask::Interim(ENGINE);
        platform.bus.ask::<()>(ask, &so_far, LONG).await
    };
    // Until the worker has subscribed, the bus says at once that nobody is there; a busy machine is late with the first lines.
    let asking = async {
        loop {
            if ask().await.is_ok()
                && let Ok(line) = timeout(A_MOMENT, lines.next()).await
            {
                return line;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    let line = timeout(LONG, asking).await?.context("a line")?;
    let body = transcript(&line)?;
    assert_eq!(body.text, "Unit two has arrived at the entrance.");
    assert_eq!((body.interim, line.id.as_str()), (true, ""));
    assert!(
        line.start_us > start_us && line.end_us < start_us + 2_400_000,
        "{line:?}"
    );
    assert_eq!(body.words.len(), 7);
    // While all threads have what is over, nothing is made of what is not.
    let (called, busy) = (
        platform.model.called.load(Ordering::SeqCst),
        platform.interim("busy"),
    );
    platform.model.set_gate(false);
    platform
        .publish(&chunk(EPOCH_US, example("ex1.wav")?))
        .await?;
    platform.called(called + 1).await?;
    timeout(LONG, ask()).await??;
    let counting = async {
        while platform.interim("busy") == busy {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, counting).await?;
    assert_eq!(platform.model.called.load(Ordering::SeqCst), called + 1);
    platform.model.set_gate(true);
    let kept = platform.transcripts(1).await?;
    assert_eq!(
        transcript(&kept[0])?.text,
        "The train is eleven minutes late."
    );
    platform.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_line_that_is_late() -> Result<()> {
    let platform = Platform::start().await?;
    platform.model.set_gate(false);
    let so_far = chunk(EPOCH_US, example("ex1.wav")?);
    let ask = || {
        let ask = Ask::Interim(ENGINE);
        platform.bus.ask::<()>(ask, &so_far, LONG)
    };
    // Until the worker has subscribed, the bus says at once that nobody is there.
    let asking = async {
        while ask().await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, asking).await?;
    platform
        .counted("sightline_transcribe_interim_total{outcome=\"failed\"} 1")
        .await?;
    // The thread is still at it: there is no second one.
    timeout(LONG, ask()).await??;
    platform
        .counted("sightline_transcribe_interim_total{outcome=\"busy\"} 1")
        .await?;
    assert_eq!(platform.model.called.load(Ordering::SeqCst), 1);
    platform.model.set_gate(true);
    platform.stop().await
}
