//! Workers that die, and models that can't be had.

use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use sightline_inference::whisper::SAMPLE_RATE;
use sightline_service::metrics::Metrics;
use tokio::time::timeout;

use crate::harness::{ENGINE, EPOCH_US, LONG, Platform, chunk, example, serve, transcript};

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_loses_nothing() -> Result<()> {
    let mut platform = Platform::start().await?;
    platform.model.set_gate(false);
    platform
        .publish(&chunk(EPOCH_US, example("ex1.wav")?))
        .await?;
    platform.called(1).await?;
    // It dies without acknowledging and without a word to the bus.
    platform.worker.abort();
    assert!((&mut platform.worker).await.is_err());
    platform.model.set_gate(true);
    let (bus, catalog) = (&platform.bus, &platform.catalog);
    let metrics = Metrics::default();
    (platform.shutdown, platform.worker) = serve(ENGINE, bus, catalog, &metrics, &platform.model);
    let found = platform.transcripts(1).await?;
    assert_eq!(found.len(), 1);
    assert_eq!(
        transcript(&found[0])?.text,
        "The train is eleven minutes late."
    );
    platform.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_utterance_is_held_while_the_model_is_away() -> Result<()> {
    let mut platform = Platform::start().await?;
    platform.model.longest.store(0, Ordering::SeqCst);
    platform
        .publish(&chunk(EPOCH_US, example("ex1.wav")?))
        .await?;
    let held = "sightline_transcribe_utterances_total{outcome=\"held\"} 1";
    platform.counted(held).await?;
    platform.called(3).await?;
    platform.counted(held).await?;
    // A worker that stops gives it back at once, and the next one has it.
    platform.shutdown.cancel();
    timeout(LONG, &mut platform.worker)
        .await
        .context("it waits for the model")???;
    let (bus, catalog) = (&platform.bus, &platform.catalog);
    platform.metrics = Metrics::default();
    (platform.shutdown, platform.worker) =
        serve(ENGINE, bus, catalog, &platform.metrics, &platform.model);
    platform.counted(held).await?;
    platform.model.longest.store(usize::MAX, Ordering::SeqCst);
    let found = platform.transcripts(1).await?;
    assert_eq!(
        transcript(&found[0])?.text,
        "The train is eleven minutes late."
    );
    assert_eq!(platform.letters(0).await?, []);
    platform.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_model_alone_fails_at_does_not_hold_up_the_others() -> Result<()> {
    let platform = Platform::start().await?;
    // A second of silence it listens to.
    platform.model.longest.store(SAMPLE_RATE, Ordering::SeqCst);
    platform
        .publish(&chunk(EPOCH_US, example("ex1.wav")?))
        .await?;
    platform
        .publish(&chunk(EPOCH_US + 1, vec![0; 2 * SAMPLE_RATE]))
        .await?;
    let letters = platform.letters(1).await?;
    assert!(letters[0].reason.contains("nobody listens"), "{letters:?}");
    platform
        .counted("sightline_transcribe_utterances_total{outcome=\"transcribed\"} 1")
        .await?;
    assert_eq!(platform.letters(1).await?.len(), 1);
    platform.stop().await
}
