//! Further receivers of firings, which the operator names: a NATS subject, mailboxes, an MQTT topic.
//!
//! Their addresses are the operator's, so that no egress policy is asked. Each attempt makes a connection of its own: nothing
//! has to be kept alive for the rare firing, and what is answered belongs to this attempt.

mod address;
mod mail;
mod mqtt;
mod nats;

use std::time::Duration;

use sightline_proto::internal::Delivery;
use thiserror::Error;
use tokio::time::timeout;
use url::Url;

use address::Address;

/// How long an attempt may take, connecting included.
const DEADLINE: Duration = Duration::from_secs(10);
/// The longest name in characters.
const LONGEST_NAME: usize = 32;

/// Whatever a library says.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A receiver with its name, by which alerts know it.
#[derive(Clone)]
pub struct Sink {
    name: String,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Nats(nats::Subject),
    Mail(mail::Mailboxes),
    Mqtt(mqtt::Topic),
}

/// Why a sink can't be used as it is written.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the sink {name:?} cannot be used: {reason}")]
pub struct SinkError {
    /// The sink.
    pub name: String,
    /// Why, and how to write it.
    pub reason: String,
}

/// Why an attempt failed.
#[derive(Debug, Error)]
pub(crate) enum SendError {
    #[error("no answer within {} s", DEADLINE.as_secs())]
    Deadline,
    #[error("the sink did not take it")]
    Failed(#[source] Cause),
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sink")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Sink {
    /// A sink by its URL: `nats://[USER@]HOST[:PORT]/SUBJECT` (`tls://` encrypts), `smtp://[USER@]HOST[:PORT]/?from=A&to=B`
    /// (`smtps://` encrypts from the start; `to` may be repeated), or `mqtt://[USER@]HOST[:PORT]/TOPIC` (`mqtts://` encrypts).
    /// The secret is the user's password, or a token where there is no user.
    ///
    /// # Errors
    /// When something is missing or is not understood.
    pub fn new(name: &str, url: &str, secret: Option<String>) -> Result<Self, SinkError> {
        let failed = |reason: String| SinkError {
            name: name.to_owned(),
            reason,
        };
        check_name(name).map_err(failed)?;
        let url: Url = url.parse().map_err(|_| {
            failed("write it as NAME=URL, for example ops=mqtt://10.0.0.5/alerts".to_owned())
        })?;
        let address = Address::of(&url, secret).map_err(failed)?;
        let kind = match url.scheme() {
            "nats" | "tls" => nats::Subject::new(address).map(Kind::Nats),
            "smtp" | "smtps" => mail::Mailboxes::new(address, &url).map(Kind::Mail),
            "mqtt" | "mqtts" => mqtt::Topic::new(address).map(Kind::Mqtt),
            other => Err(format!(
                "{other}:// is not known; there are nats, tls, smtp, smtps, mqtt and mqtts"
            )),
        };
        Ok(Self {
            name: name.to_owned(),
            kind: kind.map_err(failed)?,
        })
    }

    /// By which alerts know it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Hands a message over and waits until the receiver has it.
    ///
    /// # Errors
    /// When it does not say so within 10 s.
    pub(crate) async fn send(
        &self,
        id: &str,
        delivery: &Delivery,
        now_us: i64,
    ) -> Result<(), SendError> {
        // Boxed: the clients' futures are large, and few at a time.
        let sending = async {
            match &self.kind {
                Kind::Nats(subject) => Box::pin(subject.send(id, delivery)).await,
                Kind::Mail(mailboxes) => Box::pin(mailboxes.send(id, delivery, now_us)).await,
                Kind::Mqtt(topic) => Box::pin(topic.send(delivery)).await,
            }
        };
        match timeout(DEADLINE, sending).await {
            Ok(sent) => sent.map_err(SendError::Failed),
            Err(_) => Err(SendError::Deadline),
        }
    }
}

/// Names are parts of subjects and of command lines.
fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(plain) {
        return Err(format!(
            "a name has 1 to {LONGEST_NAME} lower-case letters, digits and hyphens"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sinks_are_understood_or_told_what_is_missing() {
        let check = |url: &str, secret: Option<&str>, expected: &str| {
            let made = Sink::new("ops", url, secret.map(str::to_owned));
            let said = made.map_or_else(|error| error.reason, |sink| format!("{sink:?}"));
            assert!(said.starts_with(expected), "{url}: {said}");
        };
        let (sink, none) = ("Sink { name: \"ops\", .. }", None);
        check("nats://127.0.0.1/alerts.fire", none, sink);
        check("tls://nats.example:4443/alerts", Some("token"), sink);
        check("nats://u@[::1]:4222/alerts", Some("secret"), sink);
        check(
            "smtp://mail.example/?from=a@example.org&to=b@example.org&to=c@example.org",
            none,
            sink,
        );
        check(
            "smtps://u@mail.example/?from=Sightline%20%3Ca@example.org%3E&to=b@example.org",
            Some("p"),
            sink,
        );
        check("mqtt://broker/alerts/door%201", none, sink);
        check("mqtts://u@broker:8884/alerts", Some("p"), sink);

        check(
            "nats://127.0.0.1/",
            none,
            "write the subject behind the address",
        );
        check(
            "nats://127.0.0.1/alerts.*",
            none,
            "a subject to publish to has",
        );
        check(
            "mqtt://127.0.0.1",
            none,
            "write the topic behind the address",
        );
        check(
            "mqtt://127.0.0.1/alerts/%23",
            none,
            "a topic to publish to has",
        );
        check("mqtt:alerts", none, "write the host");
        check(
            "mqtt://u:p@broker/alerts",
            none,
            "a password does not belong into",
        );
        check(
            "mqtt://broker/alerts",
            Some("p"),
            "its secret is a password: write the user",
        );
        check(
            "mqtt://u@broker/alerts",
            none,
            "it has a user, but no secret",
        );
        check(
            "smtp://mail.example/?to=b@example.org",
            none,
            "write from=ADDRESS",
        );
        check(
            "smtp://mail.example/?from=a@example.org",
            none,
            "write at least one to=ADDRESS",
        );
        check(
            "smtp://mail.example/?from=a&to=b@example.org",
            none,
            "\"a\" is no mail address",
        );
        check(
            "smtp://mail.example/?from=a@b.org&to=b@b.org&cc=x",
            none,
            "\"cc\" is not known",
        );
        check("kafka://broker/alerts", none, "kafka:// is not known");
        check("alerts", none, "write it as NAME=URL");
        for name in ["", "Ops", "a.b", "a b", &"x".repeat(33)] {
            let error = Sink::new(name, "mqtt://broker/alerts", None).expect_err(name);
            assert!(error.reason.starts_with("a name has"), "{error}");
        }
    }
}
