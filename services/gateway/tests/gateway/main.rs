//! The gateway over real gRPC, with a real nats-server behind it.

mod access;
mod errors;
mod harness;
mod resources;
mod watching;
