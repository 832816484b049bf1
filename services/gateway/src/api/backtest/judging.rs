//! How likely what is asked is in each window: by a caption worker that looks at its recorded frames or reads what was said in it,
//! or else by how similar in meaning its stored description is, which the embeddings service says.

use std::collections::HashMap;
use std::time::Duration;

use prost::Message;
use sightline_bus::{Ask, BusError};
use sightline_proto::internal::{
    Frame, FramesRequest, FramesResponse, JudgeRequest, JudgeResponse, RecordFilter, RecordKind,
    SearchRecordsRequest,
};
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::v1::firing::Basis;
use sightline_service::chain;
use tokio::sync::OnceCell;
use tokio::time::sleep;

use super::Job;
use super::plan::Window;
use crate::api::Session;

/// How long decoding the frames of a window may take.
const DECODING: Duration = Duration::from_secs(16);
/// How long a look at them, or reading, may take, with the wait for the windows of live streams.
const LOOKING: Duration = Duration::from_secs(30);
/// How often somebody is asked, and how long after nobody answered: a worker may just be starting.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(2);
/// Windows whose similarity is asked for together.
const TOGETHER: usize = 500;
/// Scores that one search returns at most.
const MOST_SCORES: u32 = 1000;

/// What a window was judged to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Verdict {
    pub(super) probability: f32,
    pub(super) basis: Basis,
}

/// Judges the windows of one backtest.
pub(super) struct Judge<'a> {
    session: &'a Session,
    job: &'a Job,
    windows: &'a [Window],
    /// Similarities by the scenes' ids, of [`TOGETHER`] windows each, once one of these is asked for.
    scores: Vec<OnceCell<HashMap<String, f32>>>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(session: &'a Session, job: &'a Job, windows: &'a [Window]) -> Self {
        let parts = windows.len().div_ceil(TOGETHER);
        Self {
            session,
            job,
            windows,
            scores: (0..parts).map(|_| OnceCell::new()).collect(),
        }
    }

    /// Judges a window; none if nothing of it can be had.
    ///
    /// # Errors
    /// When nobody answers, or the model can't take the prompt.
    pub(super) async fn judge(&self, number: usize) -> Result<Option<Verdict>, ApiError> {
        let window = &self.windows[number];
        if window.recorded {
            let frames = self.frames(window).await?;
            if !frames.is_empty() {
                return self.ask_model(frames, "").await.map(Some);
            }
        }
        if self.job.reads_text && !window.transcript.is_empty() {
            let read = self.ask_model(Vec::new(), &window.transcript).await;
            return read.map(Some);
        }
        if window.scene_id.is_empty() {
            return Ok(None);
        }
        let scores = self.scores[number / TOGETHER]
            .get_or_try_init(|| self.similarities(number / TOGETHER))
            .await?;
        Ok(scores.get(&window.scene_id).map(|&probability| Verdict {
            probability,
            basis: Basis::Similarity,
        }))
    }

    /// Its frames; none where they can't be decoded, and the description has to do.
    async fn frames(&self, window: &Window) -> Result<Vec<Frame>, ApiError> {
        let question = FramesRequest {
            rtstream_id: self.job.index.rtstream_id.clone(),
            start_us: window.start_us,
            // The whole window, though the source may have ended in it: frames are spread over that.
            end_us: window.start_us.saturating_add(self.job.sampling.window_us),
            frame_count: self.job.sampling.frame_count,
        };
        let answer: FramesResponse = self
            .asked(Ask::Frames, &question, DECODING, "ingest")
            .await?;
        if !answer.error.is_empty() {
            tracing::debug!(
                error = answer.error,
                stream = question.rtstream_id,
                start_us = window.start_us,
                "a recorded window has no frames"
            );
        }
        Ok(answer.frames)
    }

    /// Has the frames looked at, or else the text read.
    async fn ask_model(&self, frames: Vec<Frame>, text: &str) -> Result<Verdict, ApiError> {
        let basis = if frames.is_empty() {
            Basis::Text
        } else {
            Basis::Frames
        };
        let model = &self.job.index.model;
        let question = JudgeRequest {
            model: model.clone(),
            frames,
            window_us: self.job.sampling.window_us,
            questions: vec![self.job.prompt.clone()],
            text: text.to_owned(),
        };
        let ask = Ask::Judge(model);
        let answer: JudgeResponse = self.asked(ask, &question, LOOKING, "caption").await?;
        match answer.probabilities.first() {
            Some(&probability) => Ok(Verdict { probability, basis }),
            None => {
                tracing::warn!(error = answer.error, model, "a backtest is not judged");
                let message = format!("{model} cannot judge this: {}", answer.error);
                Err(ApiError::new(Reason::FailedPrecondition, message))
            }
        }
    }

    async fn asked<A: Message + Default>(
        &self,
        ask: Ask<'_>,
        question: &impl Message,
        deadline: Duration,
        role: &str,
    ) -> Result<A, ApiError> {
        let mut attempt = 1;
        loop {
            let asked = self.session.bus.ask::<A>(ask, question, deadline).await;
            match asked {
                Ok(answer) => return Ok(answer),
                Err(error) if attempt == ATTEMPTS => return Err(unanswered(&error, role)),
                Err(error) => tracing::debug!(%error, "a backtest asks again"),
            }
            attempt += 1;
            sleep(PAUSE).await;
        }
    }

    async fn similarities(&self, part: usize) -> Result<HashMap<String, f32>, ApiError> {
        let from = part * TOGETHER;
        let windows = &self.windows[from..self.windows.len().min(from + TOGETHER)];
        let filter = RecordFilter {
            rtstream_ids: vec![self.job.index.rtstream_id.clone()],
            index_id: self.job.index.id.clone(),
            kinds: vec![RecordKind::Scene.into(), RecordKind::AudioScene.into()],
            start_us: windows.iter().map(|w| w.start_us).min().unwrap_or(0),
            end_us: windows.iter().map(|w| w.end_us).max().unwrap_or(0),
            ..RecordFilter::default()
        };
        let found = self.session.records.search(SearchRecordsRequest {
            query: self.job.prompt.clone(),
            filter: Some(filter),
            limit: MOST_SCORES,
            min_score: 0.0,
        });
        let hits = found.await?.hits.into_iter();
        let scored = hits.filter_map(|hit| Some((hit.record?.id, hit.score.clamp(0.0, 1.0))));
        Ok(scored.collect())
    }
}

fn unanswered(error: &BusError, role: &str) -> ApiError {
    tracing::warn!(error = chain(error), role, "a backtest finds no worker");
    let message = format!("no {role} worker answers; start one, or try again shortly");
    ApiError::new(Reason::Unavailable, message)
}
