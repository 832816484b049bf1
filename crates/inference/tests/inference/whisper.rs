//! The demo speech model against whisper-cli's results (`golden.json`).

use std::path::PathBuf;

use serde::Deserialize;
use sightline_inference::whisper::{MAX_SECONDS, SAMPLE_RATE, Whisper};
use sightline_inference::{Speech, Transcriber};

use crate::support::{json, models, wav_samples};

#[derive(Deserialize)]
struct Golden {
    clips: Vec<Clip>,
}

#[derive(Deserialize)]
struct Clip {
    file: PathBuf,
    expected: String,
    segments: Vec<Segment>,
}

#[derive(Deserialize)]
struct Segment {
    t0_ms: f64,
    t1_ms: f64,
    text: String,
}

fn load(threads: usize) -> Whisper {
    Whisper::load(
        &models().join("demo-whisper/ggml-demo.en-q5_1.bin"),
        threads,
    )
    .unwrap()
}

fn clips() -> Vec<Clip> {
    json::<Golden>(&models().join("demo-whisper/golden.json")).clips
}

fn samples(clip: &Clip) -> Vec<f32> {
    wav_samples(&models().join("demo-whisper").join(&clip.file))
}

#[test]
fn texts_and_times_equal_whisper_cli() {
    let model = load(1);
    for clip in clips() {
        let found = model
            .transcribe(&samples(&clip), &Speech::default())
            .unwrap()
            .segments;
        let text: Vec<&str> = found.iter().map(|s| s.text.as_str()).collect();
        assert_eq!(text.join(" "), clip.expected);
        for (found, expected) in found.iter().zip(&clip.segments) {
            assert_eq!(found.text, expected.text.trim());
            let near = |a: f64, b_ms: f64| (a - b_ms / 1000.0).abs() <= 0.1;
            let same = near(found.start, expected.t0_ms) && near(found.end, expected.t1_ms);
            assert!(same, "{:?}: {found:?}", clip.file);
        }
    }
}

#[test]
fn words_lie_in_order_within_their_segment() {
    let model = load(1);
    for clip in clips() {
        for segment in model
            .transcribe(&samples(&clip), &Speech::default())
            .unwrap()
            .segments
        {
            let words: Vec<&str> = segment.words.iter().map(|w| w.text.as_str()).collect();
            assert_eq!(words.join(" "), segment.text);
            let mut last = segment.start;
            for word in &segment.words {
                assert!(word.start >= last && word.end >= word.start, "{segment:?}");
                assert!(
                    word.probability > 0.0 && word.probability <= 1.0,
                    "{word:?}"
                );
                last = word.start;
            }
            assert!(
                segment.words.iter().all(|w| w.end <= segment.end),
                "{segment:?}"
            );
        }
    }
}

#[test]
fn silence_is_no_speech() {
    let model = load(1);
    for length in [
        0,
        1,
        800,
        SAMPLE_RATE,
        3 * SAMPLE_RATE,
        MAX_SECONDS * SAMPLE_RATE,
    ] {
        assert_eq!(
            model
                .transcribe(&vec![0.0; length], &Speech::default())
                .unwrap()
                .segments,
            [],
            "{length} samples"
        );
    }
}

#[test]
fn calls_side_by_side_do_not_disturb_each_other() {
    let model = load(1);
    let clips = clips();
    let alone: Vec<_> = clips
        .iter()
        .map(|c| {
            model
                .transcribe(&samples(c), &Speech::default())
                .unwrap()
                .segments
        })
        .collect();
    std::thread::scope(|scope| {
        let calls: Vec<_> = clips
            .iter()
            .map(|clip| {
                scope.spawn(|| {
                    model
                        .transcribe(&samples(clip), &Speech::default())
                        .unwrap()
                        .segments
                })
            })
            .collect();
        for (call, alone) in calls.into_iter().zip(alone) {
            assert_eq!(call.join().unwrap(), alone);
        }
    });
}

#[test]
fn too_long_audio_is_refused() {
    let error = load(1)
        .transcribe(
            &vec![0.0; MAX_SECONDS * SAMPLE_RATE + 1],
            &Speech::default(),
        )
        .unwrap_err();
    assert!(error.to_string().contains("at most 28 s"), "{error}");
}
