//! Handles one window: what is asked about it, and what is published of the answers in which order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sightline_bus::{ObservationKind, Outgoing, Received, Refusal, Subject};
use sightline_inference::{About, InferenceError, Job, Prompt};
use sightline_proto::ids;
use sightline_proto::internal::{FrameWindow, RtStreamRecord, Sampling};
use sightline_proto::v1::rt_stream::Playback;
use sightline_service::{Shutdown, chain, failpoint};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::{Instrument, info_span};

use crate::asking::{Asking, Unanswered};
use crate::metrics::{CaptionMetrics, Outcome, Stage};
use crate::numbers::Numbers;
use crate::observations::{self, Text};
use crate::plan::{Plan, Plans, Wanted, Watched};
use crate::publishing::publish;
use crate::reuse::{Grey, Reuse, grey};
use crate::{BUDGET, Config, Deps};

/// How long to wait before a window is tried again after a fault that may pass, doubled with each further try …
const PAUSE: Duration = Duration::from_secs(1);
/// … up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);
/// How long windows under way are waited for at shutdown; the process ends after 30 s. Others are given back.
const DRAIN: Duration = Duration::from_secs(20);

/// Handles windows.
pub(crate) struct Handler {
    deps: Deps,
    plans: Plans,
    asking: Asking,
    metrics: CaptionMetrics,
    numbers: Numbers,
    reuse: Reuse,
    shutdown: Shutdown,
    /// Whether the model could not be had lately: that is told once, and not for every window.
    away: AtomicBool,
}

/// A window with all that is known of it.
struct Look<'a> {
    window: &'a FrameWindow,
    sampling: &'a Sampling,
    plan: &'a Plan,
    expires_us: i64,
    /// Its brightness, if an index wants to know whether it has changed.
    grey: Option<Grey>,
}

/// What indexes get described, by prompt.
type Texts<'a> = BTreeMap<&'a Wanted, Text>;

impl Handler {
    pub(crate) fn new(
        config: Config,
        deps: Deps,
        asking: Asking,
        metrics: CaptionMetrics,
        shutdown: Shutdown,
    ) -> Self {
        let catalog = deps.catalog.clone();
        Self {
            plans: Plans::new(catalog, config.model, config.max_new_tokens),
            numbers: Numbers::default(),
            reuse: Reuse::default(),
            away: AtomicBool::new(false),
            asking,
            metrics,
            shutdown,
            deps,
        }
    }

    /// Tries until the model has answered or nobody wants to know any more: a model elsewhere may be away for a while, and the bus
    /// hands a window out twice only.
    async fn hold(&self, look: &Look<'_>) -> Result<Vec<Outgoing>, Unanswered> {
        let mut pause = PAUSE;
        loop {
            let unanswered = match self.answer(look).await {
                Err(unanswered) if may_pass(&unanswered) => unanswered,
                answered => {
                    if answered.is_ok() && self.away.swap(false, Ordering::Relaxed) {
                        tracing::info!("the model answers again");
                    }
                    return answered;
                }
            };
            if self.shutdown.is_cancelled() {
                return Err(unanswered);
            }
            if !self.away.swap(true, Ordering::Relaxed) {
                tracing::warn!(?unanswered, "windows are held until the model answers");
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = self.shutdown.cancelled() => return Err(unanswered),
            }
            if self.deps.clock.now_us() > look.expires_us {
                return Err(Unanswered::Expired);
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Has the window judged and described, publishes the verdicts and returns the scenes.
    async fn answer(&self, look: &Look<'_>) -> Result<Vec<Outgoing>, Unanswered> {
        let (texts, prompts) = self.reused(look);
        let job = job(look, &prompts);
        if job.questions.is_empty() && job.prompts.is_empty() {
            return Ok(self.scenes(look, &texts));
        }
        let mut asked = self.asking.submit(job).await?;
        let verdicts = asked.verdicts().instrument(info_span!("judge")).await?;
        self.publish(look, verdicts).await?;
        failpoint::hit("caption.after_verdicts");
        let describing = asked.texts().instrument(info_span!("describe"));
        let described = describing.await?;
        let mut texts = texts;
        for (wanted, text) in prompts.into_iter().zip(described.texts) {
            if let Some(text) = text {
                self.keep(look, wanted, &text);
                texts.insert(
                    wanted,
                    Text {
                        text,
                        reused: false,
                    },
                );
            }
        }
        if described.expired && texts.is_empty() {
            return Err(Unanswered::Expired);
        }
        Ok(self.scenes(look, &texts))
    }

    /// Texts that all their indexes take over, and what else is to be described.
    fn reused<'a>(&self, look: &Look<'a>) -> (Texts<'a>, Vec<&'a Wanted>) {
        let (mut texts, mut prompts) = (Texts::new(), Vec::new());
        for (wanted, indexes) in &look.plan.descriptions {
            let taken = look.grey.as_ref().and_then(|grey| {
                let text = |described| self.reuse.text(wanted, described, grey);
                let texts: Option<Vec<String>> = indexes.iter().map(text).collect();
                texts?.pop()
            });
            match taken {
                Some(text) => drop(texts.insert(wanted, Text { text, reused: true })),
                None => prompts.push(wanted),
            }
        }
        (texts, prompts)
    }

    fn keep(&self, look: &Look<'_>, wanted: &Wanted, text: &str) {
        let Some(grey) = &look.grey else {
            return;
        };
        for described in &look.plan.descriptions[wanted] {
            if described.reuse_below > 0.0 {
                self.reuse.keep(look.window, wanted, described, grey, text);
            }
        }
    }

    /// Publishes every verdict and waits until the bus has them.
    async fn publish(&self, look: &Look<'_>, verdicts: Vec<Option<f32>>) -> Result<(), Unanswered> {
        let (revision, now) = (self.deps.describer.revision(), self.deps.clock.now_us());
        let subject = self.subject(look.window, ObservationKind::Verdict);
        let verdict = |watched: &Watched, probability| {
            observations::verdict(look.window, revision, watched, probability, now)
        };
        let (bus, questions) = (&self.deps.bus, &look.plan.questions);
        let published = publish(bus, &subject, questions, verdicts, verdict).await?;
        if published == 0 {
            return Ok(());
        }
        self.metrics.verdicts.inc_by(published);
        let (captured_us, now_us) = (look.window.captured_us, self.deps.clock.now_us());
        self.metrics.lasted(Stage::Verdict, captured_us, now_us);
        Ok(())
    }

    fn scenes(&self, look: &Look<'_>, texts: &Texts<'_>) -> Vec<Outgoing> {
        let revision = self.deps.describer.revision();
        let subject = self.subject(look.window, ObservationKind::Scene);
        let mut scenes = Vec::new();
        for (wanted, indexes) in &look.plan.descriptions {
            let Some(text) = texts.get(wanted) else {
                continue;
            };
            for described in indexes {
                let scene = observations::scene(look.window, revision, described, text);
                scenes.push(Outgoing::new(subject.clone(), scene.id.clone(), &scene));
                self.metrics.scenes.inc();
                self.metrics.scenes_reused.inc_by(u64::from(text.reused));
            }
        }
        scenes
    }

    fn subject(&self, window: &FrameWindow, kind: ObservationKind) -> Subject {
        Subject::Observation {
            partition: self.deps.catalog.partition_of(&window.rtstream_id),
            kind,
            rtstream: window.rtstream_id.clone(),
        }
    }

    /// Until when the window's answers are wanted. Of a file that is played fast every window is: it waits for its turn.
    fn expires_us(&self, window: &FrameWindow) -> i64 {
        let record = self.deps.catalog.get::<RtStreamRecord>(&window.rtstream_id);
        let stream = record.as_ref().and_then(|r| r.value.rtstream.as_ref());
        let is_fast = stream.is_some_and(|stream| stream.playback() == Playback::Fast);
        let from_us = if is_fast {
            self.deps.clock.now_us()
        } else {
            window.captured_us
        };
        from_us.saturating_add(i64::try_from(BUDGET.as_micros()).unwrap_or(i64::MAX))
    }

    /// Waits until windows under way are waited for no longer.
    async fn given_back(&self) {
        self.shutdown.cancelled().await;
        sleep(DRAIN).await;
    }
}

#[async_trait]
impl sightline_bus::Handler<FrameWindow> for Handler {
    async fn handle(&self, received: &Received<FrameWindow>) -> Result<Vec<Outgoing>, Refusal> {
        let window = &received.message;
        let now = self.deps.clock.now_us();
        self.metrics.lasted(Stage::Wait, window.captured_us, now);
        let sampling = window.sampling.as_ref().ok_or_else(|| Refusal::Reject {
            reason: "the window has no sampling".to_owned(),
        })?;
        let Some(plan) = self.plans.of(window, sampling) else {
            self.metrics.ended(Outcome::Unwanted);
            return Ok(Vec::new());
        };
        let superseded = self.numbers.see(window, sampling, plan.revision);
        self.metrics.superseded(superseded);
        let answering = async {
            let look = Look {
                window,
                sampling,
                plan: &plan,
                expires_us: self.expires_us(window),
                grey: brightness(window, &plan).await?,
            };
            self.hold(&look).await
        };
        let answered = tokio::select! {
            answered = answering => answered,
            () = self.given_back() => Err(Unanswered::Stopped("the worker stops".to_owned())),
        };
        self.metrics.ended(match answered {
            Ok(_) => Outcome::Described,
            Err(Unanswered::Expired) => Outcome::Expired,
            Err(_) => Outcome::Failed,
        });
        answered.or_else(refusal)
    }
}

/// All that is asked of the model about a window. Each sampling takes turns like a stream.
fn job(look: &Look<'_>, prompts: &[&Wanted]) -> Job {
    let prompt = |wanted: &&Wanted| Prompt {
        text: wanted.prompt.clone(),
        max_new_tokens: wanted.max_new_tokens,
    };
    let (stream, sampling) = (&look.window.rtstream_id, ids::sampling_key(look.sampling));
    Job {
        stream: format!("{stream}.{sampling}"),
        about: About::Window {
            jpegs: jpegs(look.window),
            seconds: look.sampling.window_us as f64 / 1e6,
        },
        questions: look.plan.questions.keys().cloned().collect(),
        prompts: prompts.iter().map(prompt).collect(),
        expires_us: Some(look.expires_us),
    }
}

fn jpegs(window: &FrameWindow) -> Vec<Bytes> {
    window.frames.iter().map(|f| f.jpeg.clone()).collect()
}

/// How bright the window is, if any of its indexes takes over descriptions.
async fn brightness(window: &FrameWindow, plan: &Plan) -> Result<Option<Grey>, Unanswered> {
    let mut indexes = plan.descriptions.values().flatten();
    if !indexes.any(|described| described.reuse_below > 0.0) {
        return Ok(None);
    }
    let jpegs = jpegs(window);
    let measured = spawn_blocking(move || grey(&jpegs)).await;
    match measured {
        Ok(grey) => grey.map(Some).map_err(Unanswered::Failed),
        Err(panicked) => Err(Unanswered::Stopped(panicked.to_string())),
    }
}

/// Whether the window's next try may do better.
fn may_pass(unanswered: &Unanswered) -> bool {
    match unanswered {
        Unanswered::Failed(error) => !is_the_windows(error),
        Unanswered::Stopped(_) => true,
        Unanswered::Expired | Unanswered::Gone => false,
    }
}

/// Whether the window itself is what is wrong: it stays so.
fn is_the_windows(error: &InferenceError) -> bool {
    matches!(
        error,
        InferenceError::Image { .. } | InferenceError::InvalidInput(_)
    )
}

/// What is wrong with the window itself stays wrong; what is too old is dropped.
fn refusal(unanswered: Unanswered) -> Result<Vec<Outgoing>, Refusal> {
    let retry = |reason| Refusal::Retry {
        after: PAUSE,
        reason,
    };
    Err(match unanswered {
        Unanswered::Expired => return Ok(Vec::new()),
        Unanswered::Failed(error) if is_the_windows(&error) => Refusal::Reject {
            reason: chain(&error),
        },
        Unanswered::Failed(error) => retry(chain(&error)),
        Unanswered::Stopped(reason) => retry(reason),
        Unanswered::Gone => retry("the model has stopped".to_owned()),
    })
}
