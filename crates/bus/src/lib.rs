//! The bus: NATS JetStream as the one engine for work, state and fan-out.
//!
//! The only crate that acknowledges messages. A handler returns what it made of a message; the loops here publish that with
//! its ids, wait until the bus has it, and only then acknowledge. A crash in between repeats work, and the ids make the
//! repetition harmless.

mod ask;
mod backlog;
mod config;
mod connection;
mod consumers;
mod durable;
pub mod embedded;
mod error;
mod in_order;
mod interim;
mod lease;
mod plan;
mod presence;
mod reading;
mod settling;
mod streams;
mod subjects;
mod traced;
mod work;

pub use ask::Ask;
pub use backlog::Place;
pub use config::{BusConfig, Login};
pub use connection::Bus;
pub use error::BusError;
pub use in_order::{BatchHandler, work_in_order};
pub use lease::{Lease, LeaseConfig, Leases};
pub use plan::{Difference, Field};
pub use presence::Queue;
pub use reading::Start;
pub use streams::StreamName;
pub use subjects::{ObservationKind, Subject};
pub use work::{Handler, Outgoing, Received, Refusal, Work, work, work_side_by_side};
