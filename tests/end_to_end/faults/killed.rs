//! The gateway is killed between any two of its writes, and every role at the places that `kill.rs` leaves out.

use anyhow::{Context, Result, ensure};
use sightline_proto::client::Client;
use sightline_proto::v1::rt_stream::State;
use sightline_proto::v1::{
    ConnectRtStreamRequest, DeleteRtStreamRequest, ListRtStreamsRequest, StartRtStreamRequest,
};
use sightline_testkit::platform::{clip_url, state};
use sightline_testkit::until;
use uuid::Uuid;

use super::fleet::{Fleet, ONE_EACH, Who};
use crate::{ground, kill};

const GATEWAY: Who = ("gateway", 0);

/// A client of a gateway that dies at this place.
async fn doomed(fleet: &mut Fleet, place: &str) -> Result<Client> {
    fleet.stop(GATEWAY).await?;
    fleet.begin_told(GATEWAY, &["--failpoint", place]).await?;
    fleet.client(0).await
}

/// A client of the next gateway.
async fn next(fleet: &mut Fleet) -> Result<Client> {
    fleet.dies(GATEWAY).await?;
    fleet.begin(GATEWAY).await?;
    fleet.client(0).await
}

async fn streams(client: &mut Client) -> Result<Vec<String>> {
    let all = client
        .streams
        .list_rt_streams(ListRtStreamsRequest::default());
    let all = all.await?.into_inner().rtstreams.into_iter();
    Ok(all.map(|stream| stream.id).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_is_killed_between_its_writes() -> Result<()> {
    let mut fleet = Fleet::new(ground().await?);
    fleet.begin_all(&ONE_EACH[..2]).await?;
    fleet.begin(("ingest", 0)).await?;
    let request = ConnectRtStreamRequest {
        url: clip_url()?,
        request_id: Uuid::new_v4().to_string(),
        start_stopped: true,
        ..ConnectRtStreamRequest::default()
    };

    // Whoever asked asks again, and there is one stream.
    let mut client = doomed(&mut fleet, "gateway.after_request_record=1").await?;
    let lost = client.streams.connect_rt_stream(request.clone()).await;
    ensure!(lost.is_err(), "{lost:?}");
    let mut client = next(&mut fleet).await?;
    let made = client
        .streams
        .connect_rt_stream(request)
        .await?
        .into_inner();
    let id = made.rtstream.context("a stream")?.id;
    assert_eq!(streams(&mut client).await?, std::slice::from_ref(&id));

    // What was written is done, although nobody asks again.
    let mut client = doomed(&mut fleet, "gateway.before_run_request=1").await?;
    let request = StartRtStreamRequest {
        rtstream_id: id.clone(),
    };
    let lost = client.streams.start_rt_stream(request).await;
    ensure!(lost.is_err(), "{lost:?}");
    let mut client = next(&mut fleet).await?;
    state(&mut client, &id, State::Active).await?;
    let mut client = doomed(&mut fleet, "gateway.after_deletion_record=1").await?;
    let request = DeleteRtStreamRequest { rtstream_id: id };
    let lost = client.streams.delete_rt_stream(request).await;
    ensure!(lost.is_err(), "{lost:?}");
    let mut client = next(&mut fleet).await?;
    until("the stream to be gone", async || {
        Ok(streams(&mut client).await?.is_empty().then_some(()))
    })
    .await?;
    until("its child to end", async || {
        let children = fleet.process(("ingest", 0))?.children()?;
        Ok(children.is_empty().then_some(()))
    })
    .await?;
    fleet.end(&[]).await
}

/// Each role with a place between two side effects that `make test` leaves out.
const PLACES: [(&str, &str); 11] = [
    ("ingest", "ingest.before_publish=6"),
    ("ingest", "ingest.before_utterance=2"),
    ("ingest", "ingest.after_utterance=2"),
    ("ingest", "ingest.before_segment=4"),
    ("caption", "caption-demo-vlm.after_ack=5"),
    ("transcribe", "transcribe-whisper.before_output=3"),
    ("transcribe", "transcribe-whisper.after_ack=3"),
    ("embeddings", "embeddings.before_upsert=4"),
    ("alerts", "alerts.before_firing=1"),
    ("alerts", "alerts.after_firing=1"),
    ("alerts", "alerts.before_post=1"),
];

pub async fn everywhere_else() -> Result<()> {
    for (role, place) in PLACES {
        kill::check(role, place).await?;
    }
    Ok(())
}
