//! What receivers verify: signatures, by the libraries that they use, while a secret is rotated too.

use std::process::Stdio;

use anyhow::{Context, Result};
use sightline_catalog::endpoints;
use sightline_proto::ids;
use sightline_proto::internal::EndpointRecord;
use sightline_service::clock::{Clock, SystemClock};
use sightline_testkit::{python, repository, soon};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::harness::{Platform, Receiver};

/// A receiver in another language.
struct Foreign {
    url: String,
    said: Lines<BufReader<ChildStdout>>,
    // Killed when dropped.
    _child: Child,
}

impl Foreign {
    async fn start(program: &str, script: &str, secret: &str) -> Result<Self> {
        let mut child = Command::new(program)
            .arg(repository().join("tests/webhooks").join(script))
            .arg(secret)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {program}: run `scripts/setup test`"))?;
        let said = child.stdout.take().context("its output")?;
        let mut foreign = Self {
            url: String::new(),
            said: BufReader::new(said).lines(),
            _child: child,
        };
        let up = foreign.next().await?;
        foreign.url = up["url"].as_str().context("its address")?.to_owned();
        Ok(foreign)
    }

    async fn next(&mut self) -> Result<serde_json::Value> {
        let line = soon("a receiver's line", self.said.next_line()).await??;
        let line =
            line.context("it ended: run `scripts/setup test`, which installs its library")?;
        Ok(serde_json::from_str(&line)?)
    }
}

async fn both(secret: &str) -> Result<[Foreign; 2]> {
    let python = python::interpreter()?;
    let python = python.to_str().context("a path in UTF-8")?;
    Ok([
        Foreign::start(python, "receiver.py", secret).await?,
        Foreign::start("node", "node/receiver.mjs", secret).await?,
    ])
}

async fn rotate(platform: &Platform, id: &str, now_us: i64) -> Result<()> {
    platform
        .change::<EndpointRecord>(id, |endpoint| {
            assert!(endpoints::rotate(endpoint, &platform.seal, now_us));
        })
        .await
}

async fn secret(platform: &Platform, id: &str) -> Result<String> {
    let found = platform.catalog.fetch::<EndpointRecord>(id).await?;
    let found = found.context("an endpoint")?;
    Ok(endpoints::secret(&found.value, &platform.seal)?)
}

/// Each of the receivers gets a webhook; whether it is verified.
async fn verified(platform: &Platform, foreign: &mut Foreign, suffix: &str) -> Result<bool> {
    platform.alert(suffix, &foreign.url).await?;
    platform.verdict(suffix, 0, 0.9).await?;
    let seen = foreign.next().await?;
    assert_eq!(seen["tampered"], false, "{seen}");
    assert!(seen["id"].is_string(), "{seen}");
    seen["verified"].as_bool().context("a word")
}

#[tokio::test(flavor = "multi_thread")]
async fn libraries_of_other_languages_verify_what_is_delivered() -> Result<()> {
    let platform = Platform::start().await?;
    let now_us = SystemClock.now_us();
    // Receivers have to know a secret before they are up, and an endpoint has one when its URL is known: that of the first receivers
    // is given to others.
    for (number, (from_old, expired)) in [(false, false), (true, false), (true, true)]
        .into_iter()
        .enumerate()
    {
        let first = format!("whsec_{}", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        for (language, mut foreign) in both(&first).await?.into_iter().enumerate() {
            let (id, _) =
                endpoints::ensure(&platform.catalog, &platform.seal, "", &foreign.url, now_us)
                    .await?;
            let sealed = platform.seal.seal(&first);
            platform
                .change::<EndpointRecord>(&id, |endpoint| {
                    endpoint.sealed_secret = sealed.clone().into();
                })
                .await?;
            if from_old {
                let age_us = if expired {
                    endpoints::OVERLAP_US + 1
                } else {
                    0
                };
                rotate(&platform, &id, now_us - age_us).await?;
                assert_ne!(secret(&platform, &id).await?, first);
            }
            let suffix = format!("{number}-{language}");
            let known = verified(&platform, &mut foreign, &suffix).await?;
            assert_eq!(known, !expired, "{suffix}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_that_post_to_one_url_have_secrets_of_their_own() -> Result<()> {
    let platform = Platform::start().await?;
    let mut receiver = Receiver::start([]).await?;
    let mut signatures = Vec::new();
    for tenant in ["", "other"] {
        let suffix = format!("of{tenant}");
        platform.alert_of(tenant, &suffix, &receiver.url).await?;
        platform.verdict(&suffix, 0, 0.9).await?;
        let (headers, _) = receiver.next().await?;
        signatures.push(headers["webhook-signature"].to_str()?.to_owned());
    }
    let id = |tenant| ids::endpoint_id(tenant, &receiver.url);
    assert_ne!(id(""), id("other"));
    assert_eq!(id(""), id("default"));
    assert_ne!(
        secret(&platform, &id("")).await?,
        secret(&platform, &id("other")).await?
    );
    assert!(
        signatures
            .iter()
            .all(|s| s.starts_with("v1,") && !s.contains(' '))
    );
    Ok(())
}
