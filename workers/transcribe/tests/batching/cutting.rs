//! What is said becomes batches, whatever the order and however many workers there are.

use anyhow::Result;
use sightline_proto::ids;
use sightline_proto::v1::audio_batching::Batch;
use sightline_proto::v1::{Index, index};

use crate::harness::{EPOCH_US, Platform, STREAM, body, time, transcript, words};

#[tokio::test(flavor = "multi_thread")]
async fn each_index_cuts_the_transcript_its_own_way() -> Result<()> {
    let platform = Platform::start().await?;
    platform.index("idx-words", words(3), 0).await?;
    platform
        .index("idx-sentences", Batch::Sentences(2), 0)
        .await?;
    platform.index("idx-time", time(10), 0).await?;
    // Made while the transcript runs: what was said before is none of its business.
    platform.index("idx-late", words(2), 20).await?;
    let worker = platform.serve().await?;
    platform.say(0, "The train is late.").await?;
    // Out of order.
    platform.say(24, "Now it is here!").await?;
    platform.say(12, "Please wait.").await?;
    let expected = [
        (
            "idx-words",
            vec![
                "0@0-2.5 The train is",
                "1@3-25.5 late. Now it",
                "2@12-26.5 Please wait. is",
            ],
        ),
        (
            "idx-sentences",
            vec!["0@0-27.5 The train is late. Now it is here!"],
        ),
        (
            "idx-time",
            vec!["0@0-10 The train is late.", "1@10-20 Please wait."],
        ),
        ("idx-late", vec!["0@24-25.5 Now it", "1@26-27.5 is here!"]),
    ];
    for (index, expected) in expected {
        let shown = platform.shown(index, expected.len()).await?;
        assert_eq!(shown, expected, "{index}");
    }
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_says_what_it_is() -> Result<()> {
    let platform = Platform::start().await?;
    platform.index("idx-1", words(2), 0).await?;
    let worker = platform.serve().await?;
    platform.say(1, "so it").await?;
    platform.batches("idx-1", 1).await?;
    platform
        .change_index("idx-1", |index| {
            index.prompt = "What is said?".into();
            index.prompt_revision = 2;
        })
        .await?;
    worker
        .sees("idx-1", |index| index.prompt_revision == 2)
        .await?;
    platform.say(5, "was said").await?;
    let found = platform.batches("idx-1", 2).await?;
    for (observed, (revision, text)) in found.iter().zip([(1, "so it"), (2, "was said")]) {
        let start = observed.start_us;
        let kind = "audio_scene";
        let id = ids::observation_id(kind, STREAM, EPOCH_US, start, "idx-1", revision, "");
        assert_eq!(observed.id, id);
        assert_eq!(observed.collection_id, "default");
        assert!(observed.model_revision.is_empty());
        let body = body(observed)?;
        assert_eq!((body.text.as_str(), body.transcript.as_str()), (text, text));
        assert_eq!(
            (body.prompt_revision, body.prompt_applied),
            (revision, false)
        );
    }
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_model_reads_goes_to_the_model() -> Result<()> {
    let platform = Platform::start().await?;
    platform.index("idx-1", words(2), 0).await?;
    platform.index("idx-2", words(2), 0).await?;
    platform.read_by("idx-2", "reader").await?;
    let worker = platform.serve().await?;
    platform.say(1, "one two three four").await?;
    let others = platform.batches("idx-1", 2).await?;
    let read = platform
        .texts("reader", "idx-2", |read| read.len() == 2)
        .await?;
    for (one, other) in read.iter().zip(&others) {
        let (scene, expected) = (body(one)?, body(other)?);
        assert_eq!(
            (&scene.transcript, scene.batch),
            (&expected.transcript, expected.batch)
        );
        assert!(!scene.prompt_applied && one.model_revision.is_empty());
    }
    assert!(platform.batches("idx-2", 0).await?.is_empty());
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transcript_that_comes_again_changes_nothing() -> Result<()> {
    let platform = Platform::start().await?;
    platform.index("idx-1", words(2), 0).await?;
    let worker = platform.serve().await?;
    let segment = transcript(EPOCH_US, 1, "one two three");
    for id in ["first", "second"] {
        platform.publish(id, &segment).await?;
    }
    platform.say(9, "four").await?;
    let shown = platform.shown("idx-1", 2).await?;
    assert_eq!(shown, ["0@1-2.5 one two", "1@3-9.5 three four"]);
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_index_batches_nothing_until_it_is_started() -> Result<()> {
    let platform = Platform::start().await?;
    platform.index("idx-1", words(3), 0).await?;
    platform.index("idx-2", words(1), 0).await?;
    let worker = platform.serve().await?;
    platform.say(0, "one two").await?;
    platform.waits("idx-1", 2).await?;
    platform
        .change_index("idx-1", |index| index.set_state(index::State::Stopped))
        .await?;
    // What waited is a batch at once.
    assert_eq!(platform.shown("idx-1", 1).await?, ["0@0-1.5 one two"]);
    platform.say(10, "unheard").await?;
    platform.batches("idx-2", 3).await?;
    platform
        .change_index("idx-1", |index| index.set_state(index::State::Running))
        .await?;
    let runs = |index: &Index| index.state() == index::State::Running;
    worker.sees("idx-1", runs).await?;
    platform.say(20, "three four five").await?;
    let shown = platform.shown("idx-1", 2).await?;
    assert_eq!(shown, ["0@0-1.5 one two", "1@20-22.5 three four five"]);
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_share_the_transcripts_of_a_stream() -> Result<()> {
    let platform = Platform::start().await?;
    platform.index("idx-1", words(7), 0).await?;
    platform.index("idx-2", time(10), 0).await?;
    let workers = [
        platform.serve().await?,
        platform.serve().await?,
        platform.serve().await?,
    ];
    let said: Vec<String> = (0..210).map(|n| format!("w{n}")).collect();
    for (some, second) in said.chunks(3).zip((0..).step_by(3)) {
        platform.say(second, &some.join(" ")).await?;
    }
    for (index, batches, per_batch) in [("idx-1", 30, 7), ("idx-2", 20, 10)] {
        let found = platform.batches(index, batches).await?;
        let texts = found.iter().map(|o| Ok(body(o)?.text.clone()));
        let texts = texts.collect::<Result<Vec<_>>>()?;
        let expected: Vec<_> = said.chunks(per_batch).map(|some| some.join(" ")).collect();
        assert_eq!(texts, expected[..batches], "{index}");
        let numbers = found.iter().map(|o| Ok(body(o)?.batch));
        let numbers = numbers.collect::<Result<Vec<_>>>()?;
        assert!(numbers.iter().copied().eq(0..batches as u64), "{numbers:?}");
    }
    for worker in workers {
        worker.stop().await?;
    }
    Ok(())
}
