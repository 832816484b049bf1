//! Deleting streams and indexes with all that hangs on them.

use std::time::Duration;

use sightline_catalog::Entry;
use sightline_proto::internal::{AlertRecord, DeletionRecord, IndexRecord, RtStreamRecord};
use sightline_proto::v1;
use sightline_testkit::until;
use tonic::Code;

use crate::changing::watched;
use crate::harness::{Gateway, NOW_US, reason_of};
use crate::records::Records;

const UUID: &str = "01890000-0000-7000-8000-000000000000";

fn ids_of<T: Entry>(gateway: &Gateway) -> Vec<String> {
    let records = gateway.catalog.list::<T>().into_iter();
    records.map(|(id, _)| id).collect()
}

#[tokio::test]
async fn deleting_an_index_takes_its_alerts_and_its_scenes() {
    let records = Records::start().await;
    let gateway = Gateway::start_with(records.endpoint(), Default::default()).await;
    let mut client = gateway.operator().await;
    let gone = watched(&mut client, "Front door").await;
    let kept = watched(&mut client, "Back door").await;
    let request = v1::DeleteIndexRequest {
        index_id: gone.index.id.clone(),
    };
    let deleted = client.indexes.delete_index(request.clone()).await;
    deleted.expect("deleted");
    let again = client.indexes.delete_index(request).await;
    assert_eq!(again.expect_err("it is gone").code(), Code::NotFound);
    let alerts = gateway.catalog.list::<AlertRecord>();
    assert_eq!(alerts.len(), 1);
    assert_eq!(alerts[0].0, kept.alert.id);
    assert!(
        gateway
            .catalog
            .get::<RtStreamRecord>(&gone.stream.id)
            .is_some()
    );
    assert_eq!(records.deleted(), [gone.index.id]);
}

#[tokio::test]
async fn deleting_a_stream_takes_everything_even_while_the_store_is_away() {
    let records = Records::start().await;
    records.fail(true);
    let gateway = Gateway::start_with(records.endpoint(), Default::default()).await;
    let mut client = gateway.operator().await;
    let kept = watched(&mut client, "Back door").await;
    let request = v1::ConnectRtStreamRequest {
        url: "rtsp://camera.example/1".to_owned(),
        request_id: UUID.to_owned(),
        ..Default::default()
    };
    let connected = client.streams.connect_rt_stream(request.clone()).await;
    let id = connected
        .expect("made")
        .into_inner()
        .rtstream
        .expect("set")
        .id;
    let gone = watched(&mut client, "Front door").await;
    for rtstream_id in [id.clone(), gone.stream.id.clone()] {
        let request = v1::DeleteRtStreamRequest { rtstream_id };
        let deleted = client.streams.delete_rt_stream(request.clone()).await;
        deleted.expect("deleted");
        let again = client.streams.delete_rt_stream(request).await;
        assert_eq!(again.expect_err("it is gone").code(), Code::NotFound);
    }
    let left = ids_of::<AlertRecord>(&gateway);
    assert_eq!(left, [kept.alert.id]);
    let left = ids_of::<IndexRecord>(&gateway);
    assert_eq!(left, [kept.index.id]);
    let left = ids_of::<RtStreamRecord>(&gateway);
    assert_eq!(left, [kept.stream.id]);

    // A late retry does not bring it back.
    let refused = client.streams.connect_rt_stream(request).await;
    let (reason, field, _) = reason_of(&refused.expect_err("deleted since"));
    assert_eq!(
        (reason.as_str(), field.as_str()),
        ("ALREADY_EXISTS", "request_id")
    );

    // What the store could not do then is done when it can.
    assert_eq!(gateway.catalog.list::<DeletionRecord>().len(), 2);
    gateway
        .clock
        .set(NOW_US + Duration::from_secs(60).as_micros() as i64);
    records.fail(false);
    let finished = async || {
        Ok(gateway
            .catalog
            .list::<DeletionRecord>()
            .is_empty()
            .then_some(()))
    };
    until("deletions to be finished", finished)
        .await
        .expect("finished");
    let mut deleted = records.deleted();
    deleted.sort();
    // An answer may come too late, and then it is asked for again.
    deleted.dedup();
    assert_eq!(deleted, [id, gone.stream.id]);
}
