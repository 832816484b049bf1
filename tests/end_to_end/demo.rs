//! `sightline demo`: what a newcomer sees first.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use sightline_testkit::process::Process;

use crate::truth::{AlertLine, Line, Truth, check_windows};

/// The clip lasts 90 s; played fast it takes less, on any machine that can build this.
const DEMO: Duration = Duration::from_secs(240);

#[derive(Deserialize)]
struct Outcome {
    scenes: Vec<Scene>,
    transcripts: Vec<Line>,
    alerts: Vec<AlertLine>,
    searches: Vec<Search>,
}

#[derive(Deserialize)]
struct Scene {
    start: f64,
    end: f64,
    index: String,
}

#[derive(Deserialize)]
struct Search {
    query: String,
    results: Vec<Hit>,
}

#[derive(Debug, Deserialize)]
struct Hit {
    start: f64,
    end: f64,
    score: f64,
}

#[tokio::test]
async fn the_demo_sees_hears_finds_and_alerts() -> Result<()> {
    let binary = Path::new(env!("CARGO_BIN_EXE_sightline"));
    let mut demo = Process::start(binary, ["demo", "--json", "--fast"], &[])?;
    let lines = demo.output(DEMO).await?;
    let status = demo.ended().await?;
    ensure!(status.success(), "{status}: {:#?}", demo.log());
    let last = lines.last().context("it prints its outcome")?;
    let outcome: Outcome = serde_json::from_str(last).with_context(|| last.clone())?;
    let truth = Truth::of_sample()?;

    for index in ["activity", "congestion"] {
        let of_index = outcome.scenes.iter().filter(|scene| scene.index == index);
        let places: Vec<_> = of_index.map(|scene| (scene.start, scene.end)).collect();
        check_windows(&places, truth.duration).context(index)?;
    }
    truth.check_speech(&outcome.transcripts, 1)?;
    for (event, label) in [
        ("restricted", "restricted area"),
        ("crossing", "pedestrians crossing"),
    ] {
        let alerts: Vec<_> = outcome
            .alerts
            .iter()
            .filter(|alert| alert.label == label)
            .collect();
        truth.check_alerts(event, &alerts)?;
    }
    for alert in &outcome.alerts {
        ensure!(
            alert.decision_to_2xx_ms.is_some_and(|ms| ms > 0.0),
            "{alert:?}"
        );
        ensure!(
            alert.last_frame_to_2xx_ms > alert.decision_to_2xx_ms,
            "{alert:?}"
        );
    }
    ensure!(outcome.searches.len() == 3);
    let fast = &outcome.searches[0];
    assert_eq!(fast.query, "white car moving fast");
    let best = fast.results.first().context("a result")?;
    ensure!(
        fast.results
            .iter()
            .all(|hit| (0.0..=best.score).contains(&hit.score)),
        "{:?}",
        fast.results
    );
    truth.check_fast("white car", best.start, best.end)
}

#[tokio::test]
async fn a_clip_that_is_none_is_named() -> Result<()> {
    let binary = Path::new(env!("CARGO_BIN_EXE_sightline"));
    let dir = tempfile::tempdir()?;
    let text = dir.path().join("text.mp4");
    std::fs::write(&text, "this is no video\n".repeat(100))?;
    for (clip, said) in [
        (text.as_path(), "cannot be played"),
        (Path::new("nowhere.mp4"), "--clip"),
    ] {
        let arguments = [
            "demo".as_ref(),
            "--fast".as_ref(),
            "--clip".as_ref(),
            clip.as_os_str(),
        ];
        let mut demo = Process::start(binary, arguments, &[])?;
        ensure!(!demo.ended().await?.success());
        let log = demo.log().join("\n");
        ensure!(log.contains(said), "{clip:?}: {log}");
    }
    Ok(())
}
