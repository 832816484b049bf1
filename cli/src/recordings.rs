//! Where recordings are kept and how links to them are made, from what the command line and the environment say.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};
use sightline_catalog::seal::SealKey;
use sightline_recordings::links::Links;
use sightline_recordings::{Library, Retention, Store};
use url::Url;

use crate::args::{LinkArgs, RecordingArgs};
use crate::roles::host_name;

const DAY_US: i64 = 24 * 3600 * 1_000_000;
const GB: u64 = 1_000_000_000;
/// What the key of links is derived for.
const PURPOSE: &str = "links to recordings";

/// Opens the store of recordings; below `data` unless another one is named.
///
/// # Errors
/// When its address can't be used.
pub fn library(args: &RecordingArgs, data: &Path) -> Result<Library> {
    let address = match &args.recordings {
        Some(address) => address.clone(),
        None => {
            let dir = std::path::absolute(data.join("recordings"))?;
            let url = Url::from_directory_path(&dir)
                .map_err(|()| anyhow::anyhow!("{} cannot hold recordings", dir.display()))?;
            url.into()
        }
    };
    let store = Store::open(&address, credentials()).context("cannot open --recordings")?;
    Ok(Library::new(store))
}

/// How much is kept of a stream that does not say so itself.
pub fn retention(args: &RecordingArgs) -> Retention {
    Retention {
        max_age_us: i64::from(args.keep_days) * DAY_US,
        max_bytes: u64::from(args.keep_gb) * GB,
    }
}

/// Links to a gateway that listens here, unless people reach it elsewhere.
pub fn links(args: &LinkArgs, listen: SocketAddr, encrypted: bool, seal: &SealKey) -> Links {
    let public = args
        .public_url
        .clone()
        .unwrap_or_else(|| reached_at(listen, encrypted));
    let lifetime_us = (args.link_days > 0).then(|| i64::from(args.link_days) * DAY_US);
    Links::new(&public, &seal.derive(PURPOSE), lifetime_us)
}

/// The scheme of the public port's addresses.
pub fn scheme(encrypted: bool) -> &'static str {
    if encrypted { "https" } else { "http" }
}

/// The address in links: one that listens everywhere is reached by its host's name.
fn reached_at(listen: SocketAddr, encrypted: bool) -> Url {
    let scheme = scheme(encrypted);
    let host = if listen.ip().is_unspecified() {
        format!("{}:{}", host_name(), listen.port())
    } else {
        listen.to_string()
    };
    let url = format!("{scheme}://{host}/").parse();
    url.unwrap_or_else(|_| {
        format!("{scheme}://127.0.0.1:{}/", listen.port())
            .parse()
            .expect("an address and a port are a URL")
    })
}

/// What the environment says about an S3 store.
#[expect(
    clippy::disallowed_methods,
    reason = "the cli reads the environment for everything else"
)]
fn credentials() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("AWS_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_name_a_host_that_can_be_reached() {
        let to = |listen: &str, encrypted| {
            let listen = listen.parse().expect("an address");
            reached_at(listen, encrypted).to_string()
        };
        let at = |listen| to(listen, false);
        assert_eq!(at("127.0.0.1:7700"), "http://127.0.0.1:7700/");
        assert_eq!(to("127.0.0.1:7700", true), "https://127.0.0.1:7700/");
        assert_eq!(at("[::1]:80"), "http://[::1]/");
        let everywhere = at("0.0.0.0:7700");
        assert!(
            !everywhere.contains("0.0.0.0") && everywhere.ends_with(":7700/"),
            "{everywhere}"
        );
    }
}
