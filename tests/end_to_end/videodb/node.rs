//! The official VideoDB client for Node, from npm.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sightline_testkit::oracle::no_surprises;
use sightline_testkit::platform::{KEY, clip_url};
use sightline_testkit::receiver::Receiver;
use tokio::process::Command;

use super::platform;
use crate::ground;
use crate::playback::get;

/// How long the script may take: each of its steps may on a slow machine.
const LONGEST: Duration = Duration::from_secs(280);

#[tokio::test]
async fn the_official_client_for_node_calls_what_it_has() -> Result<()> {
    let ground = ground().await?;
    let receiver = Receiver::start().await?;
    let (mut up, base_url) = platform(&ground).await?;
    let mut told = run(&[&base_url, KEY, &clip_url()?, &receiver.url()]).await?;
    let playlist = told["shots"][2].take();
    let playlist = playlist.as_str().context("a playlist")?;
    assert_eq!(get(playlist).await?.0, 200, "{playlist}");
    for (error, kind, said) in [
        ("key", "AuthenticationError", ""),
        ("unknown", "InvalidRequestError", "there is no stream"),
        (
            "outside",
            "InvalidRequestError",
            "billing is not part of Sightline",
        ),
    ] {
        let error = told[error].take();
        let message = error[1].as_str().context("a message")?;
        ensure!(error[0] == kind && message.contains(said), "{error}");
    }
    let expected = json!({
        "stream": ["Node", "connected", "default", 30],
        "listed": [true],
        "visuals": ["time", {"time": 5, "frameCount": 2}, "Activity", "running"],
        "prompt": "Describe the activity",
        "speech": ["transcript", {"segmenter": "sentence", "segmentationValue": 1}],
        "scenes": ["time", "Describe the scene"],
        "indexes": ["running", "running", "stopped"],
        "alert": ["disabled", "enabled", "fast"],
        "records": [told["records"][0], true],
        "said": true,
        "shots": [told["shots"][0], true, null],
        "across": ["Node"],
        "transcription": ["stopped", "running"],
        "heard": true,
        "key": null, "unknown": null, "outside": null,
    });
    assert_eq!(told, expected);
    ensure!(up.terminate().await?.success(), "{:#?}", up.log());
    no_surprises(&up, &[])
}

/// Runs the script; what it prints.
async fn run(arguments: &[&str]) -> Result<Value> {
    let script = sightline_testkit::repository().join("tests/videodb/node/client.mjs");
    let child = Command::new("node")
        .arg(script)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("node does not start: run `scripts/setup test`, which installs it")?;
    let output = tokio::time::timeout(LONGEST, child.wait_with_output()).await;
    let output = output.context("videodb/node/client.mjs takes too long")??;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}\n{said}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}
