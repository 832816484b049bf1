//! WebSockets, as VideoDB's clients speak them: a connection is told of what was created with its id, and of nothing else.
//!
//! `GET /collection/{id}/websocket` answers with an address that holds a ticket. The first frame names the connection; every
//! later one carries a cursor, with which a new connection goes on where another one ended (`?connection_id=…&cursor=…`).
//! What a connection is told of is a record in the catalog: any gateway can serve it.

mod connection;
mod messages;
mod registry;
mod subscriptions;
mod ticket;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::{WebSocketUpgrade, rejection::WebSocketUpgradeRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::StreamExt;
use futures::stream::BoxStream;
use http::{HeaderMap, StatusCode, Uri, header};
use serde::Deserialize;
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::v1::WatchResponse;
use sightline_service::Shutdown;
use tokio_util::task::TaskTracker;

use self::connection::{Closing, Open};
use self::registry::Place;
pub(crate) use self::registry::Registry;
use self::ticket::{Refused, Ticket, Tickets};
use crate::api::{Core, Session};
use crate::auth::Caller;
use crate::server::Peer;

/// The longest frame that a client may send: it has nothing to say.
const MAX_FRAME: usize = 4096;
/// What is read at once; a buffer of so many bytes belongs to every open connection.
const READ_BUFFER: usize = 1024;
/// What waits to be written at most: several of the largest messages.
const WRITE_BUFFER: usize = 4 << 20;
/// How often open connections are noted as such and others forgotten.
const KEEPING: Duration = Duration::from_secs(3600);
/// How long what another gateway changed may wait for what comes with it.
const CHANGE_PAUSE: Duration = Duration::from_millis(20);

/// The address of a WebSocket for this caller and collection, on the host that he reached this gateway by.
pub(crate) fn address(
    session: &Session,
    collection: &str,
    headers: &HeaderMap,
    uri: &Uri,
    peer: Option<&Peer>,
) -> Result<String, ApiError> {
    let caller = &session.caller;
    let tickets = Tickets::new(&session.seal);
    let now_us = session.clock.now_us();
    let ticket = tickets.issue(&caller.tenant, &caller.key_id, collection, now_us);
    let ticket = ticket.map_err(|error| {
        tracing::error!(%error, "a ticket is not JSON");
        ApiError::new(Reason::Internal, "the address cannot be made")
    })?;
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let host = host.or(uri.authority().map(http::uri::Authority::as_str));
    let encrypted = peer.is_some_and(|peer| peer.encrypted);
    let base = base(session.config.links.base(), host, encrypted);
    Ok(format!("{base}websocket/{ticket}"))
}

/// Where this gateway is reached, ending with a slash: by the host that the caller used. The public address, from which links
/// are made, holds instead where it tells of a proxy, whose host may not be the one that arrives here.
fn base(public: &str, host: Option<&str>, encrypted: bool) -> String {
    let (scheme, rest) = public.split_once("://").unwrap_or(("http", public));
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    let proxied = (scheme == "https") != encrypted || !path.is_empty();
    let socket = |encrypted| if encrypted { "wss" } else { "ws" };
    match host {
        Some(host) if !proxied => format!("{}://{host}/", socket(encrypted)),
        _ => format!("{}://{rest}", socket(scheme == "https")),
    }
}

type Feed = BoxStream<'static, Result<WatchResponse, ApiError>>;

/// Opens WebSockets and looks after them.
pub(crate) struct Sockets {
    core: Arc<Core>,
    tickets: Tickets,
    tasks: TaskTracker,
}

/// How to go on.
#[derive(Deserialize)]
struct Resume {
    connection_id: Option<String>,
    cursor: Option<String>,
}

impl Sockets {
    pub(crate) fn new(core: Arc<Core>) -> Arc<Self> {
        Arc::new(Self {
            tickets: Tickets::new(&core.seal),
            core,
            tasks: TaskTracker::new(),
        })
    }

    /// The path that tickets open.
    pub(crate) fn routes(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/websocket/{ticket}", get(upgrade))
            .with_state(Arc::clone(self))
    }

    /// Keeps open connections told of what they should be, and their records, until shutdown; then waits for the connections
    /// to end, each of which does so by itself.
    pub(crate) async fn run(&self, shutdown: &Shutdown) {
        let serving = async { tokio::join!(self.follow_changes(), self.keep_records()) };
        tokio::select! {
            _ = serving => {}
            () = shutdown.cancelled() => {}
        }
        self.tasks.close();
        let drain = self.core.config.limits.drain;
        if tokio::time::timeout(drain, self.tasks.wait())
            .await
            .is_err()
        {
            let sockets = self.tasks.len();
            tracing::info!(sockets, "WebSockets did not end in time");
        }
    }

    async fn follow_changes(&self) {
        let mut changes = self.core.catalog.changes();
        // The catalog outlives this: the core holds one.
        while changes.changed().await.is_ok() {
            self.core.sockets.refresh();
            tokio::time::sleep(CHANGE_PAUSE).await;
        }
    }

    async fn keep_records(&self) {
        let mut times = tokio::time::interval(KEEPING);
        loop {
            times.tick().await;
            let (open, now_us) = (self.core.sockets.ids(), self.core.clock.now_us());
            subscriptions::keep(&self.core.catalog, open, now_us).await;
        }
    }

    /// Opens a connection for whoever holds the ticket, or goes on with one.
    async fn open(
        self: &Arc<Self>,
        ticket: &str,
        uri: &Uri,
    ) -> Result<(Place, Open<Feed>), Closing> {
        let ticket = self.check(ticket)?;
        let revoked = self.core.admission.revocation(&ticket.key_id);
        let revoked = revoked.ok_or_else(Closing::revoked)?;
        let Query(resume) = Query::<Resume>::try_from_uri(uri)
            .map_err(|_| Closing::new(4400, "the query must be connection_id=…&cursor=…"))?;
        let too_many = || Closing::new(4429, "too many WebSockets are open; try again later");
        // Before a record is made for it.
        if !self.core.sockets.has_room() {
            return Err(too_many());
        }
        let id = self.connection_id(&ticket, &resume).await?;
        let (place, subscribed) = self.core.sockets.enter(&id).ok_or_else(too_many)?;
        let caller = Caller {
            tenant: ticket.tenant.into(),
            operator: false,
            key_id: ticket.key_id.into(),
            revoked,
        };
        let session = Session::new(Arc::clone(&self.core), caller);
        let cursor = resume.cursor.unwrap_or_default();
        let feed = session.watch_subscribed(subscribed, &cursor).await?.boxed();
        let core = Arc::clone(&self.core);
        Ok((place, Open { core, id, feed }))
    }

    fn check(&self, ticket: &str) -> Result<Ticket, Closing> {
        let now_us = self.core.clock.now_us();
        self.tickets.check(ticket, now_us).map_err(|refused| {
            let reason = match refused {
                Refused::Expired => "this address has expired; ask for a new one",
                Refused::Invalid => "this address was not made by this server",
            };
            Closing::new(4401, reason)
        })
    }

    /// The id of a new connection, or of the one to go on with.
    async fn connection_id(&self, ticket: &Ticket, resume: &Resume) -> Result<String, Closing> {
        let Some(id) = &resume.connection_id else {
            if resume.cursor.is_some() {
                return Err(Closing::new(4400, "a cursor needs its connection_id"));
            }
            let opened = subscriptions::open(&self.core, &ticket.tenant).await;
            return opened.map_err(|error| {
                tracing::warn!(
                    error = sightline_service::chain(&error),
                    "a WebSocket was not opened"
                );
                Closing::later("the catalog does not answer; try again shortly")
            });
        };
        if subscriptions::reopen(&self.core, id, &ticket.tenant).await? {
            return Ok(id.clone());
        }
        let unknown = "this connection_id is not known here; open a new connection";
        Err(Closing::new(4400, unknown))
    }
}

/// Refusals come as close codes after the upgrade: what a browser tells of a failed upgrade says nothing.
async fn upgrade(
    State(sockets): State<Arc<Sockets>>,
    Path(ticket): Path<String>,
    uri: Uri,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let Ok(upgrade) = upgrade else {
        let text = "this is the address of a WebSocket\n";
        return (StatusCode::UPGRADE_REQUIRED, text).into_response();
    };
    let task = sockets.tasks.token();
    upgrade
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(WRITE_BUFFER)
        .max_message_size(MAX_FRAME)
        .max_frame_size(MAX_FRAME)
        .on_upgrade(move |socket| async move {
            let _task = task;
            match sockets.open(&ticket, &uri).await {
                Ok((_place, open)) => open.serve(socket).await,
                Err(closing) => connection::close(socket, closing).await,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_where_the_caller_reached_the_gateway() {
        for (public, host, encrypted, expected) in [
            (
                "http://127.0.0.1:7700/",
                Some("cam:80"),
                false,
                "ws://cam:80/",
            ),
            (
                "https://127.0.0.1:7700/",
                Some("cam:80"),
                true,
                "wss://cam:80/",
            ),
            (
                "http://127.0.0.1:7700/",
                None,
                false,
                "ws://127.0.0.1:7700/",
            ),
            (
                "https://video.example/",
                Some("10.0.0.7:7700"),
                false,
                "wss://video.example/",
            ),
            (
                "http://video.example/sl/",
                Some("10.0.0.7"),
                false,
                "ws://video.example/sl/",
            ),
        ] {
            assert_eq!(base(public, host, encrypted), expected, "{public} {host:?}");
        }
    }
}
