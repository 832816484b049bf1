//! Many streams and a server that is slower than they are.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use sightline_inference::openai::RemoteDescriber;
use sightline_inference::{Answers, Describer, Job, Outcome};
use sightline_testkit::until;
use tokio::runtime::Handle;

use crate::support::{Server, ended, look};

const CHAT: &str = "/chat/completions";

/// A server that answers yes when it is let to.
async fn slow() -> Result<Server> {
    let server = Server::start(|_| {
        let answer = json!({"choices": [{"message": {"content": "yes"}}]});
        answer.to_string().into_response()
    });
    let server = server.await?;
    server.hold();
    Ok(server)
}

async fn describer(server: &Server, concurrency: usize) -> Result<RemoteDescriber> {
    let client = server.client_of(concurrency).await?;
    Ok(RemoteDescriber::new(client, false, || 0, Handle::current()))
}

/// A window of a stream, captured then, about which its name is asked.
fn window(stream: &str, captured: i64, questions: &[&str]) -> Job {
    let name = format!("{stream}{captured}");
    Job {
        stream: stream.to_owned(),
        expires_us: Some(captured),
        ..look(questions, &[&name])
    }
}

/// The words of each request, in the order in which they came.
fn asked(server: &Server) -> Vec<String> {
    let words = server.seen(CHAT).into_iter().map(|request| {
        let asked: Value = serde_json::from_slice(&request.body).unwrap();
        let parts = asked["messages"][0]["content"].as_array().unwrap();
        parts.last().unwrap()["text"].as_str().unwrap().to_owned()
    });
    words.collect()
}

async fn asked_so_far(server: &Server, count: usize) -> Result<()> {
    let what = format!("{count} requests");
    until(&what, async || {
        Ok((server.seen(CHAT).len() >= count).then_some(()))
    })
    .await
}

async fn outcomes(answers: Vec<Answers>) -> Result<Vec<&'static str>> {
    let mut outcomes = Vec::new();
    for answers in answers {
        outcomes.push(match ended(answers).await?.outcome {
            Outcome::Answered => "answered",
            Outcome::Expired => "expired",
            _ => "failed",
        });
    }
    Ok(outcomes)
}

#[tokio::test]
async fn verdicts_go_first_streams_take_turns_and_the_newest_wait() -> Result<()> {
    let server = slow().await?;
    let describer = describer(&server, 1).await?;
    let mut answers = vec![describer.submit(window("first", 1, &[]))?];
    asked_so_far(&server, 1).await?;
    for job in [
        window("a", 2, &[]),
        window("a", 4, &[]),
        window("b", 1, &[]),
        window("c", 1, &["smoke", "fire"]),
        // It comes late and is older than those that wait.
        window("a", 1, &[]),
        window("a", 3, &[]),
    ] {
        answers.push(describer.submit(job)?);
    }
    // When the last has taken the place of another, all have come.
    let gone: Vec<_> = [5, 1].map(|at| answers.remove(at)).into();
    ensure!(outcomes(gone).await? == ["expired"; 2]);
    server.let_go();
    ensure!(outcomes(answers).await? == ["answered"; 5]);
    let asked = asked(&server);
    let order = ["first1", "smoke", "fire", "a3", "b1", "c1", "a4"];
    ensure!(asked.len() == order.len(), "{asked:?}");
    for (words, part) in asked.iter().zip(order) {
        ensure!(words.contains(part), "{part} in {asked:?}");
    }
    Ok(())
}

#[tokio::test]
async fn of_many_streams_none_gets_more_than_another() -> Result<()> {
    const STREAMS: usize = 20;
    const AT_ONCE: usize = 4;
    let server = slow().await?;
    let describer = describer(&server, AT_ONCE).await?;
    let mut first = Vec::new();
    for n in 0..AT_ONCE {
        first.push(describer.submit(window(&format!("first{n}-"), 1, &[]))?);
    }
    // A quarter is kept for questions.
    asked_so_far(&server, AT_ONCE - 1).await?;
    let mut answers: BTreeMap<String, Vec<Answers>> = BTreeMap::new();
    for captured in 1..=6 {
        for n in 0..STREAMS {
            let stream = format!("s{n}-");
            let taken = describer.submit(window(&stream, captured, &[]))?;
            answers.entry(stream).or_default().push(taken);
        }
    }
    let mut last = describer.submit(window("last", 1, &["smoke"]))?;
    asked_so_far(&server, AT_ONCE).await?;
    server.let_go();
    last.next().await.context("a verdict")?;
    for (stream, answers) in answers {
        let found = outcomes(answers).await?;
        let newest = [&["expired"; 4][..], &["answered"; 2]].concat();
        ensure!(found == newest, "{stream}: {found:?}");
    }
    ensure!(outcomes(first).await? == ["answered"; AT_ONCE]);
    // Each has its first turn before any has its second.
    let asked = asked(&server);
    let turns = asked
        .iter()
        .filter(|words| words.starts_with('s') && !words.contains("smoke"));
    let turns: Vec<&String> = turns.collect();
    ensure!(turns.len() == 2 * STREAMS, "{turns:?}");
    let (early, late) = turns.split_at(STREAMS);
    // Those under way together may come in any order.
    let (early, late) = (&early[..STREAMS - AT_ONCE], &late[AT_ONCE..]);
    ensure!(early.iter().all(|words| words.ends_with("-5")), "{turns:?}");
    ensure!(late.iter().all(|words| words.ends_with("-6")), "{turns:?}");
    Ok(())
}
