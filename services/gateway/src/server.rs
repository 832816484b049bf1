//! The public port: accepts connections, with or without TLS, speaks HTTP/1.1 and HTTP/2 on each, and drains them at shutdown.
//!
//! hyper is driven here rather than through axum or tonic, because theirs leave no way to bound connections, their streams
//! and their headers, to allow upgrades, and to end the drain at a deadline.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use sightline_service::Shutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;
use tower::Layer;

use crate::Limits;
use crate::opening::{Opened, Version};

/// How long a client may take for the TLS handshake and its first bytes, and for the headers of each HTTP/1 request.
const OPENING_DEADLINE: Duration = Duration::from_secs(10);
/// How often an idle connection is pinged, and how long its answer may take, until it counts as dead.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Pause after the system refused to accept (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where a request came from: an extension of each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    /// The other end of the connection: the caller, or a proxy.
    pub(crate) address: SocketAddr,
    /// Whether the connection is encrypted.
    pub(crate) encrypted: bool,
}

/// Accepts until `shutdown`, then lets what is in flight finish, for `limits.drain` at most.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    limits: &Limits,
    shutdown: Shutdown,
) {
    // When all are taken, further clients wait in the kernel's backlog.
    let slots = Arc::new(Semaphore::new(limits.connections));
    let connections = TaskTracker::new();
    let kill = Shutdown::new();
    let port = Arc::new(Port {
        tls,
        http1: builder(limits).http1_only(),
        http2: builder(limits).http2_only(),
        router,
        shutdown: shutdown.clone(),
        kill: kill.clone(),
    });
    while let Some((stream, address, slot)) = accept(&listener, &slots, &shutdown).await {
        connections.spawn(Arc::clone(&port).connection(stream, address, slot));
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(limits.drain, connections.wait())
        .await
        .is_err()
    {
        tracing::info!(
            connections = connections.len(),
            "connections did not finish in time and are closed"
        );
        kill.cancel();
        connections.wait().await;
    }
}

fn builder(limits: &Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(OPENING_DEADLINE);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_per_connection)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE);
    builder
}

/// The next connection with its slot; `None` at shutdown.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
    shutdown: &Shutdown,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let next = async {
        let slot = Arc::clone(slots).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, address)) => return Some((stream, address, slot)),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        accepted = next => accepted,
        () = shutdown.cancelled() => None,
    }
}

/// What all connections share.
struct Port {
    tls: Option<TlsAcceptor>,
    http1: Builder<TokioExecutor>,
    http2: Builder<TokioExecutor>,
    router: Router,
    shutdown: Shutdown,
    kill: Shutdown,
}

impl Port {
    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        address: SocketAddr,
        slot: OwnedSemaphorePermit,
    ) {
        let _ = stream.set_nodelay(true);
        let peer = Peer {
            address,
            encrypted: self.tls.is_some(),
        };
        match &self.tls {
            Some(tls) => {
                let opening = async { Opened::read(tls.accept(stream).await?, slot).await };
                if let Some((version, stream)) = self.in_time(opening).await {
                    self.talk(version, stream, peer).await;
                }
            }
            None => {
                if let Some((version, stream)) = self.in_time(Opened::read(stream, slot)).await {
                    self.talk(version, stream, peer).await;
                }
            }
        }
    }

    /// A client that says nothing would hold its slot for ever.
    async fn in_time<T>(&self, opening: impl Future<Output = io::Result<T>>) -> Option<T> {
        let opened = tokio::select! {
            opened = tokio::time::timeout(OPENING_DEADLINE, opening) => opened,
            () = self.shutdown.cancelled() => return None,
        };
        match opened {
            Ok(Ok(opened)) => return Some(opened),
            Ok(Err(error)) => tracing::debug!(%error, "a connection was not opened"),
            Err(_) => tracing::debug!("a connection was not opened in time"),
        }
        None
    }

    async fn talk<S>(&self, version: Version, stream: S, peer: Peer)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let builder = match version {
            Version::Http1 => &self.http1,
            Version::Http2 => &self.http2,
        };
        let service = TowerToHyperService::new(Extension(peer).layer(self.router.clone()));
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection => ended,
                    () = self.kill.cancelled() => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }
}
