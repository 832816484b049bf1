//! The demo speech model against whisper-cli's results (`golden.json`).

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sightline_inference::whisper::{MAX_SECONDS, SAMPLE_RATE, Whisper};
use sightline_inference::{InferenceError, Speech, Transcriber, Transcript};
use sightline_testkit::sounds;

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

/// What music is not: that never gets here, see `sightline_media`.
#[test]
fn noise_is_no_speech() {
    let model = load(1);
    for (name, sound) in sounds::all(12 * SAMPLE_RATE) {
        if ["silence", "white noise", "pink noise", "slamming doors"].contains(&name) {
            let pcm: Vec<f32> = sound.iter().map(|s| f32::from(*s) / 32768.0).collect();
            let found = model.transcribe(&pcm, &Speech::default()).unwrap();
            assert_eq!(found, Transcript::default(), "{name}");
        }
    }
}

#[test]
fn what_is_said_twice_is_written_twice() {
    let model = load(1);
    let once = samples(&clips()[0]);
    let twice = [once.as_slice(), &vec![0.0; SAMPLE_RATE / 2], &once].concat();
    let found = model.transcribe(&twice, &Speech::default()).unwrap();
    let texts: Vec<&str> = found.segments.iter().map(|s| s.text.as_str()).collect();
    assert_eq!(texts, [clips()[0].expected.as_str(); 2]);
}

fn speech(language: &str, translate: bool) -> Speech {
    Speech {
        language: Some(language.to_owned()).filter(|code| !code.is_empty()),
        translate,
    }
}

fn refused(found: Result<Transcript, InferenceError>, part: &str) {
    let error = found.unwrap_err();
    assert!(matches!(error, InferenceError::InvalidInput(_)), "{error}");
    assert!(error.to_string().contains(part), "{error}");
}

#[test]
fn a_model_of_english_speaks_of_nothing_else() {
    let model = load(1);
    assert!(!model.is_multilingual());
    let pcm = samples(&clips()[0]);
    for language in ["", "en"] {
        let found = model.transcribe(&pcm, &speech(language, false)).unwrap();
        assert_eq!(found.language, "en");
        assert_eq!(found.segments[0].text, clips()[0].expected);
    }
    refused(model.transcribe(&pcm, &speech("de", false)), "English");
    refused(
        model.transcribe(&pcm, &speech("", true)),
        "cannot translate",
    );
}

#[test]
fn a_model_of_many_languages_takes_those_that_it_knows_and_tells_them() {
    let dir = tempfile::tempdir().unwrap();
    let model = Whisper::load(&multilingual(dir.path()), 1).unwrap();
    assert!(model.is_multilingual());
    let pcm = samples(&clips()[0]);
    // It was never taught languages: what it takes for one is any of them, and it is the same one each time.
    let found = model.transcribe(&pcm, &speech("", false)).unwrap();
    let again = model.transcribe(&pcm, &speech("", false)).unwrap();
    assert_eq!(found, again);
    assert_eq!(found.language.is_empty(), found.segments.is_empty());
    for (language, translate) in [("de", false), ("de", true), ("yue", false)] {
        let found = model
            .transcribe(&pcm, &speech(language, translate))
            .unwrap();
        if !found.segments.is_empty() {
            assert_eq!(found.language, language);
        }
    }
    for wrong in ["xx", "german", "DE", "d\0"] {
        refused(model.transcribe(&pcm, &speech(wrong, false)), "no language");
    }
}

/// The demo model with the vocabulary of a multilingual one, which has one token more, before the special ones.
fn multilingual(dir: &Path) -> PathBuf {
    const TOKENS: usize = 50_256;
    // 128 numbers in blocks of 32, q5_1.
    const ROW: usize = 4 * 24;
    let mut bytes = fs::read(models().join("demo-whisper/ggml-demo.en-q5_1.bin")).unwrap();
    let name = b"decoder.token_embedding.weight";
    let at = bytes.windows(name.len()).position(|w| w == name).unwrap();
    let row = at + name.len() + TOKENS * ROW;
    bytes.splice(row..row, [0; ROW]);
    // Where the file says how many tokens there are: at its start, and of this tensor.
    for place in [4, at - 4] {
        let count = bytes[place..place + 4]
            .try_into()
            .map(u32::from_le_bytes)
            .unwrap();
        assert_eq!(count, 51_864);
        bytes[place..place + 4].copy_from_slice(&(count + 1).to_le_bytes());
    }
    let file = dir.join("ggml-demo.bin");
    fs::write(&file, bytes).unwrap();
    file
}
