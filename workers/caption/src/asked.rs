//! Windows of the past, judged for whoever asks on the bus. They take turns with the windows that come, so that a long backtest
//! keeps no alert waiting for more than one look.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sightline_bus::{Ask, Bus};
use sightline_inference::{Describer, InferenceError, RgbImage};
use sightline_proto::internal::{JudgeRequest, JudgeResponse};
use sightline_service::{Shutdown, chain};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// Windows that wait for their turn at the same time.
const AT_ONCE: usize = 1;
/// How long to hold back when the bus takes no subscription.
const PAUSE: Duration = Duration::from_millis(500);

/// What answering needs.
pub(crate) struct Judging {
    pub(crate) bus: Bus,
    pub(crate) model: String,
    pub(crate) describer: Arc<dyn Describer>,
    /// Bounds the threads that look, those of windows that come included.
    pub(crate) looking: Arc<Semaphore>,
}

/// Answers until shutdown.
pub(crate) async fn run(judging: Judging, shutdown: Shutdown) {
    let judging = Arc::new(judging);
    while !shutdown.is_cancelled() {
        let asked = Arc::clone(&judging);
        let answer = move |question| {
            let judging = Arc::clone(&asked);
            async move { answer(&judging, question).await }
        };
        let ask = Ask::Judge(&judging.model);
        let answering = judging.bus.answer(ask, AT_ONCE, &shutdown, answer);
        if let Err(error) = answering.await {
            tracing::debug!(%error, "windows of the past cannot be judged, trying again");
            sleep(PAUSE).await;
        }
    }
}

async fn answer(judging: &Judging, question: JudgeRequest) -> JudgeResponse {
    let permit = Arc::clone(&judging.looking).acquire_owned().await;
    let judged = match permit {
        Ok(permit) => {
            let describer = Arc::clone(&judging.describer);
            let looking = spawn_blocking(move || judge(describer.as_ref(), &question, permit));
            looking
                .await
                .map_err(|error| format!("the model failed: {error}"))
        }
        Err(closed) => Err(closed.to_string()),
    };
    match judged {
        Ok(Ok(probabilities)) => JudgeResponse {
            probabilities,
            model_revision: judging.describer.revision().to_owned(),
            ..JudgeResponse::default()
        },
        Ok(Err(error)) => refused(chain(&error)),
        Err(reason) => refused(reason),
    }
}

fn refused(error: String) -> JudgeResponse {
    JudgeResponse {
        error,
        ..JudgeResponse::default()
    }
}

/// As windows that come are judged.
fn judge(
    describer: &dyn Describer,
    question: &JudgeRequest,
    _permit: OwnedSemaphorePermit,
) -> Result<Vec<f32>, InferenceError> {
    let jpegs = question.frames.iter().map(|frame| &frame.jpeg);
    let frames = jpegs
        .map(|jpeg: &Bytes| RgbImage::from_jpeg(jpeg))
        .collect::<Result<Vec<_>, _>>()?;
    let seconds = question.window_us as f64 / 1e6;
    let mut session = describer.open_window(&frames, seconds)?;
    let questions = question.questions.iter();
    questions.map(|asked| session.judge(asked)).collect()
}
