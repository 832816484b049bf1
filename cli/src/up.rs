//! `sightline up`: the whole platform in one process, until it is told to stop.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Result, bail};
use sightline_egress::Policy;

use crate::args::{KeyArgs, UpArgs};
use crate::files::{self, DataDir};
use crate::models::Models;
use crate::platform::{Options, Platform};
use crate::signals::shutdown_on_signal;

/// Starts, says where everything is, and stays.
///
/// # Errors
/// When it can't start or a role failed; the error says what to do.
pub async fn run(args: UpArgs) -> Result<ExitCode> {
    refuse_open_door(args.listen, &args.key)?;
    let sinks = args.sinks.load()?;
    let data = DataDir::lock(files::data_dir(&args.data)?)?;
    let (api_key, printed) = match args.key.api_key {
        Some(key) => (key.0, None),
        None => {
            let key = data.api_key()?;
            (key.clone(), Some(key))
        }
    };
    let options = Options {
        listen: args.listen,
        admin_listen: args.admin_listen,
        nats_url: args.nats_url,
        nats: args.nats,
        nats_server: args.nats_server,
        media_root: args.sources.media_root,
        reach: args.reach.allow_source,
        egress: Policy {
            allow: args.egress.allow_egress,
        },
        sinks,
        api_key,
        tls: args.tls.load()?,
        allow_plain_keys: args.tls.allow_plain_keys,
        models: Models::locate(&args.models)?,
        recordings: args.recordings,
        links: args.links,
    };
    let mut platform = Platform::start(options, data.path(), shutdown_on_signal()?).await?;
    if args.json {
        announce_to_programs(&platform);
    } else {
        announce(&platform, &data, printed.as_deref());
    }
    platform.run().await?;
    Ok(ExitCode::SUCCESS)
}

/// Anybody who can reach the port needs a key, and one that was printed on a terminal is not for a network.
///
/// # Errors
/// When a gateway would listen beyond this machine without a key that its operator chose.
pub fn refuse_open_door(listen: SocketAddr, key: &KeyArgs) -> Result<()> {
    if key.api_key.is_none() && !listen.ip().is_loopback() {
        bail!(
            "{listen} can be reached from other machines: set SIGHTLINE_API_KEY to a key of your own first, or listen on 127.0.0.1"
        );
    }
    Ok(())
}

fn announce(platform: &Platform, data: &DataDir, key: Option<&str>) {
    println!("Sightline is up.");
    println!("  API      {} (gRPC, gRPC-web and HTTP)", platform.url());
    println!("  metrics  http://{}/metrics", platform.admin_address);
    println!("  data     {}", data.path().display());
    match key {
        Some(key) => println!(
            "  API key  {key} (kept in {})",
            data.path().join("api-key").display()
        ),
        None => println!("  API key  the one in SIGHTLINE_API_KEY"),
    }
    println!("Stop it with Ctrl-C.");
}

fn announce_to_programs(platform: &Platform) {
    let line = serde_json::json!({
        "listen": platform.address.to_string(),
        "url": platform.url(),
        "admin_listen": platform.admin_address.to_string(),
    });
    println!("{line}");
}
