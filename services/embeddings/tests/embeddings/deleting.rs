//! What is deleted is gone, stays gone when its observations come again, and does not come back with a new store.

use anyhow::Result;
use sightline_proto::internal::{IndexRecord, Observation, RecordFilter, RtStreamRecord};
use sightline_vectors::EdgeStores;
use tonic::Code;

use crate::support::{Platform, all, assert_records, batch, scene, transcript};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_does_not_come_back() -> Result<()> {
    let platform = Platform::start().await?;
    let service = platform.serve().await?;
    let observations = [
        scene("rts-1", "idx-1", 0, "a car"),
        batch("rts-1", "idx-2", 0, "so it was said"),
        transcript("rts-1", 1, "so it was said"),
        scene("rts-2", "idx-3", 0, "a bicycle"),
        transcript("rts-2", 1, "hello"),
    ];
    platform.publish(&observations).await?;
    service.holds(all(), observations.len()).await?;

    platform.delete::<IndexRecord>("idx-1").await?;
    service.delete("", "idx-1").await?;
    assert_records(&service.holds(all(), 0).await?, &observations[1..])?;
    platform.delete::<IndexRecord>("idx-2").await?;
    platform.delete::<RtStreamRecord>("rts-1").await?;
    service.delete("rts-1", "").await?;
    assert_records(&service.holds(all(), 0).await?, &observations[3..])?;
    // Again, and what was never there.
    service.delete("rts-1", "").await?;
    service.delete("", "idx-9").await?;

    // What was still under way, and late enough to be no duplicate for the bus.
    let late = [
        scene("rts-1", "idx-1", 9, "a late car"),
        scene("rts-2", "idx-1", 9, "a late car"),
        batch("rts-2", "idx-2", 9, "too late"),
        transcript("rts-1", 90, "too late"),
    ];
    platform.publish(&late).await?;
    for (n, observation) in observations.iter().enumerate() {
        platform
            .publish_as(&format!("again {n}"), observation)
            .await?;
    }
    let last = [
        scene("rts-2", "idx-3", 99, "the last"),
        batch("rts-2", "idx-3", 60, "the last"),
        transcript("rts-2", 990, "the last"),
    ];
    platform.publish(&last).await?;
    let left: Vec<Observation> = [&observations[3..], &last[..]].concat();
    assert_records(&service.holds(all(), left.len()).await?, &left)?;
    let metrics = service.metrics.encode();
    assert!(
        metrics.contains("sightline_embeddings_left_out_total"),
        "{metrics}"
    );
    service.stop().await?;

    EdgeStores::delete(&platform.store_dir())?;
    let service = platform.serve().await?;
    assert_records(&service.holds(all(), left.len()).await?, &left)?;
    assert!(service.holds(of("rts-1"), 0).await?.is_empty());
    assert!(platform.dead_letters(0).await?.is_empty());
    service.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_owner_must_be_named() -> Result<()> {
    let platform = Platform::start().await?;
    let service = platform.serve().await?;
    service.holds(all(), 0).await?;
    for (stream, index, expected) in [
        ("", "", "rtstream_id is empty"),
        ("rts-1", "idx-1", "not both"),
    ] {
        let refused = service.delete(stream, index).await;
        let status = refused.expect_err("it was deleted");
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(expected), "{status:?}");
    }
    service.stop().await
}

fn of(stream: &str) -> RecordFilter {
    RecordFilter {
        rtstream_ids: vec![stream.to_owned()],
        ..all()
    }
}
