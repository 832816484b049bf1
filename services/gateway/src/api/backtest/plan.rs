//! Which windows a backtest judges, and what is stored of each.

use std::collections::{BTreeMap, BTreeSet};

use sightline_proto::internal::Observation;
use sightline_proto::internal::observation::Body;

use super::Job;

/// One window of an index: of its sampling, or a batch of an audio index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) epoch_us: i64,
    pub(super) number: u64,
    pub(super) start_us: i64,
    pub(super) end_us: i64,
    /// Whether at least half of it is recorded.
    pub(super) recorded: bool,
    /// The id of its stored description; empty if there is none.
    pub(super) scene_id: String,
    pub(super) text: String,
    /// What was said in it; empty for pictures.
    pub(super) transcript: String,
}

impl Window {
    /// The window that an observation describes, if it does that.
    pub(super) fn of_scene(observation: &Observation) -> Option<Self> {
        let (number, text, transcript) = match observation.body.as_ref()? {
            Body::Scene(scene) => (scene.window, &scene.text, ""),
            Body::AudioScene(scene) => (scene.batch, &scene.text, scene.transcript.as_str()),
            _ => return None,
        };
        Some(Self {
            epoch_us: observation.epoch_us,
            number,
            start_us: observation.start_us,
            end_us: observation.end_us,
            recorded: false,
            scene_id: observation.id.clone(),
            text: text.clone(),
            transcript: transcript.to_owned(),
        })
    }
}

/// The windows of a stretch of time of which anything is stored, in the order in which they are judged.
pub(super) struct Plan {
    pub(super) windows: Vec<Window>,
    /// How many more fit into the stretch.
    pub(super) missing: u64,
}

impl Plan {
    /// Those that were described, and those of the sampling's grid that are recorded. The grid begins with an epoch: of the scenes,
    /// of the run under way, or where a recording begins of which neither is known.
    pub(super) fn of(
        job: &Job,
        scenes: Vec<Window>,
        recorded: &[(i64, i64)],
        epoch_us: i64,
        now_us: i64,
    ) -> Self {
        let known = scenes.iter().map(|scene| scene.epoch_us);
        let epochs: BTreeSet<i64> = known.chain([epoch_us]).filter(|epoch| *epoch > 0).collect();
        let mut windows = BTreeMap::new();
        for mut scene in scenes {
            scene.recorded = is_recorded(recorded, scene.start_us, scene.end_us);
            windows
                .entry((scene.epoch_us, scene.number))
                .or_insert(scene);
        }
        let window_us = job.sampling.window_us;
        if window_us > 0 {
            for window in on_grid(job, recorded, &epochs) {
                windows
                    .entry((window.epoch_us, window.number))
                    .or_insert(window);
            }
        }
        let windows: Vec<_> = windows.into_values().collect();
        let last_us = windows.iter().map(|window| window.end_us).max();
        let end_us = job.end_us.min(now_us.max(last_us.unwrap_or(0)));
        let missing = missing(&windows, job.start_us, end_us, window_us);
        Self { windows, missing }
    }
}

/// The windows of the grid that are recorded.
fn on_grid(job: &Job, recorded: &[(i64, i64)], epochs: &BTreeSet<i64>) -> Vec<Window> {
    let window_us = job.sampling.window_us;
    let mut found = Vec::new();
    for &(from_us, to_us) in recorded {
        let mut at_us = from_us.max(job.start_us);
        let to_us = to_us.min(job.end_us);
        while at_us < to_us {
            let epoch_us = epochs
                .range(..=at_us)
                .next_back()
                .copied()
                .unwrap_or(from_us);
            let next_us = epochs
                .range(at_us + 1..)
                .next()
                .copied()
                .unwrap_or(i64::MAX);
            let number = (at_us - epoch_us) / window_us;
            let start_us = epoch_us + number * window_us;
            let end_us = start_us + window_us;
            if is_recorded(recorded, start_us, end_us) {
                found.push(Window {
                    epoch_us,
                    number: number.unsigned_abs(),
                    start_us,
                    end_us,
                    recorded: true,
                    scene_id: String::new(),
                    text: String::new(),
                    transcript: String::new(),
                });
            }
            at_us = end_us.min(next_us);
        }
    }
    found
}

/// Whether at least half of a window is.
fn is_recorded(recorded: &[(i64, i64)], start_us: i64, end_us: i64) -> bool {
    let first = recorded.partition_point(|(_, to_us)| *to_us <= start_us);
    let near = recorded[first..]
        .iter()
        .take_while(|(from_us, _)| *from_us < end_us);
    let covered: i64 = near
        .map(|(from_us, to_us)| (*to_us).min(end_us) - (*from_us).max(start_us))
        .sum();
    covered > 0 && covered * 2 >= end_us - start_us
}

/// How many windows fit into what of the stretch is covered by none.
fn missing(windows: &[Window], start_us: i64, end_us: i64, window_us: i64) -> u64 {
    if window_us <= 0 {
        return 0;
    }
    let mut places: Vec<_> = windows.iter().map(|w| (w.start_us, w.end_us)).collect();
    places.sort_unstable();
    let (mut covered_us, mut missing) = (start_us, 0);
    for (from_us, to_us) in places.into_iter().chain([(end_us, end_us)]) {
        missing += (from_us - covered_us).max(0) / window_us;
        covered_us = covered_us.max(to_us);
    }
    missing.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use sightline_proto::internal::Sampling;
    use sightline_proto::v1::{Index, Policy};

    use super::*;

    const SECOND: i64 = 1_000_000;
    const DAY: i64 = 1_000_000 * SECOND;

    fn job(from: i64, to: i64) -> Job {
        Job {
            prompt: String::new(),
            event_id: String::new(),
            label: String::new(),
            index: Index::default(),
            reads_text: false,
            sampling: Sampling {
                window_us: 5 * SECOND,
                frame_count: 2,
            },
            start_us: DAY + from * SECOND,
            end_us: DAY + to * SECOND,
            threshold: 0.5,
            policy: Policy::default(),
            labels: Vec::new(),
        }
    }

    fn scene(epoch: i64, number: u64, end: i64) -> Window {
        let epoch_us = DAY + epoch * SECOND;
        Window {
            epoch_us,
            number,
            start_us: epoch_us + number as i64 * 5 * SECOND,
            end_us: DAY + end * SECOND,
            recorded: false,
            scene_id: format!("{epoch}-{number}"),
            text: "a road".to_owned(),
            transcript: String::new(),
        }
    }

    /// Plans `from` to `to` seconds and returns epoch, number, start, whether it is recorded and whether it is described.
    fn check(
        (from, to): (i64, i64),
        scenes: Vec<Window>,
        recorded: &[(i64, i64)],
        epoch: i64,
        expected: &[(i64, u64, i64, bool, bool)],
        missing: u64,
    ) {
        let at = |us: i64| (us - DAY) / SECOND;
        let recorded: Vec<_> = recorded
            .iter()
            .map(|(from, to)| (DAY + from * SECOND, DAY + to * SECOND))
            .collect();
        let now_us = DAY + 1000 * SECOND;
        let epoch_us = DAY + epoch * SECOND;
        let plan = Plan::of(&job(from, to), scenes, &recorded, epoch_us, now_us);
        let found: Vec<_> = plan
            .windows
            .iter()
            .map(|w| {
                let described = !w.scene_id.is_empty();
                (
                    at(w.epoch_us),
                    w.number,
                    at(w.start_us),
                    w.recorded,
                    described,
                )
            })
            .collect();
        assert_eq!((found.as_slice(), plan.missing), (expected, missing));
    }

    #[test]
    fn windows_are_those_described_and_those_recorded() {
        check((0, 20), vec![], &[], 0, &[], 4);
        check(
            (0, 10),
            vec![scene(0, 0, 5), scene(0, 0, 5)],
            &[],
            0,
            &[(0, 0, 0, false, true)],
            1,
        );
        // The recording begins in the middle of a window: less than half of it is there.
        check(
            (0, 20),
            vec![scene(0, 0, 5), scene(0, 1, 10)],
            &[(8, 18)],
            0,
            &[
                (0, 0, 0, false, true),
                (0, 1, 5, false, true),
                (0, 2, 10, true, false),
                (0, 3, 15, true, false),
            ],
            0,
        );
        // The source ended within its last window.
        check(
            (0, 7),
            vec![scene(0, 1, 7)],
            &[(0, 7)],
            0,
            &[(0, 0, 0, true, false), (0, 1, 5, true, true)],
            0,
        );
        // Nothing later than now is missing.
        check((990, 2000), vec![], &[], 0, &[], 2);
    }

    #[test]
    fn each_run_has_a_grid_of_its_own() {
        check(
            (0, 30),
            vec![scene(2, 1, 12)],
            &[(0, 28)],
            13,
            &[
                (0, 0, 0, true, false),
                (2, 0, 2, true, false),
                (2, 1, 7, true, true),
                (2, 2, 12, true, false),
                (13, 0, 13, true, false),
                (13, 1, 18, true, false),
                (13, 2, 23, true, false),
            ],
            0,
        );
    }
}
