//! `sightline endpoint`, and firings that are delivered once more.

use anyhow::{Context, Result, ensure};
use sightline_testkit::platform::clip_url;
use sightline_testkit::until;

use crate::clients::Server;

#[tokio::test]
async fn a_receivers_secret_is_shown_and_rotated() -> Result<()> {
    let mut server = Server::start("127.0.0.1:0").await?;
    let stream = server
        .id(&["stream", "connect", &clip_url()?, "--stopped"])
        .await?;
    let index = server
        .id(&["index", "create", &stream, "--prompt", "Describe activity"])
        .await?;
    let event = server.id(&["event", "create", "Detect smoke"]).await?;
    // Nothing answers to this name, anywhere.
    let hook = "https://hooks.invalid/1";
    let alert = [
        "alert",
        "create",
        "--event",
        &event,
        "--index",
        &index,
        "--callback-url",
        hook,
    ];
    let alert = server.id(&alert).await?;
    let listed = server.json(&["endpoint", "list"]).await?;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["url"], hook);
    let id = listed[0]["id"].as_str().context("an id")?;
    let first = server.table(&["endpoint", "secret", id]).await?;
    ensure!(first[0].starts_with("whsec_"), "{first:#?}");
    let rotated = server.json(&["endpoint", "rotate", id]).await?;
    assert_ne!(rotated[0]["secret"], first[0].as_str());
    let shown = server.json(&["endpoint", "secret", id]).await?;
    assert_eq!(shown[0]["secret"], rotated[0]["secret"]);
    server.refused(&["endpoint", "rotate", id], 1).await?;
    let tested = answered(&server, &["endpoint", "test", id]).await?;
    ensure!(tested[0].contains("cannot connect"), "{tested:#?}");
    let enabled = server.table(&["endpoint", "enable", id]).await?;
    ensure!(enabled.join(" ").contains("enabled"), "{enabled:#?}");
    let again = ["alert", "redeliver", &alert, "--from", "1h"];
    let again = answered(&server, &again).await?;
    assert_eq!(again, ["0 firings are delivered once more"]);
    server.stop().await
}

/// What a command shows that asks whoever posts webhooks, once that has begun to listen.
async fn answered(server: &Server, command: &[&str]) -> Result<Vec<String>> {
    until("somebody to be there who posts webhooks", async || {
        let (code, lines, _) = server.sightline(command).await?;
        Ok((code == 0).then_some(lines))
    })
    .await
}
