//! Backtests: what would have happened, had somebody watched for it. Windows of the past are judged again, from recorded frames
//! where they are kept and else by their stored descriptions, and the alerts' policy is run over them.

mod curve;
mod judging;
mod plan;
mod replay;
mod report;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{Stream, StreamExt, iter, poll_fn};
use sightline_proto::internal::{RecordFilter, RecordKind, RunRecord, Sampling};
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::time::{duration_micros, micros};
use sightline_proto::v1::{self, BacktestRequest, BacktestResponse, Index, index};
use sightline_recordings::playlist;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::task::AbortOnDropHandle;

use self::curve::Curve;
use self::judging::Judge;
use self::plan::{Plan, Window};
use self::replay::Replay;
use self::report::Report;
use super::alerts::{check_policy, check_threshold};
use super::events::MAX_PROMPT;
use super::paging::Position;
use super::recordings::{moment, span};
use super::violations::Violations;
use super::{Session, store_failed};

/// Backtests that go on at the same time; what they ask for comes after the windows of live streams, but it is work.
pub(crate) const AT_ONCE: usize = 4;
/// The longest stretch that is looked at.
const LONGEST_US: i64 = 24 * 3600 * 1_000_000;
/// Labels of one backtest.
const MAX_LABELS: usize = 1000;
/// Windows judged at the same time: while one is looked at, the frames of the next are decoded.
const AHEAD: usize = 2;
/// How much time passes at most until it is said how far it has come.
const TELL_AFTER: Duration = Duration::from_secs(1);
/// Responses that wait for the caller; while there are so many, nothing is judged.
const WAITING: usize = 16;
/// Scenes that are listed at a time.
const PAGE: usize = 1000;

type Sender = mpsc::Sender<Result<BacktestResponse, ApiError>>;

/// What a backtest is of.
struct Job {
    prompt: String,
    event_id: String,
    label: String,
    index: Index,
    /// Whether its model reads what was said.
    reads_text: bool,
    sampling: Sampling,
    start_us: i64,
    end_us: i64,
    threshold: f32,
    policy: v1::Policy,
    /// From and up to.
    labels: Vec<(i64, i64)>,
}

impl Session {
    /// Judges windows of the past by a prompt, and says when it would have fired. The stream ends when all are judged, or with
    /// an error; what is under way is given up when it is dropped.
    pub(crate) async fn backtest(
        self,
        request: BacktestRequest,
    ) -> Result<impl Stream<Item = Result<BacktestResponse, ApiError>> + Send + use<>, ApiError>
    {
        let job = self.backtest_job(request).await?;
        let place = Arc::clone(&self.backtests).try_acquire_owned();
        let place = place.map_err(|_| {
            let message = format!("{AT_ONCE} backtests are going on; try again when one is done");
            ApiError::new(Reason::Unavailable, message)
        })?;
        let (sender, mut responses) = mpsc::channel(WAITING);
        let running = AbortOnDropHandle::new(tokio::spawn(async move {
            let _place = place;
            self.run_backtest(&job, &sender).await;
        }));
        Ok(poll_fn(move |context| {
            let _stops_when_dropped = &running;
            responses.poll_recv(context)
        }))
    }

    async fn backtest_job(&self, request: BacktestRequest) -> Result<Job, ApiError> {
        let mut faults = Violations::default();
        let threshold = request.threshold.unwrap_or(self.config.default_threshold);
        let (start_us, end_us) = check(&mut faults, &request);
        check_threshold(&mut faults, threshold);
        check_policy(&mut faults, request.policy.as_ref());
        faults.into_result()?;
        let (prompt, label) = if request.event_id.is_empty() {
            (request.prompt.clone(), request.prompt)
        } else {
            let event = self.get_event(&request.event_id).await?;
            (event.prompt, event.label)
        };
        let record = self.index_record(&request.index_id).await?;
        let index = record.index.clone().unwrap_or_default();
        let asked = index.sampling.unwrap_or_default();
        let labels = request.labels.iter();
        Ok(Job {
            prompt,
            event_id: request.event_id,
            label,
            sampling: Sampling {
                window_us: asked.window.as_ref().map_or(0, duration_micros),
                frame_count: asked.frame_count,
            },
            index,
            reads_text: record.reads_text,
            start_us,
            end_us,
            threshold,
            policy: request.policy.unwrap_or_default(),
            labels: labels.map(stretch).collect(),
        })
    }

    async fn run_backtest(&self, job: &Job, sender: &Sender) {
        let stopped = tokio::select! {
            done = self.judge_all(job, sender) => done,
            () = self.shutdown.cancelled() => {
                let message = "the server is shutting down; start the backtest again on another one";
                Err(ApiError::new(Reason::Unavailable, message))
            }
            () = self.caller.revoked.cancelled() => {
                let message = "the API key of this backtest was revoked";
                Err(ApiError::new(Reason::Unauthenticated, message))
            }
        };
        if let Err(error) = stopped {
            let _ = sender.send(Err(error)).await;
        }
    }

    async fn judge_all(&self, job: &Job, sender: &Sender) -> Result<(), ApiError> {
        let plan = self.plan(job).await?;
        let windows = &plan.windows;
        let judge = Judge::new(self, job, windows);
        let judge = &judge;
        let mut judging = iter(0..windows.len())
            .map(|number| async move { (number, judge.judge(number).await) })
            .buffered(AHEAD);
        let replay = Replay::new(job, &self.linker, self.clock.now_us());
        let mut report = Report::new(sender, replay, Curve::new(&job.labels), &plan);
        let mut telling = interval(TELL_AFTER);
        telling.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                judged = judging.next() => match judged {
                    Some((number, verdict)) => report.take(&windows[number], verdict?).await,
                    None => break,
                },
                _ = telling.tick() => report.progress().await,
            }
        }
        report.finish().await;
        Ok(())
    }

    /// Which windows there are, and what is stored of each.
    async fn plan(&self, job: &Job) -> Result<Plan, ApiError> {
        let filter = RecordFilter {
            rtstream_ids: vec![job.index.rtstream_id.clone()],
            index_id: job.index.id.clone(),
            kinds: vec![RecordKind::Scene.into(), RecordKind::AudioScene.into()],
            start_us: job.start_us,
            end_us: job.end_us,
            ..RecordFilter::default()
        };
        let mut scenes = Vec::new();
        let mut after: Option<Position> = None;
        loop {
            let page = self
                .records
                .list(filter.clone(), PAGE, false, after)
                .await?;
            scenes.extend(page.observations().filter_map(|o| Window::of_scene(&o)));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let recorded = if job.index.kind() == index::Kind::Audio {
            Vec::new()
        } else {
            let id = &job.index.rtstream_id;
            let segments = self.library.segments(id, job.start_us, job.end_us).await;
            playlist::stretches(&segments.map_err(store_failed)?)
        };
        let run = self.catalog.get::<RunRecord>(&job.index.rtstream_id);
        let epoch_us = run.map_or(0, |run| run.value.epoch_us);
        let now_us = self.clock.now_us();
        Ok(Plan::of(job, scenes, &recorded, epoch_us, now_us))
    }
}

fn check(faults: &mut Violations, request: &BacktestRequest) -> (i64, i64) {
    if request.prompt.is_empty() == request.event_id.is_empty() {
        faults.add("prompt", "either this or event_id");
    } else if request.event_id.is_empty() {
        faults.text("prompt", &request.prompt, 1, MAX_PROMPT);
    }
    let mut time = |field, time: Option<&prost_types::Timestamp>| match time {
        Some(time) => moment(faults, field, time),
        None => {
            faults.add(field, "required, got nothing");
            0
        }
    };
    let start_us = time("start_time", request.start_time.as_ref());
    let end_us = time("end_time", request.end_time.as_ref());
    if request.start_time.is_some() && request.end_time.is_some() {
        span(faults, start_us, end_us, LONGEST_US, "24 hours");
    }
    if request.labels.len() > MAX_LABELS {
        let got = request.labels.len();
        faults.add("labels", format!("at most {MAX_LABELS}, got {got}"));
    }
    let ends_first = |(start_us, end_us): (i64, i64)| end_us <= start_us;
    if request.labels.iter().map(stretch).any(ends_first) {
        faults.add("labels", "each with an end_time after its start_time");
    }
    (start_us, end_us)
}

fn stretch(label: &v1::backtest_request::Label) -> (i64, i64) {
    let us = |time: Option<&prost_types::Timestamp>| time.map_or(0, micros);
    (us(label.start_time.as_ref()), us(label.end_time.as_ref()))
}
