//! A server that speaks OpenAI's API describes, reads what was said, judges both, and embeds: here llama.cpp with random models,
//! whose words mean nothing.

use anyhow::{Context, Result, ensure};
use sightline_proto::client::Client;
use sightline_proto::v1::audio_batching::Batch;
use sightline_proto::v1::firing::Basis;
use sightline_proto::v1::rt_stream::{Playback, State};
use sightline_proto::v1::{
    AudioBatching, CreateAudioIndexRequest, Index, ListFiringsRequest, Scene, SearchRequest,
    UpdateAlertRequest,
};
use sightline_testkit::llama::{self, Llama};
use sightline_testkit::oracle::no_surprises;
use sightline_testkit::platform::{
    alert, clip_url, connect, index, scenes, start, state, transcript,
};
use sightline_testkit::receiver::Receiver;
use sightline_testkit::until;

use crate::ground;

/// Every describing and embedding is the server's; speech stays here.
fn models(llama: &Llama) -> String {
    let key = llama.key_file().display().to_string();
    let Llama { chat, embed, .. } = llama;
    let (vlm, embedder, dimension) = (llama::VLM, llama::EMBEDDER, llama::DIMENSION);
    format!(
        "[[describe]]\nname = \"far\"\nurl = {chat:?}\nmodel = {vlm:?}\nkey_file = {key:?}\n\
         [embed]\nurl = {embed:?}\nmodel = {embedder:?}\nkey_file = {key:?}\ndimension = {dimension}\n"
    )
}

async fn spoken(client: &mut Client, rtstream_id: &str) -> Result<Index> {
    let request = CreateAudioIndexRequest {
        rtstream_id: rtstream_id.to_owned(),
        prompt: "Summarise what is said.".to_owned(),
        batching: Some(AudioBatching {
            batch: Some(Batch::Words(5)),
        }),
        ..Default::default()
    };
    let made = client.indexes.create_audio_index(request).await?;
    made.into_inner().index.context("an index")
}

/// An index's scenes, once some are stored, which takes its own time.
async fn stored(client: &mut Client, index_id: &str) -> Result<Vec<Scene>> {
    until("scenes to be stored", async || {
        let scenes = scenes(client, index_id).await?;
        Ok((!scenes.is_empty()).then_some(scenes))
    })
    .await
}

/// An alert that every verdict makes fire.
async fn always(client: &mut Client, index_id: &str, url: &str) -> Result<String> {
    let id = alert(client, index_id, "somebody speaks", url).await?.id;
    let request = UpdateAlertRequest {
        alert_id: id.clone(),
        threshold: Some(0.001),
        ..Default::default()
    };
    client.events.update_alert(request).await?;
    Ok(id)
}

#[tokio::test]
async fn a_server_elsewhere_describes_and_reads_and_judges() -> Result<()> {
    let (ground, llama, receiver) = (
        ground().await?,
        Llama::start().await?,
        Receiver::start().await?,
    );
    let file = ground.dir().join("models.toml");
    std::fs::write(&file, models(&llama))?;
    let file = file.display().to_string();
    let (mut up, mut client) = ground.up(&["--models-file", &file]).await?;
    let stream = connect(&mut client, &clip_url()?, Playback::Fast).await?;
    let seen = index(&mut client, &stream.id, "What happens?").await?;
    let heard = spoken(&mut client, &stream.id).await?;
    ensure!(seen.model == "far" && seen.prompt_applied, "{seen:?}");
    ensure!(heard.model == "far" && heard.prompt_applied, "{heard:?}");
    let alerts = [
        (
            always(&mut client, &seen.id, &receiver.url()).await?,
            Basis::Frames,
        ),
        (
            always(&mut client, &heard.id, &receiver.url()).await?,
            Basis::Text,
        ),
    ];
    start(&mut client, &stream.id).await?;
    state(&mut client, &stream.id, State::Ended).await?;
    ground.drained().await?;

    let described = stored(&mut client, &seen.id).await?;
    ensure!(described.iter().all(|scene| !scene.text.is_empty()));
    until("words to be stored", async || {
        let words = transcript(&mut client, &stream.id).await?;
        Ok((!words.is_empty()).then_some(()))
    })
    .await?;
    let batches = stored(&mut client, &heard.id).await?;
    for batch in &batches {
        ensure!(batch.prompt_applied, "{batch:?}");
        ensure!(!batch.transcript.is_empty() && batch.text != batch.transcript);
    }
    for (alert_id, basis) in alerts {
        let fired = until("the alert to fire", async || {
            let request = ListFiringsRequest {
                alert_id: alert_id.clone(),
                ..Default::default()
            };
            let firings = client.events.list_firings(request).await?.into_inner();
            Ok(firings.firings.into_iter().next())
        })
        .await?;
        ensure!(fired.basis() == basis, "{fired:?}");
        // A word would be 0 or 1: the probability is the model's own.
        ensure!((0.001..0.999).contains(&fired.confidence), "{fired:?}");
    }
    let request = SearchRequest {
        query: described[0].text.clone(),
        rtstream_id: stream.id.clone(),
        ..Default::default()
    };
    let hits = client.indexes.search(request).await?.into_inner().hits;
    let best = hits.first().context("a hit")?;
    ensure!(best.score > 0.99, "its own words: {best:?}");
    ensure!(up.terminate().await?.success(), "{:#?}", up.log());
    let log = up.log().join("\n");
    ensure!(!log.contains(llama::KEY), "the key is in the log");
    no_surprises(&up, &[])
}
