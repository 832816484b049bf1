//! Asking HTTP servers for media: each connection is decided on, redirects are followed by hand, and a password goes to nobody
//! but the server that it was given for.

use std::error::Error;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{
    ACCEPT_RANGES, AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, LOCATION,
    RANGE, USER_AGENT,
};
use sightline_egress::{Egress, EgressError, Opened, Policy, Timeouts};
use url::{Origin, Url};

use crate::error::Failure;
use crate::proof::Proof;
use crate::target::forbidden;

/// How long connecting may take, and each piece of an answer.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(8),
    total: Duration::from_secs(10),
};
/// Redirects are followed this often in a row.
const MAX_REDIRECTS: usize = 5;

/// Asks servers on behalf of one source.
pub(crate) struct Client {
    egress: Egress,
    /// Who is told the password.
    origin: Origin,
    proof: Option<Proof>,
}

/// An answer whose body comes piece by piece.
pub(crate) struct Answer {
    opened: Opened,
    /// Where it was found in the end.
    pub(crate) url: Url,
}

impl Client {
    /// For a source, and its URL without the credentials in it.
    pub(crate) fn new(url: &Url, policy: &Policy) -> (Self, Url) {
        let mut bare = url.clone();
        let _ = bare.set_username("");
        let _ = bare.set_password(None);
        bare.set_fragment(None);
        let client = Self {
            egress: Egress::new(policy.clone(), TIMEOUTS),
            origin: url.origin(),
            proof: Proof::of(url),
        };
        (client, bare)
    }

    /// Asks for what is there, or for bytes of it: from the first place, up to but without the last.
    ///
    /// # Errors
    /// When there is no good answer.
    pub(crate) async fn get(
        &self,
        url: &Url,
        range: Option<(u64, Option<u64>)>,
    ) -> Result<Answer, Failure> {
        let mut url = url.clone();
        let mut is_proven = false;
        for _ in 0..=MAX_REDIRECTS + 1 {
            let headers = self.headers(&url, range);
            let opened = self.egress.open(url.as_str(), headers).await;
            let opened = opened.map_err(|error| explain(&url, error))?;
            match opened.status {
                206 => return Ok(Answer { opened, url }),
                200 if range.is_none_or(|(from, to)| from == 0 && to.is_none()) => {
                    return Ok(Answer { opened, url });
                }
                200 => {
                    let reason =
                        "the server cannot give a part of its file, which is needed to read it";
                    return Err(Failure::permanent(reason));
                }
                301 | 302 | 303 | 307 | 308 => url = followed(&url, &opened)?,
                401 if !is_proven
                    && self
                        .proof(&url)
                        .is_some_and(|proof| proof.asked(&opened.headers)) =>
                {
                    is_proven = true;
                }
                401 | 407 => {
                    return Err(Failure::permanent(
                        "the server refuses the user name and password, or asks for some",
                    ));
                }
                status => return Err(Failure::passing(format!("the server answers {status}"))),
            }
        }
        Err(Failure::passing(
            "the server sends from one address to the next",
        ))
    }

    /// What may be told to the server of a URL.
    fn proof(&self, url: &Url) -> Option<&Proof> {
        self.proof.as_ref().filter(|_| url.origin() == self.origin)
    }

    fn headers(&self, url: &Url, range: Option<(u64, Option<u64>)>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static("sightline"));
        if let Some(proof) = self.proof(url).and_then(|proof| proof.header(url)) {
            headers.insert(AUTHORIZATION, proof);
        }
        if let Some((from, to)) = range {
            let last = to.map_or(String::new(), |to| to.saturating_sub(1).to_string());
            let value = HeaderValue::from_str(&format!("bytes={from}-{last}"));
            headers.extend(value.ok().map(|value| (RANGE, value)));
        }
        headers
    }
}

impl Answer {
    /// The next piece; none at the end.
    ///
    /// # Errors
    /// When the connection breaks, or nothing comes for long.
    pub(crate) async fn piece(&mut self) -> Result<Option<Bytes>, Failure> {
        let piece = self.opened.piece().await;
        piece.map_err(|error| explain(&self.url, error))
    }

    /// The whole body, after what was read of it.
    ///
    /// # Errors
    /// When it is longer than `most` bytes, or breaks off.
    pub(crate) async fn rest(&mut self, mut body: BytesMut, most: usize) -> Result<Bytes, Failure> {
        while let Some(piece) = self.piece().await? {
            body.extend_from_slice(&piece);
            if body.len() > most {
                let reason = format!("the server answers with more than {most} bytes");
                return Err(Failure::permanent(reason));
            }
        }
        Ok(body.freeze())
    }

    /// A header's text; empty if there is none.
    pub(crate) fn header(&self, name: HeaderName) -> &str {
        let value = self.opened.headers.get(name);
        value.and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// How long the body is, where it is said.
    pub(crate) fn length(&self) -> Option<u64> {
        self.header(CONTENT_LENGTH).trim().parse().ok()
    }

    /// Whether parts of it can be asked for.
    pub(crate) fn takes_ranges(&self) -> bool {
        self.header(ACCEPT_RANGES).eq_ignore_ascii_case("bytes")
    }
}

fn followed(url: &Url, opened: &Opened) -> Result<Url, Failure> {
    let location = opened.headers.get(LOCATION);
    let next = location
        .and_then(|value| value.to_str().ok())
        .and_then(|text| url.join(text).ok())
        .filter(|next| matches!(next.scheme(), "http" | "https"));
    let mut next = next.ok_or_else(|| Failure::passing("the server sends to no usable address"))?;
    // What another server puts there is nothing to prove oneself with.
    let _ = next.set_username("");
    let _ = next.set_password(None);
    next.set_fragment(None);
    Ok(next)
}

/// Why there is no answer. Nothing of the URL but its host is in it.
fn explain(url: &Url, error: EgressError) -> Failure {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    match error {
        EgressError::Refused(refused) => forbidden(&refused),
        EgressError::Url { reason } => Failure::permanent(format!("its URL: {reason}")),
        EgressError::Connect { source } => Failure::passing(format!(
            "cannot connect to {host}:{port}: {}",
            innermost(&*source)
        )),
        EgressError::Broken { .. } => Failure::passing("the connection broke"),
        EgressError::Deadline(after) => Failure::passing(format!(
            "{host}:{port} has sent nothing for {} s",
            after.as_secs()
        )),
    }
}

/// The cause of the causes.
fn innermost(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
