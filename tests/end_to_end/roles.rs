//! The same binary as one role per process, over one nats-server.

use anyhow::{Context, Result, ensure};
use sightline_proto::client::Client;
use sightline_proto::v1::rt_stream::{Playback, State};
use sightline_proto::v1::{GetSystemRequest, GetSystemResponse};
use sightline_testkit::oracle::{Ledger, no_surprises};
use sightline_testkit::platform::{
    Ground, KEY, alert, clip_url, connect_recorded, index, start, state,
};
use sightline_testkit::process::Process;
use sightline_testkit::receiver::Receiver;
use sightline_testkit::until;

use crate::ground;

/// Each role in a process of its own.
pub struct Roles {
    pub embeddings: Process,
    pub gateway: Process,
    pub alerts: Process,
    pub ingest: Process,
    pub caption: Process,
    pub transcribe: Process,
    pub client: Client,
    pub embeddings_url: String,
}

impl Roles {
    /// Starts all; `further` is what one role is told besides.
    pub async fn start(ground: &Ground, further: (&str, &[&str])) -> Result<Self> {
        let told = |role: &str| if role == further.0 { further.1 } else { &[] };
        let listen = ["--listen", "127.0.0.1:0"];
        let (embeddings, url) = ground
            .role("embeddings", &[&listen, told("embeddings")].concat())
            .await?;
        let embeddings_url = url.context("it says where it listens")?;
        let at = ["--embeddings-url", &embeddings_url];
        let (gateway, url) = ground
            .role("gateway", &[&listen[..], &at, told("gateway")].concat())
            .await?;
        let client = Client::connect(&url.context("it says where it listens")?, KEY).await?;
        Ok(Self {
            embeddings,
            gateway,
            alerts: ground.role("alerts", told("alerts")).await?.0,
            ingest: ground.role("ingest", told("ingest")).await?.0,
            caption: ground.role("caption", told("caption")).await?.0,
            transcribe: ground.role("transcribe", told("transcribe")).await?.0,
            client,
            embeddings_url,
        })
    }

    /// Stops all, which has to succeed and to have been quiet.
    pub async fn stop(self, expected: &[&str]) -> Result<()> {
        let all = [
            self.ingest,
            self.caption,
            self.transcribe,
            self.alerts,
            self.gateway,
            self.embeddings,
        ];
        for mut process in all {
            ensure!(process.terminate().await?.success(), "{:#?}", process.log());
            no_surprises(&process, expected)?;
        }
        Ok(())
    }
}

/// A clip with an index and an alert on it, recorded, not started yet: stream and index.
pub async fn prepared(client: &mut Client, receiver: &Receiver) -> Result<(String, String)> {
    let stream = connect_recorded(client, &clip_url()?, Playback::Fast).await?;
    let index = index(
        client,
        &stream.id,
        "Describe activity and detect unusual behavior",
    )
    .await?;
    let prompt = "Detect when someone enters restricted area";
    alert(client, &index.id, prompt, &receiver.url()).await?;
    Ok((stream.id, index.id))
}

/// What works here, once all say so: who is slow to answer is left out of one answer.
async fn all_present(client: &mut Client) -> Result<GetSystemResponse> {
    let all = [
        "alerts",
        "caption",
        "embeddings",
        "gateway",
        "ingest",
        "transcribe",
    ];
    until("all roles to be present", async || {
        let system = client.system.get_system(GetSystemRequest {}).await?;
        let system = system.into_inner();
        let working = system.workers.iter().map(|worker| &*worker.role);
        Ok(working.eq(all).then_some(system))
    })
    .await
}

#[tokio::test]
async fn six_processes_are_one_platform() -> Result<()> {
    let ground = ground().await?;
    let receiver = Receiver::start().await?;
    let mut roles = Roles::start(&ground, ("", &[])).await?;
    let (stream, index) = prepared(&mut roles.client, &receiver).await?;
    start(&mut roles.client, &stream).await?;
    state(&mut roles.client, &stream, State::Ended).await?;
    ground.drained().await?;
    let ledger = Ledger::read(&ground.bus, &stream).await?;
    assert_eq!(ledger.windows(&index), (0..18).collect::<Vec<u64>>());
    ledger
        .compare(&mut roles.client, &stream, &[&index])
        .await?;
    let fired = ledger.firings();
    ensure!(!fired.is_empty(), "nothing was fired");
    receiver.told(&fired).await?;
    let system = all_present(&mut roles.client).await?;
    let GetSystemResponse { workers, queues } = system;
    let with_models = workers
        .iter()
        .filter(|worker| worker.model_revision.len() == 16);
    assert_eq!(with_models.count(), 3, "{workers:#?}");
    let waiting = |consumer: &str| {
        let queue = queues.iter().find(|queue| queue.consumer == consumer);
        queue.map(|queue| queue.waiting + queue.in_progress)
    };
    assert_eq!(waiting("caption-demo-vlm"), Some(0), "{queues:#?}");
    roles.stop(&[]).await
}
