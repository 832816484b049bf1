//! Batches of a transcript in, verdicts and scenes out.

mod harness;
mod killed;

use std::sync::atomic::Ordering;

use anyhow::{Result, bail};
use harness::{EPOCH_US, Platform, REVISION, STREAM, scene, start_of};
use sightline_bus::StreamName;
use sightline_proto::ids;
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{DeadLetter, IndexRecord, Observation, VerdictBody};
use sightline_proto::v1::alert::State;
use sightline_proto::v1::{Index, ModelConfig};

fn verdict(observation: &Observation) -> Result<&VerdictBody> {
    match &observation.body {
        Some(Body::Verdict(body)) => Ok(body),
        other => bail!("{other:?} is no verdict"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_said_is_judged_and_then_described() -> Result<()> {
    let platform = Platform::start().await?;
    platform.index("idx-1", "Sum up:").await?;
    for (event, prompt, state, second) in [
        ("evt-help", "Somebody calls for help", State::Enabled, 0),
        ("evt-fire", "Somebody mentions fire", State::Enabled, 0),
        ("evt-off", "Nobody asks about help", State::Disabled, 0),
        // What was said before it is none of its business.
        (
            "evt-late",
            "Later somebody calls for help",
            State::Enabled,
            50,
        ),
        ("evt-long", "This is too long", State::Enabled, 0),
    ] {
        platform
            .watch("idx-1", event, prompt, state, second)
            .await?;
    }
    let worker = platform.serve().await?;
    platform.say("idx-1", 3, "please help me").await?;
    let mut all = platform.observed("*", 3).await?;
    // Verdicts first; those of one batch in any order.
    all[..2].sort_by_key(|observed| verdict(observed).map(|body| body.event_id.clone()).ok());
    for (observed, (event, probability)) in all.iter().zip([("evt-fire", 0.1), ("evt-help", 0.9)]) {
        let body = verdict(observed)?;
        let found = (body.event_id.as_str(), body.probability, body.window);
        assert_eq!(found, (event, probability, 3));
        assert!(!body.by_similarity && body.sampled_us == 0);
        let about = format!("idx-1:{event}");
        let id = ids::observation_id(
            "verdict",
            STREAM,
            EPOCH_US,
            start_of(3),
            &about,
            3,
            REVISION,
        );
        assert_eq!(observed.id, id);
    }
    let last = &all[2];
    let body = scene(last)?;
    assert_eq!(body.text, "Sum up: please help me (96)");
    assert_eq!(body.transcript, "please help me");
    assert_eq!((body.prompt_revision, body.batch), (2, 3));
    assert!(body.prompt_applied);
    let id = ids::observation_id(
        "audio_scene",
        STREAM,
        EPOCH_US,
        start_of(3),
        "idx-1",
        2,
        REVISION,
    );
    assert_eq!(
        (last.id.as_str(), last.model_revision.as_str()),
        (id.as_str(), REVISION)
    );
    platform.done().await?;
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn in_silence_nothing_happens() -> Result<()> {
    let platform = Platform::start().await?;
    platform.index("idx-1", "Sum up:").await?;
    platform
        .watch("idx-1", "evt-1", "Somebody says help", State::Enabled, 0)
        .await?;
    let worker = platform.serve().await?;
    platform.say("idx-1", 3, "").await?;
    worker.counted("answered", 1).await?;
    let all = platform.observed("*", 1).await?;
    let (body, asked) = (verdict(&all[0])?, &worker.model.asked);
    assert_eq!((all.len(), body.probability, body.window), (1, 0.0, 3));
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_prompt_is_answered_the_scene_is_what_was_said() -> Result<()> {
    let platform = Platform::start().await?;
    platform.index("idx-none", "").await?;
    platform.index("idx-long", "This is too long").await?;
    platform.index("idx-1", "Sum up:").await?;
    let help = "Somebody calls for help";
    platform
        .watch("idx-none", "evt-1", help, State::Enabled, 0)
        .await?;
    let worker = platform.serve().await?;
    let mut scenes = 0;
    for (index, said, judged) in [
        ("idx-none", "please help me", 1),
        ("idx-long", "a word", 1),
        ("idx-1", "unreadable", 1),
    ] {
        platform.say(index, 0, said).await?;
        scenes += 1;
        let found = platform.observed("audio_scene", scenes).await?;
        let found = &found[scenes - 1];
        let body = scene(found)?;
        assert_eq!(body.index_id, index);
        assert_eq!(
            (body.text.as_str(), body.prompt_applied),
            (said, false),
            "{index}"
        );
        // It was read, so nothing else has to judge it.
        assert_eq!(found.model_revision, REVISION);
        assert_eq!(platform.observed("verdict", judged).await?.len(), judged);
    }
    worker
        .shows("sightline_caption_prompts_refused_total 2")
        .await?;
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_says_how_long_answers_may_be_and_is_asked_as_it_is_now() -> Result<()> {
    let platform = Platform::start().await?;
    platform.index("idx-1", "Sum up:").await?;
    let changed = platform.catalog.modify::<IndexRecord>("idx-1", |record| {
        record.index = record.index.take().map(|index| Index {
            prompt: "Who speaks?".into(),
            prompt_revision: 5,
            model_config: Some(ModelConfig { max_new_tokens: 7 }),
            ..index
        });
        true
    });
    changed.await?;
    platform.say("idx-1", 0, "it is me").await?;
    // Nobody knows it: it was deleted.
    platform.say("idx-gone", 0, "unheard").await?;
    let worker = platform.serve().await?;
    let found = platform.observed("audio_scene", 1).await?;
    let body = scene(&found[0])?;
    assert_eq!(
        (body.text.as_str(), body.prompt_revision),
        ("Who speaks? it is me (7)", 5)
    );
    worker.counted("unwanted", 1).await?;
    worker.counted("answered", 1).await?;
    platform.done().await?;
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_held_while_the_model_cannot_be_had() -> Result<()> {
    let platform = Platform::start().await?;
    platform.index("idx-1", "Sum up:").await?;
    platform
        .watch("idx-1", "evt-1", "Somebody says word", State::Enabled, 0)
        .await?;
    let worker = platform.serve().await?;
    worker.model.away.store(true, Ordering::SeqCst);
    for number in 0..5 {
        platform
            .say("idx-1", number, &format!("word {number}"))
            .await?;
    }
    // Those behind it wait for their turn.
    worker.counted("held", 1).await?;
    assert!(platform.observed("*", 0).await?.is_empty());
    worker.model.away.store(false, Ordering::SeqCst);
    let scenes = platform.observed("audio_scene", 5).await?;
    let verdicts = platform.observed("verdict", 5).await?;
    let windows: Result<Vec<u64>> = verdicts.iter().map(|v| Ok(verdict(v)?.window)).collect();
    let mut windows = windows?;
    windows.sort_unstable();
    assert_eq!(windows, [0, 1, 2, 3, 4]);
    assert_eq!(scenes.len(), 5);
    platform.done().await?;
    // Away when it stops: what is held goes back to the bus, and whoever comes next reads it.
    worker.model.away.store(true, Ordering::SeqCst);
    platform.say("idx-1", 5, "word 5").await?;
    worker.counted("held", 2).await?;
    worker.stop().await?;
    let next = platform.serve().await?;
    assert_eq!(platform.observed("audio_scene", 6).await?.len(), 6);
    let letters = platform
        .bus
        .read::<DeadLetter>(StreamName::Dlq, "dlq.*", 10)
        .await?;
    assert!(letters.is_empty());
    next.stop().await
}
