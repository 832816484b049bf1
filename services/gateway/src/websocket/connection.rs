//! One open WebSocket: frames go out as things happen, pings in between; what the client sends is only a sign of life.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message as Frame, WebSocket};
use futures::{Stream, StreamExt};
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::v1::WatchResponse;
use tokio::time::{Instant, interval_at, timeout};

use super::messages;
use crate::api::Core;

/// How often a client is pinged.
const PING: Duration = Duration::from_secs(20);
/// A client that leaves so many pings in a row unanswered is gone.
const UNANSWERED: u32 = 2;
/// How long a client may take to take a frame.
const SEND: Duration = Duration::from_secs(20);
/// How long a client may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(2);

/// Why a connection is closed by this side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Closing {
    pub(super) code: u16,
    pub(super) reason: String,
}

impl Closing {
    /// At shutdown: another gateway, or this one in a moment, goes on.
    pub(super) fn shutdown() -> Self {
        Self::new(
            1001,
            "the server is shutting down; connect again with the last cursor",
        )
    }

    /// Nothing is wrong with the client, and trying again later helps.
    pub(super) fn later(reason: impl Into<String>) -> Self {
        Self::new(1013, reason)
    }

    pub(super) fn revoked() -> Self {
        Self::new(4401, "the API key was revoked")
    }

    pub(super) fn new(code: u16, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self { code, reason }
    }
}

impl From<ApiError> for Closing {
    fn from(error: ApiError) -> Self {
        let code = match error.reason {
            Reason::Unauthenticated => 4401,
            Reason::CursorInvalid | Reason::InvalidArgument | Reason::NotFound => 4400,
            Reason::Unavailable | Reason::DeadlineExceeded => 1013,
            _ => 1011,
        };
        Self::new(code, error.message)
    }
}

/// What an open connection works with.
pub(super) struct Open<F> {
    pub(super) core: Arc<Core>,
    pub(super) id: String,
    /// What it is told of; the first message says where that begins.
    pub(super) feed: F,
}

impl<F> Open<F>
where
    F: Stream<Item = Result<WatchResponse, ApiError>> + Send + Unpin,
{
    /// Serves the connection to its end.
    pub(super) async fn serve(mut self, mut socket: WebSocket) {
        if let Err(Some(closing)) = self.talk(&mut socket).await {
            tracing::debug!(connection = %self.id, code = closing.code, "a WebSocket is closed");
            close(socket, closing).await;
        }
    }

    /// Ends with what the client is told; with nothing where it is gone.
    async fn talk(&mut self, socket: &mut WebSocket) -> Result<(), Option<Closing>> {
        let ready = self.feed.next().await.ok_or_else(Closing::shutdown)?;
        let ready = ready.map_err(Closing::from)?;
        send(socket, messages::init(&self.id, &ready.cursor)).await?;
        let mut pings = interval_at(Instant::now() + PING, PING);
        let mut unanswered = 0;
        let shutdown = self.core.shutdown.clone();
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Err(Some(Closing::shutdown())),
                _ = pings.tick() => {
                    if unanswered == UNANSWERED {
                        return Err(None);
                    }
                    unanswered += 1;
                    send(socket, Frame::Ping(Vec::new().into())).await?;
                }
                heard = socket.recv() => match heard {
                    Some(Ok(Frame::Close(_)) | Err(_)) | None => return Err(None),
                    Some(Ok(_)) => unanswered = 0,
                },
                happened = self.feed.next() => {
                    let happened = happened.ok_or_else(Closing::shutdown)?;
                    let happened = happened.map_err(Closing::from)?;
                    if let Some(frame) = messages::frame(&self.core, &happened) {
                        send(socket, frame).await?;
                    }
                }
            }
        }
    }
}

/// A client that takes nothing for so long is gone: what waits for it meanwhile is bounded by the hub.
async fn send(socket: &mut WebSocket, frame: Frame) -> Result<(), Option<Closing>> {
    match timeout(SEND, socket.send(frame)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(None),
    }
}

/// Says why, and waits a moment for the client to have heard it.
pub(super) async fn close(mut socket: WebSocket, closing: Closing) {
    // A control frame holds 125 bytes, two of which are the code.
    let mut end = closing.reason.len().min(123);
    while !closing.reason.is_char_boundary(end) {
        end -= 1;
    }
    let frame = CloseFrame {
        code: closing.code,
        reason: closing.reason[..end].into(),
    };
    let goodbye = async {
        socket.send(Frame::Close(Some(frame))).await?;
        while let Some(Ok(_)) = socket.recv().await {}
        Ok::<_, axum::Error>(())
    };
    let _ = timeout(GOODBYE, goodbye).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_codes_that_say_whether_to_come_again() {
        for (reason, code) in [
            (Reason::Unauthenticated, 4401),
            (Reason::CursorInvalid, 4400),
            (Reason::Unavailable, 1013),
            (Reason::Internal, 1011),
        ] {
            assert_eq!(Closing::from(ApiError::new(reason, "x")).code, code);
        }
    }
}
