//! Reading along: what is being said comes before what was said, which is the same as without.

use anyhow::{Context, Result, ensure};
use sightline_bus::Ask;
use sightline_proto::time::micros;
use sightline_proto::v1::rt_stream::Playback;
use sightline_proto::v1::watch_request::Kind;
use sightline_proto::v1::watch_response::Message;
use sightline_proto::v1::{TranscriptSegment, WatchRequest, WatchResponse};
use sightline_testkit::oracle::no_surprises;
use sightline_testkit::platform::{clip_url, connect, start, stop, transcript};
use sightline_testkit::{LONG, soon, until};
use tonic::Streaming;

use crate::ground;

/// Sentences of the sample clip that are waited for: the last one ends after 18 s.
const SAID: [&str; 3] = [
    "Control room to all units.",
    "Traffic is light on the main road.",
    "A white car is moving fast on the main road.",
];

/// The next line and its cursor.
async fn line(watch: &mut Streaming<WatchResponse>) -> Result<(TranscriptSegment, String)> {
    loop {
        let message = soon("a line", watch.message()).await??;
        let message = message.context("the watch goes on")?;
        match message.message {
            Some(Message::Transcript(line)) => return Ok((line, message.cursor)),
            Some(Message::Ready(_)) => {}
            other => anyhow::bail!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_being_said_comes_before_what_was_said() -> Result<()> {
    let ground = ground().await?;
    let (mut up, mut client) = ground.up(&[]).await?;
    let stream = connect(&mut client, &clip_url()?, Playback::RealTime).await?;
    let request = |interim| WatchRequest {
        rtstream_ids: vec![stream.id.clone()],
        kinds: vec![Kind::Transcript.into()],
        interim,
        ..WatchRequest::default()
    };
    let mut plain = client.watch.watch(request(false)).await?.into_inner();
    let mut along = client.watch.watch(request(true)).await?.into_inner();
    until("the gateway to listen", async || {
        Ok(ground.bus.ask::<()>(Ask::Listening, &(), LONG).await.ok())
    })
    .await?;
    start(&mut client, &stream.id).await?;

    let (mut finals, mut told, mut cursor) = (Vec::new(), 0, String::new());
    let mut said_us = 0;
    // Each sentence lasts for two lines or more; a machine that is busy with other things leaves some out.
    while finals.len() < SAID.len() || told == 0 {
        let (line, place) = line(&mut along).await?;
        let start_us = line.start_time.as_ref().map_or(0, micros);
        ensure!(start_us >= said_us, "it was over: {line:?}");
        if line.interim {
            told += 1;
            ensure!(line.id.is_empty() && !line.text.is_empty(), "{line:?}");
            ensure!(cursor.is_empty() || cursor == place, "it has a place");
            continue;
        }
        ensure!(cursor != place && line.language == "en", "{line:?}");
        (cursor, said_us) = (place, line.end_time.as_ref().map_or(0, micros));
        finals.push(line);
    }
    let texts: Vec<&str> = finals.iter().map(|line| line.text.as_str()).collect();
    ensure!(texts.starts_with(&SAID), "{texts:?}");
    for expected in &finals {
        assert_eq!(line(&mut plain).await?.0.id, expected.id);
    }
    // Nothing else is kept.
    stop(&mut client, &stream.id).await?;
    ground.drained().await?;
    let kept = until("all to be kept", async || {
        let kept = transcript(&mut client, &stream.id).await?;
        Ok((kept.len() >= finals.len()).then_some(kept))
    })
    .await?;
    ensure!(
        kept.iter().all(|line| !line.interim && !line.id.is_empty()),
        "{kept:?}"
    );
    ensure!(up.terminate().await?.success(), "{:#?}", up.log());
    no_surprises(&up, &[])
}
