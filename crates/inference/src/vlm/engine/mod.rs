//! One loop that serves the windows of many streams with one model.
//!
//! A window is submitted with everything that is asked about it; the answers come through a channel. Verdicts never wait
//! behind descriptions, descriptions are decoded together, streams take turns, and what is too old is given up: if
//! questions alone keep the model busy, descriptions end as [`Outcome::Expired`](crate::Outcome). So do jobs that can expire
//! where newer ones of their stream wait behind them: the newest two wait, as on the bus. Jobs about texts go the same way.

mod batch;
mod probe;
mod schedule;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::window::Prepared;
use super::{View, Vlm};
use crate::describe::Reply;
use crate::{About, Answers, Describer, InferenceError, Job, Prompt, RgbImage, SubmitError};
use schedule::{Schedule, Work};

/// How much an [`Engine`] takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineOptions {
    /// Most answers that are decoded together, at least 1.
    pub max_batch: usize,
    /// Tokens that all caches together may hold, half of them for descriptions; a window that needs more than a half is
    /// refused. A run of the decoder holds its old and its new cache at once, so memory may reach twice of this.
    pub cache_tokens: usize,
    /// Most windows that have not ended; more are refused.
    pub max_jobs: usize,
    /// Whether the model was trained to answer about texts without a picture; jobs about texts are refused otherwise.
    pub reads_text: bool,
    /// How the frames of jobs are shown to the model.
    pub view: View,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            max_batch: 8,
            cache_tokens: 16_384,
            max_jobs: 256,
            reads_text: false,
            view: View::default(),
        }
    }
}

/// A [`Job`] with its frames decoded.
#[derive(Debug, Clone)]
pub struct Task {
    /// Whose window it is: streams take turns.
    pub stream: String,
    /// Its frames, in order of time.
    pub frames: Vec<RgbImage>,
    /// Length of the window.
    pub seconds: f64,
    /// How the frames are shown to the model.
    pub view: View,
    /// Events to judge.
    pub questions: Vec<String>,
    /// What to describe.
    pub prompts: Vec<Prompt>,
    /// When nobody wants the answers any more, in microseconds of the engine's clock.
    pub expires_us: Option<i64>,
}

/// What the engine has just done: one run of one graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A picture went through the vision encoder.
    Encode,
    /// The state that all questions and prompts on a window share was computed.
    Prefill,
    /// A question was judged.
    Judge,
    /// An answer was begun.
    Begin,
    /// Begun answers grew by one token each.
    Decode {
        /// How many.
        sequences: usize,
    },
    /// A window failed.
    Failed,
}

/// Tells the time in microseconds, by whatever clock `expires_us` of jobs is in.
pub type Now = Box<dyn Fn() -> i64 + Send>;
/// Called by the engine's thread after every step, which waits for it: for metrics and tests.
pub type OnStep = Box<dyn FnMut(Step) + Send>;

/// A model with its own thread. Dropping it ends what is under way as [`Outcome::Stopped`](crate::Outcome).
pub struct Engine {
    model: Arc<Vlm>,
    options: EngineOptions,
    shared: Arc<Shared>,
    /// Windows that have not ended.
    jobs: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    changed: Condvar,
}

#[derive(Default)]
struct Inbox {
    arrived: Vec<Work>,
    stopped: bool,
}

impl Engine {
    /// Starts the loop. Tries first whether the decoder takes answers of different lengths together; where it does not,
    /// only those of equal length are.
    pub fn start(
        model: Arc<Vlm>,
        options: EngineOptions,
        now: Now,
        on_step: OnStep,
    ) -> Result<Self, InferenceError> {
        let mixed = probe::takes_mixed_lengths(&model)?;
        tracing::debug!(mixed, ?options, "engine starts");
        let shared = Arc::new(Shared::default());
        let schedule = Schedule::new(Arc::clone(&model), &options, mixed);
        let looped = Loop {
            schedule,
            shared: Arc::clone(&shared),
            now,
            on_step,
        };
        let thread = std::thread::Builder::new()
            .name("vlm-engine".to_owned())
            .spawn(move || looped.run())
            .map_err(|e| InferenceError::run("starting the engine's thread", e))?;
        Ok(Self {
            model,
            options,
            shared,
            jobs: Arc::default(),
            thread: Some(thread),
        })
    }

    /// The model that it runs.
    pub fn model(&self) -> &Vlm {
        &self.model
    }

    /// Windows that have not ended.
    pub fn jobs(&self) -> usize {
        self.jobs.load(Ordering::Relaxed)
    }

    /// Takes a window on. Scales its frames before it returns, so call it where a thread may be busy for some
    /// milliseconds. A question or prompt that the model cannot take is answered so; the others are not touched by it.
    pub fn submit_task(&self, task: &Task) -> Result<Answers, SubmitError> {
        self.take_on(task, |model| {
            model.prepare(&task.frames, task.seconds, task.view)
        })
    }

    /// Takes `task` on, as `prepare` lays it out.
    fn take_on(
        &self,
        task: &Task,
        prepare: impl FnOnce(&Vlm) -> Result<Prepared, InferenceError>,
    ) -> Result<Answers, SubmitError> {
        let taken = self.jobs.fetch_add(1, Ordering::Relaxed);
        let expected = task.questions.len() + task.prompts.len();
        // From here on the reply counts the job down when it ends.
        let (reply, answers) = Reply::new(expected, Arc::clone(&self.jobs));
        if taken >= self.options.max_jobs {
            return Err(SubmitError::Busy);
        }
        if expected == 0 {
            return Ok(answers);
        }
        let prepared = prepare(&self.model).map_err(SubmitError::Invalid)?;
        let work = Work::new(&self.model, task, prepared, reply);
        if work.places() > self.options.cache_tokens / 2 {
            let problem = format!(
                "the window needs {} tokens of cache and may have {}: use fewer frames or give the model more cache",
                work.places(),
                self.options.cache_tokens / 2
            );
            return Err(SubmitError::Invalid(InferenceError::InvalidInput(problem)));
        }
        if work.questions.is_empty() && work.prompts.is_empty() {
            return Ok(answers);
        }
        let mut inbox = self.shared.inbox();
        if inbox.stopped {
            return Err(SubmitError::Stopped);
        }
        inbox.arrived.push(work);
        self.shared.changed.notify_one();
        Ok(answers)
    }
}

impl Describer for Engine {
    fn revision(&self) -> &str {
        self.model.revision()
    }

    fn reads_text(&self) -> bool {
        self.options.reads_text
    }

    fn submit(&self, job: Job) -> Result<Answers, SubmitError> {
        let mut task = Task {
            stream: job.stream,
            frames: Vec::new(),
            seconds: 0.0,
            view: self.options.view,
            questions: job.questions,
            prompts: job.prompts,
            expires_us: job.expires_us,
        };
        match job.about {
            About::Window { jpegs, seconds } => {
                let frames = jpegs.iter().map(|jpeg| RgbImage::from_jpeg(jpeg));
                task.frames = frames
                    .collect::<Result<_, _>>()
                    .map_err(SubmitError::Invalid)?;
                task.seconds = seconds;
                self.submit_task(&task)
            }
            About::Text(_) if !self.options.reads_text => {
                let problem = "the model cannot read text alone: give one that can, and say reads_text in its \
                               configuration";
                let problem = InferenceError::InvalidInput(problem.to_owned());
                Err(SubmitError::Invalid(problem))
            }
            About::Text(text) => self.take_on(&task, |model| {
                model.prepare_text(&text, &task.questions, &task.prompts)
            }),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.inbox().stopped = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // It panicked if this is an error, and the runtime has said so.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Loop {
    schedule: Schedule,
    shared: Arc<Shared>,
    now: Now,
    on_step: OnStep,
}

impl Loop {
    fn run(mut self) {
        let _stopped = StopOnExit(Arc::clone(&self.shared));
        let mut idle = false;
        while let Some(arrived) = self.arrived(idle) {
            for work in arrived {
                self.schedule.add(work);
            }
            self.schedule.expire((self.now)());
            let step = self.schedule.step();
            idle = step.is_none();
            if let Some(step) = step {
                (self.on_step)(step);
            }
        }
    }

    /// What has come; waits for it if there is nothing else to do. None when the engine stops.
    fn arrived(&self, idle: bool) -> Option<Vec<Work>> {
        let mut inbox = self.shared.inbox();
        while idle && inbox.arrived.is_empty() && !inbox.stopped {
            let woken = self.shared.changed.wait(inbox);
            inbox = woken.unwrap_or_else(PoisonError::into_inner);
        }
        (!inbox.stopped).then(|| std::mem::take(&mut inbox.arrived))
    }
}

/// However the loop ends, nothing is left in the inbox that nobody would answer.
struct StopOnExit(Arc<Shared>);

impl Drop for StopOnExit {
    fn drop(&mut self) {
        let mut inbox = self.0.inbox();
        inbox.stopped = true;
        inbox.arrived.clear();
    }
}
