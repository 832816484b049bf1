//! The service on a real nats-server and real sockets.

mod changing;
mod firing;
mod harness;
mod hostile;
mod phases;
mod policies;
mod receiving;
mod signing;
mod sinks;
