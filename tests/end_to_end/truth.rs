//! What is to be seen and heard in a generated clip, and whether it was.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// Seconds by which a sentence's start and end may be off.
const SPEECH: f64 = 0.5;
/// Seconds by which a scene's start and end may be off.
const SCENE: f64 = 0.3;
/// Length of a window in seconds: a firing may open and close one window beside its event.
const WINDOW: f64 = 5.0;

/// A clip's truth file.
#[derive(Debug, Deserialize)]
pub struct Truth {
    pub duration: f64,
    events: Vec<Happening>,
    speech: Vec<Line>,
}

#[derive(Debug, Deserialize)]
struct Happening {
    event: String,
    start: f64,
    end: f64,
    #[serde(default)]
    vehicles: Vec<String>,
}

/// Words with their place in the clip.
#[derive(Debug, Deserialize)]
pub struct Line {
    pub text: String,
    pub start: f64,
    pub end: f64,
}

/// An alert with its place in the clip.
#[derive(Debug, Deserialize)]
pub struct AlertLine {
    pub label: String,
    pub start: f64,
    pub end: f64,
    pub decision_to_2xx_ms: Option<f64>,
    pub last_frame_to_2xx_ms: Option<f64>,
}

impl Truth {
    /// The truth of the sample clip.
    pub fn of_sample() -> Result<Self> {
        let file = sightline_testkit::sample_clip().with_extension("truth.json");
        Ok(serde_json::from_slice(&std::fs::read(file)?)?)
    }

    /// Every event of this kind has one firing, which opens and closes within a window of it, and there is no other.
    pub fn check_alerts(&self, event: &str, alerts: &[&AlertLine]) -> Result<()> {
        let happened: Vec<_> = self.events.iter().filter(|e| e.event == event).collect();
        ensure!(!happened.is_empty(), "the clip has no {event}");
        let fits = |happening: &Happening, alert: &AlertLine| {
            let near = |a: f64, b: f64| (a - b).abs() <= WINDOW;
            near(alert.start, happening.start) && near(alert.end, happening.end)
        };
        for happening in &happened {
            ensure!(
                alerts.iter().filter(|alert| fits(happening, alert)).count() == 1,
                "{happening:?} is not one firing: {alerts:?}"
            );
        }
        for alert in alerts {
            ensure!(
                happened.iter().any(|happening| fits(happening, alert)),
                "nothing happened at {alert:?}"
            );
        }
        Ok(())
    }

    /// The place of the fast vehicle overlaps this stretch.
    pub fn check_fast(&self, vehicle: &str, start: f64, end: f64) -> Result<()> {
        let fast = self
            .events
            .iter()
            .find(|e| e.event == "fast" && e.vehicles.iter().any(|v| v == vehicle));
        let fast = fast.with_context(|| format!("the clip has no fast {vehicle}"))?;
        ensure!(
            start < fast.end && end > fast.start,
            "{start}-{end} s is not where the {vehicle} is fast: {fast:?}"
        );
        Ok(())
    }

    /// All sentences but at most `missing` are there, word for word and in place.
    pub fn check_speech(&self, heard: &[Line], missing: usize) -> Result<()> {
        let near = |a: f64, b: f64| (a - b).abs() <= SPEECH;
        let not_heard: Vec<_> = self
            .speech
            .iter()
            .filter(|said| {
                let matches = |line: &Line| {
                    words(&line.text) == words(&said.text)
                        && near(line.start, said.start)
                        && near(line.end, said.end)
                };
                !heard.iter().any(matches)
            })
            .collect();
        ensure!(
            not_heard.len() <= missing,
            "not heard: {not_heard:#?}\nheard: {heard:#?}"
        );
        Ok(())
    }
}

/// The windows from the start to the end of the clip, in order and without a hole.
pub fn check_windows(scenes: &[(f64, f64)], duration: f64) -> Result<()> {
    let near = |a: f64, b: f64| (a - b).abs() <= SCENE;
    for (number, (start, end)) in scenes.iter().enumerate() {
        let due = number as f64 * WINDOW;
        ensure!(
            near(*start, due) && near(*end, (due + WINDOW).min(duration)),
            "window {number} is at {start}-{end} s"
        );
    }
    let due = (duration / WINDOW).ceil() as usize;
    ensure!(scenes.len() == due, "{} of {due} windows", scenes.len());
    Ok(())
}

fn words(text: &str) -> Vec<String> {
    let plain = |word: &str| {
        word.trim_matches(|c: char| !c.is_alphanumeric())
            .to_lowercase()
    };
    text.split_whitespace()
        .map(plain)
        .filter(|word| !word.is_empty())
        .collect()
}
