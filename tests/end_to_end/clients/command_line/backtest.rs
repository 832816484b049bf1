//! Trying an event out on what was, and asking where the time goes.

use anyhow::{Context, Result, ensure};
use sightline_testkit::platform::clip_url;
use sightline_testkit::until;

use super::Server;

#[tokio::test]
async fn an_event_is_tried_out_on_what_was() -> Result<()> {
    let mut server = Server::start("127.0.0.1:0").await?;
    let clip = clip_url()?;
    let source = [
        "stream",
        "connect",
        &clip,
        "--name",
        "Street",
        "--record",
        "--fast",
        "--stopped",
    ];
    let stream = server.id(&source).await?;
    let without = [
        "event", "backtest", "a car", "--stream", "Street", "--from", "1h",
    ];
    let said = server.refused(&without, 1).await?;
    ensure!(said.contains("has no index"), "{said}");
    let activity = ["index", "create", &stream, "--prompt", "Describe activity"];
    server.id(&activity).await?;
    server.table(&["stream", "start", &stream]).await?;
    let status = ["stream", "status", &stream];
    let epoch = until("the clip to end", async || {
        let status = server.json(&status).await?;
        let epoch = status[0]["epoch"].as_str().map(str::to_owned);
        Ok(epoch.filter(|_| status[0]["state"] == "STATE_ENDED"))
    })
    .await?;

    let end = epoch.parse::<jiff::Timestamp>()? + jiff::SignedDuration::from_secs(90);
    let end = end.to_string();
    let label = format!("{epoch}..{end}");
    let what = "Detect when someone enters restricted area";
    let asked = [
        "event",
        "backtest",
        what,
        "--stream",
        "Street",
        "--from",
        &epoch,
        "--to",
        &end,
        "--threshold",
        "0.5",
        "--label",
        &label,
    ];
    // The last segment and descriptions may still be on their way.
    let lines = until(
        "windows to be judged from frames and described",
        async || {
            let lines = server.table(&asked).await?;
            let has = |part| lines.iter().any(|line: &String| line.contains(part));
            let all = has("18 windows judged from frames, 0 from") && has(" %  fires: ");
            Ok(all.then_some(lines))
        },
    )
    .await?;
    let fired = lines
        .iter()
        .filter(|line| line.starts_with("would have fired at "));
    ensure!(fired.count() > 0, "{lines:#?}");
    ensure!(
        lines.iter().any(|line| line.ends_with("  suggested")),
        "{lines:#?}"
    );
    let told = server.json(&asked).await?;
    let summary = told.last().context("a summary")?;
    ensure!(summary["summary"]["from_frames"] == "18", "{summary}");

    for command in ["alert", "alerts"] {
        let latency = server.json(&[command, "latency"]).await?;
        let stages = latency[0]["stages"].as_array().context("stages")?;
        ensure!(
            stages.len() == 5 && latency[0]["deliveries"] == "0",
            "{latency:#?}"
        );
    }
    server.stop().await
}
