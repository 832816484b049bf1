//! Several describing models from a models file, side by side in one process.

use anyhow::{Context, Result, ensure};
use sightline_proto::v1::rt_stream::{Playback, State};
use sightline_proto::v1::{CreateVisualIndexRequest, GetSystemRequest};
use sightline_testkit::platform::{clip_url, connect, scenes, start, state};
use sightline_testkit::{repository, until};
use tonic::Code;

use crate::ground;

#[tokio::test]
async fn an_index_is_described_by_the_model_that_it_names() -> Result<()> {
    let ground = ground().await?;
    let file = ground.dir().join("models.toml");
    let demo = repository().join("models/demo-vlm");
    let text = format!(
        "[[describe]]\nname = \"plain\"\npath = {demo:?}\n[[describe]]\nname = \"small\"\npath = {demo:?}\nprecision = \"int8\"\n"
    );
    std::fs::write(&file, text)?;
    let file = file.display().to_string();
    let (mut up, mut client) = ground.up(&["--models-file", &file]).await?;
    let stream = connect(&mut client, &clip_url()?, Playback::Fast).await?;
    let asked = |model: &str| CreateVisualIndexRequest {
        rtstream_id: stream.id.clone(),
        prompt: "Describe activity".to_owned(),
        model: model.to_owned(),
        ..Default::default()
    };
    let refused = client.indexes.create_visual_index(asked("large")).await;
    let refused = refused.err().context("nobody serves it")?;
    assert_eq!(refused.code(), Code::InvalidArgument);
    let said = format!("{refused:?}");
    ensure!(said.contains("plain") && said.contains("small"), "{said}");
    let mut indexes = Vec::new();
    for model in ["", "small"] {
        let made = client.indexes.create_visual_index(asked(model)).await?;
        indexes.push(made.into_inner().index.context("the index")?);
    }
    let models: Vec<&str> = indexes.iter().map(|index| index.model.as_str()).collect();
    assert_eq!(models, ["plain", "small"]);
    let system = until("both models are there", async || {
        let system = client.system.get_system(GetSystemRequest {}).await?;
        let workers = system.into_inner().workers.into_iter();
        let mut found: Vec<_> = workers.filter(|w| w.role == "caption").collect();
        found.sort_by(|a, b| a.model.cmp(&b.model));
        Ok((found.len() == 2).then_some(found))
    })
    .await?;
    assert_eq!(system[0].model, "plain");
    assert_eq!(system[1].model, "small");
    ensure!(system[0].model_revision != system[1].model_revision);
    start(&mut client, &stream.id).await?;
    state(&mut client, &stream.id, State::Ended).await?;
    ground.drained().await?;
    for (index, worker) in indexes.iter().zip(&system) {
        // They are stored in their own time.
        let scenes = until("scenes of each index", async || {
            let scenes = scenes(&mut client, &index.id).await?;
            Ok((!scenes.is_empty()).then_some(scenes))
        })
        .await?;
        let revisions = scenes.iter().map(|scene| scene.model_revision.as_str());
        ensure!(
            revisions.into_iter().all(|r| r == worker.model_revision),
            "{scenes:#?}"
        );
    }
    ensure!(up.terminate().await?.success(), "{:#?}", up.log());
    Ok(())
}
