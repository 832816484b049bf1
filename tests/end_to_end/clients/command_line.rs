//! `sightline` as a client: tables for people, JSON for programs, and what it says when it is refused.

mod backtest;
mod endpoints;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sightline_testkit::platform::clip_url;
use sightline_testkit::process::Process;
use sightline_testkit::until;

use super::{BINARY, Server, lasting_address};

#[tokio::test]
async fn a_user_goes_from_a_clip_to_firings() -> Result<()> {
    let mut server = Server::start("127.0.0.1:0").await?;
    let clip = clip_url()?;
    let source = [
        "stream",
        "connect",
        &clip,
        "--name",
        "Street",
        "--transcribe",
        "--fast",
        "--stopped",
    ];
    let stream = server.id(&source).await?;
    let activity = [
        "index",
        "create",
        &stream,
        "--prompt",
        "Describe activity",
        "--name",
        "Activity",
    ];
    let activity = server.id(&activity).await?;
    let speech = [
        "index", "create", &stream, "--audio", "--words", "5", "--name", "Speech",
    ];
    let speech = server.id(&speech).await?;
    let event = [
        "event",
        "create",
        "Detect when someone enters restricted area",
        "--label",
        "area",
    ];
    let event = server.id(&event).await?;
    let alert = [
        "alert",
        "create",
        "--event",
        &event,
        "--index",
        &activity,
        "--threshold",
        "0.5",
    ];
    let alert = server.id(&alert).await?;
    server.watched(&stream).await?;
    server.shown(&stream, &activity, &speech, &alert).await?;
    server.changed(&stream, &activity, &event, &alert).await?;
    server.stop().await
}

#[tokio::test]
async fn keys_and_collections_are_kept_and_refusals_say_what_to_do() -> Result<()> {
    let mut server = Server::start("127.0.0.1:0").await?;
    let collection = server
        .id(&[
            "collection",
            "create",
            "Gates",
            "--description",
            "Doors too",
        ])
        .await?;
    let table = server.table(&["collection", "list"]).await?;
    ensure!(
        table[0].starts_with("ID") && table[1].starts_with("default"),
        "{table:#?}"
    );
    let made = table[2].contains("just now  ") || table[2].contains(" ago  ");
    ensure!(made && table[2].ends_with("  Doors too"), "{table:#?}");
    let renamed = server
        .json(&["collection", "update", &collection, "--name", "Doors"])
        .await?;
    assert_eq!(renamed[0]["name"], "Doors");
    server.table(&["collection", "delete", &collection]).await?;
    let made = server
        .json(&["keys", "create", "Camera room", "--tenant", "cameras"])
        .await?;
    let (id, secret) = (
        &made[0]["key"]["id"],
        made[0]["secret"].as_str().context("a secret")?,
    );
    let id = id.as_str().context("an id")?;
    let listed = server.table(&["keys", "list"]).await?;
    ensure!(
        listed.iter().any(|row| row.contains("Camera room")),
        "{listed:#?}"
    );
    ensure!(
        !listed.iter().any(|row| row.contains(secret)),
        "{listed:#?}"
    );
    assert_eq!(
        server
            .json(&["stream", "list", "--key", secret])
            .await?
            .len(),
        0
    );
    let refused = server
        .refused(&["keys", "list", "--key", secret, "--json"], 1)
        .await?;
    let refused: Value = serde_json::from_str(&refused)?;
    assert_eq!(refused["error"]["reason"], "PERMISSION_DENIED");
    server.table(&["keys", "revoke", id]).await?;
    until("the key to be refused", async || {
        let (code, ..) = server
            .sightline(&["stream", "list", "--key", secret])
            .await?;
        Ok((code == 1).then_some(()))
    })
    .await?;
    for (arguments, code, words) in [
        (
            vec!["stream", "list", "--key", "wrong"],
            1,
            "SIGHTLINE_API_KEY",
        ),
        (
            vec!["stream", "status", "rts-unknown"],
            1,
            "there is no stream",
        ),
        (vec!["scenes", "idx-unknown"], 1, "there is no index"),
        (vec!["stream", "connect", "ftp://camera"], 1, "url: "),
        (
            vec!["stream", "list", "--server", "http://127.0.0.1:1"],
            1,
            "`sightline up` runs there",
        ),
        (
            vec!["stream", "list", "--server", "127.0.0.1"],
            1,
            "http://HOST:PORT",
        ),
        (vec!["stream", "list", "--limit", "0"], 2, "--limit"),
        (vec!["index", "create", "rts-x"], 2, "--prompt"),
        (
            vec!["index", "create", "rts-x", "--prompt", "p", "--words", "5"],
            2,
            "--audio",
        ),
        (vec!["transcript", "rts-x", "--from", "yesterday"], 2, "10m"),
    ] {
        let said = server.refused(&arguments, code).await?;
        ensure!(said.contains(words), "{arguments:?}: {said}");
    }
    server.stop().await
}

#[tokio::test]
async fn a_watch_goes_on_after_a_restart_of_the_server() -> Result<()> {
    let mut server = Server::start(&lasting_address()?).await?;
    let clip = clip_url()?;
    let stream = server
        .id(&["stream", "connect", &clip, "--fast", "--stopped"])
        .await?;
    let index = server
        .id(&["index", "create", &stream, "--prompt", "Describe activity"])
        .await?;
    let mut watch = server.watch(&["--stream", &stream, "--kind", "scene"])?;
    ready(&mut watch).await?;
    server.table(&["stream", "start", &stream]).await?;
    let mut windows = Vec::new();
    while windows.len() < 18 {
        let message = line(&mut watch).await?;
        if message.get("ready").is_some() {
            continue;
        }
        let window = message["scene"]["window"].as_str().context("a scene")?;
        windows.push(window.parse::<u64>()?);
        if windows.len() == 3 {
            server.restart().await?;
        }
    }
    // A window may be described by the old server and the new one; its id is the same, and so it is seen once.
    windows.sort_unstable();
    assert_eq!(windows, (0..18).collect::<Vec<u64>>());
    ensure!(
        watch
            .log()
            .iter()
            .any(|line| line.contains("the connection is lost")),
        "{:?}",
        watch.log()
    );
    // What was watched is stored in its own time.
    until("five scenes", async || {
        let listed = server.json(&["scenes", &index, "--limit", "5"]).await?;
        Ok((listed.len() == 5).then_some(()))
    })
    .await?;
    watch.kill().await?;
    server.stop().await
}

impl Server {
    /// Watches the stream from its start until the alert has fired, something was said and something was batched.
    async fn watched(&self, stream: &str) -> Result<()> {
        let mut watch = self.watch(&["--stream", stream])?;
        ready(&mut watch).await?;
        self.table(&["stream", "start", stream]).await?;
        let mut missing = vec![
            "scene",
            "transcript",
            "audio_scene",
            "alert",
            "stream_status",
        ];
        while !missing.is_empty() {
            let message = line(&mut watch)
                .await
                .with_context(|| format!("{missing:?} is missing"))?;
            missing.retain(|kind| message.get(kind).is_none());
        }
        watch.kill().await
    }

    /// What people see of it.
    async fn shown(&self, stream: &str, activity: &str, speech: &str, alert: &str) -> Result<()> {
        let status = self.table(&["stream", "status", stream]).await?;
        for words in ["name", "Street", "Activity", "2 frames", "5 words"] {
            ensure!(
                status.iter().any(|line| line.contains(words)),
                "{words}: {status:#?}"
            );
        }
        let streams = self.table(&["stream", "list"]).await?;
        ensure!(
            streams[1].contains(" ago  ") || streams[1].contains("just now"),
            "{streams:#?}"
        );
        for listing in [
            ["scenes", activity],
            ["scenes", speech],
            ["transcript", stream],
        ] {
            // A line that is watched may be an interim one, which is not kept.
            let rows = until("rows", async || {
                let rows = self.table(&listing).await?;
                Ok((rows.len() > 1).then_some(rows))
            })
            .await?;
            ensure!(
                rows[0].split_whitespace().eq(["TIME", "LENGTH", "TEXT"]),
                "{rows:#?}"
            );
            ensure!(rows[1].contains(" s  "), "{rows:#?}");
        }
        let hits = until("hits", async || {
            let hits = self
                .json(&["search", "someone in the restricted area", "--limit", "3"])
                .await?;
            Ok((!hits.is_empty()).then_some(hits))
        })
        .await?;
        ensure!(hits[0]["rtstream_name"] == "Street", "{hits:#?}");
        let firings = until("a firing", async || {
            let firings = self.table(&["alert", "firings", alert]).await?;
            Ok((firings.len() > 1).then_some(firings))
        })
        .await?;
        ensure!(firings[1].contains("area"), "{firings:#?}");
        let deliveries = self.json(&["alert", "deliveries", alert]).await?;
        ensure!(deliveries.is_empty(), "it posts nowhere: {deliveries:#?}");
        Ok(())
    }

    /// What can be changed while it runs, and deleted.
    async fn changed(&self, stream: &str, activity: &str, event: &str, alert: &str) -> Result<()> {
        for (command, field, value) in [
            (
                vec!["stream", "update", stream, "--name", "Road"],
                "name",
                "Road",
            ),
            (
                vec!["index", "update", activity, "--prompt", "Count cars"],
                "prompt",
                "Count cars",
            ),
            (vec!["index", "stop", activity], "state", "STATE_STOPPED"),
            (vec!["index", "start", activity], "state", "STATE_RUNNING"),
            (
                vec!["event", "update", event, "--label", "zone"],
                "label",
                "zone",
            ),
            (vec!["alert", "disable", alert], "state", "STATE_DISABLED"),
            (vec!["alert", "enable", alert], "state", "STATE_ENABLED"),
            (
                vec!["stream", "update", stream, "--transcribe", "off"],
                "name",
                "Road",
            ),
        ] {
            let changed = self.json(&command).await?;
            ensure!(changed[0][field] == value, "{command:?}: {changed:#?}");
        }
        let listed = self.json(&["alert", "list", "--event", event]).await?;
        ensure!(listed.len() == 1 && listed[0]["id"] == alert, "{listed:#?}");
        let used = self.refused(&["event", "delete", event], 1).await?;
        ensure!(used.contains("alert"), "{used}");
        for command in [
            ["alert", "delete", alert],
            ["event", "delete", event],
            ["index", "delete", activity],
            ["stream", "delete", stream],
        ] {
            let said = self.table(&command).await?;
            assert_eq!(said, [format!("{} is deleted.", command[2])]);
        }
        self.refused(&["stream", "status", stream], 1).await?;
        Ok(())
    }

    /// Runs `sightline` with these arguments, as a user on the server's machine: no key is named. Exit code, output and errors.
    async fn sightline(&self, arguments: &[&str]) -> Result<(i32, Vec<String>, String)> {
        let mut process = self.command(arguments)?;
        let lines = process.output(sightline_testkit::LONG).await?;
        let status = process.ended().await?;
        let said = process.log().join("\n");
        Ok((status.code().context("an exit code")?, lines, said))
    }

    fn command(&self, arguments: &[&str]) -> Result<Process> {
        let data = self.dir.path().join("data").display().to_string();
        let environment = [
            ("SIGHTLINE_DATA_DIR", data.as_str()),
            ("SIGHTLINE_SERVER", &self.url),
        ];
        Process::start(Path::new(BINARY), arguments.iter().copied(), &environment)
    }

    /// What it shows people.
    async fn table(&self, arguments: &[&str]) -> Result<Vec<String>> {
        let (code, lines, said) = self.sightline(arguments).await?;
        ensure!(code == 0, "{arguments:?}: {said}");
        Ok(lines)
    }

    /// What it tells programs.
    async fn json(&self, arguments: &[&str]) -> Result<Vec<Value>> {
        let lines = self.table(&[arguments, &["--json"]].concat()).await?;
        let parsed = lines.iter().map(|line| serde_json::from_str(line));
        parsed
            .collect::<Result<_, _>>()
            .context("one JSON object a line")
    }

    /// The id of what it creates.
    async fn id(&self, arguments: &[&str]) -> Result<String> {
        let made = self.json(arguments).await?;
        Ok(made[0]["id"].as_str().context("an id")?.to_owned())
    }

    /// What it says when it ends with this code.
    async fn refused(&self, arguments: &[&str], code: i32) -> Result<String> {
        let (ended, lines, said) = self.sightline(arguments).await?;
        ensure!(
            ended == code,
            "{arguments:?} ended with {ended}: {lines:?} {said}"
        );
        Ok(said)
    }

    fn watch(&self, filters: &[&str]) -> Result<Process> {
        self.command(&[&["watch", "--json"], filters].concat())
    }
}

async fn line(watch: &mut Process) -> Result<Value> {
    let line = watch.line().await?;
    serde_json::from_str(&line).context(line)
}

async fn ready(watch: &mut Process) -> Result<()> {
    let first = line(watch).await?;
    ensure!(first.get("ready").is_some(), "{first}");
    Ok(())
}
