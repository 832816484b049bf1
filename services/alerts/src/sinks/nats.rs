//! Firings on a subject of a NATS server.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::{ConnectOptions, Event, HeaderMap};
use futures::StreamExt;
use sightline_proto::internal::Delivery;

use super::Cause;
use super::address::Address;

const PORT: u16 = 4222;
/// How long connecting may take.
const CONNECTING: Duration = Duration::from_secs(5);

/// A subject on a server.
#[derive(Clone)]
pub(super) struct Subject {
    address: Address,
    url: String,
}

impl Subject {
    pub(super) fn new(address: Address) -> Result<Self, String> {
        let subject = &address.path;
        if subject.is_empty() {
            return Err(
                "write the subject behind the address, for example nats://HOST/alerts".to_owned(),
            );
        }
        let printable = |c: char| !c.is_whitespace() && !c.is_control() && !"*>/".contains(c);
        if !subject.chars().all(printable) || subject.split('.').any(str::is_empty) {
            return Err(
                "a subject to publish to has no wildcards, spaces, slashes or empty parts"
                    .to_owned(),
            );
        }
        let scheme = if address.encrypted { "tls" } else { "nats" };
        let port = address.port.unwrap_or(PORT);
        let url = format!("{scheme}://{}:{port}", address.bracketed_host());
        Ok(Self { address, url })
    }

    /// Returns once the server has it. A stream that listens takes it once, by its id.
    pub(super) async fn send(&self, id: &str, delivery: &Delivery) -> Result<(), Cause> {
        let refused = Arc::new(Mutex::new(None));
        let client = self.options(&refused).connect(&self.url).await?;
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", id);
        let inbox = client.new_inbox();
        let mut echo = client.subscribe(inbox.clone()).await?;
        let subject = self.address.path.clone();
        client
            .publish_with_headers(subject, headers, delivery.body.clone())
            .await?;
        // A server handles a connection's messages in their order: one that sends this back has had the other.
        client.publish(inbox, bytes::Bytes::new()).await?;
        let echoed = echo.next().await;
        let refused = refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match refused {
            Some(why) => Err(Cause::from(why)),
            None if echoed.is_none() => Err(Cause::from("the connection broke")),
            None => Ok(()),
        }
    }

    fn options(&self, refused: &Arc<Mutex<Option<String>>>) -> ConnectOptions {
        let refused = Arc::clone(refused);
        let options = ConnectOptions::new()
            .name("sightline alerts")
            .connection_timeout(CONNECTING)
            .max_reconnects(1)
            .event_callback(move |event| {
                if let Event::ServerError(why) = &event {
                    let mut refused = refused.lock().unwrap_or_else(PoisonError::into_inner);
                    *refused = Some(why.to_string());
                }
                std::future::ready(())
            });
        let Address { user, secret, .. } = &self.address;
        match secret {
            None => options,
            Some(token) if user.is_empty() => options.token(token.clone()),
            Some(password) => options.user_and_password(user.clone(), password.clone()),
        }
    }
}
