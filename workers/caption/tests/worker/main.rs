//! The worker on a real nats-server with the real demo model: windows in, verdicts and scenes out.

mod harness;
mod reuse;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use harness::{
    CALM, CROSSES, ENTERS, EPOCH_US, Platform, RESTRICTED, STREAM, scene, serve, verdict, window,
};
use sightline_bus::{Ask, BusError, StreamName};
use sightline_caption::{Config, Deps};
use sightline_inference::Describer;
use sightline_proto::ids;
use sightline_proto::internal::{
    DeadLetter, JudgeRequest, JudgeResponse, RtStreamRecord, RunRecord,
};
use sightline_proto::v1::rt_stream::Playback;
use sightline_proto::v1::{Index, ModelConfig, RtStream, alert, index};
use sightline_service::Shutdown;
use sightline_service::admin::Readiness;
use sightline_service::clock::SystemClock;
use sightline_service::metrics::Metrics;

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_are_there_before_anything_is_described() -> Result<()> {
    let platform = Platform::start().await?;
    let plain = "Describe the scene";
    let unusual = "Describe activity and detect unusual behavior";
    platform.index("idx-a", plain).await?;
    platform.index("idx-b", unusual).await?;
    let revised = |index: &mut Index| index.prompt_revision = 3;
    platform.index_with("idx-c", plain, revised).await?;
    let stopped = |index: &mut Index| index.state = index::State::Stopped.into();
    platform.index_with("idx-stopped", plain, stopped).await?;
    let elsewhere = |index: &mut Index| index.rtstream_id = "rts-2".into();
    platform
        .index_with("idx-elsewhere", plain, elsewhere)
        .await?;
    let other_model = |index: &mut Index| index.model = "other".into();
    platform.index_with("idx-model", plain, other_model).await?;
    let other_sampling = |index: &mut Index| index.sampling.as_mut().unwrap().frame_count = 4;
    platform
        .index_with("idx-sampling", plain, other_sampling)
        .await?;
    platform.event("evt-enters", ENTERS).await?;
    platform.event("evt-also", ENTERS).await?;
    platform.event("evt-crosses", CROSSES).await?;
    for (id, index, event, state) in [
        ("alr-1", "idx-a", "evt-enters", alert::State::Enabled),
        ("alr-2", "idx-a", "evt-enters", alert::State::Enabled),
        ("alr-3", "idx-b", "evt-also", alert::State::Enabled),
        ("alr-4", "idx-b", "evt-crosses", alert::State::Enabled),
        ("alr-5", "idx-c", "evt-crosses", alert::State::Disabled),
        ("alr-6", "idx-stopped", "evt-enters", alert::State::Enabled),
        ("alr-7", "idx-c", "evt-unknown", alert::State::Enabled),
    ] {
        platform.alert(id, index, event, state).await?;
    }

    platform.model.set_gate(false);
    let window = window(4, RESTRICTED)?;
    platform.publish(&window).await?;
    let verdicts = platform.held("verdict", 3).await?;
    assert_eq!(platform.held("scene", 0).await?, []);
    platform.model.set_gate(true);
    let scenes = platform.held("scene", 3).await?;

    let revision = platform.model.revision();
    let mut judged = Vec::new();
    for observation in &verdicts {
        let body = verdict(observation)?;
        let answers = format!("{}:{}", body.index_id, body.event_id);
        let (start, kind) = (window.start_us, "verdict");
        let id = ids::observation_id(kind, STREAM, EPOCH_US, start, &answers, 2, revision);
        assert_eq!(observation.id, id);
        assert_eq!((body.window, body.captured_us), (4, window.captured_us));
        assert!(body.judged_us >= body.captured_us);
        judged.push((answers, body.probability > 0.5));
    }
    judged.sort_unstable();
    let expected = [
        ("idx-a:evt-enters", true),
        ("idx-b:evt-also", true),
        ("idx-b:evt-crosses", false),
    ]
    .map(|(answers, yes)| (answers.to_owned(), yes));
    assert_eq!(judged, expected);

    let mut described = Vec::new();
    for observation in &scenes {
        let body = scene(observation)?;
        let (start, index, prompt) = (window.start_us, &body.index_id, body.prompt_revision);
        let id = ids::observation_id("scene", STREAM, EPOCH_US, start, index, prompt, revision);
        assert_eq!(observation.id, id);
        assert_eq!(
            (observation.start_us, observation.end_us, body.window),
            (window.start_us, window.end_us, 4)
        );
        let times: Vec<i64> = window.frames.iter().map(|frame| frame.time_us).collect();
        assert_eq!(body.frame_times_us, times);
        assert_eq!(observation.model_revision, revision);
        assert_eq!(observation.collection_id, "default");
        assert!(body.text.contains("restricted area"), "{}", body.text);
        described.push((
            body.index_id.as_str(),
            prompt,
            body.text.contains("Unusual"),
        ));
    }
    described.sort_unstable();
    let expected = [("idx-a", 1, false), ("idx-b", 1, true), ("idx-c", 3, false)];
    assert_eq!(described, expected);
    assert_eq!(platform.model.asked(), [1, 2, 2]);
    platform.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_comes_again_changes_nothing() -> Result<()> {
    let platform = Platform::start().await?;
    platform.index("idx-a", "Describe the scene").await?;
    platform.event("evt-enters", ENTERS).await?;
    platform
        .alert("alr-1", "idx-a", "evt-enters", alert::State::Enabled)
        .await?;
    let window = window(0, CALM)?;
    for id in ["first", "second", "third"] {
        platform.publish_as(id, &window).await?;
        platform.held("scene", 1).await?;
    }
    platform
        .counted("sightline_caption_windows_total{outcome=\"described\"} 3")
        .await?;
    assert_eq!(platform.held("scene", 1).await?.len(), 1);
    let verdicts = platform.held("verdict", 1).await?;
    assert_eq!(verdicts.len(), 1);
    assert!(verdict(&verdicts[0])?.probability < 0.5);
    platform.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_after_its_verdicts_loses_and_doubles_nothing() -> Result<()> {
    let mut platform = Platform::start().await?;
    platform.index("idx-a", "Describe the scene").await?;
    platform.event("evt-enters", ENTERS).await?;
    platform
        .alert("alr-1", "idx-a", "evt-enters", alert::State::Enabled)
        .await?;
    platform.model.set_gate(false);
    platform.publish(&window(0, RESTRICTED)?).await?;
    platform.held("verdict", 1).await?;
    // It dies without acknowledging and without a word to the bus.
    platform.worker.abort();
    assert!((&mut platform.worker).await.is_err());
    platform.model.set_gate(true);
    let (bus, catalog) = (&platform.bus, &platform.catalog);
    (platform.shutdown, platform.worker) =
        serve(bus, catalog, &Metrics::default(), &platform.model);
    assert_eq!(platform.held("scene", 1).await?.len(), 1);
    assert_eq!(platform.held("verdict", 1).await?.len(), 1);
    assert_eq!(platform.model.asked()[..2], [2, 2]);
    platform.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_waited_while_its_stream_was_handed_over_is_described() -> Result<()> {
    let platform = Platform::start().await?;
    platform.index("idx-a", "Describe the scene").await?;
    let run = RunRecord {
        generation: 2,
        ..RunRecord::default()
    };
    platform.create(STREAM, run).await?;
    platform.publish(&window(0, CALM)?).await?;
    let scenes = platform.held("scene", 1).await?;
    assert_eq!((scenes.len(), scene(&scenes[0])?.window), (1, 0));
    let letters: Vec<DeadLetter> = platform.read(StreamName::Dlq, "dlq.*", 0).await?;
    assert_eq!(letters, []);
    platform.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_picture_is_kept_as_a_dead_letter_and_the_next_window_described() -> Result<()> {
    let platform = Platform::start().await?;
    platform.index("idx-a", "Describe the scene").await?;
    let mut broken = window(0, CALM)?;
    broken.frames[1].jpeg = b"\xff\xd8 not a picture".as_slice().into();
    platform.publish(&broken).await?;
    let letters: Vec<DeadLetter> = platform.read(StreamName::Dlq, "dlq.*", 1).await?;
    assert_eq!(letters[0].consumer, "caption-demo-vlm");
    assert!(letters[0].reason.contains("JPEG"), "{}", letters[0].reason);
    let mut bare = window(1, CALM)?;
    bare.frames.clear();
    platform.publish(&bare).await?;
    let letters: Vec<DeadLetter> = platform.read(StreamName::Dlq, "dlq.*", 2).await?;
    assert!(letters[1].reason.contains("without frames"));
    platform.publish(&window(2, CALM)?).await?;
    let scenes = platform.held("scene", 1).await?;
    assert_eq!((scenes.len(), scene(&scenes[0])?.window), (1, 2));
    platform.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_does_not_fit_costs_the_others_nothing() -> Result<()> {
    let platform = Platform::start().await?;
    let long = "traffic ".repeat(3000);
    platform.index("idx-a", "Describe the scene").await?;
    platform.index("idx-long", &long).await?;
    platform.event("evt-enters", ENTERS).await?;
    platform.event("evt-long", &long).await?;
    for (id, event) in [("alr-1", "evt-enters"), ("alr-2", "evt-long")] {
        platform
            .alert(id, "idx-a", event, alert::State::Enabled)
            .await?;
    }
    platform.publish(&window(0, RESTRICTED)?).await?;
    let scenes = platform.held("scene", 1).await?;
    assert_eq!(scenes.len(), 1);
    assert_eq!(scene(&scenes[0])?.index_id, "idx-a");
    let verdicts = platform.held("verdict", 1).await?;
    assert_eq!(verdicts.len(), 1);
    assert_eq!(verdict(&verdicts[0])?.event_id, "evt-enters");
    platform
        .counted("sightline_caption_prompts_refused_total 2")
        .await?;
    platform.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_of_a_window_of_the_past_hears_what_was_judged_when_it_came() -> Result<()> {
    let platform = Platform::start().await?;
    platform.index("idx-a", "Describe the scene").await?;
    platform.event("evt-enters", ENTERS).await?;
    platform
        .alert("alr-1", "idx-a", "evt-enters", alert::State::Enabled)
        .await?;
    let window = window(0, RESTRICTED)?;
    platform.publish(&window).await?;
    let then = platform.held("verdict", 1).await?;
    let then = verdict(&then[0])?.probability;

    let question = |asked: &str| JudgeRequest {
        frames: window.frames.clone(),
        window_us: 5_000_000,
        questions: vec![ENTERS.to_owned(), asked.to_owned()],
        ..JudgeRequest::default()
    };
    let ask = async |model, asked: &str| {
        let long = Duration::from_secs(120);
        let question = question(asked);
        let asked = platform.bus.ask(Ask::Judge(model), &question, long);
        asked.await as Result<JudgeResponse, BusError>
    };
    let now = ask("demo-vlm", CROSSES).await?;
    assert_eq!((now.probabilities[0], now.error.as_str()), (then, ""));
    assert_eq!(now.probabilities.len(), 2);
    assert_eq!(now.model_revision, platform.model.revision());
    let refused = ask("demo-vlm", &"traffic ".repeat(3000)).await?;
    assert!(refused.probabilities.is_empty() && !refused.error.is_empty());
    assert!(ask("other", CROSSES).await.is_err());
    platform.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_window_is_dropped_unless_it_is_of_a_file_that_waits_for_its_turn() -> Result<()> {
    let platform = Platform::start().await?;
    platform.index("idx-a", "Describe the scene").await?;
    let mut old = window(0, CALM)?;
    old.captured_us -= 61_000_000;
    platform.publish(&old).await?;
    platform
        .counted("sightline_caption_windows_total{outcome=\"expired\"} 1")
        .await?;
    let fast = RtStream {
        playback: Playback::Fast.into(),
        ..RtStream::default()
    };
    let record = RtStreamRecord {
        rtstream: Some(fast),
        ..RtStreamRecord::default()
    };
    platform.create(STREAM, record).await?;
    let mut waited = window(1, CALM)?;
    waited.captured_us -= 61_000_000;
    assert_eq!(platform.described(&waited, 1).await?.window, 1);
    let letters: Vec<DeadLetter> = platform.read(StreamName::Dlq, "dlq.*", 0).await?;
    assert_eq!(letters, []);
    platform.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_counts_from_the_next_window_on() -> Result<()> {
    let platform = Platform::start().await?;
    platform.index("idx-a", "Describe the scene").await?;
    let whole = platform.described(&window(0, CALM)?, 1).await?.text;
    let few = |index: &mut Index| {
        index.model_config = Some(ModelConfig { max_new_tokens: 4 });
    };
    platform.change("idx-a", few).await?;
    let short = platform.described(&window(1, CALM)?, 2).await?.text;
    assert!(
        short.len() < whole.len() && whole.starts_with(&short),
        "{short:?}"
    );
    platform.event("evt-enters", ENTERS).await?;
    let enabled = alert::State::Enabled;
    platform
        .alert("alr-1", "idx-a", "evt-enters", enabled)
        .await?;
    platform.described(&window(2, CALM)?, 3).await?;
    let verdicts = platform.held("verdict", 1).await?;
    assert_eq!(verdict(&verdicts[0])?.window, 2);
    platform
        .change("idx-a", |i| i.state = index::State::Stopped.into())
        .await?;
    platform.publish(&window(3, CALM)?).await?;
    platform
        .counted("sightline_caption_windows_total{outcome=\"unwanted\"} 1")
        .await?;
    platform.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_stopped_finishes_what_is_under_way() -> Result<()> {
    let platform = Platform::start().await?;
    platform.index("idx-a", "Describe the scene").await?;
    platform.model.set_gate(false);
    platform.publish(&window(0, CALM)?).await?;
    platform.begun(1).await?;
    platform.shutdown.cancel();
    platform.model.set_gate(true);
    assert_eq!(platform.held("scene", 1).await?.len(), 1);
    platform.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_cannot_be_part_of_a_subject_is_refused() -> Result<()> {
    let platform = Platform::start().await?;
    for name in ["", "a.b", "a b", "*"] {
        let config = Config {
            model: name.into(),
            concurrency: 1,
            max_new_tokens: 1,
        };
        let deps = Deps {
            bus: platform.bus.clone(),
            catalog: platform.catalog.clone(),
            clock: Arc::new(SystemClock),
            metrics: Metrics::default(),
            readiness: Readiness::default(),
            describer: platform.model.clone(),
        };
        let refused = sightline_caption::serve(config, deps, Shutdown::new()).await;
        let error = refused.err().context("it was taken")?;
        assert!(error.to_string().contains("letters, digits"), "{error}");
    }
    platform.stop().await
}
