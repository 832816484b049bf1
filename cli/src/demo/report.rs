//! What the demo shows: lines for people as things happen, searches at the end, and one JSON object for programs.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;
use sightline_proto::v1::rt_stream::State;
use sightline_proto::v1::watch_response::Message;
use tokio::time::timeout;

use super::receiver::Webhook;
use super::story::{QUERIES, Story};

/// How long the watch may take to show what is stored already.
const CATCH_UP: Duration = Duration::from_secs(5);

/// Shows what happens, and counts it.
pub struct Report {
    json: bool,
    /// Whether links are shown: they work for as long as the platform stays up.
    stay: bool,
    scenes: usize,
    transcripts: usize,
}

/// The object of `--json`. Times are seconds from the start of the clip.
#[derive(Serialize)]
struct Outcome {
    scenes: Vec<SceneLine>,
    transcripts: Vec<TranscriptLine>,
    alerts: Vec<AlertLine>,
    searches: Vec<SearchLines>,
}

#[derive(Serialize)]
struct SceneLine {
    start: f64,
    end: f64,
    text: String,
    index: &'static str,
}

#[derive(Serialize)]
struct TranscriptLine {
    start: f64,
    end: f64,
    text: String,
}

#[derive(Serialize)]
struct AlertLine {
    label: String,
    confidence: f32,
    start: f64,
    end: f64,
    explanation: String,
    decision_to_2xx_ms: Option<f64>,
    last_frame_to_2xx_ms: Option<f64>,
    stream_url: String,
    player_url: String,
}

#[derive(Serialize)]
struct SearchLines {
    query: &'static str,
    results: Vec<ResultLine>,
}

#[derive(Serialize)]
struct ResultLine {
    start: f64,
    end: f64,
    text: String,
    score: f32,
    stream_url: String,
    player_url: String,
}

impl Report {
    /// A report for people on standard output, or, with `json`, on standard error.
    pub fn new(json: bool, stay: bool) -> Self {
        Self {
            json,
            stay,
            scenes: 0,
            transcripts: 0,
        }
    }

    /// The platform is about to start.
    pub fn starting(&self, clip: &Path, fast: bool) {
        let pace = if fast {
            "as fast as it can be described"
        } else {
            "in real time"
        };
        self.line(&format!(
            "Starting Sightline and playing {} {pace}.",
            clip.display()
        ));
    }

    /// The clip has ended.
    pub fn settling(&self) {
        self.line("The clip has ended; finishing what was taken in.");
    }

    /// A webhook came.
    pub fn webhook(&self, webhook: &Webhook) {
        let percent = (webhook.confidence * 100.0).round();
        self.line(&format!(
            "  ALERT       {} ({percent} %) by webhook: {}",
            webhook.label, webhook.explanation
        ));
        self.link(webhook.player_url.as_deref().unwrap_or_default());
    }

    /// Shows a message; true if it says that the clip has ended.
    ///
    /// # Errors
    /// When the stream failed.
    pub async fn message(&mut self, message: Message, story: &mut Story) -> Result<bool> {
        match message {
            Message::Scene(scene) => {
                self.scenes += 1;
                let start = story.seconds(scene.start_time.as_ref()).await?;
                let end = story.seconds(scene.end_time.as_ref()).await?;
                let index = story.index_name(&scene.index_id);
                self.line(&format!(
                    "  {index:<11} {}  {}",
                    span(start, end),
                    scene.text
                ));
            }
            Message::Transcript(segment) => {
                self.transcripts += 1;
                let start = story.seconds(segment.start_time.as_ref()).await?;
                let end = story.seconds(segment.end_time.as_ref()).await?;
                self.line(&format!(
                    "  transcript  {}  \"{}\"",
                    span(start, end),
                    segment.text
                ));
            }
            Message::StreamStatus(status) => match status.state() {
                State::Ended => return Ok(true),
                State::Failed | State::Stopped => {
                    bail!("the clip cannot be played: {}", status.detail)
                }
                _ => {}
            },
            Message::Lagged(lagged) => self.line(&format!(
                "  ({} messages were not shown in time)",
                lagged.count
            )),
            Message::Alert(_)
            | Message::AudioScene(_)
            | Message::Verdict(_)
            | Message::Ready(_) => {}
        }
        Ok(false)
    }

    /// Shows what is stored and was not shown yet.
    ///
    /// # Errors
    /// When a call is refused.
    pub async fn catch_up(&mut self, story: &mut Story) -> Result<()> {
        let (scenes, transcripts) = (story.scenes().await?.len(), story.transcript().await?.len());
        let showing = async {
            while self.scenes < scenes || self.transcripts < transcripts {
                let message = story.next().await?;
                self.message(message, story).await?;
            }
            anyhow::Ok(())
        };
        timeout(CATCH_UP, showing).await.unwrap_or(Ok(()))
    }

    /// Searches, sums up, and says whether every stage produced something.
    ///
    /// # Errors
    /// When a call is refused.
    pub async fn finish(&self, story: &mut Story) -> Result<ExitCode> {
        let outcome = outcome(story).await?;
        for search in &outcome.searches {
            self.line(&format!("Search: {}", search.query));
            for hit in &search.results {
                self.line(&format!(
                    "  {:.3}  {}  {}",
                    hit.score,
                    span(hit.start, hit.end),
                    hit.text
                ));
                self.link(&hit.player_url);
            }
        }
        let missing = outcome.missing();
        self.line(&outcome.summary());
        if self.json {
            println!("{}", serde_json::to_string(&outcome)?);
        }
        if missing.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        eprintln!("sightline: the clip gave no {}", missing.join(" and no "));
        Ok(ExitCode::FAILURE)
    }

    /// What was found stays to be watched.
    pub fn staying(&self) {
        self.line("Sightline stays up: the links play what was found. Stop it with Ctrl-C.");
    }

    /// Where something can be watched.
    fn link(&self, player_url: &str) {
        if self.stay && !player_url.is_empty() {
            self.line(&format!("              watch it: {player_url}"));
        }
    }

    /// A line for people.
    fn line(&self, text: &str) {
        if self.json {
            eprintln!("{text}");
        } else {
            println!("{text}");
        }
    }
}

impl Outcome {
    fn missing(&self) -> Vec<&'static str> {
        let stages = [
            ("scenes", self.scenes.is_empty()),
            ("transcript", self.transcripts.is_empty()),
            ("alerts", self.alerts.is_empty()),
            (
                "search results",
                self.searches.iter().any(|s| s.results.is_empty()),
            ),
        ];
        stages
            .into_iter()
            .filter(|(_, empty)| *empty)
            .map(|(stage, _)| stage)
            .collect()
    }

    fn summary(&self) -> String {
        let worst = self
            .alerts
            .iter()
            .filter_map(|a| a.last_frame_to_2xx_ms)
            .fold(0.0, f64::max);
        format!(
            "{} scenes, {} transcript lines, {} alerts; from the last frame to the webhook's 2xx at most {worst:.0} ms",
            self.scenes.len(),
            self.transcripts.len(),
            self.alerts.len()
        )
    }
}

async fn outcome(story: &mut Story) -> Result<Outcome> {
    let mut scenes = Vec::new();
    for scene in story.scenes().await? {
        scenes.push(SceneLine {
            start: story.seconds(scene.start_time.as_ref()).await?,
            end: story.seconds(scene.end_time.as_ref()).await?,
            index: story.index_name(&scene.index_id),
            text: scene.text,
        });
    }
    let mut transcripts = Vec::new();
    for segment in story.transcript().await? {
        transcripts.push(TranscriptLine {
            start: story.seconds(segment.start_time.as_ref()).await?,
            end: story.seconds(segment.end_time.as_ref()).await?,
            text: segment.text,
        });
    }
    let mut alerts = Vec::new();
    for (firing, delivery) in story.firings().await? {
        alerts.push(AlertLine {
            start: story.seconds(firing.start_time.as_ref()).await?,
            end: story.seconds(firing.end_time.as_ref()).await?,
            label: firing.label,
            confidence: firing.confidence,
            explanation: firing.explanation,
            decision_to_2xx_ms: delivery.as_ref().map(|d| d.decision_to_2xx_ms),
            last_frame_to_2xx_ms: delivery.as_ref().map(|d| d.last_frame_to_2xx_ms),
            stream_url: firing.stream_url,
            player_url: firing.player_url,
        });
    }
    Ok(Outcome {
        scenes,
        transcripts,
        alerts,
        searches: searches(story).await?,
    })
}

async fn searches(story: &mut Story) -> Result<Vec<SearchLines>> {
    let mut searches = Vec::new();
    for query in QUERIES {
        let mut results = Vec::new();
        for hit in story.search(query).await? {
            results.push(ResultLine {
                start: story.seconds(hit.start_time.as_ref()).await?,
                end: story.seconds(hit.end_time.as_ref()).await?,
                text: hit.text,
                score: hit.score,
                stream_url: hit.stream_url,
                player_url: hit.player_url,
            });
        }
        searches.push(SearchLines { query, results });
    }
    Ok(searches)
}

/// A stretch of the clip as minutes and seconds.
fn span(start: f64, end: f64) -> String {
    let clock = |seconds: f64| {
        format!(
            "{:02}:{:04.1}",
            (seconds / 60.0) as u64,
            seconds.max(0.0) % 60.0
        )
    };
    format!("{}-{}", clock(start), clock(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_as_minutes_and_seconds() {
        for (start, end, expected) in [
            (0.0, 5.0, "00:00.0-00:05.0"),
            (65.46, 70.0, "01:05.5-01:10.0"),
            (600.0, 3661.2, "10:00.0-61:01.2"),
        ] {
            assert_eq!(span(start, end), expected);
        }
    }
}
