//! A backtest: what was recorded is judged again and fires where it fired, and what was not by its descriptions.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use sightline_bus::StreamName;
use sightline_proto::client::Client;
use sightline_proto::internal::Observation;
use sightline_proto::internal::observation::Body;
use sightline_proto::time::{micros, timestamp};
use sightline_proto::v1::backtest_request::Label;
use sightline_proto::v1::backtest_response::{Judged, Message, Summary};
use sightline_proto::v1::firing::Basis;
use sightline_proto::v1::rt_stream::{Playback, State};
use sightline_proto::v1::{self, BacktestRequest, RtStream};
use sightline_testkit::oracle::no_surprises;
use sightline_testkit::platform::{
    Ground, alert, clip_url, connect, connect_recorded, index, scenes, start, state,
};
use sightline_testkit::receiver::Receiver;
use sightline_testkit::{sample_clip, soon, until};

use crate::ground;
use crate::playback::recorded_whole;

const PROMPT: &str = "Detect when someone enters restricted area";
const SECOND: i64 = 1_000_000;
/// The clip's windows.
const WINDOWS: u64 = 18;

/// What a backtest told, in order.
#[derive(Default)]
struct Told {
    judged: Vec<Judged>,
    firings: Vec<v1::Firing>,
    summary: Summary,
}

#[tokio::test]
async fn a_backtest_fires_where_the_alert_fired() -> Result<()> {
    let ground = ground().await?;
    let receiver = Receiver::start().await?;
    let (mut up, mut client) = ground.up(&[]).await?;
    let stream = connect_recorded(&mut client, &clip_url()?, Playback::Fast).await?;
    let activity = index(&mut client, &stream.id, "Describe activity").await?;
    let live = alert(&mut client, &activity.id, PROMPT, &receiver.url()).await?;
    start(&mut client, &stream.id).await?;
    let stream = state(&mut client, &stream.id, State::Ended).await?;
    ground.drained().await?;
    recorded_whole(&mut client, &stream.id, &sample_clip()).await?;
    described(&mut client, &activity.id).await?;

    // Everything near the threshold, which is everything with one in the middle that is far enough from both ends.
    let told = backtest(&mut client, &request(&stream, &activity)).await?;
    let summary = &told.summary;
    let counts = (summary.from_frames, summary.from_scenes, summary.missing);
    assert_eq!(counts, (WINDOWS, 0, 0), "{summary:?}");
    ensure!(!told.firings.is_empty(), "the clip has such an event");
    let times = |firings: &[v1::Firing]| -> Vec<_> {
        let times = firings.iter().map(|f| (f.start_time, f.end_time));
        times.collect()
    };
    let mut fired = Vec::new();
    let same = until("the alert to have fired there", async || {
        fired = firings(&mut client, &live.id).await?;
        Ok((times(&told.firings) == times(&fired)).then_some(()))
    });
    same.await
        .with_context(|| format!("{fired:?} is not {:?}", told.firings))?;
    assert_eq!(summary.firings, fired.len() as u64);
    let verdicts = verdicts(&ground, &stream.id).await?;
    for window in &told.judged {
        ensure!(
            window.basis() == Basis::Frames && !window.text.is_empty(),
            "{window:?}"
        );
        ensure!(window.player_url.starts_with("http"), "{window:?}");
        let start_us = window.start_time.as_ref().map_or(0, micros);
        let then = verdicts.get(&start_us).context("it was judged")?;
        let off = (window.probability - then).abs();
        ensure!(off < 0.001, "{window:?} was {then} when it came");
    }

    // With the truth, the threshold that finds all of it and nothing else is suggested.
    let labels = fired.iter().map(|firing| Label {
        start_time: firing.start_time,
        end_time: firing.end_time,
    });
    let labelled = BacktestRequest {
        labels: labels.collect(),
        ..request(&stream, &activity)
    };
    let told = backtest(&mut client, &labelled).await?;
    let suggested = told.summary.suggested_threshold;
    let point = told.summary.curve.iter().find(|p| p.threshold == suggested);
    let point = point.context("it is on the curve")?;
    assert_eq!((point.precision, point.recall), (1.0, 1.0), "{point:?}");

    latency(&mut client, &live.id, fired.len() as u64).await?;
    ensure!(up.terminate().await?.success(), "{:#?}", up.log());
    no_surprises(&up, &[])
}

#[tokio::test]
async fn what_is_not_recorded_is_judged_by_its_descriptions() -> Result<()> {
    let ground = ground().await?;
    let (mut up, mut client) = ground.up(&[]).await?;
    let stream = connect(&mut client, &clip_url()?, Playback::Fast).await?;
    let activity = index(&mut client, &stream.id, "Describe activity").await?;
    start(&mut client, &stream.id).await?;
    let stream = state(&mut client, &stream.id, State::Ended).await?;
    ground.drained().await?;
    described(&mut client, &activity.id).await?;
    let request = BacktestRequest {
        threshold: Some(0.01),
        ..request(&stream, &activity)
    };
    let told = until("every description to be found", async || {
        let told = backtest(&mut client, &request).await?;
        Ok((told.summary.from_scenes == WINDOWS).then_some(told))
    })
    .await?;
    assert_eq!((told.summary.from_frames, told.summary.missing), (0, 0));
    ensure!(!told.judged.is_empty(), "some of them are a little similar");
    for window in &told.judged {
        ensure!(window.basis() == Basis::Similarity, "{window:?}");
        ensure!(
            window.player_url.is_empty() && !window.text.is_empty(),
            "{window:?}"
        );
    }
    ensure!(up.terminate().await?.success(), "{:#?}", up.log());
    no_surprises(&up, &[])
}

/// Waits until the description of every window is stored.
async fn described(client: &mut Client, index_id: &str) -> Result<()> {
    until("every description to be stored", async || {
        let stored = scenes(client, index_id).await?.len() as u64;
        Ok((stored == WINDOWS).then_some(()))
    })
    .await
}

/// The whole clip.
fn request(stream: &RtStream, index: &v1::Index) -> BacktestRequest {
    let epoch_us = stream.epoch.as_ref().map_or(0, micros);
    BacktestRequest {
        prompt: PROMPT.to_owned(),
        index_id: index.id.clone(),
        start_time: Some(timestamp(epoch_us)),
        end_time: Some(timestamp(epoch_us + 90 * SECOND)),
        ..BacktestRequest::default()
    }
}

async fn backtest(client: &mut Client, request: &BacktestRequest) -> Result<Told> {
    let mut responses = client.events.backtest(request.clone()).await?.into_inner();
    let (mut told, mut finished) = (Told::default(), false);
    while let Some(response) = soon("a response", responses.message()).await?? {
        match response.message.context("it says something")? {
            Message::Progress(progress) => ensure!(progress.windows == WINDOWS, "{progress:?}"),
            Message::Judged(judged) => told.judged.push(judged),
            Message::Firing(firing) => told.firings.push(firing),
            Message::Summary(summary) => (told.summary, finished) = (summary, true),
        }
    }
    ensure!(finished, "the summary is last");
    Ok(told)
}

/// An alert's firings, oldest first.
async fn firings(client: &mut Client, alert_id: &str) -> Result<Vec<v1::Firing>> {
    let request = v1::ListFiringsRequest {
        alert_id: alert_id.to_owned(),
        ..Default::default()
    };
    let mut firings = client
        .events
        .list_firings(request)
        .await?
        .into_inner()
        .firings;
    firings.reverse();
    Ok(firings)
}

/// How likely it was in each window when it came, by the windows' starts.
async fn verdicts(ground: &Ground, rtstream_id: &str) -> Result<BTreeMap<i64, f32>> {
    let filter = format!("obs.*.verdict.{rtstream_id}");
    let read = ground
        .bus
        .read::<Observation>(StreamName::Observations, &filter, 10_000);
    let verdicts = read
        .await?
        .into_iter()
        .filter_map(|received| match received.message.body {
            Some(Body::Verdict(verdict)) if !verdict.index_id.is_empty() => {
                Some((received.message.start_us, verdict.probability))
            }
            _ => None,
        });
    Ok(verdicts.collect())
}

/// Every stage was measured, and the whole is longer than each.
async fn latency(client: &mut Client, alert_id: &str, firings: u64) -> Result<()> {
    let request = v1::GetLatencyRequest {
        alert_id: alert_id.to_owned(),
    };
    // What was delivered is told in its own time.
    let latency = until("deliveries to be measured", async || {
        let answer = client.events.get_latency(request.clone()).await?;
        let latency = answer.into_inner();
        Ok((latency.deliveries == firings).then_some(latency))
    })
    .await?;
    let whole = latency.stages.last().context("the whole")?;
    assert_eq!(
        (latency.stages.len(), whole.name.as_str()),
        (5, "capture_to_2xx")
    );
    for stage in &latency.stages {
        // A file that is played fast is captured when it is sampled.
        let took = stage.p50_ms > 0.0 || stage.name == "capture_to_sampled";
        let ordered = took && stage.p50_ms <= stage.p95_ms && stage.p95_ms <= stage.p99_ms;
        ensure!(ordered && stage.p99_ms <= whole.p99_ms, "{latency:?}");
    }
    Ok(())
}
