//! What the engine's thread does next, one run of a graph at a time.
//!
//! Verdicts come first: a window with questions is encoded and judged before anything else goes on. Then begun answers
//! are kept company: new ones are begun while there is room beside them, so that each run of the decoder serves many.

use std::collections::VecDeque;
use std::sync::Arc;

use super::batch::{Batches, Sequence};
use super::{EngineOptions, Step, Task};
use crate::describe::Reply;
use crate::turns::{Turns, Waits};
use crate::vlm::Vlm;
use crate::vlm::cache::Cache;
use crate::vlm::window::Prepared;
use crate::{Answer, InferenceError, Outcome};

/// What is to be described.
pub(super) struct Asked {
    suffix: Vec<u32>,
    max_new_tokens: usize,
}

impl Asked {
    /// Places that it takes in the cache behind the prefix.
    fn places(&self) -> usize {
        self.suffix.len() + self.max_new_tokens
    }
}

/// A window on its way through the engine.
pub(super) struct Work {
    pub(super) stream: String,
    pub(super) prepared: Prepared,
    /// Number and tokens of what is still to be judged, and to be described.
    pub(super) questions: VecDeque<(usize, Vec<u32>)>,
    pub(super) prompts: VecDeque<(usize, Asked)>,
    /// When nobody wants its answers any more, in the clock's microseconds.
    pub(super) expires_us: Option<i64>,
    pub(super) reply: Arc<Reply>,
    /// What the vision encoder made of the first pictures.
    pub(super) features: Vec<f32>,
    pub(super) encoded: usize,
    /// The decoder's state after the prefix, and the next position. It can be made again from the features.
    pub(super) opened: Option<(Cache, i64)>,
}

impl Work {
    /// All that `task` asks; what the model cannot take is answered so at once.
    pub(super) fn new(model: &Vlm, task: &Task, prepared: Prepared, reply: Arc<Reply>) -> Self {
        let mut questions = VecDeque::new();
        for (number, event) in task.questions.iter().enumerate() {
            match model.suffix(&prepared, &prepared.question(event)) {
                Ok(suffix) => questions.push_back((number, suffix)),
                Err(error) => reply.send(Answer::Verdict {
                    question: number,
                    probability: Err(error),
                }),
            }
        }
        let mut prompts = VecDeque::new();
        for (number, prompt) in task.prompts.iter().enumerate() {
            match model.suffix(&prepared, &prompt.text) {
                Ok(suffix) => prompts.push_back((
                    number,
                    Asked {
                        suffix,
                        max_new_tokens: prompt.max_new_tokens,
                    },
                )),
                Err(error) => reply.send(Answer::Text {
                    prompt: number,
                    text: Err(error),
                }),
            }
        }
        Self {
            stream: task.stream.clone(),
            prepared,
            questions,
            prompts,
            expires_us: task.expires_us,
            reply,
            features: Vec::new(),
            encoded: 0,
            opened: None,
        }
    }

    /// Places that its prefix takes in the cache.
    fn prefix(&self) -> usize {
        self.prepared.prefix.len()
    }

    /// Places that its next answer may come to take.
    fn next_answer(&self) -> usize {
        self.prefix() + self.prompts.front().map_or(0, |(_, asked)| asked.places())
    }

    /// Places that it needs at most at once: its prefix beside its longest question or answer.
    pub(super) fn places(&self) -> usize {
        let answers = self.prompts.iter().map(|(_, asked)| asked.places());
        let questions = self.questions.iter().map(|(_, suffix)| suffix.len());
        2 * self.prefix() + answers.chain(questions).max().unwrap_or(0)
    }

    /// Does the next part of getting ready to be asked: one picture, or the prefix.
    fn open(&mut self, model: &Vlm) -> Result<Option<Step>, InferenceError> {
        if self.opened.is_some() {
            return Ok(None);
        }
        if let Some(picture) = self.prepared.layout.pictures.get_mut(self.encoded) {
            self.features.extend(model.features(picture)?);
            picture.forget_pixels();
            self.encoded += 1;
            return Ok(Some(Step::Encode));
        }
        self.opened = Some(model.prefill(&self.prepared, &self.features)?);
        Ok(Some(Step::Prefill))
    }
}

impl Waits for Work {
    fn stream(&self) -> &str {
        &self.stream
    }

    fn expires_us(&self) -> Option<i64> {
        self.expires_us
    }

    fn reply(&self) -> &Reply {
        &self.reply
    }

    fn has_questions(&self) -> bool {
        !self.questions.is_empty()
    }
}

pub(super) struct Schedule {
    model: Arc<Vlm>,
    max_batch: usize,
    /// Places of the cache that captions may take. As many again are kept for verdicts.
    caption_places: usize,
    turns: Turns<Work>,
    batches: Batches,
}

impl Schedule {
    /// `mixed` says whether answers of different lengths can be decoded together.
    pub(super) fn new(model: Arc<Vlm>, options: &EngineOptions, mixed: bool) -> Self {
        Self {
            model,
            max_batch: options.max_batch.max(1),
            caption_places: options.cache_tokens / 2,
            turns: Turns::new(),
            batches: Batches::new(mixed),
        }
    }

    pub(super) fn add(&mut self, work: Work) {
        self.turns.add(work);
    }

    /// Gives up what is too old at `now_us`, and what nobody waits for. Answers that have begun are completed.
    pub(super) fn expire(&mut self, now_us: i64) {
        self.turns.expire(now_us);
    }

    /// Runs one graph once; None if there is nothing to do.
    pub(super) fn step(&mut self) -> Option<Step> {
        if let Some(work) = self.turns.next_to_judge() {
            return Some(self.judge(work));
        }
        if self.batches.sequences() < self.max_batch
            && let Some(work) = self.turns.next_to_describe()
        {
            if self.make_room(&work) {
                return Some(self.describe(work));
            }
            self.turns.describe_on(work);
        }
        let sequences = self.batches.step(&self.model)?;
        Some(Step::Decode { sequences })
    }

    fn judge(&mut self, mut work: Work) -> Step {
        match work.open(&self.model) {
            Ok(None) => {}
            Ok(Some(step)) => {
                self.turns.judge_on(work);
                return step;
            }
            Err(error) => return failed(&work, error),
        }
        let (Some((question, suffix)), Some((cache, next))) =
            (work.questions.pop_front(), &work.opened)
        else {
            return Step::Judge;
        };
        match self.model.begin(&suffix, cache, *next) {
            Ok(begun) => work.reply.send(Answer::Verdict {
                question,
                probability: Ok(self.model.chat.probability_of_yes(&begun.logits)),
            }),
            Err(error) => return failed(&work, error),
        }
        if !work.questions.is_empty() {
            self.turns.judge_on(work);
        } else if !work.prompts.is_empty() {
            self.wait_for_description(work);
        }
        Step::Judge
    }

    /// A judged window keeps its state while there is room, so that its descriptions go on from it.
    fn wait_for_description(&mut self, mut work: Work) {
        if self.caption_use(0) + work.prefix() > self.caption_places {
            work.opened = None;
        }
        self.turns.add(work);
    }

    fn describe(&mut self, mut work: Work) -> Step {
        match work.open(&self.model) {
            Ok(None) => {}
            Ok(Some(step)) => {
                self.turns.describe_on(work);
                return step;
            }
            Err(error) => return failed(&work, error),
        }
        let (Some((prompt, asked)), Some((cache, next))) = (work.prompts.pop_front(), &work.opened)
        else {
            return Step::Begin;
        };
        let begun = match self.model.begin(&asked.suffix, cache, *next) {
            Ok(begun) => begun,
            Err(error) => return failed(&work, error),
        };
        let room = self.model.max_positions.saturating_sub(begun.cache.width());
        let sequence = Sequence::new(
            Arc::clone(&work.reply),
            prompt,
            asked.max_new_tokens.min(room),
            begun.next,
        );
        self.batches.join(sequence, begun, &self.model);
        if !work.prompts.is_empty() {
            self.turns.describe_on(work);
        }
        Step::Begin
    }

    /// Places that captions take, or may come to take, with one more answer of `width`.
    fn caption_use(&mut self, width: usize) -> usize {
        let opened = self.turns.described().filter(|work| work.opened.is_some());
        let waiting: usize = opened.map(|work| work.prefix()).sum();
        waiting + self.batches.places_with(width)
    }

    /// Whether `work` can be opened and answered now; takes the state of waiting windows if that helps.
    fn make_room(&mut self, work: &Work) -> bool {
        if work.prefix() + self.caption_use(work.next_answer()) <= self.caption_places {
            return true;
        }
        let decoding = self.batches.places_with(work.next_answer()) + work.prefix();
        if decoding > self.caption_places && self.batches.sequences() > 0 {
            return false;
        }
        // With nothing else under way it always fits: what would not was refused when it was submitted.
        for waiting in self.turns.calm() {
            waiting.opened = None;
        }
        true
    }
}

fn failed(work: &Work, error: InferenceError) -> Step {
    work.reply.end(Outcome::Failed(error));
    Step::Failed
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::{Schedule, Work};
    use crate::describe::Reply;
    use crate::vlm::engine::{EngineOptions, Step, Task};
    use crate::vlm::{View, Vlm, VlmOptions};
    use crate::{Answer, Prompt, RgbImage, onnx};

    fn model() -> Arc<Vlm> {
        #[expect(clippy::disallowed_methods, reason = "a test's only configuration")]
        let library = std::env::var_os("SIGHTLINE_ONNXRUNTIME").expect("SIGHTLINE_ONNXRUNTIME");
        onnx::init(Path::new(&library)).unwrap();
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/parity/smolvlm");
        Arc::new(Vlm::load(&directory, &VlmOptions::default()).unwrap())
    }

    fn task(frames: usize) -> Task {
        let frame = RgbImage::new(64, 64, (0..64 * 64 * 3).map(|i| i as u8).collect()).unwrap();
        Task {
            stream: "a".to_owned(),
            frames: vec![frame; frames],
            seconds: 5.0,
            view: View::Video,
            questions: Vec::new(),
            prompts: vec![Prompt {
                text: "Describe the scene".to_owned(),
                max_new_tokens: 6,
            }],
            expires_us: None,
        }
    }

    /// For decoders with fused attention, which take each row from its start on.
    #[test]
    fn only_answers_of_one_length_go_together_where_the_decoder_needs_that() {
        let model = model();
        let mut schedule = Schedule::new(Arc::clone(&model), &EngineOptions::default(), false);
        let mut answers = Vec::new();
        for frames in [1, 2, 1] {
            let task = task(frames);
            let (reply, receiver) = Reply::new(1, Arc::default());
            let prepared = model.prepare(&task.frames, 5.0, View::Video).unwrap();
            schedule.add(Work::new(&model, &task, prepared, reply));
            answers.push((frames, receiver));
        }
        let mut together: Vec<usize> = std::iter::from_fn(|| schedule.step())
            .filter_map(|step| match step {
                Step::Decode { sequences } => Some(sequences),
                _ => None,
            })
            .collect();
        together.sort_unstable();
        together.dedup();
        assert_eq!(together, [1, 2]);
        for (frames, mut receiver) in answers {
            let window = model
                .window(&task(frames).frames, 5.0, View::Video)
                .unwrap();
            let alone = window.describe("Describe the scene", 6).unwrap();
            match receiver.try_next() {
                Some(Answer::Text { text, .. }) => assert_eq!(text.unwrap(), alone),
                other => panic!("{other:?}"),
            }
        }
    }
}
