//! llama.cpp's server with random models: what it answers is nonsense, but the same nonsense each time.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use sightline_inference::openai::{
    Client, Key, Options, RemoteDescriber, RemoteEmbedder, RemoteTranscriber,
};
use sightline_inference::{About, Describer, Embedder, Outcome, Speech, Transcriber};
use sightline_testkit::llama::{DIMENSION, EMBEDDER, Llama, VLM};
use tokio::runtime::Handle;

use crate::support::{blocking, ended, look, refused};

async fn connect(llama: &Llama, url: &str, model: &str) -> Result<Client> {
    let key = Key::read(&llama.key_file())?;
    let options = Options {
        key: Some(key),
        ..Options::new(url, model)
    };
    Ok(Client::connect(options).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_and_a_text_are_judged_and_described() -> Result<()> {
    let llama = Llama::start().await?;
    let client = connect(&llama, &llama.chat, VLM).await?;
    let describer = RemoteDescriber::new(client, true, || 0, Handle::current());
    let questions = ["a car stops", "somebody runs"];
    let job = look(&questions, &["Describe it.", "How many people are there?"]);
    let first = ended(describer.submit(job.clone())?).await?;
    let again = ended(describer.submit(job)?).await?;
    ensure!(
        matches!(first.outcome, Outcome::Answered),
        "{:?}",
        first.outcome
    );
    ensure!((first.verdicts.len(), first.texts.len()) == (2, 2));
    for (probability, repeated) in first.verdicts.into_iter().zip(again.verdicts) {
        let (probability, repeated) = (probability?, repeated?);
        // The model is unsure of all words: a verdict of 0 or 1 would be the word and not its probability.
        ensure!((0.02..0.98).contains(&probability), "{probability}");
        ensure!(
            (probability - repeated).abs() < 0.01,
            "{probability} {repeated}"
        );
    }
    for text in first.texts {
        ensure!(!text?.is_empty());
    }

    let mut job = look(&questions[..1], &["Summarise it."]);
    job.about = About::Text("A car stopped at the crossing.".to_owned());
    let read = ended(describer.submit(job)?).await?;
    ensure!(
        matches!(read.outcome, Outcome::Answered),
        "{:?}",
        read.outcome
    );
    ensure!(read.verdicts[0].is_ok() && read.texts[0].is_ok());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_are_embedded() -> Result<()> {
    let llama = Llama::start().await?;
    let client = connect(&llama, &llama.embed, EMBEDDER).await?;
    let embedder =
        Arc::new(RemoteEmbedder::connect(client.clone(), DIMENSION, Handle::current()).await?);
    let mut texts: Vec<_> = (0..40).map(|n| format!("car number {n}")).collect();
    texts.push("car number 0".to_owned());
    // More tokens than the server takes: it is cut until it does.
    texts.push("1234567890".repeat(150));
    let (used, count) = (Arc::clone(&embedder), texts.len());
    let vectors = blocking(move || used.embed(&texts)).await??;
    ensure!(vectors.len() == count);
    let dot = |a: usize, b: usize| -> f32 {
        vectors[a].iter().zip(&vectors[b]).map(|(a, b)| a * b).sum()
    };
    for index in 0..count {
        ensure!(
            (dot(index, index) - 1.0).abs() < 1e-4,
            "{index} has length 1"
        );
    }
    ensure!(dot(0, 40) > 0.9999, "the same text twice: {}", dot(0, 40));
    ensure!(dot(0, 39) < 0.9999, "another text: {}", dot(0, 39));
    let error = refused(RemoteEmbedder::connect(client, 384, Handle::current())).await?;
    ensure!(error.contains("set dimension to 64"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn speech_is_written_down() -> Result<()> {
    let llama = Llama::start().await?;
    let client = connect(&llama, &llama.chat, VLM).await?;
    let transcriber = Arc::new(RemoteTranscriber::new(client, Handle::current()));
    let hear = async |translate: bool| {
        let used = Arc::clone(&transcriber);
        let tone = (0..32_000).map(|n| (n as f32 / 10.0).sin() / 2.0);
        let pcm: Vec<f32> = tone.collect();
        let speech = Speech {
            language: Some("de".to_owned()),
            translate,
        };
        blocking(move || used.transcribe(&pcm, &speech)).await
    };
    // This server gives text alone: the words share the two seconds.
    let (first, again) = (hear(false).await??, hear(false).await??);
    ensure!(
        first == again && first.language == "de",
        "{first:?} {again:?}"
    );
    let words = &first.segments[0].words;
    ensure!(words[0].start == 0.0, "{words:?}");
    ensure!(
        words.last().is_some_and(|w| (w.end - 2.0).abs() < 1e-6),
        "{words:?}"
    );
    let error = hear(true).await?.err().context("it translates nothing")?;
    let error = crate::support::chain(&error);
    ensure!(
        error.contains("/audio/translations has no such page"),
        "{error}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_says_what_is_wrong_and_a_model_stays_the_same() -> Result<()> {
    let llama = Llama::start().await?;
    let error = refused(Client::connect(Options::new(&llama.chat, VLM))).await?;
    ensure!(
        error.contains("key_file") && error.contains(&llama.chat),
        "{error}"
    );
    let unknown = connect(&llama, &llama.chat, "elsewhere").await.err();
    let error = crate::support::chain(unknown.context("refused")?.as_ref());
    ensure!(
        error.contains("elsewhere") && error.contains(VLM),
        "{error}"
    );

    let revision = |client| {
        RemoteDescriber::new(client, true, || 0, Handle::current())
            .revision()
            .to_owned()
    };
    let one = revision(connect(&llama, &llama.chat, VLM).await?);
    let two = revision(connect(&llama, &format!("{}/", llama.chat), VLM).await?);
    ensure!(one == two && one.len() == 16, "{one} {two}");

    // This server only chats: it says so itself.
    let client = connect(&llama, &llama.chat, VLM).await?;
    let error = refused(RemoteEmbedder::connect(
        client,
        DIMENSION,
        Handle::current(),
    ))
    .await?;
    ensure!(error.contains("embedding"), "{error}");
    Ok(())
}
