//! Whether a camera is there and is kept up with: told by the clock, because nothing comes from one that is gone.
//!
//! Windows are those of the stream's health, but of wall time: a camera's stream time follows it. Files have no such windows.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::Shared;
use crate::health::{Health, Of, Verdict, WINDOW_US};
use crate::record::RunState;

/// A clock that leaps further was set, or the machine slept: what lies between is not known.
const LEAP_US: i64 = 60_000_000;

/// What is known of a run at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Vitals {
    /// Wall time of media time 0; 0 until media arrived.
    pub(crate) epoch_us: i64,
    /// Whether no media arrives.
    pub(crate) down: bool,
    /// How many windows came while as many as may wait before they were not described yet: each costs the oldest.
    pub(crate) crowded: u64,
}

/// A live source under one lease.
pub(crate) struct Camera {
    shared: Arc<Shared>,
    rtstream_id: String,
    collection_id: String,
    vitals: watch::Receiver<Vitals>,
}

/// Tells of each window that passes whether the camera was away, came back, or was not kept up with. Of a file there is nothing
/// to tell.
pub(crate) async fn watch(camera: Option<&Camera>) -> Infallible {
    match camera {
        Some(camera) => camera.watch().await,
        None => pending().await,
    }
}

impl Camera {
    /// The one whose run this is.
    pub(crate) fn of(shared: &Arc<Shared>, rtstream_id: &str, state: &RunState) -> Self {
        Self {
            shared: Arc::clone(shared),
            rtstream_id: rtstream_id.to_owned(),
            collection_id: state.collection_id.clone(),
            vitals: state.vitals.subscribe(),
        }
    }

    async fn watch(&self) -> Infallible {
        let mut vitals = self.vitals.clone();
        let mut presence = Presence::default();
        loop {
            let told = *vitals.borrow_and_update();
            for passed in presence.pass(told, self.shared.clock.now_us()) {
                for verdict in passed.verdicts() {
                    self.tell(told.epoch_us, verdict).await;
                }
            }
            let left = presence.left(self.shared.clock.now_us());
            tokio::select! {
                changed = vitals.changed() => if changed.is_err() {
                    return pending().await;
                },
                () = sleep(left) => {}
            }
        }
    }

    /// Tells that it is given up: no window passes any more.
    pub(crate) async fn given_up(&self) {
        let Vitals { epoch_us, .. } = *self.vitals.borrow();
        if epoch_us != 0 {
            let now_us = self.shared.clock.now_us();
            let verdict = verdict(Health::Offline, true, window_at(epoch_us, now_us), now_us);
            self.tell(epoch_us, verdict).await;
        }
    }

    async fn tell(&self, epoch_us: i64, verdict: Verdict) {
        let wanted = self.shared.health_of(&self.rtstream_id);
        if wanted.contains(&verdict.health) {
            let of = Of {
                rtstream_id: &self.rtstream_id,
                collection_id: &self.collection_id,
                epoch_us,
            };
            verdict.tell(&self.shared, of).await;
        }
    }
}

/// Follows a run through its windows.
#[derive(Debug, Default)]
struct Presence {
    /// What holds since `reached_us`.
    told: Vitals,
    reached_us: i64,
    /// The window under way, and how long the camera was away in it.
    window: u64,
    down_us: i64,
    /// Count of the crowded ones when it began.
    crowded: u64,
    /// Whether the camera was away in the window before.
    was_offline: bool,
}

/// What a window was like.
#[derive(Debug, PartialEq)]
struct Passed {
    window: u64,
    end_us: i64,
    offline: bool,
    recovered: bool,
    behind: bool,
}

impl Passed {
    fn verdicts(&self) -> [Verdict; 3] {
        [
            (Health::Offline, self.offline),
            (Health::Recovered, self.recovered),
            (Health::Behind, self.behind),
        ]
        .map(|(health, counts)| verdict(health, counts, self.window, self.end_us))
    }
}

fn verdict(health: Health, counts: bool, window: u64, at_us: i64) -> Verdict {
    Verdict {
        health,
        counts,
        window,
        captured_us: at_us,
        sampled_us: at_us,
    }
}

impl Presence {
    /// Takes what holds from `now_us` on, and returns the windows that have passed. The window in which it begins counts by what
    /// is left of it.
    fn pass(&mut self, told: Vitals, now_us: i64) -> Vec<Passed> {
        let mut passed = Vec::new();
        if told.epoch_us == 0 {
            return passed;
        }
        if told.epoch_us != self.told.epoch_us || now_us - self.reached_us > LEAP_US {
            *self = Self {
                told,
                reached_us: now_us,
                window: window_at(told.epoch_us, now_us),
                down_us: 0,
                crowded: told.crowded,
                was_offline: self.was_offline,
            };
            return passed;
        }
        while now_us >= self.end_us() {
            passed.push(self.close(told.crowded));
        }
        self.reach(now_us);
        self.told = told;
        passed
    }

    /// How long the window under way goes on.
    fn left(&self, now_us: i64) -> Duration {
        let left_us = (self.end_us() - now_us).clamp(0, WINDOW_US);
        Duration::from_micros(left_us.unsigned_abs()) + Duration::from_millis(1)
    }

    fn end_us(&self) -> i64 {
        let ended = i64::try_from(self.window.saturating_add(1)).unwrap_or(i64::MAX);
        ended
            .saturating_mul(WINDOW_US)
            .saturating_add(self.told.epoch_us)
    }

    fn reach(&mut self, us: i64) {
        if self.told.down {
            self.down_us += (us - self.reached_us).max(0);
        }
        self.reached_us = self.reached_us.max(us);
    }

    fn close(&mut self, crowded: u64) -> Passed {
        let end_us = self.end_us();
        self.reach(end_us);
        // One that is back within two seconds is no outage.
        let offline = self.down_us > WINDOW_US / 2;
        let passed = Passed {
            window: self.window,
            end_us,
            offline,
            recovered: self.was_offline && !offline,
            behind: crowded > self.crowded,
        };
        self.window += 1;
        self.down_us = 0;
        self.crowded = crowded;
        self.was_offline = offline;
        passed
    }
}

fn window_at(epoch_us: i64, us: i64) -> u64 {
    (us - epoch_us).max(0).unsigned_abs() / WINDOW_US.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;
    const EPOCH_US: i64 = 1_795_514_400 * SECOND;

    /// When something is told, in seconds from the epoch, whether the camera is down then, and how many were crowded; and the
    /// windows that passed: their numbers, each with "o", "r" and "b" as it was.
    fn check(story: &[(f64, bool, u64)], expected: &[&str]) {
        let mut presence = Presence::default();
        let mut seen = Vec::new();
        for (at, down, crowded) in story {
            let told = Vitals {
                epoch_us: EPOCH_US,
                down: *down,
                crowded: *crowded,
            };
            let now_us = EPOCH_US + (at * SECOND as f64) as i64;
            for passed in presence.pass(told, now_us) {
                let window = i64::try_from(passed.window).expect("small");
                assert_eq!(passed.end_us, EPOCH_US + (window + 1) * WINDOW_US);
                let marks = [
                    (passed.offline, "o"),
                    (passed.recovered, "r"),
                    (passed.behind, "b"),
                ];
                let marks = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| *mark);
                seen.push(format!("{window}{}", marks.collect::<String>()));
            }
            assert!(presence.left(now_us) <= Duration::from_millis(5001));
        }
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_camera_that_goes_and_comes_back_is_offline_then_recovered_once() {
        check(
            &[
                (0.0, false, 0),
                (5.0, false, 0),
                (6.0, true, 0),
                (10.0, true, 0),
                (15.0, true, 0),
                // More than half of the fourth window.
                (18.0, false, 0),
                (20.0, false, 0),
                (30.1, false, 0),
            ],
            &["0", "1o", "2o", "3o", "4r", "5"],
        );
    }

    #[test]
    fn one_that_is_back_at_once_was_not_offline() {
        let blip = [(0.0, false, 0), (4.0, true, 0), (6.0, false, 0)];
        check(&[&blip[..], &[(10.0, false, 0)]].concat(), &["0", "1"]);
        let twice = [(7.0, true, 0), (8.0, false, 0), (10.0, false, 0)];
        check(&[&blip[..], &twice].concat(), &["0", "1"]);
        let longer = [(7.0, true, 0), (9.0, false, 0), (15.0, false, 0)];
        check(&[&blip[..], &longer].concat(), &["0", "1o", "2r"]);
    }

    #[test]
    fn what_goes_on_in_an_outage_counts_from_then_on() {
        let outage = [(12.0, true, 0), (15.0, true, 0), (20.0, true, 0)];
        check(&outage, &["2o", "3o"]);
        check(&[(13.0, true, 0), (15.0, true, 0)], &["2"]);
    }

    #[test]
    fn windows_that_cost_others_are_behind() {
        check(
            &[
                (0.0, false, 7),
                (1.0, false, 7),
                (5.0, false, 7),
                (7.0, false, 8),
                (10.0, false, 8),
                (15.0, false, 9),
                (20.0, false, 9),
            ],
            &["0", "1b", "2b", "3"],
        );
    }

    #[test]
    fn a_clock_that_leaps_leaves_windows_unknown_and_none_comes_twice() {
        check(
            &[
                (0.0, false, 0),
                (5.0, false, 0),
                (3.0, false, 0),
                (7.0, false, 0),
                (10.0, false, 0),
                (100.0, false, 0),
                (105.0, false, 0),
            ],
            &["0", "1", "20"],
        );
    }

    #[test]
    fn before_media_arrived_nothing_passes() {
        let mut presence = Presence::default();
        let told = Vitals {
            down: true,
            ..Vitals::default()
        };
        for second in [0, 5, 10] {
            assert_eq!(presence.pass(told, EPOCH_US + second * SECOND), []);
        }
    }
}
