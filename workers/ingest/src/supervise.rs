//! The child of one stream: started, listened to, told what to take, and started again when it fails.

use std::sync::Arc;
use std::time::Duration;

use sightline_proto::ids;
use sightline_proto::internal::child_report::Report;
use sightline_proto::internal::{Failed, OpenSource, Opened, SampledWindow, TakeFrom};
use sightline_proto::v1::rt_stream::State;
use tokio::time::{Instant, sleep, timeout};

use crate::holes::{OFFLINE, WORKER_LOST};
use crate::interim::Interims;
use crate::process::ChildProcess;
use crate::record::{RecordError, RunState};
use crate::recording::Recording;
use crate::wanted::{Changes, Wanted};
use crate::{Shared, backoff, health, publish};

/// After this long with good media a source counts as sound, and the next failure as its first.
const SOUND: Duration = Duration::from_secs(60);
/// A file that fails so often in a row at the same place is given up: trying again does not mend a file.
const FILE_TRIES: u32 = 5;
/// How long a child may take to complete the segment that it has open.
const LAST_REPORTS: Duration = Duration::from_secs(3);

/// What is read.
pub(crate) struct Source {
    /// With its credentials.
    pub(crate) url: String,
    pub(crate) is_file: bool,
    /// A file as fast as its windows are described.
    pub(crate) fast: bool,
}

/// How one child ended.
enum ChildEnd {
    /// The file was played to its end.
    Ended,
    /// The source can't be read.
    Failed(Failed),
    /// The child itself broke.
    Died(String),
}

/// Runs children for a stream until it is over.
pub(crate) struct Supervisor<'a> {
    shared: &'a Arc<Shared>,
    id: &'a str,
    source: Source,
    state: &'a mut RunState,
    recording: Recording,
    wanted: Wanted,
    interims: Interims,
    /// The one that runs.
    child: Option<ChildProcess>,
    /// Failures in a row.
    failures: u32,
    /// Stream time of the last media at the last failure.
    failed_at_us: i64,
    /// Since when media arrives.
    active_since: Option<Instant>,
    /// Stream time of the last media before an outage.
    last_media_us: i64,
    /// Why media stopped coming.
    lost_to: &'static str,
}

impl<'a> Supervisor<'a> {
    pub(crate) async fn new(
        shared: &'a Arc<Shared>,
        id: &'a str,
        source: Source,
        state: &'a mut RunState,
    ) -> Result<Self, RecordError> {
        let wanted = Wanted::of(&shared.catalog, id);
        let recording = Recording::start(shared, id, state, wanted.record).await?;
        Ok(Self {
            shared,
            id,
            source,
            last_media_us: if state.run.epoch_us == 0 {
                0
            } else {
                media_end(&state.run)
            },
            state,
            recording,
            wanted,
            interims: Interims::new(),
            child: None,
            failures: 0,
            failed_at_us: 0,
            active_since: None,
            lost_to: WORKER_LOST,
        })
    }

    /// Takes what the child still has of the recording, if that is not taken from the source again, and stores what was taken.
    /// To be called after [`Self::run`] ended or was cut off; `over` says that nobody goes on with the stream.
    pub(crate) async fn finish(&mut self, over: bool) -> Result<(), RecordError> {
        if let Some(mut child) = self.child.take()
            && self.wanted.record
            && (over || !self.source.is_file)
        {
            child.complete();
            let last = async {
                while let Some(Ok(report)) = child.next().await {
                    if let Report::Segment(segment) = report {
                        self.recording.hand_over(self.state, segment);
                    }
                }
            };
            if timeout(LAST_REPORTS, last).await.is_err() {
                tracing::warn!(rtstream = self.id, "the child did not end in time");
            }
        }
        self.recording.finish(self.state, over).await
    }

    /// Runs until the stream is over; how it ended, and why. It may be cut off anywhere.
    pub(crate) async fn run(&mut self) -> Result<(State, String), RecordError> {
        self.state.set(State::Connecting, "", 0).await?;
        loop {
            let end = self.child().await?;
            self.child = None;
            let sound = self
                .active_since
                .take()
                .is_some_and(|since| since.elapsed() >= SOUND);
            let got_on = self.source.is_file && self.reached_us() > self.failed_at_us;
            self.failures = if sound || got_on {
                1
            } else {
                self.failures + 1
            };
            self.failed_at_us = self.reached_us();
            self.lost_to = match end {
                ChildEnd::Died(_) => WORKER_LOST,
                ChildEnd::Ended | ChildEnd::Failed(_) => OFFLINE,
            };
            self.recording.interrupted(self.lost_to);
            let (reason, at_once) = match end {
                ChildEnd::Ended => return Ok((State::Ended, String::new())),
                ChildEnd::Failed(failed) if failed.permanent => {
                    return Ok((State::Failed, failed.reason));
                }
                ChildEnd::Failed(failed) => (failed.reason, false),
                ChildEnd::Died(reason) => (reason, self.failures == 1),
            };
            self.shared.metrics.child_failures.inc();
            if self.source.is_file && self.failures >= FILE_TRIES {
                let detail = format!("given up after {FILE_TRIES} tries: {reason}");
                return Ok((State::Failed, detail));
            }
            tracing::warn!(
                rtstream = self.id,
                reason,
                failures = self.failures,
                "the source is opened again"
            );
            self.state
                .set(State::Reconnecting, &reason, self.failures)
                .await?;
            if !at_once {
                self.pause(backoff::pause(self.failures)).await?;
            }
        }
    }

    /// Runs one child to its end.
    async fn child(&mut self) -> Result<ChildEnd, RecordError> {
        let mut changes = Changes::new(self.shared);
        let take = self.take_now();
        let started = ChildProcess::start(&self.shared.config.child, self.open()).await;
        let child = match started {
            Ok(child) => self.child.insert(child),
            Err(error) => {
                return Ok(ChildEnd::Died(format!(
                    "the child cannot be started: {error}"
                )));
            }
        };
        if let Err(error) = child.take(take).await {
            let status = self.ended().await;
            return Ok(ChildEnd::Died(format!(
                "the child does not listen: {error}; {status}"
            )));
        }
        loop {
            let report = self.next(&mut changes).await?;
            let report = match report {
                Some(Ok(report)) => report,
                Some(Err(error)) => {
                    return Ok(ChildEnd::Died(format!(
                        "the child is not understood: {error}"
                    )));
                }
                None => {
                    let status = self.ended().await;
                    return Ok(ChildEnd::Died(format!(
                        "the child of this stream died ({status})"
                    )));
                }
            };
            if let Some(end) = self.handle(report).await? {
                return Ok(end);
            }
        }
    }

    /// How the child ended.
    async fn ended(&mut self) -> String {
        match self.child.take() {
            Some(child) => child.end().await,
            None => "gone".to_owned(),
        }
    }

    /// The next report; meanwhile the child is told when something else is wanted, and noted what is stored.
    async fn next(
        &mut self,
        changes: &mut Changes,
    ) -> Result<Option<std::io::Result<Report>>, RecordError> {
        loop {
            let Some(child) = &mut self.child else {
                return Ok(None);
            };
            tokio::select! {
                report = child.next() => return Ok(report),
                Some(news) = self.recording.next() => self.recording.heard(self.state, news).await?,
                () = changes.next() => if self.wanted_now() != self.wanted {
                    self.tell_child().await;
                },
            }
        }
    }

    fn wanted_now(&self) -> Wanted {
        let health = self.shared.health_of(self.id);
        Wanted::of(&self.shared.catalog, self.id).with_health(&health)
    }

    /// What is wanted now, as a child is told.
    pub(crate) fn take_now(&mut self) -> TakeFrom {
        self.want(self.wanted_now());
        let handed_us = self.recording.handed_us();
        self.wanted.take_from(&self.state.run, handed_us)
    }

    async fn tell_child(&mut self) {
        let take = self.take_now();
        if let Some(child) = &mut self.child {
            // A child that does not listen is gone, which its reports tell.
            let _ = child.take(take).await;
        }
    }

    /// Holds back; meanwhile is noted what is stored.
    async fn pause(&mut self, pause: Duration) -> Result<(), RecordError> {
        let pausing = sleep(pause);
        tokio::pin!(pausing);
        loop {
            tokio::select! {
                () = &mut pausing => return Ok(()),
                Some(news) = self.recording.next() => self.recording.heard(self.state, news).await?,
            }
        }
    }

    /// Stream time that was reached with anything.
    fn reached_us(&self) -> i64 {
        self.last_media_us.max(self.recording.handed_us())
    }

    /// Changes what is wanted. What is new begins with the next whole window, and speech of a new session here: for what has gone
    /// by, a file would have to be read again, and everything else would wait.
    fn want(&mut self, wanted: Wanted) {
        self.wanted = wanted;
        let reached_us = self.reached_us();
        let position_us = (reached_us - self.state.run.epoch_us).max(0);
        let run = &mut self.state.run;
        if self.wanted.audio && self.wanted.session != run.audio_session {
            run.audio_session = self.wanted.session;
            run.audio_done_us = run.audio_done_us.max(reached_us);
        }
        let next_window = &mut run.next_window;
        next_window.retain(|key, _| self.wanted.windows().any(|(wanted, _)| wanted == key));
        for (key, window_us) in self.wanted.windows() {
            let first = || {
                position_us
                    .unsigned_abs()
                    .div_ceil(window_us.max(1).unsigned_abs())
            };
            next_window.entry(key.to_owned()).or_insert_with(first);
        }
    }

    async fn handle(&mut self, report: Report) -> Result<Option<ChildEnd>, RecordError> {
        match report {
            Report::Opened(opened) => self.opened(&opened).await?,
            Report::Window(window) => self.window(window).await?,
            Report::Utterance(utterance) => {
                publish::utterance(self.shared, self.state, self.id, utterance).await?;
                self.last_media_us = self.last_media_us.max(media_end(&self.state.run));
            }
            Report::Interim(so_far) => {
                let chunk = publish::chunk(self.state, self.id, so_far);
                self.interims.ask(self.shared, chunk);
            }
            Report::Measured(measured) => {
                health::measured(self.shared, self.state, self.id, measured).await?;
                self.last_media_us = self.last_media_us.max(media_end(&self.state.run));
            }
            Report::Segment(segment) => {
                self.recording
                    .segment(self.state, segment, self.source.fast)
                    .await?;
            }
            Report::NotRecordable(why) => self.recording.not_recordable(self.state, why).await?,
            Report::Ended(_) => return Ok(Some(ChildEnd::Ended)),
            Report::Failed(failed) => return Ok(Some(ChildEnd::Failed(failed))),
            // Of children that were asked for something else.
            Report::Picture(_) | Report::Exported(_) => {}
        }
        Ok(None)
    }

    async fn opened(&mut self, opened: &Opened) -> Result<(), RecordError> {
        self.active_since = Some(Instant::now());
        if self.state.run.epoch_us == 0 {
            self.state.run.epoch_us = opened.epoch_us;
        }
        if self.last_media_us != 0 && !self.source.is_file {
            let now = self.shared.clock.now_us();
            // Of pictures, what lies after the last window is missing, although words may have been heard since.
            let windows_us = windows_end(&self.state.run).unwrap_or(self.last_media_us);
            let missing = [
                ("frames", !self.wanted.samplings.is_empty(), windows_us),
                ("audio", self.wanted.audio, self.last_media_us),
            ];
            for (what, wanted, from_us) in missing {
                if wanted && from_us < now {
                    self.state.gap(what, self.lost_to, from_us, now).await?;
                }
            }
        }
        self.state.set(State::Active, "", 0).await
    }

    async fn window(&mut self, window: SampledWindow) -> Result<(), RecordError> {
        let Some(sampling) = window.sampling else {
            return Ok(());
        };
        self.last_media_us = self
            .last_media_us
            .max(self.state.run.epoch_us + window.end_position_us);
        // Nobody wants it any more.
        let Some((_, models)) = self.wanted.samplings.get(&ids::sampling_key(&sampling)) else {
            return Ok(());
        };
        publish::window(
            self.shared,
            self.state,
            self.id,
            models,
            window,
            self.source.fast,
        )
        .await
    }

    fn open(&self) -> OpenSource {
        let run = &self.state.run;
        OpenSource {
            url: self.source.url.clone(),
            real_time: !self.source.fast,
            start_position_us: if self.source.is_file {
                self.wanted
                    .start_position_us(run, self.recording.handed_us())
            } else {
                0
            },
            epoch_us: run.epoch_us,
            frame_edge: self.shared.config.frame_edge,
            // The child decides by the policy that it was started with, on whatever the host resolves to.
            addresses: Vec::new(),
        }
    }
}

/// Stream time up to which something is known to have been taken in.
fn media_end(run: &sightline_proto::internal::RunRecord) -> i64 {
    let windows_us = windows_end(run).unwrap_or(run.epoch_us);
    windows_us.max(run.audio_done_us)
}

/// Stream time at which the last window that is out ends; none where none is sampled.
fn windows_end(run: &sightline_proto::internal::RunRecord) -> Option<i64> {
    let windows = run.next_window.iter().filter_map(|(key, next)| {
        let window_us: i64 = key.split_once('x')?.0.parse().ok()?;
        Some(run.epoch_us + i64::try_from(*next).ok()?.saturating_mul(window_us))
    });
    windows.max()
}
