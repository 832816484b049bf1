//! Batches of a transcript are records like scenes, and are judged by similarity for the alerts on their index.

use anyhow::{Context, Result};
use sightline_proto::ids;
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{
    CountWindowsRequest, Observation, RecordFilter, RecordKind, VerdictBody,
};
use sightline_proto::v1::alert;

use crate::support::{EPOCH_US, Platform, all, assert_records, batch, scene, transcript};

const HELP: &str = "somebody calls for help";

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_listed_searched_and_counted() -> Result<()> {
    let platform = Platform::start().await?;
    let service = platform.serve().await?;
    let mut batches = vec![
        batch("rts-1", "idx-1", 0, "The train to the airport is late."),
        batch("rts-1", "idx-1", 7, "A lost child waits at the desk."),
    ];
    platform.publish(&batches).await?;
    let other = [
        scene("rts-1", "idx-2", 0, "a delayed train"),
        transcript("rts-1", 3, "the train is late"),
    ];
    platform.publish(&other).await?;
    service.holds(all(), 4).await?;
    let audio = RecordFilter {
        kinds: vec![RecordKind::AudioScene.into()],
        ..all()
    };
    let records = service.holds(audio.clone(), 2).await?;
    assert_records(&records, &batches)?;
    assert!(records.iter().all(|record| record.index_id == "idx-1"));
    let hits = service.search("a delayed train", audio).await?;
    assert_eq!(hits.len(), 2);
    assert_eq!(hits[0].0, "The train to the airport is late.");
    let both = RecordFilter {
        kinds: vec![RecordKind::AudioScene.into(), RecordKind::Transcript.into()],
        ..all()
    };
    batches.push(other[1].clone());
    assert_records(&service.holds(both, 3).await?, &batches)?;
    let request = CountWindowsRequest {
        index_id: "idx-1".to_owned(),
    };
    let counts = service.records.clone().count_windows(request).await?;
    let counts = counts.into_inner();
    assert_eq!((counts.described, counts.missing), (2, 0));
    service.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn enabled_alerts_get_a_verdict_of_each_batch() -> Result<()> {
    let platform = Platform::start().await?;
    // Two that share a verdict, and four that get none: disabled, on another index, made later, of no event.
    let (enabled, disabled) = (alert::State::Enabled, alert::State::Disabled);
    let alerts = [
        ("alr-1", "idx-1", "evt-1", enabled, 0),
        ("alr-2", "idx-1", "evt-1", enabled, 5),
        ("alr-3", "idx-2", "evt-1", disabled, 0),
        ("alr-4", "idx-3", "evt-1", enabled, 0),
        ("alr-5", "idx-2", "evt-1", enabled, 1000),
        ("alr-6", "idx-2", "evt-9", enabled, 0),
    ];
    platform.watch("evt-1", HELP, &alerts).await?;
    let service = platform.serve().await?;
    let batches = [
        batch("rts-1", "idx-1", 0, "The weather stays fine."),
        batch("rts-1", "idx-2", 0, "Help, please help me!"),
        batch("rts-1", "idx-1", 4, "Listen, someone is calling for help!"),
        batch("rts-1", "idx-1", 5, ""),
        Observation {
            // A model has read this one.
            model_revision: "reader-1".to_owned(),
            ..batch("rts-1", "idx-1", 7, HELP)
        },
        batch("rts-1", "idx-1", 6, HELP),
    ];
    platform.publish(&batches).await?;
    let found = platform.verdicts(3).await?;
    service.holds(all(), batches.len()).await?;
    let revision = platform.embedder.revision();
    let mut probabilities = Vec::new();
    for (verdict, batch) in found.iter().zip([&batches[0], &batches[2], &batches[5]]) {
        let (start_us, kind) = (batch.start_us, "verdict");
        let id = ids::observation_id(
            kind,
            "rts-1",
            EPOCH_US,
            start_us,
            "idx-1:evt-1",
            0,
            revision,
        );
        assert_eq!(verdict.id, id);
        assert_eq!(verdict.model_revision, revision);
        assert_eq!((verdict.start_us, verdict.end_us), (start_us, batch.end_us));
        let body = judged(verdict.body.as_ref()).context("a verdict")?;
        assert_eq!(
            (body.index_id.as_str(), body.event_id.as_str()),
            ("idx-1", "evt-1")
        );
        assert!(body.by_similarity && body.captured_us <= body.judged_us);
        probabilities.push((body.window, body.probability));
    }
    assert_eq!(
        probabilities.iter().map(|p| p.0).collect::<Vec<_>>(),
        [0, 4, 6]
    );
    assert!(probabilities[0].1 < 0.2, "{probabilities:?}");
    assert!(probabilities[1].1 > 0.4, "{probabilities:?}");
    assert!(probabilities[2].1 > 0.99, "{probabilities:?}");
    assert_eq!(platform.verdicts(3).await?.len(), 3);
    service.stop().await
}

fn judged(body: Option<&Body>) -> Option<&VerdictBody> {
    match body {
        Some(Body::Verdict(verdict)) => Some(verdict),
        _ => None,
    }
}
