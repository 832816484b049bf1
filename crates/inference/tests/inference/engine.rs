//! The engine gives every stream what the model alone would, in the right order and within its bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use sightline_inference::vlm::engine::{Engine, EngineOptions, Step, Task};
use sightline_inference::vlm::{Precision, View, Vlm, VlmOptions};
use sightline_inference::{Answer, Answers, Outcome, Prompt, RgbImage, SubmitError};

use crate::compare::{Case, cases};
use crate::support::{init_runtime, models, parity_data, png_image};

pub const PROMPTS: [&str; 3] = [
    "Describe the scene",
    "Describe activity and detect unusual behavior",
    "Describe the scene and highlight congestion",
];
pub const EVENTS: [&str; 2] = ["a white car moving fast", "Detect traffic congestion"];

fn model() -> Arc<Vlm> {
    init_runtime();
    let options = VlmOptions {
        threads: 1,
        precision: Precision::Fp32,
        ..VlmOptions::default()
    };
    Arc::new(Vlm::load(&models().join("demo-vlm"), &options).unwrap())
}

fn frames(names: &[&str]) -> Vec<RgbImage> {
    let path = |name: &&str| models().join(format!("demo-vlm/golden/{name}.png"));
    names.iter().map(|name| png_image(&path(name))).collect()
}

pub fn asked(prompts: &[&str], max_new_tokens: usize) -> Vec<Prompt> {
    let asked = |text: &&str| Prompt {
        text: (*text).to_owned(),
        max_new_tokens,
    };
    prompts.iter().map(asked).collect()
}

fn job(stream: &str, names: &[&str], questions: &[&str], prompts: &[&str]) -> Task {
    Task {
        stream: stream.to_owned(),
        frames: frames(names),
        seconds: 5.0,
        view: View::Video,
        questions: questions.iter().map(|q| (*q).to_owned()).collect(),
        prompts: asked(prompts, 96),
        expires_us: None,
    }
}

/// An engine whose thread stops after each step until the test has taken note of it.
struct Lockstep {
    steps: Receiver<Step>,
    now: Arc<AtomicI64>,
    engine: Engine,
}

impl Lockstep {
    fn start(options: EngineOptions) -> Self {
        let (taken, steps) = sync_channel(0);
        let now = Arc::new(AtomicI64::new(0));
        let clock = Arc::clone(&now);
        let engine = Engine::start(
            model(),
            options,
            Box::new(move || clock.load(Ordering::SeqCst)),
            Box::new(move |step| {
                let _ = taken.send(step);
            }),
        );
        Self {
            engine: engine.unwrap(),
            steps,
            now,
        }
    }

    fn submit(&self, task: Task) -> Answers {
        self.engine.submit_task(&task).unwrap()
    }

    /// Steps until every one of `answers` has ended; gives the steps and the numbers of the answers in order of their end.
    fn run(&self, answers: &mut [Answers]) -> (Vec<Step>, Vec<(usize, Outcome)>) {
        let (mut steps, mut ended) = (Vec::new(), Vec::new());
        while ended.len() < answers.len() {
            steps.push(self.steps.recv().unwrap());
            for (number, answers) in answers.iter_mut().enumerate() {
                while let Some(answer) = answers.try_next() {
                    if let Answer::Ended(outcome) = answer {
                        ended.push((number, outcome));
                    }
                }
            }
        }
        (steps, ended)
    }
}

/// The numbers of those that expired.
fn expired(ended: Vec<(usize, Outcome)>) -> Vec<usize> {
    let expired = |outcome: &Outcome| matches!(outcome, Outcome::Expired);
    let ended = ended.into_iter().filter(|(_, outcome)| expired(outcome));
    let mut numbers: Vec<usize> = ended.map(|(number, _)| number).collect();
    numbers.sort_unstable();
    numbers
}

/// An engine that runs freely.
pub fn free(options: EngineOptions) -> Engine {
    Engine::start(model(), options, Box::new(|| 0), Box::new(|_| {})).unwrap()
}

/// Verdicts and texts of a job in the order of its questions and prompts.
pub fn collect(mut answers: Answers) -> (Vec<f32>, Vec<String>) {
    let (mut verdicts, mut texts) = (Vec::new(), Vec::new());
    loop {
        match answers.blocking_next().unwrap() {
            Answer::Verdict {
                question,
                probability,
            } => verdicts.push((question, probability.unwrap())),
            Answer::Text { prompt, text } => texts.push((prompt, text.unwrap())),
            Answer::Ended(outcome) => {
                assert!(matches!(outcome, Outcome::Answered), "{outcome:?}");
                break;
            }
        }
    }
    texts.sort();
    let verdicts = verdicts.into_iter().map(|(_, p)| p).collect();
    (verdicts, texts.into_iter().map(|(_, text)| text).collect())
}

const WINDOWS: [&[&str]; 6] = [
    &["00_0"],
    &["01_0", "01_1", "01_2"],
    &["02_0", "02_1"],
    &["04_0", "04_1"],
    &["08_0", "08_1", "08_2"],
    &["09_0"],
];

fn check_equal_to_the_model_alone(options: EngineOptions) {
    let engine = free(options);
    let submitted: Vec<Answers> = WINDOWS
        .iter()
        .enumerate()
        .map(|(i, names)| {
            let questions = &EVENTS[..i % 3];
            let job = job(&format!("stream {}", i % 4), names, questions, &PROMPTS);
            engine.submit_task(&job).unwrap()
        })
        .collect();
    let alone = model();
    for (i, (answers, names)) in submitted.into_iter().zip(WINDOWS).enumerate() {
        let (verdicts, texts) = collect(answers);
        let window = alone.window(&frames(names), 5.0, View::Video).unwrap();
        let judged = EVENTS[..i % 3].iter().map(|e| window.judge(e).unwrap());
        assert_eq!(verdicts, judged.collect::<Vec<_>>(), "{names:?}");
        let described = PROMPTS.iter().map(|p| window.describe(p, 96).unwrap());
        assert_eq!(texts, described.collect::<Vec<_>>(), "{names:?}");
    }
    assert_eq!(engine.jobs(), 0);
}

#[test]
fn batched_answers_equal_those_of_the_model_alone() {
    check_equal_to_the_model_alone(EngineOptions::default());
}

/// Room for one window of three frames and one answer at a time: state is given up and made again.
#[test]
fn a_small_pool_changes_no_answer() {
    let options = EngineOptions {
        cache_tokens: 600,
        ..EngineOptions::default()
    };
    check_equal_to_the_model_alone(options);
}

/// Positions on three axes, images of any size.
#[test]
fn another_familys_answers_equal_those_of_the_model_alone() {
    init_runtime();
    let directory = parity_data("qwen2-vl");
    let model = Arc::new(Vlm::load(&directory, &VlmOptions::default()).unwrap());
    let cases = cases(&directory);
    let options = EngineOptions::default();
    let engine = Engine::start(
        Arc::clone(&model),
        options,
        Box::new(|| 0),
        Box::new(|_| {}),
    );
    let engine = engine.unwrap();
    let submit = |case: &Case| {
        let job = Task {
            frames: case.frames(),
            view: case.view(),
            prompts: asked(&[&case.prompt, PROMPTS[0]], 12),
            ..job("a", &[], &EVENTS, &[])
        };
        engine.submit_task(&job).unwrap()
    };
    let submitted: Vec<Answers> = cases.iter().map(submit).collect();
    for (case, answers) in cases.iter().zip(submitted) {
        let (_, texts) = collect(answers);
        let window = case.window(&model);
        let prompts = [&case.prompt, PROMPTS[0]];
        let alone = prompts.map(|prompt| window.describe(prompt, 12).unwrap());
        assert_eq!(texts, alone, "{:?}", case.sizes);
    }
}

#[test]
fn verdicts_wait_for_one_step_at_most() {
    let engine = Lockstep::start(EngineOptions::default());
    let mut captions: Vec<Answers> = (0..20)
        .map(|i| {
            engine.submit(job(
                &format!("calm {i}"),
                &["01_0", "01_1", "01_2"],
                &[],
                &PROMPTS,
            ))
        })
        .collect();
    while !matches!(engine.steps.recv().unwrap(), Step::Decode { sequences: 8 }) {}
    let mut urgent = engine.submit(job("urgent", &["02_0", "02_1"], &EVENTS, &[]));
    let (steps, ended) = engine.run(std::slice::from_mut(&mut urgent));
    assert!(matches!(ended[..], [(0, Outcome::Answered)]));
    let own = [
        Step::Encode,
        Step::Encode,
        Step::Prefill,
        Step::Judge,
        Step::Judge,
    ];
    // The step that was under way when it came may stand before. Its answers may be seen before its last step is.
    let before = usize::from(matches!(steps[0], Step::Decode { .. }));
    assert!(own.starts_with(&steps[before..]), "{steps:?}");
    assert!(steps.len() - before >= own.len() - 1, "{steps:?}");
    // The descriptions go on together.
    let (steps, _) = engine.run(&mut captions[..3]);
    assert!(steps.contains(&Step::Decode { sequences: 8 }));
}

#[test]
fn streams_take_turns() {
    let options = EngineOptions {
        max_batch: 1,
        ..EngineOptions::default()
    };
    let engine = Lockstep::start(options);
    // The engine is held after the first step of this one while the others come.
    let mut answers = vec![engine.submit(job("first", &["00_0"], &[], &PROMPTS[..1]))];
    for stream in ["a", "a", "a", "b", "c", "b"] {
        answers.push(engine.submit(job(stream, &["00_0"], &[], &PROMPTS[..1])));
    }
    let (_, ended) = engine.run(&mut answers);
    let order: Vec<usize> = ended.into_iter().map(|(number, _)| number).collect();
    assert_eq!(order, [0, 1, 4, 5, 2, 6, 3]);
}

#[test]
fn what_is_too_old_is_given_up_and_said_so() {
    let options = EngineOptions {
        max_batch: 1,
        ..EngineOptions::default()
    };
    let engine = Lockstep::start(options);
    let expiring = |stream, questions, at| Task {
        expires_us: Some(at),
        ..job(stream, &["00_0"], questions, &PROMPTS[..1])
    };
    let mut answers = vec![
        engine.submit(job("first", &["00_0"], &[], &PROMPTS[..1])),
        engine.submit(expiring("calm", &[][..], 5)),
        engine.submit(expiring("urgent", &EVENTS[..1], 5)),
        engine.submit(expiring("later", &[][..], 6)),
    ];
    engine.now.store(6, Ordering::SeqCst);
    let (_, ended) = engine.run(&mut answers);
    assert_eq!(expired(ended), [1, 2]);
}

#[test]
fn what_nobody_waits_for_is_given_up() {
    let engine = Lockstep::start(EngineOptions::default());
    let mut kept = engine.submit(job("a", &["00_0"], &[], &PROMPTS[..1]));
    drop(engine.submit(job("b", &["01_0", "01_1", "01_2"], &EVENTS, &PROMPTS)));
    let (steps, _) = engine.run(std::slice::from_mut(&mut kept));
    let encoded = steps.iter().filter(|step| **step == Step::Encode).count();
    assert_eq!(encoded, 1);
    assert_eq!(engine.engine.jobs(), 0);
}

/// Those that may never be given up are not, and one whose answer has begun goes on.
#[test]
fn the_newest_of_a_stream_wait() {
    let options = EngineOptions {
        max_batch: 1,
        ..EngineOptions::default()
    };
    let engine = Lockstep::start(options);
    let live = |stream, questions, at| Task {
        expires_us: Some(at),
        ..job(stream, &["00_0"], questions, &PROMPTS[..1])
    };
    let mut answers = vec![engine.submit(live("first", &[][..], 100))];
    while engine.steps.recv().unwrap() != Step::Begin {}
    let kept = || job("kept", &["00_0"], &[], &PROMPTS[..1]);
    answers.extend([102, 100, 101].map(|at| engine.submit(live("calm", &[][..], at))));
    answers.extend([100, 102, 101].map(|at| engine.submit(live("urgent", &EVENTS[..1], at))));
    answers.extend((0..3).map(|_| engine.submit(kept())));
    let (_, ended) = engine.run(&mut answers);
    assert_eq!(expired(ended), [2, 4]);
}

#[test]
fn bounds_hold() {
    let options = EngineOptions {
        cache_tokens: 600,
        max_jobs: 2,
        ..EngineOptions::default()
    };
    let engine = Lockstep::start(options);
    let job = || job("a", &["01_0", "01_1", "01_2"], &[], &PROMPTS[..1]);
    let mut answers = [engine.submit(job()), engine.submit(job())];
    let refused = engine.engine.submit_task(&job());
    assert!(matches!(refused, Err(SubmitError::Busy)), "{refused:?}");
    let (steps, _) = engine.run(&mut answers);
    // 300 tokens are no room for two answers.
    assert!(steps.contains(&Step::Decode { sequences: 1 }));
    assert!(!steps.contains(&Step::Decode { sequences: 2 }));
    let large = Task {
        prompts: asked(&PROMPTS[..1], 300),
        ..job()
    };
    let refused = engine.engine.submit_task(&large).unwrap_err();
    assert!(matches!(refused, SubmitError::Invalid(_)), "{refused}");
    let nothing = Task {
        frames: Vec::new(),
        ..job()
    };
    let refused = engine.engine.submit_task(&nothing).unwrap_err();
    assert!(matches!(refused, SubmitError::Invalid(_)), "{refused}");
    assert_eq!(engine.engine.jobs(), 0);
}

#[test]
fn a_prompt_that_does_not_fit_costs_the_others_nothing() {
    let engine = free(EngineOptions::default());
    let long = "word ".repeat(3000);
    let job = job("a", &["00_0"], &[&long, EVENTS[0]], &[PROMPTS[0], &long]);
    let mut answers = engine.submit_task(&job).unwrap();
    let mut seen = Vec::new();
    while let Some(answer) = answers.blocking_next() {
        seen.push(match answer {
            Answer::Verdict {
                question,
                probability,
            } => format!("question {question} {}", probability.is_ok()),
            Answer::Text { prompt, text } => format!("prompt {prompt} {}", text.is_ok()),
            Answer::Ended(outcome) => format!("{outcome:?}"),
        });
    }
    let expected = [
        "question 0 false",
        "prompt 1 false",
        "question 1 true",
        "prompt 0 true",
        "Answered",
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_stopped_engine_leaves_nobody_waiting() {
    let engine = Lockstep::start(EngineOptions::default());
    let mut answers = engine.submit(job("a", &["00_0"], &[], &PROMPTS));
    let Lockstep { steps, engine, .. } = engine;
    drop(steps);
    drop(engine);
    let mut last = None;
    while let Some(answer) = answers.blocking_next() {
        last = Some(answer);
    }
    // It may have been quick enough to answer everything.
    let ended = matches!(
        last,
        Some(Answer::Ended(Outcome::Stopped | Outcome::Answered))
    );
    assert!(ended, "{last:?}");
}
