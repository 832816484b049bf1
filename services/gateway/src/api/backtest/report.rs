//! What the caller of a backtest is told, while it goes on and at the end.

use sightline_proto::v1::BacktestResponse;
use sightline_proto::v1::backtest_response::{Message, Progress, Summary};
use sightline_proto::v1::firing::Basis;

use super::Sender;
use super::curve::Curve;
use super::judging::Verdict;
use super::plan::{Plan, Window};
use super::replay::Replay;

/// How many windows are judged at most until it is said how far it has come.
const EVERY: u64 = 20;

pub(super) struct Report<'a> {
    sender: &'a Sender,
    replay: Replay<'a>,
    curve: Curve<'a>,
    summary: Summary,
    /// How many windows were judged, and how many there are.
    progress: Progress,
}

impl<'a> Report<'a> {
    pub(super) fn new(
        sender: &'a Sender,
        replay: Replay<'a>,
        curve: Curve<'a>,
        plan: &Plan,
    ) -> Self {
        Self {
            sender,
            replay,
            curve,
            summary: Summary {
                missing: plan.missing,
                ..Summary::default()
            },
            progress: Progress {
                judged: 0,
                windows: plan.windows.len() as u64,
            },
        }
    }

    /// The next window was judged; none: nothing could be had of it.
    pub(super) async fn take(&mut self, window: &Window, verdict: Option<Verdict>) {
        self.progress.judged += 1;
        match verdict.map(|verdict| verdict.basis) {
            None => self.summary.missing += 1,
            Some(Basis::Frames) => self.summary.from_frames += 1,
            Some(_) => self.summary.from_scenes += 1,
        }
        if let Some(verdict) = verdict {
            self.curve.add(window, verdict.probability);
            for message in self.replay.take(window, verdict) {
                self.tell(message).await;
            }
        }
        if self.progress.judged.is_multiple_of(EVERY) {
            self.progress().await;
        }
    }

    /// Says how far it has come.
    pub(super) async fn progress(&self) {
        self.tell(Message::Progress(self.progress)).await;
    }

    /// All are judged.
    pub(super) async fn finish(mut self) {
        if let Some(message) = self.replay.finish() {
            self.tell(message).await;
        }
        self.progress().await;
        let (curve, suggested_threshold) = std::mem::take(&mut self.curve).finish();
        let summary = Summary {
            firings: self.replay.firings(),
            curve,
            suggested_threshold,
            ..std::mem::take(&mut self.summary)
        };
        self.tell(Message::Summary(summary)).await;
    }

    /// Waits while the caller takes nothing; that one has gone is noticed by the stream.
    async fn tell(&self, message: Message) {
        let message = Some(message);
        let _ = self.sender.send(Ok(BacktestResponse { message })).await;
    }
}
