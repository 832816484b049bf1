//! kill -9 in mid-run, between any two side effects: work resumes, and nothing that the bus had taken is lost or doubled.

use anyhow::{Context, Result, ensure};
use rustix::process::{Signal, kill_process};
use sightline_proto::v1::rt_stream::State;
use sightline_testkit::oracle::Ledger;
use sightline_testkit::platform::{Ground, start, state, transcript};
use sightline_testkit::process::Process;
use sightline_testkit::receiver::Receiver;
use sightline_testkit::{sample_clip, until};

use crate::ground;
use crate::playback::recorded_whole;
use crate::roles::{Roles, prepared};
use crate::truth::{Line, Truth};

/// What a survivor may say about a neighbour that was killed.
const EXPECTED: [&str; 2] = [
    "the embeddings service failed a call",
    "message will be delivered again",
];

/// A role is killed at the Nth pass of a place, started again without that, and everything comes out as if nothing had
/// happened.
pub async fn check(role: &str, place: &str) -> Result<()> {
    let ground = ground().await?;
    let receiver = Receiver::start().await?;
    let mut roles = Roles::start(&ground, (role, &["--failpoint", place])).await?;
    let (stream, index) = prepared(&mut roles.client, &receiver).await?;
    start(&mut roles.client, &stream).await?;
    let killed = killed(&mut roles, role);
    let status = killed
        .ended()
        .await
        .with_context(|| format!("{role} never passed {place}"))?;
    ensure!(
        !status.success(),
        "{role} ended by itself: {:#?}",
        killed.log()
    );
    restart(&ground, &mut roles, role).await?;
    finished(&ground, &mut roles, &receiver, &stream, &index)
        .await
        .with_context(|| place.to_owned())?;
    roles.stop(&EXPECTED).await
}

fn killed<'a>(roles: &'a mut Roles, role: &str) -> &'a mut Process {
    match role {
        "caption" => &mut roles.caption,
        "transcribe" => &mut roles.transcribe,
        "embeddings" => &mut roles.embeddings,
        "alerts" => &mut roles.alerts,
        _ => &mut roles.ingest,
    }
}

async fn restart(ground: &Ground, roles: &mut Roles, role: &str) -> Result<()> {
    let address = roles
        .embeddings_url
        .trim_start_matches("http://")
        .to_owned();
    let further: &[&str] = if role == "embeddings" {
        &["--listen", &address]
    } else {
        &[]
    };
    let (process, _) = ground.role(role, further).await?;
    *killed(roles, role) = process;
    Ok(())
}

/// The clip is played to its end, and everything is there once.
async fn finished(
    ground: &Ground,
    roles: &mut Roles,
    receiver: &Receiver,
    stream: &str,
    index: &str,
) -> Result<()> {
    state(&mut roles.client, stream, State::Ended).await?;
    ground.drained().await?;
    let ledger = Ledger::read(&ground.bus, stream).await?;
    assert_eq!(ledger.windows(index), (0..18).collect::<Vec<u64>>());
    ledger.compare(&mut roles.client, stream, &[index]).await?;
    let fired = ledger.firings();
    ensure!(!fired.is_empty(), "nothing was fired");
    receiver.told(&fired).await?;
    recorded_whole(&mut roles.client, stream, &sample_clip()).await?;
    assert_eq!(ledger.recording_gaps(), []);
    let epoch = state(&mut roles.client, stream, State::Ended)
        .await?
        .epoch
        .context("media arrived")?;
    let seconds = |time: Option<prost_types::Timestamp>| {
        time.map_or(0.0, |t| {
            (t.seconds - epoch.seconds) as f64 + f64::from(t.nanos - epoch.nanos) / 1e9
        })
    };
    let heard = transcript(&mut roles.client, stream).await?;
    let heard = heard.into_iter().map(|segment| Line {
        start: seconds(segment.start_time),
        end: seconds(segment.end_time),
        text: segment.text,
    });
    Truth::of_sample()?.check_speech(&heard.collect::<Vec<_>>(), 1)
}

#[tokio::test]
async fn a_caption_worker_is_killed_between_verdicts_and_captions() -> Result<()> {
    check("caption", "caption.after_verdicts=4").await
}

#[tokio::test]
async fn a_caption_worker_is_killed_before_its_scenes_are_out() -> Result<()> {
    check("caption", "caption-demo-vlm.before_output=5").await
}

#[tokio::test]
async fn a_caption_worker_is_killed_before_it_acknowledges() -> Result<()> {
    check("caption", "caption-demo-vlm.before_ack=6").await
}

#[tokio::test]
async fn a_transcribe_worker_is_killed_before_it_acknowledges() -> Result<()> {
    check("transcribe", "transcribe-whisper.before_ack=3").await
}

#[tokio::test]
async fn the_embeddings_service_is_killed_after_it_stored() -> Result<()> {
    check("embeddings", "embeddings.after_upsert=4").await
}

#[tokio::test]
async fn the_alerts_service_is_killed_after_it_posted() -> Result<()> {
    check("alerts", "alerts.after_post=1").await
}

#[tokio::test]
async fn an_ingest_worker_is_killed_after_it_published() -> Result<()> {
    check("ingest", "ingest.after_publish=6").await
}

#[tokio::test]
async fn an_ingest_worker_is_killed_before_a_segment_is_noted() -> Result<()> {
    check("ingest", "ingest.after_segment=4").await
}

#[tokio::test]
async fn an_ingest_child_is_killed_in_mid_run() -> Result<()> {
    let ground = ground().await?;
    let receiver = Receiver::start().await?;
    let mut roles = Roles::start(&ground, ("", &[])).await?;
    let (stream, index) = prepared(&mut roles.client, &receiver).await?;
    start(&mut roles.client, &stream).await?;
    for windows in [3, 8] {
        until("some windows", async || {
            let ledger = Ledger::read(&ground.bus, &stream).await?;
            Ok((ledger.windows(&index).len() >= windows).then_some(()))
        })
        .await?;
        for child in roles.ingest.children()? {
            kill_process(child, Signal::KILL)?;
        }
    }
    finished(&ground, &mut roles, &receiver, &stream, &index).await?;
    let expected = ["child"];
    roles.stop(&expected).await
}
