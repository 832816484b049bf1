//! Bad input: a clear error that says what to do, and everything else goes on.

use std::net::TcpListener;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use sightline_proto::client::Client;
use sightline_proto::v1;
use sightline_proto::v1::rt_stream::{Playback, State};
use sightline_testkit::platform::{KEY, clip_url, connect, index, start, state};
use sightline_testkit::process::Process;
use sightline_testkit::repository;
use tonic::Status;
use tonic_types::StatusExt;

use crate::ground;

/// The status has this reason and names this field, and its text has something to say.
fn check<T: std::fmt::Debug>(answer: Result<T, Status>, reason: &str, field: &str) {
    let status = answer.expect_err("refused");
    let details = status.get_error_details();
    let info = details.error_info().expect("a reason");
    assert_eq!(info.reason, reason, "{status:?}");
    assert!(status.message().len() > 10, "{status:?}");
    if !field.is_empty() {
        let fields = &details.bad_request().expect("violations").field_violations;
        assert!(
            fields.iter().any(|f| f.field == field),
            "{field} is not among {fields:?}"
        );
    }
}

#[tokio::test]
async fn requests_that_cannot_be_met_say_why_and_cost_nothing() -> Result<()> {
    let ground = ground().await?;
    let (mut up, mut client) = ground.up(&[]).await?;
    let outside = repository().join("README.md").canonicalize()?;
    let urls = [
        "ftp://camera.example/1".to_owned(),
        "nonsense".to_owned(),
        String::new(),
        format!("file://{}", outside.display()),
        "file:///nowhere/clip.mp4".to_owned(),
    ];
    for url in urls {
        let reason = if url.is_empty() {
            "INVALID_ARGUMENT"
        } else {
            "SOURCE_REFUSED"
        };
        let request = v1::ConnectRtStreamRequest {
            url,
            ..Default::default()
        };
        check(
            client.streams.connect_rt_stream(request).await,
            reason,
            "url",
        );
    }
    let stream = connect(&mut client, &clip_url()?, Playback::Fast).await?;
    let window = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let indexes = [
        ("", window(5), 2, "prompt"),
        ("What happens?", window(0), 2, "sampling.window"),
        ("What happens?", window(5), 1000, "sampling.frame_count"),
    ];
    for (prompt, window, frame_count, field) in indexes {
        let request = v1::CreateVisualIndexRequest {
            rtstream_id: stream.id.clone(),
            prompt: prompt.to_owned(),
            sampling: Some(v1::TimeSampling {
                window,
                frame_count,
            }),
            ..Default::default()
        };
        check(
            client.indexes.create_visual_index(request).await,
            "INVALID_ARGUMENT",
            field,
        );
    }
    let request = v1::GetRtStreamRequest {
        rtstream_id: "rts-unknown".to_owned(),
    };
    check(
        client.streams.get_rt_stream(request).await,
        "NOT_FOUND",
        "rtstream_id",
    );
    let described = index(&mut client, &stream.id, "Describe the scene").await?;
    let request = v1::CreateEventRequest {
        prompt: "Detect smoke".to_owned(),
        label: "smoke".to_owned(),
        ..Default::default()
    };
    let event = client
        .events
        .create_event(request)
        .await?
        .into_inner()
        .event
        .context("an event")?;
    // A service of the cloud that must not be reachable from here.
    let request = v1::CreateAlertRequest {
        event_id: event.id,
        index_id: described.id,
        callback_url: "http://169.254.169.254/latest".to_owned(),
        ..Default::default()
    };
    check(
        client.events.create_alert(request).await,
        "EGRESS_REFUSED",
        "callback_url",
    );
    // After all that the platform does what it is for.
    start(&mut client, &stream.id).await?;
    state(&mut client, &stream.id, State::Ended).await?;
    ensure!(up.terminate().await?.success(), "{:#?}", up.log());
    Ok(())
}

#[tokio::test]
async fn a_data_directory_has_one_user() -> Result<()> {
    let ground = ground().await?;
    let (mut up, _client) = ground.up(&[]).await?;
    let data = ground.dir().join("data").display().to_string();
    let second = ["--data-dir", &data, "--nats-url", ground.nats_url()];
    refuses(&second, &[("SIGHTLINE_API_KEY", KEY)], "--data-dir").await?;
    ensure!(up.terminate().await?.success(), "{:#?}", up.log());
    ensure!(
        !up.log().iter().any(|line| line.contains(KEY)),
        "the key is in the log"
    );
    Ok(())
}

#[tokio::test]
async fn sources_that_cannot_be_read_say_so_in_their_state() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let text = dir.path().join("text.mp4");
    std::fs::write(&text, "this is no video\n".repeat(1000))?;
    let ground = ground().await?;
    let root = dir.path().display().to_string();
    let (mut up, mut client) = ground.up(&["--media-root", &root]).await?;
    let cases = [
        (
            format!("file://{}", text.canonicalize()?.display()),
            State::Failed,
        ),
        (
            // Nobody listens there.
            "rtsp://camera:hunter2@127.0.0.1:1/stream".to_owned(),
            State::Reconnecting,
        ),
    ];
    for (url, expected) in cases {
        let stream = connect(&mut client, &url, Playback::RealTime).await?;
        start(&mut client, &stream.id).await?;
        let stream = state(&mut client, &stream.id, expected).await?;
        ensure!(stream.state_detail.len() > 10, "{stream:?}");
        ensure!(!format!("{stream:?}").contains("hunter2"), "{stream:?}");
    }
    ensure!(up.terminate().await?.success(), "{:#?}", up.log());
    ensure!(
        !up.log().iter().any(|line| line.contains("hunter2")),
        "{:#?}",
        up.log()
    );
    Ok(())
}

/// Starting with these arguments fails at once, and says `said`.
async fn refuses(arguments: &[&str], environment: &[(&str, &str)], said: &str) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let data = dir.path().join("data").display().to_string();
    let usual = [
        "--listen",
        "127.0.0.1:0",
        "--admin-listen",
        "127.0.0.1:0",
        "--data-dir",
        &data,
    ];
    let usual = usual
        .chunks(2)
        .filter(|option| !arguments.contains(&option[0]))
        .flatten();
    let all = ["up"]
        .into_iter()
        .chain(usual.copied())
        .chain(arguments.iter().copied());
    let binary = Path::new(env!("CARGO_BIN_EXE_sightline"));
    let mut up = Process::start(binary, all, environment)?;
    let status = up.ended().await?;
    let log = up.log().join("\n");
    ensure!(
        !status.success() && log.contains(said),
        "{arguments:?} should say {said:?}: {status} {log}"
    );
    Ok(())
}

#[tokio::test]
async fn what_cannot_start_says_what_to_do() -> Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let taken = taken.local_addr()?.to_string();
    refuses(
        &["--listen", &taken],
        &[],
        "choose another address with --listen",
    )
    .await?;
    refuses(
        &["--admin-listen", &taken],
        &[],
        "choose another address with --admin-listen",
    )
    .await?;
    refuses(&["--listen", "0.0.0.0:0"], &[], "set SIGHTLINE_API_KEY").await?;
    refuses(
        &["--nats-server", "/nowhere/nats-server"],
        &[],
        "apt-get install nats-server",
    )
    .await?;
    refuses(&["--nats-url", "nonsense"], &[], "write nats://HOST:PORT").await?;
    refuses(&["--models-dir", "/nowhere"], &[], "/nowhere").await?;
    refuses(
        &["--whisper", "/nowhere/ggml.bin"],
        &[],
        "/nowhere/ggml.bin",
    )
    .await?;
    refuses(
        &["--onnxruntime", "/nowhere/libonnxruntime.so"],
        &[],
        "/nowhere/libonnxruntime.so",
    )
    .await
}

#[tokio::test]
async fn a_wrong_key_is_refused() -> Result<()> {
    let ground = ground().await?;
    let (_embeddings, url) = ground
        .role("embeddings", &["--listen", "127.0.0.1:0"])
        .await?;
    let url = url.context("it says where it listens")?;
    let further = ["--listen", "127.0.0.1:0", "--embeddings-url", &url];
    let (_gateway, address) = ground.role("gateway", &further).await?;
    let address = address.context("it says where it listens")?;
    for key in ["", "wrong", &format!("{KEY}1")] {
        let mut client = Client::connect(&address, key).await?;
        let answer = client
            .streams
            .list_rt_streams(v1::ListRtStreamsRequest::default())
            .await;
        check(answer, "UNAUTHENTICATED", "");
    }
    let mut client = Client::connect(&address, KEY).await?;
    client
        .streams
        .list_rt_streams(v1::ListRtStreamsRequest::default())
        .await?;
    Ok(())
}
