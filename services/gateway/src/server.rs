//! The public port: accepts connections, speaks HTTP/1.1 and HTTP/2 on each, and drains them at shutdown.
//!
//! hyper is driven here rather than through axum or tonic, because theirs leave no way to bound connections, their streams
//! and their headers, to allow upgrades, and to end the drain at a deadline.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use sightline_service::Shutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use crate::Limits;

/// How long a client may take for the first byte and for a request's headers.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);
/// How often an idle connection is pinged, and how long its answer may take, until it counts as dead.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// Pause after the system refused to accept (out of file descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until `shutdown`, then lets what is in flight finish, for `limits.drain` at most.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: &Limits,
    shutdown: Shutdown,
) {
    // When all are taken, further clients wait in the kernel's backlog.
    let slots = Arc::new(Semaphore::new(limits.connections));
    let connections = TaskTracker::new();
    let kill = Shutdown::new();
    let builder = builder(limits);
    while let Some((stream, slot)) = accept(&listener, &slots, &shutdown).await {
        connections.spawn(connection(
            stream,
            builder.clone(),
            router.clone(),
            shutdown.clone(),
            kill.clone(),
            slot,
        ));
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
        .header_read_timeout(HEADER_DEADLINE);
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
) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let next = async {
        let slot = Arc::clone(slots).acquire_owned().await.ok()?;
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((stream, slot)),
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

async fn connection(
    stream: TcpStream,
    builder: Builder<TokioExecutor>,
    router: Router,
    shutdown: Shutdown,
    kill: Shutdown,
    _slot: OwnedSemaphorePermit,
) {
    let _ = stream.set_nodelay(true);
    // A client that says nothing would hold its slot for ever: hyper waits for the first bytes without a deadline.
    let first_byte = tokio::time::timeout(HEADER_DEADLINE, stream.readable());
    tokio::select! {
        readable = first_byte => if !matches!(readable, Ok(Ok(()))) { return },
        () = shutdown.cancelled() => return,
    }
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = kill.cancelled() => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = %error, "connection ended early");
    }
}
