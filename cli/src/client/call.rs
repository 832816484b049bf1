//! Calling the server: the connection, the key, a deadline for every call, and refusals for people and programs.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail};
use serde_json::{Value, json};
use sightline_proto::client::Client;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt;
use url::Host;

use super::args::ServerArgs;
use crate::args::DataArgs;
use crate::files;

/// How long connecting may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How long one call may take; the server is told.
const DEADLINE: Duration = Duration::from_secs(30);
/// How often a connection that carries a call shows that it lives, and how long it may fail to.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A call that the server did not do.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.words())]
pub struct Refused {
    /// The stable reason, or the gRPC code where the server gave none.
    reason: String,
    message: String,
    /// The fields at fault, each with what is allowed.
    fields: Vec<(String, String)>,
    /// What to do, where the message can't know it.
    hint: &'static str,
}

impl Refused {
    /// As one JSON object.
    pub fn json(&self) -> Value {
        let fields: serde_json::Map<String, Value> = self
            .fields
            .iter()
            .map(|(name, allowed)| (name.clone(), json!(allowed)))
            .collect();
        json!({"error": {"reason": self.reason, "message": self.message, "fields": fields}})
    }

    fn words(&self) -> String {
        let mut words = self.message.clone();
        let untold = |field: &&(String, String)| !self.message.contains(&field.1);
        for (name, allowed) in self.fields.iter().filter(untold) {
            words.push_str(&format!("\n  {name}: {allowed}"));
        }
        words.push_str(self.hint);
        words
    }
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let violations = details.bad_request().map(|b| b.field_violations.as_slice());
        let fields = violations.unwrap_or_default().iter();
        let hint = match status.code() {
            Code::Unimplemented => "\nThe server is older than this program.",
            _ => "",
        };
        let message = match status.message() {
            "" => format!("the server answered {:?} without a word", status.code()),
            said => said.to_owned(),
        };
        Self {
            reason: match details.error_info() {
                Some(info) => info.reason.clone(),
                None => format!("{:?}", status.code()),
            },
            message,
            fields: fields
                .map(|violation| (violation.field.clone(), violation.description.clone()))
                .collect(),
            hint,
        }
    }
}

/// A client of the server that the command line names.
///
/// # Errors
/// When there is no key, or the server does not answer.
pub async fn connect(args: &ServerArgs) -> Result<Client> {
    let url = url::Url::parse(&args.server).ok();
    let url = url.filter(|url| url.has_host() && ["http", "https"].contains(&url.scheme()));
    let Some(url) = url else {
        bail!(
            "the server's address is not understood: write http://HOST:PORT or https://HOST:PORT"
        );
    };
    let key = key(args, &url)?;
    let mut endpoint = Endpoint::from_shared(args.server.clone())?
        .connect_timeout(CONNECT_DEADLINE)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    if url.scheme() == "https" {
        endpoint = endpoint.tls_config(trusted(args.ca.as_deref())?)?;
    } else if args.ca.is_some() {
        bail!("--ca is for https:// servers, and {url} is not one");
    }
    let channel = endpoint.connect().await.with_context(|| {
        let server = &args.server;
        format!("cannot connect to {server}: check that `sightline up` runs there, or name another server with --server")
    })?;
    Ok(Client::on(channel, &key)?)
}

fn trusted(ca: Option<&Path>) -> Result<ClientTlsConfig> {
    let tls = ClientTlsConfig::new();
    let Some(file) = ca else {
        return Ok(tls.with_native_roots());
    };
    let pem = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(tls.ca_certificate(Certificate::from_pem(pem)))
}

/// The key that is named, or the one that `up` keeps on this machine. That one goes to this machine alone.
fn key(args: &ServerArgs, url: &url::Url) -> Result<String> {
    if let Some(key) = &args.key {
        return Ok(key.0.clone());
    }
    let here = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    let kept = here.then(|| kept_key(args)).flatten();
    kept.context(
        "there is no API key: set SIGHTLINE_API_KEY to the one that `sightline up` printed",
    )
}

fn kept_key(args: &ServerArgs) -> Option<String> {
    let data = DataArgs {
        data_dir: args.data_dir.clone(),
    };
    let kept = std::fs::read_to_string(files::data_dir(&data).ok()?.join("api-key")).ok()?;
    Some(kept.trim().to_owned()).filter(|key| !key.is_empty())
}

/// A request that tells the server its deadline.
pub fn ask<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

/// What the server answers, within the deadline.
///
/// # Errors
/// When it refuses, or does not answer.
pub async fn answer<T>(calling: impl Future<Output = Result<Response<T>, Status>>) -> Result<T> {
    // A little later than the server, whose words are better.
    let called = tokio::time::timeout(DEADLINE + CONNECT_DEADLINE, calling).await;
    let called = called.context("the server does not answer: try again")?;
    Ok(called.map_err(Refused::from)?.into_inner())
}

/// Something that an answer always has.
///
/// # Errors
/// When it does not.
pub fn given<T>(part: Option<T>) -> Result<T> {
    part.ok_or_else(|| {
        Error::msg("the server's answer is empty: it is not a Sightline server of this version")
    })
}
