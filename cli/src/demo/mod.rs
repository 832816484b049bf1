//! `sightline demo`: a clip played through the whole platform, and everything that comes out of it, by the public API alone.

mod receiver;
mod report;
mod story;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sightline_bus::StreamName;
use sightline_egress::Policy;
use sightline_proto::client::Client;
use tokio::time::timeout;

use crate::args::{DemoArgs, LinkArgs, RecordingArgs};
use crate::files;
use crate::models::Models;
use crate::nats::NatsArgs;
use crate::platform::{Options, Platform};
use crate::roles::Base;
use crate::signals::shutdown_on_signal;

use receiver::Receiver;
use report::Report;
use story::Story;

/// How long what was taken in may take to be described, stored and delivered, once the clip has ended.
const SETTLE: Duration = Duration::from_secs(180);
/// How often to look whether it has.
const LOOK: Duration = Duration::from_millis(100);
/// How long stopping may take.
const STOP: Duration = Duration::from_secs(20);

/// Plays the clip and reports; success only if every stage produced something.
///
/// # Errors
/// When something could not be started or broke; the error says what to do.
pub async fn run(args: DemoArgs) -> Result<ExitCode> {
    let clip = find_clip(args.clip.as_deref())?;
    let shutdown = shutdown_on_signal()?;
    let data = tempfile::tempdir().context("cannot make a temporary directory")?;
    let receiver = Receiver::start().await?;
    let api_key = files::new_key();
    let options = options(&args, &clip, api_key.clone())?;
    let mut report = Report::new(args.json, args.stay);
    report.starting(&clip, args.fast);
    let mut platform = Platform::start(options, data.path(), shutdown.clone()).await?;
    let base = platform.base.clone();
    let url = format!("http://{}", platform.address);
    let playing = async {
        let told = play(
            &url,
            &api_key,
            &clip,
            args.fast,
            receiver,
            &mut report,
            &base,
        )
        .await?;
        if args.stay {
            report.staying();
            base.shutdown.cancelled().await;
        }
        anyhow::Ok(told)
    };
    let played = tokio::select! {
        // Told to stop while it stays up, the demo has done its part.
        biased;
        played = playing => played,
        ended = platform.run() => {
            ended?;
            bail!("stopped before the clip was over");
        }
    };
    shutdown.cancel();
    if let Ok(stopped) = timeout(STOP, platform.run()).await {
        stopped?;
    }
    played
}

async fn play(
    url: &str,
    api_key: &str,
    clip: &Path,
    fast: bool,
    mut receiver: Receiver,
    report: &mut Report,
    base: &Base,
) -> Result<ExitCode> {
    let client = Client::connect(url, api_key).await?;
    let mut story = Story::begin(client, clip, fast, receiver.url()).await?;
    let settled = async {
        loop {
            tokio::select! {
                biased;
                Some(webhook) = receiver.next() => report.webhook(&webhook),
                message = story.next() => {
                    let ended = report.message(message?, &mut story).await?;
                    if ended { break }
                }
            }
        }
        report.settling();
        timeout(SETTLE, drained(base))
            .await
            .context("what was taken in was not worked off in time")?
    };
    settled.await?;
    while let Some(webhook) = receiver.waiting() {
        report.webhook(&webhook);
    }
    report.catch_up(&mut story).await?;
    report.finish(&mut story).await
}

/// Waits until nothing is left to do. Data flows one way, so that each stream may be looked at in turn.
async fn drained(base: &Base) -> Result<()> {
    let flow = [
        StreamName::Frames,
        StreamName::Audio,
        StreamName::Observations,
        StreamName::Deliveries,
    ];
    for stream in flow {
        while base.bus.backlog(stream).await? > 0 {
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(())
}

fn options(args: &DemoArgs, clip: &Path, api_key: String) -> Result<Options> {
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Ok(Options {
        listen: loopback,
        admin_listen: loopback,
        nats_url: None,
        nats: NatsArgs::default(),
        nats_server: PathBuf::from("nats-server"),
        media_root: clip.parent().map(Path::to_owned),
        reach: Vec::new(),
        egress: Policy {
            allow: vec![IpAddr::from(Ipv4Addr::LOCALHOST).into()],
        },
        sinks: Vec::new(),
        api_key,
        tls: None,
        allow_plain_keys: false,
        models: Models::locate(&args.models)?,
        recordings: RecordingArgs {
            recordings: None,
            keep_days: 0,
            keep_gb: 0,
        },
        links: LinkArgs {
            public_url: None,
            link_days: 0,
        },
    })
}

fn find_clip(named: Option<&Path>) -> Result<PathBuf> {
    let clip = named.map_or_else(files::sample_clip, Path::to_owned);
    let found = clip.canonicalize();
    let found = found.with_context(|| {
        format!(
            "cannot read the clip {}: name a video file with --clip",
            clip.display()
        )
    })?;
    if !found.is_file() {
        bail!(
            "{} is not a file: name a video file with --clip",
            clip.display()
        );
    }
    Ok(found)
}
