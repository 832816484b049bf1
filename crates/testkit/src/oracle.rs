//! The oracle: what the bus acknowledged against what came out, once the faults have stopped.
//!
//! It knows three ledgers. What the bus took as observations must be listed by the API, each exactly once and nothing else.
//! What a source published in order must have no holes where it promised none. And no process may have logged a warning or
//! an error that the test did not expect.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use sightline_bus::{Bus, StreamName};
use sightline_proto::client::Client;
use sightline_proto::internal::Observation;
use sightline_proto::internal::observation::Body;

use crate::platform::{scenes, transcript};
use crate::process::Process;
use crate::until;

/// More observations than any test makes.
const ALL: usize = 1_000_000;

/// Everything that the bus acknowledged about one stream.
pub struct Ledger {
    observations: BTreeMap<String, Observation>,
}

impl Ledger {
    /// Reads what the bus holds of a stream.
    ///
    /// # Errors
    /// When the bus holds an observation twice.
    pub async fn read(bus: &Bus, rtstream_id: &str) -> Result<Self> {
        let filter = format!("obs.*.*.{rtstream_id}");
        let received = bus
            .read::<Observation>(StreamName::Observations, &filter, ALL)
            .await?;
        let mut observations = BTreeMap::new();
        for one in received {
            let id = one.message.id.clone();
            if observations.insert(id.clone(), one.message).is_some() {
                bail!("the bus holds observation {id} twice");
            }
        }
        let ledger = Self { observations };
        ledger.refuse_doubles()?;
        Ok(ledger)
    }

    /// The windows that an index has scenes of, in order.
    pub fn windows(&self, index_id: &str) -> Vec<u64> {
        let scenes = self.bodies().filter_map(|(_, body)| match body {
            Body::Scene(scene) if scene.index_id == index_id => Some(scene.window),
            _ => None,
        });
        let mut windows: Vec<u64> = scenes.collect();
        windows.sort_unstable();
        windows
    }

    /// The ids of the firings.
    pub fn firings(&self) -> Vec<String> {
        let firings = self.bodies().filter_map(|(_, body)| match body {
            Body::Firing(firing) => Some(firing.firing_id.clone()),
            _ => None,
        });
        let mut ids: Vec<String> = firings.collect();
        ids.sort();
        ids.dedup();
        ids
    }

    /// What of the recording was told as lost: from when to when, in order, in microseconds.
    pub fn recording_gaps(&self) -> Vec<(i64, i64)> {
        self.gaps("recording")
    }

    /// What of "frames", "audio" or "recording" was told as lost: from when to when, in order, in microseconds.
    pub fn gaps(&self, what: &str) -> Vec<(i64, i64)> {
        let gaps = self.bodies().filter_map(|(observation, body)| match body {
            Body::Gap(gap) if gap.what == what && !gap.reason.is_empty() => {
                Some((observation.start_us, observation.end_us))
            }
            _ => None,
        });
        let mut gaps: Vec<_> = gaps.collect();
        gaps.sort_unstable();
        gaps
    }

    /// The windows between the first and the last described one of an index that have no scene: from when to when each, in
    /// microseconds.
    pub fn missing(&self, index_id: &str) -> Vec<(i64, i64)> {
        let described = self.bodies().filter_map(|(observation, body)| match body {
            Body::Scene(scene) if scene.index_id == index_id => {
                Some((scene.window, observation.start_us))
            }
            _ => None,
        });
        let described: BTreeMap<u64, i64> = described.collect();
        let pairs = described.iter().zip(described.iter().skip(1));
        let missing = pairs.flat_map(|((&window, &start_us), (&next, &next_us))| {
            let between = i64::try_from(next - window).unwrap_or(i64::MAX);
            let length_us = (next_us - start_us) / between;
            let at_us = move |number: i64| start_us + number * length_us;
            (1..between).map(move |number| (at_us(number), at_us(number + 1)))
        });
        missing.collect()
    }

    /// The ids of all that was observed.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.observations.keys().map(String::as_str)
    }

    /// Compares with what the API lists: everything once, and nothing that the bus does not know.
    ///
    /// # Errors
    /// When something is missing, doubled or unknown.
    pub async fn compare(
        &self,
        client: &mut Client,
        rtstream_id: &str,
        index_ids: &[&str],
    ) -> Result<()> {
        let stored = |body: &Body| matches!(body, Body::Scene(_) | Body::Transcript(_));
        let taken: Vec<&str> = self
            .bodies()
            .filter(|(_, body)| stored(body))
            .map(|(o, _)| o.id.as_str())
            .collect();
        let mut missing = Vec::new();
        // A service that loads its model slowly takes observations late, and until then has no backlog.
        let listing = until("what was acknowledged to be listed", async || {
            let listed = listed(client, rtstream_id, index_ids).await?;
            missing.clone_from(&taken);
            missing.retain(|id| !listed.iter().any(|l| l == id));
            Ok(missing.is_empty().then_some(listed))
        })
        .await;
        let listed = listing.with_context(|| format!("not listed: {missing:?}"))?;
        ensure!(
            listed.len() == taken.len(),
            "listed {} and acknowledged {}: {listed:?}",
            listed.len(),
            taken.len()
        );
        Ok(())
    }

    fn bodies(&self) -> impl Iterator<Item = (&Observation, &Body)> {
        self.observations
            .values()
            .filter_map(|o| Some((o, o.body.as_ref()?)))
    }

    /// Two ids for one thing are a double as well: the same window described twice, the same words heard twice.
    fn refuse_doubles(&self) -> Result<()> {
        let mut seen = BTreeMap::new();
        for (observation, body) in self.bodies() {
            let what = match body {
                Body::Scene(scene) => format!("scene {} {}", scene.index_id, scene.window),
                Body::Verdict(verdict) => format!(
                    "verdict {} {} {}",
                    verdict.index_id, verdict.event_id, verdict.window
                ),
                _ => continue,
            };
            let key = format!("{} {what}", observation.epoch_us);
            if let Some(other) = seen.insert(key, &observation.id) {
                bail!(
                    "{what} was observed twice, as {other} and {}",
                    observation.id
                );
            }
        }
        self.refuse_words_heard_twice()
    }

    /// Words that are heard twice overlap: where an utterance starts may differ by a sample.
    fn refuse_words_heard_twice(&self) -> Result<()> {
        let heard = self.bodies().filter_map(|(observation, body)| match body {
            Body::Transcript(words) => Some((observation, &words.text)),
            _ => None,
        });
        let heard: Vec<_> = heard.collect();
        for (number, (one, text)) in heard.iter().enumerate() {
            for (other, same) in &heard[number + 1..] {
                let overlap = one.start_us < other.end_us && other.start_us < one.end_us;
                ensure!(
                    text != same || !overlap || one.epoch_us != other.epoch_us,
                    "{text:?} was heard twice, as {} and {}",
                    one.id,
                    other.id
                );
            }
        }
        Ok(())
    }
}

/// The ids of what the API lists, in order.
async fn listed(client: &mut Client, rtstream_id: &str, index_ids: &[&str]) -> Result<Vec<String>> {
    let mut listed = Vec::new();
    for index_id in index_ids {
        let scenes = scenes(client, index_id).await?.into_iter();
        listed.extend(scenes.map(|scene| scene.id));
    }
    let segments = transcript(client, rtstream_id).await?.into_iter();
    listed.extend(segments.map(|segment| segment.id));
    listed.sort();
    Ok(listed)
}

/// Refuses warnings and errors in a process's log, other than those that contain one of `expected`.
///
/// # Errors
/// When there is one.
pub fn no_surprises(process: &Process, expected: &[&str]) -> Result<()> {
    let log = process.log();
    let surprises = surprises(&log, expected);
    ensure!(
        surprises.is_empty(),
        "unexpected in the log: {surprises:#?}"
    );
    Ok(())
}

/// The warnings and errors of a log, without those that contain one of `expected`.
pub fn surprises<'a>(log: &'a [String], expected: &[&str]) -> Vec<&'a String> {
    let loud = |line: &&String| {
        line.contains(" WARN ") || line.contains(" ERROR ") || line.contains("panicked at")
    };
    log.iter()
        .filter(loud)
        .filter(|line| !expected.iter().any(|e| line.contains(e)))
        .collect()
}
