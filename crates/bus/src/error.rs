//! What can go wrong on the bus.

use thiserror::Error;

/// The library's errors, whatever their type.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Something that the bus could not do.
#[derive(Debug, Error)]
pub enum BusError {
    /// No server, or it refused.
    #[error(
        "cannot connect to nats at {url}: check that nats-server runs there with JetStream (-js) and that the credentials are right"
    )]
    Connect {
        /// The server's address without credentials.
        url: String,
        /// Why.
        source: Cause,
    },
    /// A stream could not be made or read.
    #[error("stream {stream} is not usable")]
    Stream {
        /// Its name.
        stream: &'static str,
        /// Why.
        source: Cause,
    },
    /// A stream could not be compared or changed.
    #[error("stream {stream} stays as it is")]
    Change {
        /// Its name on the server.
        stream: String,
        /// Why.
        source: Cause,
    },
    /// A consumer could not be made or read.
    #[error("consumer {consumer} is not usable")]
    Consumer {
        /// Its name.
        consumer: String,
        /// Why.
        source: Cause,
    },
    /// A message was not taken.
    #[error("the bus did not take a message for {subject}")]
    Publish {
        /// Where it should have gone.
        subject: String,
        /// Why.
        source: Cause,
    },
    /// A message could not be acknowledged or read.
    #[error("message of {subject} could not be {action}")]
    Message {
        /// Its subject.
        subject: String,
        /// What was tried: "acknowledged", "extended", "decoded".
        action: &'static str,
        /// Why.
        source: Cause,
    },
    /// A question found no answer.
    #[error("nobody answered {subject}")]
    Unanswered {
        /// Where it was asked.
        subject: String,
        /// Why.
        source: Cause,
    },
    /// The embedded server could not be started.
    #[error("nats-server could not be started: {reason}")]
    Server {
        /// What went wrong and what to do.
        reason: String,
    },
}
