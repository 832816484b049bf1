//! Runs the policy over judged windows, in their order, and says of each that counts or nearly does what came of it.

use sightline_policy::{Rule, Why, apply, why};
use sightline_proto::internal::{EvaluationRecord, JudgedWindow};
use sightline_proto::time::timestamp;
use sightline_proto::v1::backtest_response::{Judged, Message};
use sightline_proto::v1::{Alert, Firing, firing};

use super::Job;
use super::judging::Verdict;
use super::plan::Window;
use crate::api::Linker;

/// How near to the threshold a window that does not count is told of all the same.
const NEAR: f32 = 0.15;

/// The policy, with what it has seen.
pub(super) struct Replay<'a> {
    job: &'a Job,
    linker: &'a Linker,
    rule: Rule,
    state: EvaluationRecord,
    /// The firing under way, and whether it is recorded.
    open: Option<(Firing, bool)>,
    firings: u64,
}

impl<'a> Replay<'a> {
    pub(super) fn new(job: &'a Job, linker: &'a Linker, now_us: i64) -> Self {
        let alert = Alert {
            threshold: job.threshold,
            policy: Some(job.policy.clone()),
            ..Alert::default()
        };
        Self {
            job,
            linker,
            rule: Rule::of(&alert, now_us),
            state: EvaluationRecord::default(),
            open: None,
            firings: 0,
        }
    }

    /// How many firings there were.
    pub(super) fn firings(&self) -> u64 {
        self.firings
    }

    /// Takes the next window and returns what is to be told.
    pub(super) fn take(&mut self, window: &Window, verdict: Verdict) -> Vec<Message> {
        let judged = JudgedWindow {
            window: window.number,
            start_us: window.start_us,
            end_us: window.end_us,
            probability: verdict.probability,
            // What this says of their order holds here: what is left out never comes, and is not waited for.
            by_similarity: true,
            ..JudgedWindow::default()
        };
        let mut messages = Vec::new();
        for decision in apply(&mut self.state, window.epoch_us, judged, &self.rule) {
            if decision.closes {
                messages.extend(self.close(firing::State::Closed));
            } else if decision.opens() {
                self.firings += 1;
                self.open = Some((self.firing(window, verdict), window.recorded));
            } else if let Some((open, _)) = &mut self.open {
                open.end_time = Some(timestamp(decision.firing.end_us));
            }
        }
        let why = why(&self.state, &judged, &self.rule);
        let near = (verdict.probability - self.job.threshold).abs() <= NEAR;
        let counts = !matches!(why, Some(Why::Below | Why::Asleep));
        if counts || near {
            let judged = self.judged(window, verdict, counts, why);
            messages.push(Message::Judged(judged));
        }
        messages
    }

    /// No more windows come: returns the firing that goes on.
    pub(super) fn finish(&mut self) -> Option<Message> {
        self.close(firing::State::Open)
    }

    fn close(&mut self, state: firing::State) -> Option<Message> {
        let (mut firing, recorded) = self.open.take()?;
        firing.set_state(state);
        if recorded {
            firing = self.linker.link(firing);
        }
        Some(Message::Firing(firing))
    }

    fn firing(&self, window: &Window, verdict: Verdict) -> Firing {
        Firing {
            event_id: self.job.event_id.clone(),
            label: self.job.label.clone(),
            index_id: self.job.index.id.clone(),
            rtstream_id: self.job.index.rtstream_id.clone(),
            confidence: verdict.probability,
            explanation: window.text.clone(),
            start_time: Some(timestamp(window.start_us)),
            end_time: Some(timestamp(window.end_us)),
            basis: verdict.basis.into(),
            ..Firing::default()
        }
    }

    fn judged(&self, window: &Window, verdict: Verdict, counts: bool, why: Option<Why>) -> Judged {
        let player_url = if window.recorded {
            self.linker.link(self.firing(window, verdict)).player_url
        } else {
            String::new()
        };
        Judged {
            start_time: Some(timestamp(window.start_us)),
            end_time: Some(timestamp(window.end_us)),
            probability: verdict.probability,
            basis: verdict.basis.into(),
            counts,
            reason: why.map_or_else(String::new, |why| self.words(why)),
            text: window.text.clone(),
            player_url,
        }
    }

    fn words(&self, why: Why) -> String {
        match why {
            Why::Below => format!("below the threshold of {:.2}", self.job.threshold),
            Why::Asleep => "outside the schedule".to_owned(),
            Why::TooFew { has, required, of } => {
                format!("{has} of the last {of} windows count, {required} have to")
            }
            Why::Resting { until_us } => format!("in cooldown until {}", timestamp(until_us)),
        }
    }
}
