//! The official VideoDB clients, from PyPI and npm, against a started platform: every call that they have of RtStreams.

mod fuzz;
mod node;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sightline_testkit::oracle::no_surprises;
use sightline_testkit::platform::{Ground, KEY, clip_url};
use sightline_testkit::process::Process;
use sightline_testkit::python;
use sightline_testkit::receiver::Receiver;

use crate::ground;
use crate::playback::{get, probed};

#[tokio::test]
async fn the_official_client_calls_all_of_it() -> Result<()> {
    let ground = ground().await?;
    let receiver = Receiver::start().await?;
    let (mut up, base_url) = platform(&ground).await?;
    let arguments = [&base_url, KEY, &clip_url()?, &receiver.url()];
    let told = python::run("videodb/client.py", &arguments).await?;
    let told: Value = serde_json::from_str(&told)?;
    made(&told);
    found(&told["found"]).await?;
    within(&told["ranges"]);
    heard(&told["socket"]).await?;
    exported(&told["export"]).await?;
    refused(&told)?;
    let transcripts = json!(["stopped", "running", "whisper", true]);
    assert_eq!(told["transcripts"], transcripts);
    assert_eq!(told["started"], "connected");
    ensure!(up.terminate().await?.success(), "{:#?}", up.log());
    no_surprises(&up, &[])
}

#[tokio::test]
async fn the_page_on_real_time_streams_runs_as_it_is_written() -> Result<()> {
    let ground = ground().await?;
    let receiver = Receiver::start().await?;
    let (mut up, base_url) = platform(&ground).await?;
    let arguments = [&base_url, KEY, &clip_url()?, &receiver.url()];
    let told = python::run("videodb/page.py", &arguments).await?;
    let mut told: Value = serde_json::from_str(&told)?;
    let embed = told["embed"].take();
    ensure!(
        embed
            .as_str()
            .is_some_and(|embed| embed.contains("/embed?v=gate-")),
        "{embed}"
    );
    let audio = [("word", 50), ("sentence", 5), ("time", 30)]
        .map(|(segmenter, value)| json!({"segmenter": segmenter, "segmentation_value": value}));
    let expected = json!({
        "alert": true, "names": [true, 2], "audio": audio, "transcription": ["running", "stopped"],
        "transcript": [true, true], "said": true, "scenes": true, "shots": [[true, true, true]],
        "listed": true, "alerts": [[true, "enabled"]], "player": true, "embed": null,
    });
    assert_eq!(told, expected);
    ensure!(up.terminate().await?.success(), "{:#?}", up.log());
    no_surprises(&up, &[])
}

/// An all-in-one, and its address.
pub async fn platform(ground: &Ground) -> Result<(Process, String)> {
    let data = ground.dir().join("data").display().to_string();
    let media = sightline_testkit::repository().join("tests/media");
    let media = media.display().to_string();
    let arguments = [
        "up",
        "--json",
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
        "--nats-url",
        ground.nats_url(),
        "--data-dir",
        &data,
        "--media-root",
        &media,
        "--allow-egress",
        "127.0.0.1",
    ];
    let environment = [("SIGHTLINE_API_KEY", KEY)];
    let mut up = Process::start(&ground.binary, arguments, &environment)?;
    let said: Value = serde_json::from_str(&up.line().await?)?;
    let listen = said["listen"].as_str();
    let listen = listen.context("it says where it listens")?;
    Ok((up, format!("http://{listen}")))
}

/// What was created is shown as it was asked for.
fn made(told: &Value) {
    let collections = &told["collections"];
    let gates = json!(["Gates", "Where people come in", false]);
    assert_eq!(collections["made"], gates);
    let doors = json!([true, "Doors", "Where people go out"]);
    assert_eq!(collections["changed"], doors);
    assert_eq!(collections["listed"], true);

    let streams = &told["streams"];
    let connected = json!(["Sample", "connected", "default", 30]);
    assert_eq!(streams["connected"], connected);
    assert_eq!(streams["again"], json!([true, "Sample", true]));
    assert_eq!(streams["listed"], json!([true]));

    let sampling = json!({"time": 5, "frame_count": 2});
    let indexes = json!({
        "visuals": ["time", sampling, "Describe activity", "Activity", "running"],
        "scenes": ["Describe the scene", sampling],
        "same": [true, "Describe activity"],
        "listed": 2,
        "newer": [true, false],
        "stopped": "stopped",
    });
    assert_eq!(told["indexes"], indexes);
    let alerts = json!({
        "events": true,
        "disabled": "disabled",
        "listed": [[true, true, "fast", "enabled"]],
    });
    assert_eq!(told["alerts"], alerts);
    assert_eq!(told["newer_alerts"], json!(["disabled", "enabled"]));

    let batches =
        |segmenter, value: u32| json!({"segmenter": segmenter, "segmentation_value": value});
    let audio = json!({
        "made": ["transcript", batches("sentence", 1), "Sum up what is said", "Speech", "running"],
        "words": ["transcript", batches("word", 4), ""],
        "same": true,
    });
    assert_eq!(told["audio"], audio);
    let understanding = json!({
        "made": [true, true, true, {"type": "time", "window": "5s"}],
        "analyzer": ["people", "Describe people"],
        "outputs": true,
        "listed": [true],
        "index": [true, "People", ["semantic"], "people"],
        "source": true,
        "same": [true, "People"],
        "stopped": ["stopped", "stopped", "stopped"],
        "started": "running",
    });
    assert_eq!(told["understanding"], understanding);
}

/// Searches keep to their bounds, and what the newer calls made holds records.
fn within(ranges: &Value) {
    let expected = json!({
        "strict": true, "dynamic": true, "kinds": ["transcript"], "across": true,
        "batch": [true, true], "understood": true, "newer": true,
    });
    assert_eq!(*ranges, expected);
}

/// Every channel of the WebSocket told of the stream, and what an alert links to plays.
async fn heard(socket: &Value) -> Result<()> {
    assert_eq!(socket["streams"], json!([[true, "Sample"]]));
    for promise in ["texts", "times", "final", "sure"] {
        assert_eq!(socket[promise], true, "{promise}: {socket}");
    }
    let alert = json!({"label": "fast", "event_label": "fast", "triggered": true});
    assert_eq!(socket["alert"], alert);
    let page = socket["plays"].as_str().context("a page")?;
    assert_eq!(get(page).await?.0, 200, "{page}");
    Ok(())
}

/// What was seen and heard is there, and plays.
async fn found(found: &Value) -> Result<()> {
    assert_eq!(found["newest_first"], true, "{found}");
    assert_eq!(found["texts"], json!([true, true]), "{found}");
    assert_eq!(found["said"], json!([true, true]), "{found}");
    assert_eq!(found["between"], true, "{found}");
    assert_eq!(found["later"], true, "{found}");
    assert_eq!(found["shots"], json!([[true, "Activity", true]]));
    assert_eq!(found["across"], json!([[true, "Sample"]]));
    for url in ["stream_url", "shot"] {
        let url = found[url].as_str().context("a playlist")?;
        assert_eq!(get(url).await?.0, 200, "{url}");
    }
    let page = found["player_url"].as_str().context("a page")?;
    assert_eq!(get(page).await?.0, 200, "{page}");
    let embed = found["embed"].as_str().context("a frame")?;
    let embedded = page.replace("/watch?", "/embed?");
    ensure!(embed.contains(&embedded), "{embed}");
    Ok(())
}

async fn exported(export: &Value) -> Result<()> {
    assert_eq!(export["name"], "Sample - Recording");
    let duration = export["duration"].as_f64().context("a duration")?;
    let playlist = export["stream_url"].as_str().context("a playlist")?;
    let (from, to) = probed(playlist).await?;
    ensure!(
        (to - from - duration).abs() < 1.0,
        "{from} to {to}: {duration} s"
    );
    let embed = export["embed"].as_str().context("a frame")?;
    ensure!(embed.contains("/embed?v="), "{embed}");
    Ok(())
}

/// Errors are of the client's own kinds, and say what this platform says.
fn refused(told: &Value) -> Result<()> {
    let errors = &told["errors"];
    for (error, kind, said) in [
        (
            &told["collections"]["deleted"],
            "InvalidRequestError",
            "there is no collection",
        ),
        (&errors["key"], "AuthenticationError", "API key"),
        (
            &errors["unknown"],
            "InvalidRequestError",
            "there is no stream",
        ),
        (&errors["url"], "InvalidRequestError", "url: "),
        (
            &errors["prompt"],
            "InvalidRequestError",
            "prompt: 1 to 4000",
        ),
        (
            &errors["audio"],
            "InvalidRequestError",
            "extraction_config.segmenter: ",
        ),
        (
            &errors["socket"],
            "InvalidRequestError",
            "ws_connection_id: the connection_id of a WebSocket",
        ),
        (
            &errors["filter"],
            "InvalidRequestError",
            "rtstream_id, scene_index_id, kind, start, end",
        ),
        (
            &errors["analyzers"],
            "InvalidRequestError",
            "analyzers: exactly one",
        ),
        (
            &errors["outside"],
            "InvalidRequestError",
            "billing is not part of Sightline",
        ),
        (
            &errors["upload"],
            "InvalidRequestError",
            "upload is not part of Sightline",
        ),
        (
            &errors["understanding"],
            "InvalidRequestError",
            "has no understanding und-unknown",
        ),
    ] {
        let message = error[1].as_str().context("a message")?;
        ensure!(error[0] == kind && message.contains(said), "{error}");
    }
    Ok(())
}
