//! Servers that answer badly, late, or not at all.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use serde_json::{Value, json};
use sightline_inference::openai::{
    Client, Key, Options, RemoteDescriber, RemoteEmbedder, RemoteTranscriber,
};
use sightline_inference::{Describer, Embedder, Outcome, Speech, SubmitError, Transcriber};
use sightline_testkit::LONG;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use crate::support::{Server, blocking, chain, ended, look, refused};

const CHAT: &str = "/chat/completions";

fn says(word: &str) -> Response {
    let answer = json!({"choices": [{"message": {"content": word}}]});
    answer.to_string().into_response()
}

fn status(status: u16, message: &str) -> Response {
    let body = json!({"error": {"message": message}}).to_string();
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

async fn describer(server: &Server) -> Result<RemoteDescriber> {
    Ok(RemoteDescriber::new(
        server.client().await?,
        false,
        || 0,
        Handle::current(),
    ))
}

/// What a job ends with when every request is answered so.
async fn failure(answer: impl Fn() -> Response + Send + Sync + 'static) -> Result<String> {
    let server = Server::start(move |_| answer()).await?;
    let describer = describer(&server).await?;
    let ended = ended(describer.submit(look(&["a car stops"], &["Describe it."]))?).await?;
    match ended.outcome {
        Outcome::Failed(error) => Ok(chain(&error)),
        _ => Ok(chain(
            &ended
                .verdicts
                .into_iter()
                .next()
                .context("a verdict")?
                .err()
                .context("an error")?,
        )),
    }
}

#[tokio::test]
async fn a_bad_answer_is_an_error_that_says_what_to_do() -> Result<()> {
    let check = async |answer: fn() -> Response, parts: &[&str]| -> Result<()> {
        let error = failure(answer).await?;
        for part in ["http://127.0.0.1", CHAT].iter().chain(parts) {
            ensure!(error.contains(part), "{part} is not in: {error}");
        }
        Ok(())
    };
    check(
        || Html("<h1>hello</h1>").into_response(),
        &["not JSON", "text/html", "OpenAI-compatible"],
    )
    .await?;
    check(|| "{\"choices\": [".into_response(), &["not JSON"]).await?;
    check(|| "{}".into_response(), &["choices[0].message.content"]).await?;
    check(|| status(401, "no"), &["401", "key_file"]).await?;
    check(
        || status(404, "The model `there` does not exist."),
        &["does not know the model there", "there, other"],
    )
    .await?;
    check(|| status(404, "Not Found"), &["404", "/v1"]).await?;
    check(
        || status(400, "too long a prompt"),
        &["400", "too long a prompt"],
    )
    .await?;
    check(|| status(500, "out of memory"), &["500", "out of memory"]).await?;
    check(|| status(302, ""), &["302", "not followed"]).await?;
    check(
        || vec![b' '; 17 << 20].into_response(),
        &["broke off", "longer than"],
    )
    .await?;
    Ok(())
}

#[tokio::test]
async fn what_may_pass_is_asked_again_when_the_server_says() -> Result<()> {
    let server = Server::start(|request| match request.before {
        0 => {
            let mut busy = status(429, "slow down");
            busy.headers_mut()
                .insert("retry-after", "1".parse().unwrap());
            busy
        }
        1 => status(503, "loading the model"),
        _ => says("Yes"),
    })
    .await?;
    let describer = describer(&server).await?;
    let started = tokio::time::Instant::now();
    let ended = ended(describer.submit(look(&["a car stops"], &[]))?).await?;
    ensure!(
        matches!(ended.outcome, Outcome::Answered),
        "{:?}",
        ended.outcome
    );
    ensure!(ended.verdicts[0].as_ref().is_ok_and(|&p| p == 1.0));
    let waited = started.elapsed();
    ensure!(waited.as_secs() >= 2, "1 s as it says, and 1 s: {waited:?}");
    Ok(())
}

#[tokio::test]
async fn a_server_that_keeps_failing_is_left_alone_for_a_while() -> Result<()> {
    let server = Server::start(|_| status(500, "broken")).await?;
    let describer = describer(&server).await?;
    let mut errors = Vec::new();
    for _ in 0..3 {
        match ended(describer.submit(look(&["a car stops"], &[]))?)
            .await?
            .outcome
        {
            Outcome::Failed(error) => errors.push(chain(&error)),
            outcome => bail!("{outcome:?}"),
        }
    }
    ensure!(errors[0].contains("broken"), "{errors:?}");
    ensure!(errors[2].contains("several times in a row"), "{errors:?}");
    let asked = server.seen(CHAT).len();
    ensure!(asked == 5, "three tries and two: {asked}");
    Ok(())
}

/// Every connection is read, and answered with `said` and then nothing more.
async fn raw(said: &'static str, close: bool) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/v1", listener.local_addr()?);
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(said.as_bytes()).await;
            if !close {
                kept.push(stream);
            }
        }
    });
    Ok(url)
}

#[tokio::test]
async fn a_server_that_hangs_or_breaks_off_ends_the_start_with_its_address() -> Result<()> {
    let check_within = async |timeout, url: &str, part: &str| -> Result<()> {
        let error = refused(Client::connect(Options {
            timeout,
            ..Options::new(url, "there")
        }))
        .await?;
        ensure!(
            error.contains(part) && error.contains("127.0.0.1"),
            "{error}"
        );
        Ok(())
    };
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"da";
    for said in ["", half] {
        let url = raw(said, false).await?;
        check_within(Duration::from_millis(500), &url, "within 500ms").await?;
    }
    // What is told at once may be late on a busy machine.
    let check = async |url: &str, part: &str| check_within(LONG, url, part).await;
    check(&raw(half, true).await?, "broke off").await?;
    check(&raw("SSH-2.0-OpenSSH_9.2\r\n", true).await?, "broke off").await?;
    let free = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
    check(&format!("http://{free}/v1"), "cannot connect").await?;
    check("http://user:secret@127.0.0.1/v1", "must not contain").await?;
    check("http://127.0.0.1/v1?key=secret", "must not contain").await?;
    check("ftp://127.0.0.1/v1", "http://").await
}

#[tokio::test]
async fn the_key_is_in_no_error_and_no_debug_form() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("key");
    std::fs::write(&file, " sk-very-secret \n")?;
    let key = Key::read(&file)?;
    let server = Server::start(|_| status(400, "Incorrect key provided: sk-very-secret")).await?;
    let options = Options {
        key: Some(key),
        ..Options::new(&server.url, "there")
    };
    ensure!(!format!("{options:?}").contains("secret"));
    let client = Client::connect(options).await?;
    let error = refused(RemoteEmbedder::connect(client, 2, Handle::current())).await?;
    ensure!(
        error.contains("Incorrect key provided: …") && !error.contains("secret"),
        "{error}"
    );
    for (content, part) in [
        ("", "no usable key"),
        ("a b", "no usable key"),
        ("ä", "no usable key"),
    ] {
        std::fs::write(&file, content)?;
        let error = chain(&Key::read(&file).err().context("refused")?);
        ensure!(error.contains(part), "{error}");
    }
    let error = chain(&Key::read(directory.path()).err().context("refused")?);
    ensure!(error.contains("cannot read the key"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_server_without_log_probabilities_is_asked_for_the_word() -> Result<()> {
    let server = Server::start(|request| {
        let asked: Value = serde_json::from_slice(&request.body).unwrap();
        match asked["logprobs"].is_null() {
            true => says("No."),
            false => status(400, "logprobs is not supported"),
        }
    })
    .await?;
    let describer = describer(&server).await?;
    for requests in [2, 3] {
        let ended = ended(describer.submit(look(&["a car stops"], &[]))?).await?;
        ensure!(ended.verdicts[0].as_ref().is_ok_and(|&p| p == 0.0));
        ensure!(server.seen(CHAT).len() == requests, "it is remembered");
    }
    Ok(())
}

#[tokio::test]
async fn a_question_that_is_refused_costs_the_others_nothing_and_what_is_late_is_not_asked()
-> Result<()> {
    let server = Server::start(|request| {
        let asked = String::from_utf8_lossy(&request.body).into_owned();
        match asked.contains("odd") {
            true => status(400, "too odd"),
            false => says("yes"),
        }
    })
    .await?;
    let describer = RemoteDescriber::new(server.client().await?, false, || 100, Handle::current());
    let mut job = look(&["an odd thing", "a car stops"], &["Describe it.", "odd"]);
    let whole = ended(describer.submit(job.clone())?).await?;
    ensure!(
        matches!(whole.outcome, Outcome::Answered),
        "{:?}",
        whole.outcome
    );
    ensure!(whole.verdicts[0].is_err() && whole.verdicts[1].is_ok());
    ensure!(whole.texts[0].is_ok() && whole.texts[1].is_err());

    let asked = server.seen(CHAT).len();
    job.expires_us = Some(99);
    let late = ended(describer.submit(job.clone())?).await?;
    ensure!(matches!(late.outcome, Outcome::Expired) && late.verdicts.is_empty());
    ensure!(server.seen(CHAT).len() == asked);

    job.about = sightline_inference::About::Text("Hello".to_owned());
    ensure!(
        matches!(describer.submit(job), Err(SubmitError::Invalid(_))),
        "it reads no text"
    );
    Ok(())
}

#[tokio::test]
async fn jobs_are_bounded_and_end_with_the_describer() -> Result<()> {
    let url = raw(
        "HTTP/1.1 200 OK\r\ncontent-length: 28\r\n\r\n{\"data\":[{\"id\":\"there\"}]}    ",
        false,
    )
    .await?;
    let client = Client::connect(Options::new(&url, "there")).await?;
    let describer = RemoteDescriber::new(client, false, || 0, Handle::current());
    let mut taken = Vec::new();
    let busy = loop {
        match describer.submit(look(&["a car stops"], &[])) {
            Ok(answers) => taken.push(answers),
            Err(error) => break error,
        }
    };
    ensure!(
        matches!(busy, SubmitError::Busy) && taken.len() == 256,
        "{busy:?} {}",
        taken.len()
    );
    drop(describer);
    let last = ended(taken.pop().context("the last")?).await?;
    ensure!(
        matches!(last.outcome, Outcome::Stopped),
        "{:?}",
        last.outcome
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_is_too_long_for_the_model_is_shortened_and_costs_the_others_nothing()
-> Result<()> {
    let server = Server::start(|request| {
        let asked: Value = serde_json::from_slice(&request.body).unwrap();
        let texts = asked["input"].as_array().unwrap();
        let length = |text: &Value| text.as_str().unwrap().chars().count();
        if texts.iter().any(|text| length(text) > 200) {
            return status(413, "at most 200 characters");
        }
        let vector = |text: &Value| json!({"embedding": [length(text), 100]});
        let data: Vec<_> = texts.iter().map(vector).collect();
        json!({"data": data}).to_string().into_response()
    })
    .await?;
    let embedder = RemoteEmbedder::connect(server.client().await?, 2, Handle::current()).await?;
    let texts = ["ä".repeat(100), "ö".repeat(640)];
    let vectors = blocking(move || embedder.embed(&texts)).await??;
    // The vectors tell how much of each was taken: 100 of 100, 160 of 640.
    let taken: Vec<_> = vectors
        .iter()
        .map(|v| (v[0] / v[1] * 100.0).round())
        .collect();
    ensure!(taken == [100.0, 160.0], "{taken:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn speech_is_uploaded_as_a_wav_file_in_the_form_that_the_server_takes() -> Result<()> {
    let server = Server::start(|request| {
        let asked = String::from_utf8_lossy(&request.body).into_owned();
        match asked.contains("verbose_json") {
            true => status(400, "response_format verbose_json is not supported"),
            false if request.path == "/audio/translations" => {
                r#"{"text":"Go on."}"#.into_response()
            }
            false => r#"{"text":"Los.","language":"german"}"#.into_response(),
        }
    })
    .await?;
    let transcriber = Arc::new(RemoteTranscriber::new(
        server.client().await?,
        Handle::current(),
    ));
    let hear = async |speech: Speech| {
        let used = Arc::clone(&transcriber);
        blocking(move || used.transcribe(&[0.5; 16_000], &speech)).await
    };
    let found = hear(Speech::default()).await??;
    ensure!(
        found.language == "de" && found.segments[0].text == "Los.",
        "{found:?}"
    );
    ensure!(found.segments[0].words[0].end == 1.0);
    let seen = server.seen("/audio/transcriptions");
    let body = &seen.last().context("asked")?.body;
    let at = body
        .windows(4)
        .position(|w| w == b"RIFF")
        .context("a WAV file")?;
    let wav = &body[at..];
    ensure!(wav[24..28] == 16_000u32.to_le_bytes() && wav[40..44] == 32_000u32.to_le_bytes());
    ensure!(wav[44..46] == 16_384i16.to_le_bytes());
    let speech = Speech {
        language: Some("de".to_owned()),
        translate: true,
    };
    let found = hear(speech).await??;
    ensure!(
        found.segments[0].text == "Go on." && found.language == "de",
        "{found:?}"
    );
    ensure!(
        server.seen("/audio/translations").len() == 1,
        "the form is remembered"
    );
    Ok(())
}
