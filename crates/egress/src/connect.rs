//! Connecting: resolve, decide on each address, and connect to exactly an address that passed.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tower::util::BoxCloneSyncService;
use tower::{Service, service_fn};

use crate::{Policy, Refused};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A connected stream, with or without TLS.
pub(crate) type Connection = MaybeHttpsStream<TokioIo<TcpStream>>;
/// What the HTTP client connects with.
pub(crate) type Connector = BoxCloneSyncService<Uri, Connection, BoxError>;
/// Turns a host and a port into addresses.
pub(crate) type Resolve =
    Arc<dyn Fn(String, u16) -> BoxFuture<io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// Why there is no connection. A refusal is handed through as [`Refused`].
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    #[error("the name {host} cannot be resolved")]
    Resolve { host: String, source: io::Error },
    #[error("the name {host} has no address")]
    NoAddress { host: String },
    #[error("{address} cannot be connected to")]
    Address {
        address: SocketAddr,
        source: io::Error,
    },
    #[error("not connected within {0:?}")]
    Deadline(Duration),
}

/// The system's resolver.
pub(crate) fn system_resolver() -> Resolve {
    Arc::new(|host, port| {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    })
}

/// A connector that decides on every address; `deadline` covers resolving, connecting and the TLS handshake.
pub(crate) fn connector(
    policy: Arc<Policy>,
    resolve: Resolve,
    tls: rustls::ClientConfig,
    deadline: Duration,
) -> Connector {
    let plain = service_fn(move |uri: Uri| {
        let (policy, resolve) = (Arc::clone(&policy), Arc::clone(&resolve));
        async move { open(&policy, &resolve, &uri, deadline).await }
    });
    let secured = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http()
        .enable_http1()
        .wrap_connector(plain);
    BoxCloneSyncService::new(service_fn(move |uri: Uri| {
        let connecting = secured.clone().call(uri);
        async move {
            match timeout(deadline, connecting).await {
                Ok(connected) => connected,
                Err(_) => Err(ConnectError::Deadline(deadline).into()),
            }
        }
    }))
}

async fn open(
    policy: &Policy,
    resolve: &Resolve,
    uri: &Uri,
    deadline: Duration,
) -> Result<TokioIo<TcpStream>, BoxError> {
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let secured = uri.scheme() == Some(&http::uri::Scheme::HTTPS);
    let port = uri.port_u16().unwrap_or(if secured { 443 } else { 80 });
    let addresses = resolve(host.to_owned(), port).await;
    let addresses = addresses.map_err(|source| ConnectError::Resolve {
        host: host.to_owned(),
        source,
    })?;
    let allowed = allowed(policy, host, addresses)?;
    connect_first(&allowed, Instant::now() + deadline).await
}

/// The addresses that may be connected to, in the resolver's order; at least one.
fn allowed(
    policy: &Policy,
    host: &str,
    addresses: Vec<SocketAddr>,
) -> Result<Vec<SocketAddr>, BoxError> {
    let mut refused: Option<Refused> = None;
    let mut allowed = Vec::new();
    for address in addresses {
        match policy.check_addr(address.ip()) {
            Ok(()) => allowed.push(address),
            Err(refusal) => refused = refused.or(Some(refusal)),
        }
    }
    match refused {
        _ if !allowed.is_empty() => Ok(allowed),
        Some(refusal) => Err(refusal.into()),
        None => Err(ConnectError::NoAddress {
            host: host.to_owned(),
        }
        .into()),
    }
}

/// Connects to the first address that answers. One that hangs leaves the others their share of the time.
async fn connect_first(
    addresses: &[SocketAddr],
    deadline: Instant,
) -> Result<TokioIo<TcpStream>, BoxError> {
    let mut last = None;
    for (tried, &address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let untried = u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
        let share = Instant::now() + left / untried;
        let connected = match timeout_at(share, TcpStream::connect(address)).await {
            Ok(connected) => connected,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        match connected {
            Ok(stream) => {
                // Requests are small and one at a time: waiting to fill a packet only delays them.
                stream.set_nodelay(true)?;
                return Ok(TokioIo::new(stream));
            }
            Err(source) => last = Some(ConnectError::Address { address, source }),
        }
    }
    Err(last.expect("at least one address was tried").into())
}
