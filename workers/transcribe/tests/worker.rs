//! The worker on a real nats-server with the real demo model: utterances in, transcripts out.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use sightline_bus::embedded::EmbeddedServer;
use sightline_bus::{Ask, Bus, StreamName, Subject};
use sightline_catalog::Catalog;
use sightline_inference::whisper::{SAMPLE_RATE, Whisper};
use sightline_inference::{InferenceError, Speech, Transcriber, Transcript};
use sightline_proto::ids;
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{
    AudioChunk, DeadLetter, Observation, RtStreamRecord, RunRecord, TranscriptBody,
};
use sightline_service::Shutdown;
use sightline_service::admin::Readiness;
use sightline_service::clock::SystemClock;
use sightline_service::metrics::Metrics;
use sightline_transcribe::{Config, Deps, Error};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Far above what anything here takes.
const LONG: Duration = Duration::from_secs(60);
const STREAM: &str = "rts-1";
const ENGINE: &str = "demo-whisper";
const EPOCH_US: i64 = 1_795_514_400_000_000;

/// A running worker with the parts around it.
struct Platform {
    bus: Bus,
    catalog: Catalog,
    metrics: Metrics,
    model: Arc<Gated>,
    shutdown: Shutdown,
    worker: JoinHandle<Result<(), Error>>,
    // Dropped last, in this order: the server stops before its folder goes.
    _server: EmbeddedServer,
    _dir: tempfile::TempDir,
}

impl Platform {
    async fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let server = EmbeddedServer::start(Path::new("nats-server"), dir.path())?;
        let bus = Bus::connect(&server.config("transcribe-test")).await?;
        let catalog = Catalog::open(&bus).await?;
        let metrics = Metrics::default();
        let model = Arc::new(Gated::load()?);
        let (shutdown, worker) = serve(ENGINE, &bus, &catalog, &metrics, &model);
        Ok(Self {
            bus,
            catalog,
            metrics,
            model,
            shutdown,
            worker,
            _server: server,
            _dir: dir,
        })
    }

    /// Stops the worker and waits until it has drained.
    async fn stop(self) -> Result<()> {
        self.shutdown.cancel();
        Ok(timeout(LONG, self.worker).await???)
    }

    async fn publish(&self, chunk: &AudioChunk) -> Result<()> {
        self.publish_as(&chunk.id, chunk).await
    }

    async fn publish_as(&self, id: &str, chunk: &AudioChunk) -> Result<()> {
        let subject = Subject::Audio {
            engine: ENGINE.into(),
            rtstream: STREAM.into(),
        };
        self.bus.publish(&subject, id, chunk).await?;
        Ok(())
    }

    /// Waits until the bus holds `count` transcripts, and returns all of them in order.
    async fn transcripts(&self, count: usize) -> Result<Vec<Observation>> {
        self.read(StreamName::Observations, "obs.*.transcript.*", count)
            .await
    }

    async fn letters(&self, count: usize) -> Result<Vec<DeadLetter>> {
        self.read(StreamName::Dlq, "dlq.*", count).await
    }

    async fn read<M: prost::Message + Default + 'static>(
        &self,
        stream: StreamName,
        filter: &str,
        count: usize,
    ) -> Result<Vec<M>> {
        let waiting = async {
            loop {
                let held = self.bus.read::<M>(stream, filter, 10_000).await?;
                if held.len() >= count {
                    return Ok(held.into_iter().map(|r| r.message).collect());
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(LONG, waiting)
            .await
            .with_context(|| format!("{filter} never held {count}"))?
    }

    /// Waits until the exported metrics have this line.
    async fn counted(&self, line: &str) -> Result<()> {
        let waiting = async {
            while !self.metrics.encode().lines().any(|l| l == line) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, waiting)
            .await
            .with_context(|| format!("{line:?} is not in {}", self.metrics.encode()))
    }
}

fn serve(
    engine: &str,
    bus: &Bus,
    catalog: &Catalog,
    metrics: &Metrics,
    model: &Arc<Gated>,
) -> (Shutdown, JoinHandle<Result<(), Error>>) {
    let config = Config {
        engine: engine.into(),
        concurrency: 1,
    };
    let deps = Deps {
        bus: bus.clone(),
        catalog: catalog.clone(),
        clock: Arc::new(SystemClock),
        metrics: metrics.clone(),
        readiness: Readiness::default(),
        transcriber: model.clone(),
    };
    let shutdown = Shutdown::new();
    let worker = tokio::spawn(sightline_transcribe::serve(config, deps, shutdown.clone()));
    (shutdown, worker)
}

/// The demo model behind a gate that a test may close, counting the calls. A test may also have it fail at what is longer.
struct Gated {
    model: Whisper,
    longest: AtomicUsize,
    open: Mutex<bool>,
    moved: Condvar,
    called: AtomicUsize,
    speech: Mutex<Vec<Speech>>,
}

impl Gated {
    fn load() -> Result<Self> {
        Ok(Self {
            model: Whisper::load(&models().join("ggml-demo.en-q5_1.bin"), 1)?,
            longest: AtomicUsize::new(usize::MAX),
            open: Mutex::new(true),
            moved: Condvar::new(),
            called: AtomicUsize::new(0),
            speech: Mutex::default(),
        })
    }

    fn set_gate(&self, open: bool) {
        *self.open.lock().unwrap() = open;
        self.moved.notify_all();
    }
}

impl Transcriber for Gated {
    fn revision(&self) -> &str {
        self.model.revision()
    }

    fn transcribe(&self, pcm: &[f32], speech: &Speech) -> Result<Transcript, InferenceError> {
        self.speech.lock().unwrap().push(speech.clone());
        self.called.fetch_add(1, Ordering::SeqCst);
        if pcm.len() > self.longest.load(Ordering::SeqCst) {
            return Err(InferenceError::Run {
                what: "asking the remote model",
                source: "nobody listens there".into(),
            });
        }
        let open = self.open.lock().unwrap();
        drop(self.moved.wait_while(open, |open| !*open).unwrap());
        self.model.transcribe(pcm, speech)
    }
}

fn models() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo-whisper")
}

/// The samples of an example: 16 kHz mono 16 bit with the usual 44 byte header.
fn example(name: &str) -> Result<Vec<u8>> {
    let bytes = std::fs::read(models().join("examples").join(name))?;
    ensure!(&bytes[36..40] == b"data", "{name} has another header");
    Ok(bytes[44..].to_vec())
}

fn chunk(start_us: i64, pcm: Vec<u8>) -> AudioChunk {
    AudioChunk {
        id: ids::chunk_id(STREAM, EPOCH_US, start_us),
        rtstream_id: STREAM.into(),
        collection_id: "default".into(),
        epoch_us: EPOCH_US,
        start_us,
        pcm: pcm.into(),
        generation: 1,
        session: 0,
    }
}

fn transcript(observation: &Observation) -> Result<&TranscriptBody> {
    match &observation.body {
        Some(Body::Transcript(body)) => Ok(body),
        other => anyhow::bail!("{other:?} is no transcript"),
    }
}

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
async fn a_worker_that_dies_loses_nothing() -> Result<()> {
    let mut platform = Platform::start().await?;
    platform.model.set_gate(false);
    platform
        .publish(&chunk(EPOCH_US, example("ex1.wav")?))
        .await?;
    let called = async {
        while platform.model.called.load(Ordering::SeqCst) == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, called).await.context("it was never taken")?;
    // It dies without acknowledging and without a word to the bus.
    platform.worker.abort();
    assert!((&mut platform.worker).await.is_err());
    platform.model.set_gate(true);
    let (bus, catalog) = (&platform.bus, &platform.catalog);
    let metrics = Metrics::default();
    (platform.shutdown, platform.worker) = serve(ENGINE, bus, catalog, &metrics, &platform.model);
    let found = platform.transcripts(1).await?;
    assert_eq!(found.len(), 1);
    assert_eq!(
        transcript(&found[0])?.text,
        "The train is eleven minutes late."
    );
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
    let called = async {
        while platform.model.called.load(Ordering::SeqCst) < 2 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, called).await.context("it was never taken")?;
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
async fn what_is_heard_so_far_is_told_to_who_listens_and_kept_nowhere() -> Result<()> {
    let platform = Platform::start().await?;
    let mut lines = platform.bus.interim_lines().await?;
    let start_us = EPOCH_US + 7_000_000;
    let whole = example("ex3.wav")?;
    let so_far = chunk(start_us, whole[..SAMPLE_RATE * 2 * 12 / 5].to_vec());
    let ask = || async {
        let ask = Ask::Interim(ENGINE);
        platform.bus.ask::<()>(ask, &so_far, LONG).await
    };
    // Until the worker has subscribed, the bus says at once that nobody is there.
    let asking = async {
        while ask().await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, asking).await?;
    let line = timeout(LONG, lines.next()).await?.context("a line")?;
    let body = transcript(&line)?;
    assert_eq!(body.text, "Unit two has arrived at the entrance.");
    assert_eq!((body.interim, line.id.as_str()), (true, ""));
    assert!(
        line.start_us > start_us && line.end_us < start_us + 2_400_000,
        "{line:?}"
    );
    assert_eq!(body.words.len(), 7);
    // While all threads have what is over, nothing is made of what is not.
    platform.model.set_gate(false);
    platform
        .publish(&chunk(EPOCH_US, example("ex1.wav")?))
        .await?;
    let called = async {
        while platform.model.called.load(Ordering::SeqCst) < 2 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, called).await.context("it was never taken")?;
    timeout(LONG, ask()).await??;
    platform
        .counted("sightline_transcribe_interim_total{outcome=\"busy\"} 1")
        .await?;
    assert_eq!(platform.model.called.load(Ordering::SeqCst), 2);
    platform.model.set_gate(true);
    let kept = platform.transcripts(1).await?;
    assert_eq!(
        transcript(&kept[0])?.text,
        "The train is eleven minutes late."
    );
    platform.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_model_is_told_the_language_that_the_stream_has() -> Result<()> {
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
    platform
        .publish(&chunk(EPOCH_US + 1, example("ex1.wav")?))
        .await?;
    let letters = platform.letters(1).await?;
    assert!(letters[0].reason.contains("English alone"), "{letters:?}");
    let told = platform.model.speech.lock().unwrap().clone();
    let told: Vec<_> = told
        .iter()
        .map(|s| (s.language.as_deref(), s.translate))
        .collect();
    assert_eq!(told, [(Some("en"), false), (Some("de"), true)]);
    platform.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_utterance_is_held_while_the_model_is_away() -> Result<()> {
    let mut platform = Platform::start().await?;
    platform.model.longest.store(0, Ordering::SeqCst);
    platform
        .publish(&chunk(EPOCH_US, example("ex1.wav")?))
        .await?;
    let held = "sightline_transcribe_utterances_total{outcome=\"held\"} 1";
    platform.counted(held).await?;
    let called = async {
        while platform.model.called.load(Ordering::SeqCst) < 3 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, called).await.context("it was not held")?;
    platform.counted(held).await?;
    // A worker that stops gives it back at once, and the next one has it.
    platform.shutdown.cancel();
    timeout(Duration::from_secs(5), &mut platform.worker)
        .await
        .context("it waits for the model")???;
    let (bus, catalog) = (&platform.bus, &platform.catalog);
    platform.metrics = Metrics::default();
    (platform.shutdown, platform.worker) =
        serve(ENGINE, bus, catalog, &platform.metrics, &platform.model);
    platform.counted(held).await?;
    platform.model.longest.store(usize::MAX, Ordering::SeqCst);
    let found = platform.transcripts(1).await?;
    assert_eq!(
        transcript(&found[0])?.text,
        "The train is eleven minutes late."
    );
    assert_eq!(platform.letters(0).await?, []);
    platform.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_model_alone_fails_at_does_not_hold_up_the_others() -> Result<()> {
    let platform = Platform::start().await?;
    // A second of silence it listens to.
    platform.model.longest.store(SAMPLE_RATE, Ordering::SeqCst);
    platform
        .publish(&chunk(EPOCH_US, example("ex1.wav")?))
        .await?;
    platform
        .publish(&chunk(EPOCH_US + 1, vec![0; 2 * SAMPLE_RATE]))
        .await?;
    let letters = platform.letters(1).await?;
    assert!(letters[0].reason.contains("nobody listens"), "{letters:?}");
    platform
        .counted("sightline_transcribe_utterances_total{outcome=\"transcribed\"} 1")
        .await?;
    assert_eq!(platform.letters(1).await?.len(), 1);
    platform.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_a_line_that_is_late() -> Result<()> {
    let platform = Platform::start().await?;
    platform.model.set_gate(false);
    let so_far = chunk(EPOCH_US, example("ex1.wav")?);
    let ask = || {
        let ask = Ask::Interim(ENGINE);
        platform.bus.ask::<()>(ask, &so_far, LONG)
    };
    // Until the worker has subscribed, the bus says at once that nobody is there.
    let asking = async {
        while ask().await.is_err() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, asking).await?;
    platform
        .counted("sightline_transcribe_interim_total{outcome=\"failed\"} 1")
        .await?;
    // The thread is still at it: there is no second one.
    timeout(LONG, ask()).await??;
    platform
        .counted("sightline_transcribe_interim_total{outcome=\"busy\"} 1")
        .await?;
    assert_eq!(platform.model.called.load(Ordering::SeqCst), 1);
    platform.model.set_gate(true);
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
