//! The interface of the Hugging Face hub, as far as pulling needs it: the list of a repository's files, and the files.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Error, Result, bail};
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, RANGE};
use sightline_egress::{Egress, Opened, Policy, Timeouts};
use url::Url;

use super::listing::{self, Listed};

/// How long a connection, and then each piece of an answer, may take.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(10),
    total: Duration::from_secs(30),
};
/// A list of files is some hundred bytes for each.
const MAX_LIST: usize = 8 << 20;
/// From the hub to where it keeps its files, with a detour.
const MAX_REDIRECTS: usize = 5;

/// A hub.
pub struct Hub {
    egress: Egress,
    endpoint: Url,
    token: Option<HeaderValue>,
}

impl Hub {
    /// The hub at `endpoint`; `token` is shown to it and to nobody that it sends us on to.
    ///
    /// # Errors
    /// When the address or the token can't be used.
    pub fn new(endpoint: &str, token: Option<&str>) -> Result<Self> {
        let parsed = Url::parse(&format!("{}/", endpoint.trim_end_matches('/'))).ok();
        let parsed =
            parsed.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let endpoint = parsed.with_context(|| {
            format!("the endpoint {endpoint:?} is not understood: write https://HOST")
        })?;
        let bearer = |token: &str| -> Result<HeaderValue> {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| Error::msg("the token has characters that no token has"))?;
            value.set_sensitive(true);
            Ok(value)
        };
        Ok(Self {
            // The operator names the hub, which may be a mirror in a private network.
            egress: Egress::new(Policy::anywhere(), TIMEOUTS),
            endpoint,
            token: token.map(bearer).transpose()?,
        })
    }

    /// Where a file is to be had.
    pub fn address(&self, repository: &str, revision: &str, path: &str) -> String {
        format!("{}{repository}/resolve/{revision}/{path}", self.endpoint)
    }

    /// The files of a repository.
    ///
    /// # Errors
    /// When the hub can't be reached, or does not know it.
    pub async fn list(&self, repository: &str, revision: &str) -> Result<BTreeMap<String, Listed>> {
        let url = format!(
            "{}api/models/{repository}/tree/{revision}?recursive=true",
            self.endpoint
        );
        let mut opened = self.open(&url, HeaderMap::new()).await?;
        let mut body = Vec::new();
        while let Some(piece) = opened.piece().await? {
            body.extend_from_slice(&piece);
            if body.len() > MAX_LIST {
                bail!("{url} is longer than {MAX_LIST} bytes");
            }
        }
        refuse(opened.status, &url)?;
        listing::parse(&body).with_context(|| format!("{url} is not a list of files"))
    }

    /// Opens a file from its byte `from` on. The answer's status says whether the hub does that (206) or begins anew (200).
    ///
    /// # Errors
    /// When the hub can't be reached or does not have it.
    pub async fn file(&self, url: &str, from: u64) -> Result<Opened> {
        let mut headers = HeaderMap::new();
        if from > 0 {
            headers.insert(RANGE, HeaderValue::from_str(&format!("bytes={from}-"))?);
        }
        let opened = self.open(url, headers).await?;
        refuse(opened.status, url)?;
        Ok(opened)
    }

    async fn open(&self, url: &str, headers: HeaderMap) -> Result<Opened> {
        let mut url = Url::parse(url)?;
        for _ in 0..MAX_REDIRECTS {
            let mut headers = headers.clone();
            let same = url.origin() == self.endpoint.origin();
            if let Some(token) = self.token.as_ref().filter(|_| same) {
                headers.insert(AUTHORIZATION, token.clone());
            }
            let opened = self.egress.open(url.as_str(), headers).await;
            let opened = opened
                .with_context(|| format!("cannot reach {}", url.origin().ascii_serialization()))?;
            if !matches!(opened.status, 301 | 302 | 303 | 307 | 308) {
                return Ok(opened);
            }
            let to = opened.headers.get(LOCATION).and_then(|to| to.to_str().ok());
            let next = url.join(to.context("the hub sends us on to nowhere")?)?;
            if url.scheme() == "https" && next.scheme() != "https" {
                bail!(
                    "the hub sends us on to {}, which is not encrypted",
                    next.origin().ascii_serialization()
                );
            }
            url = next;
        }
        bail!(
            "{} sends us on more than {MAX_REDIRECTS} times",
            self.endpoint
        )
    }
}

fn refuse(status: u16, url: &str) -> Result<()> {
    match status {
        200 | 206 => Ok(()),
        401 | 403 => bail!(
            "{url} is not for everybody ({status}): accept its licence on the hub, and give a token with --token-file"
        ),
        404 => bail!("{url} is not there (404)"),
        status => bail!("{url} was answered with status {status}"),
    }
}
