//! The worker on a real nats-server with the real demo model: utterances in, transcripts out.

mod away;
mod harness;
mod interim;

use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use sightline_inference::Transcriber;
use sightline_inference::whisper::SAMPLE_RATE;
use sightline_proto::ids;
use sightline_proto::internal::{AudioChunk, RtStreamRecord, RunRecord};
use sightline_service::metrics::Metrics;

use crate::harness::{ENGINE, EPOCH_US, Platform, STREAM, chunk, example, serve, transcript};

#[tokio::test(flavor = "multi_thread")]
async fn each_sentence_is_an_observation_with_word_times() -> Result<()> {
    let platform = Platform::start().await?;
    let start_us = EPOCH_US + 7_123_456;
    platform
        .publish(&chunk(start_us, example("ex3.wav")?))
        .await?;
    let found = platform.transcripts(2).await?;
    // Times as golden.json has them.
    let expected = [
        ("Unit two has arrived at the entrance.", 0.3, 2.1),
        ("A black bag was left in the car park.", 2.58, 5.2),
    ];
    assert_eq!(found.len(), expected.len());
    for (observation, (text, start, end)) in found.iter().zip(expected) {
        let body = transcript(observation)?;
        assert_eq!((body.text.as_str(), body.engine.as_str()), (text, ENGINE));
        assert_eq!((body.language.as_str(), body.interim), ("en", false));
        let near = |us: i64, seconds: f64| ((us - start_us) as f64 / 1e6 - seconds).abs() < 0.1;
        assert!(near(observation.start_us, start), "{observation:?}");
        assert!(near(observation.end_us, end), "{observation:?}");
        let words: Vec<&str> = body.words.iter().map(|w| w.text.as_str()).collect();
        assert_eq!(words.join(" "), text);
        let mut last = observation.start_us;
        for word in &body.words {
            assert!(last <= word.start_us && word.start_us <= word.end_us);
            assert!(word.probability > 0.0 && word.probability <= 1.0);
            last = word.start_us;
        }
        assert!(body.words.iter().all(|w| w.end_us <= observation.end_us));
        let (start, revision) = (observation.start_us, platform.model.revision());
        let kind = "transcript";
        let id = ids::observation_id(kind, STREAM, EPOCH_US, start, ENGINE, 0, revision);
        assert_eq!(observation.id, id);
        assert_eq!(observation.model_revision, revision);
        assert_eq!(observation.rtstream_id, STREAM);
        assert_eq!(observation.collection_id, "default");
    }
    platform.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_utterance_that_comes_again_changes_nothing() -> Result<()> {
    let platform = Platform::start().await?;
    let chunk = chunk(EPOCH_US, example("ex1.wav")?);
    for id in ["first", "second"] {
        platform.publish_as(id, &chunk).await?;
    }
    // Handled one after the other: when the last is published, so are the others.
    let other = self::chunk(EPOCH_US + 10_000_000, example("ex2.wav")?);
    platform.publish(&other).await?;
    let found = platform.transcripts(2).await?;
    let texts: Vec<&str> = found
        .iter()
        .map(|o| Ok(transcript(o)?.text.as_str()))
        .collect::<Result<_>>()?;
    let expected = [
        "The train is eleven minutes late.",
        "The ambulance left at noon.",
    ];
    assert_eq!(texts, expected);
    assert_eq!(platform.model.called.load(Ordering::SeqCst), 3);
    platform.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_lease_heard_after_it_was_lost_is_left_out() -> Result<()> {
    let platform = Platform::start().await?;
    let run = RunRecord {
        generation: 2,
        epoch_us: EPOCH_US,
        taken_over_us: EPOCH_US + 10_000_000,
        ..RunRecord::default()
    };
    platform.catalog.create(STREAM, &run).await?;
    // Heard before the lease was lost, after it, and again by who has it now.
    platform
        .publish(&chunk(EPOCH_US, example("ex1.wav")?))
        .await?;
    platform
        .publish(&chunk(EPOCH_US + 10_000_000, example("ex2.wav")?))
        .await?;
    let mut current = chunk(EPOCH_US + 10_000_100, example("ex2.wav")?);
    current.generation = 2;
    platform.publish(&current).await?;
    let found = platform.transcripts(2).await?;
    let texts = found
        .iter()
        .map(|found| Ok(transcript(found)?.text.clone()));
    assert_eq!(
        texts.collect::<Result<Vec<_>>>()?,
        [
            "The train is eleven minutes late.",
            "The ambulance left at noon."
        ]
    );
    platform
        .counted("sightline_transcribe_utterances_total{outcome=\"stale\"} 1")
        .await?;
    assert_eq!(platform.letters(0).await?, []);
    platform.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_heard_before_an_immediate_stop_is_left_out() -> Result<()> {
    let platform = Platform::start().await?;
    let mut stream = RtStreamRecord {
        transcription_session: 3,
        dropped_session: 1,
        ..RtStreamRecord::default()
    };
    let revision = platform.catalog.create(STREAM, &stream).await?;
    let heard_in = |session: u32, second: i64, file: &str| -> Result<AudioChunk> {
        let start_us = EPOCH_US + second * 1_000_000;
        let chunk = chunk(start_us, example(file)?);
        Ok(AudioChunk { session, ..chunk })
    };
    platform.publish(&heard_in(1, 0, "ex1.wav")?).await?;
    platform.publish(&heard_in(0, 10, "ex2.wav")?).await?;
    assert_eq!(platform.transcripts(1).await?.len(), 1);
    assert_eq!(platform.model.called.load(Ordering::SeqCst), 1);
    // Stopped while it is being transcribed.
    platform.model.set_gate(false);
    platform.publish(&heard_in(3, 20, "ex1.wav")?).await?;
    platform.called(2).await?;
    stream.dropped_session = 3;
    platform.catalog.update(STREAM, &stream, revision).await?;
    platform.model.set_gate(true);
    platform
        .counted("sightline_transcribe_utterances_total{outcome=\"dropped\"} 2")
        .await?;
    // Started again.
    platform.publish(&heard_in(4, 30, "ex1.wav")?).await?;
    let found = platform.transcripts(2).await?;
    let texts: Vec<&str> = found
        .iter()
        .map(|o| Ok(transcript(o)?.text.as_str()))
        .collect::<Result<_>>()?;
    let expected = [
        "The ambulance left at noon.",
        "The train is eleven minutes late.",
    ];
    assert_eq!(texts, expected);
    platform.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_is_told_the_language_and_what_it_cannot_do_costs_no_speech() -> Result<()> {
    let platform = Platform::start().await?;
    let mut stream = RtStreamRecord {
        language: "en".to_owned(),
        ..RtStreamRecord::default()
    };
    let revision = platform.catalog.create(STREAM, &stream).await?;
    platform
        .publish(&chunk(EPOCH_US, example("ex1.wav")?))
        .await?;
    assert_eq!(platform.transcripts(1).await?.len(), 1);
    // The gateway refuses what the model can't do; the model may be another one since.
    (stream.language, stream.translate) = ("de".to_owned(), true);
    platform.catalog.update(STREAM, &stream, revision).await?;
    let later = EPOCH_US + 10_000_000;
    platform.publish(&chunk(later, example("ex1.wav")?)).await?;
    let found = platform.transcripts(2).await?;
    let last = transcript(&found[1])?;
    assert_eq!(last.text, "The train is eleven minutes late.");
    assert_eq!(last.language, "en");
    assert_eq!(platform.letters(0).await?, []);
    let told = platform.model.speech.lock().unwrap().clone();
    let told: Vec<_> = told
        .iter()
        .map(|s| (s.language.as_deref(), s.translate))
        .collect();
    assert_eq!(
        told,
        [(Some("en"), false), (Some("de"), true), (None, false)]
    );
    platform.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_utterance_is_kept_as_a_dead_letter() -> Result<()> {
    let platform = Platform::start().await?;
    platform.publish(&chunk(EPOCH_US, vec![0; 4001])).await?;
    let letters = platform.letters(1).await?;
    assert_eq!(letters[0].consumer, "transcribe-demo-whisper");
    assert!(letters[0].reason.contains("4001 bytes"), "{letters:?}");
    let silence = vec![0; 29 * SAMPLE_RATE * 2];
    platform.publish(&chunk(EPOCH_US + 1, silence)).await?;
    let letters = platform.letters(2).await?;
    assert!(letters[1].reason.contains("at most 28 s"), "{letters:?}");
    // Silence is a transcript of no segments.
    platform
        .publish(&chunk(EPOCH_US + 2, vec![0; 2 * SAMPLE_RATE]))
        .await?;
    platform.publish(&chunk(EPOCH_US + 3, Vec::new())).await?;
    platform
        .counted("sightline_transcribe_utterances_total{outcome=\"transcribed\"} 2")
        .await?;
    assert_eq!(platform.transcripts(0).await?, []);
    assert_eq!(platform.letters(2).await?.len(), 2);
    platform.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_cannot_be_part_of_a_subject_is_refused() -> Result<()> {
    let platform = Platform::start().await?;
    for name in ["", "a.b", "a b", ">"] {
        let (bus, catalog) = (&platform.bus, &platform.catalog);
        let (_, worker) = serve(name, bus, catalog, &Metrics::default(), &platform.model);
        let error = worker.await?.err().context("it was taken")?;
        assert!(error.to_string().contains("letters, digits"), "{error}");
    }
    platform.stop().await
}
