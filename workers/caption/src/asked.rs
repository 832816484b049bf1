//! Windows and texts of the past, judged for whoever asks on the bus. They take turns with the windows that come, as a stream
//! of its own and one at a time, so that a long backtest keeps no alert waiting for more than one look.

use std::time::Duration;

use sightline_bus::{Ask, Bus};
use sightline_inference::{About, InferenceError, Job};
use sightline_proto::internal::{JudgeRequest, JudgeResponse};
use sightline_service::{Shutdown, chain};
use tokio::time::{sleep, timeout};

use crate::asking::{Asking, Unanswered};

/// Windows that wait for their turn at the same time.
const AT_ONCE: usize = 1;
/// How long to hold back when the bus takes no subscription.
const PAUSE: Duration = Duration::from_millis(500);
/// For how long somebody who asked waits.
const PATIENCE: Duration = Duration::from_secs(30);
/// Whose turn it is.
const STREAM: &str = "past";

/// Answers until shutdown.
pub(crate) async fn run(bus: &Bus, model: &str, asking: Asking, shutdown: Shutdown) {
    while !shutdown.is_cancelled() {
        let asked = asking.clone();
        let answer = move |question| {
            let asking = asked.clone();
            async move { answer(&asking, question).await }
        };
        let answering = bus.answer(Ask::Judge(model), AT_ONCE, &shutdown, answer);
        if let Err(error) = answering.await {
            tracing::debug!(%error, "windows of the past cannot be judged, trying again");
            sleep(PAUSE).await;
        }
    }
}

async fn answer(asking: &Asking, question: JudgeRequest) -> JudgeResponse {
    let judged = timeout(PATIENCE, judge(asking, question)).await;
    let error = match judged.unwrap_or(Err(Unanswered::Expired)) {
        Ok(probabilities) => {
            return JudgeResponse {
                probabilities,
                model_revision: asking.describer.revision().to_owned(),
                ..JudgeResponse::default()
            };
        }
        Err(Unanswered::Failed(error)) => chain(&error),
        Err(Unanswered::Stopped(reason)) => reason,
        Err(Unanswered::Expired) => "the model is too busy".to_owned(),
        Err(Unanswered::Gone) => "the model has stopped".to_owned(),
    };
    JudgeResponse {
        error,
        ..JudgeResponse::default()
    }
}

/// As what comes is judged.
async fn judge(asking: &Asking, question: JudgeRequest) -> Result<Vec<f32>, Unanswered> {
    let about = if question.text.is_empty() {
        About::Window {
            jpegs: question.frames.into_iter().map(|f| f.jpeg).collect(),
            seconds: question.window_us as f64 / 1e6,
        }
    } else {
        About::Text(question.text)
    };
    let job = Job {
        stream: STREAM.to_owned(),
        about,
        questions: question.questions,
        prompts: Vec::new(),
        expires_us: None,
    };
    let mut asked = asking.submit(job).await?;
    let verdicts = asked.verdicts().await?.into_iter().enumerate();
    let refused = |number| {
        let reason = format!("question {number} is longer than the model takes");
        Unanswered::Failed(InferenceError::InvalidInput(reason))
    };
    verdicts
        .map(|(number, verdict)| verdict.ok_or_else(|| refused(number + 1)))
        .collect()
}
