//! Poison goes to the dead letters and holds nothing up; a model that is away only delays.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use sightline_inference::{Embedder, InferenceError};
use sightline_proto::internal::SearchRecordsRequest;
use tonic::Code;

use crate::support::{Platform, all, assert_records, scene, transcript};

/// What no embedder can read here.
const UNREADABLE: &str = "unreadable";

/// The real model with faults: it can be away, and one word is more than it can take.
struct Faulty {
    model: Arc<dyn Embedder>,
    away: AtomicBool,
}

impl Embedder for Faulty {
    fn revision(&self) -> &str {
        self.model.revision()
    }

    fn dimension(&self) -> usize {
        self.model.dimension()
    }

    fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, InferenceError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(InferenceError::InvalidInput("away".to_owned()));
        }
        assert!(!texts.iter().any(|text| text == UNREADABLE), "a bug");
        self.model.embed(texts)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_put_aside_and_the_rest_is_stored() -> Result<()> {
    let mut platform = Platform::start().await?;
    platform.embedder = faulty(&platform);
    let mut observations: Vec<_> = (0..30)
        .map(|window| scene("rts-1", "idx-1", window, &format!("scene {window}")))
        .collect();
    observations[3].id = "not-a-uuid".to_owned();
    observations[7].start_us = i64::MAX;
    observations[11].body = None;
    observations[19] = scene("rts-1", "idx-1", 19, UNREADABLE);
    // All of it is there before the service is: poison comes in the midst of a batch.
    platform.publish(&observations).await?;
    let service = platform.serve().await?;
    let mut reasons = platform.dead_letters(4).await?;
    reasons.sort();
    for (reason, expected) in reasons.iter().zip([
        "id \"not-a-uuid\" is not a UUID",
        "it is neither a scene nor a transcript",
        "start_us is",
        "panicked",
    ]) {
        assert!(reason.contains(expected), "{reasons:?}");
    }
    for poison in [19, 11, 7, 3] {
        observations.remove(poison);
    }
    let records = service.holds(all(), 26).await?;
    assert_records(&records, &observations)?;
    service.misses(&[]).await?;
    service.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_away_only_delays() -> Result<()> {
    let mut platform = Platform::start().await?;
    let faulty = faulty(&platform);
    platform.embedder = Arc::clone(&faulty) as Arc<dyn Embedder>;
    let service = platform.serve().await?;
    let first = scene("rts-1", "idx-1", 0, "before");
    platform.publish(std::slice::from_ref(&first)).await?;
    service.holds(all(), 1).await?;

    faulty.away.store(true, Ordering::SeqCst);
    let mut observations = vec![
        scene("rts-1", "idx-1", 1, "meanwhile"),
        transcript("rts-1", 7, "hello"),
    ];
    platform.publish(&observations).await?;
    service.misses(&["model"]).await?;
    let request = SearchRecordsRequest {
        query: "before".to_owned(),
        limit: 1,
        ..SearchRecordsRequest::default()
    };
    let refused = service.records.clone().search_records(request).await;
    assert_eq!(
        refused.map(drop).map_err(|s| s.code()),
        Err(Code::Unavailable)
    );
    assert_eq!(service.holds(all(), 1).await?.len(), 1);

    faulty.away.store(false, Ordering::SeqCst);
    let records = service.holds(all(), 3).await?;
    observations.push(first);
    assert_records(&records, &observations)?;
    service.misses(&[]).await?;
    assert!(platform.dead_letters(0).await?.is_empty());
    service.stop().await
}

fn faulty(platform: &Platform) -> Arc<Faulty> {
    Arc::new(Faulty {
        model: Arc::clone(&platform.embedder),
        away: AtomicBool::new(false),
    })
}
