//! Outbound HTTP: the only crate that opens it, and the one place that decides where nobody may connect to.
//!
//! The decision falls when connecting, on the resolved address, and the connection goes to exactly the address that was
//! decided on: whatever a URL looks like, whatever its name resolves to the next time, there is nothing between the check
//! and the use. Redirects are not followed (a 3xx is an answer like any other), proxy variables are not read, responses
//! are read up to 4 kB (by [`Egress::exchange`] and [`Egress::open`], up to what their caller says), and every exchange has a deadline. Idle
//! connections are kept and used again; the policy is fixed for the life of an [`Egress`], so a kept connection is one
//! that it would allow now.

mod connect;
mod download;
mod exchange;
mod policy;
mod target;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{DATE, HeaderMap, RETRY_AFTER};
use http::{Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::ConfigBuilderExt;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::client::WantsClientCert;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use thiserror::Error as ThisError;
use tokio::time::{Instant, timeout_at};

use connect::{Connector, Resolve};
use target::Target;

pub use download::Opened;
pub use exchange::{Answer, Question};
pub use policy::{Policy, Refused};

/// How much of a response's body is read, so that its connection can be used again.
const MAX_BODY: usize = 4096;
/// How long that may take: the status is known by then, the rest is courtesy.
const MAX_BODY_TIME: Duration = Duration::from_millis(250);
/// How large a response's head may be, in bytes.
const MAX_HEAD: usize = 16 * 1024;
/// How many idle connections are kept for one scheme, host and port; more are closed.
const MAX_IDLE: usize = 4;
/// How long an idle connection is kept.
const IDLE_TIME: Duration = Duration::from_secs(30);

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Resolving, connecting and the TLS handshake.
    pub connect: Duration,
    /// Everything until the response's head has been read.
    pub total: Duration,
}

impl Default for Timeouts {
    /// 3 s to connect, 10 s in all.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            total: Duration::from_secs(10),
        }
    }
}

/// What the receiver answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// How long the receiver asks to be left alone (header Retry-After), as it said: bound it.
    pub retry_after: Option<Duration>,
}

/// Why there is no answer. No variant holds the URL: it may contain a secret.
#[derive(Debug, ThisError)]
pub enum EgressError {
    /// The URL can't be posted to, ever.
    #[error("the URL is not usable: {reason}")]
    Url {
        /// Why.
        reason: String,
    },
    /// The policy forbids the address.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// No connection came about.
    #[error("cannot connect to the receiver")]
    Connect {
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The connection broke, or what came was not HTTP.
    #[error("the receiver broke off before it answered")]
    Broken {
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The deadline passed.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
}

/// Posts to receivers that the policy allows. Clones share the idle connections.
#[derive(Clone)]
pub struct Egress {
    client: Client<Connector, Full<Bytes>>,
    timeouts: Timeouts,
}

impl Egress {
    /// Trusts the certificate authorities of the machine. Where there are none, https receivers fail with that reason.
    pub fn new(policy: Policy, timeouts: Timeouts) -> Self {
        let tls = match tls_versions().with_native_roots() {
            Ok(trusting) => trusting,
            Err(error) => {
                tracing::warn!(
                    %error,
                    "no trusted certificates, posting to https will fail: install ca-certificates"
                );
                tls_versions().with_root_certificates(RootCertStore::empty())
            }
        };
        Self::with_parts(policy, timeouts, connect::system_resolver(), tls)
    }

    fn with_parts(
        policy: Policy,
        timeouts: Timeouts,
        resolve: Resolve,
        tls: ConfigBuilder<ClientConfig, WantsClientCert>,
    ) -> Self {
        let tls = tls.with_no_client_auth();
        let connector = connect::connector(Arc::new(policy), resolve, tls, timeouts.connect);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIME)
            .pool_max_idle_per_host(MAX_IDLE)
            .http1_max_buf_size(MAX_HEAD)
            .build(connector);
        Self { client, timeouts }
    }

    /// Posts `body` and returns the answer's status, whatever it is.
    ///
    /// # Errors
    /// When there is no answer: the URL or the address is refused, no connection comes about, or the deadline passes.
    pub async fn post(
        &self,
        url: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response, EgressError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Target::parse(url)?.uri;
        *request.headers_mut() = headers;
        let deadline = Instant::now() + self.timeouts.total;
        let answered = timeout_at(deadline, self.client.request(request)).await;
        let (head, body) = answered
            .map_err(|_| EgressError::Deadline(self.timeouts.total))?
            .map_err(failure)?
            .into_parts();
        // An error here only means that the connection is closed instead of kept.
        let reading = Limited::new(body, MAX_BODY).collect();
        let _ = timeout_at(deadline.min(Instant::now() + MAX_BODY_TIME), reading).await;
        Ok(Response {
            status: head.status.as_u16(),
            retry_after: retry_after(&head.headers),
        })
    }
}

fn tls_versions() -> ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has TLS 1.2 and 1.3")
}

fn failure(error: hyper_util::client::legacy::Error) -> EgressError {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(refused) = inner.downcast_ref::<Refused>() {
            return EgressError::Refused(refused.clone());
        }
        cause = inner.source();
    }
    if error.is_connect() {
        EgressError::Connect {
            source: error.into(),
        }
    } else {
        EgressError::Broken {
            source: error.into(),
        }
    }
}

/// Retry-After as seconds or as a date; a date is read against the response's own Date, so that no clock is needed.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    let asked = text(RETRY_AFTER)?;
    if let Ok(seconds) = asked.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = |text| jiff::fmt::rfc2822::parse(text).ok();
    let seconds = date(asked)?.timestamp().as_second() - date(text(DATE)?)?.timestamp().as_second();
    u64::try_from(seconds).ok().map(Duration::from_secs)
}
