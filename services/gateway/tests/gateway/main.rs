//! The gateway over real gRPC and HTTP, with a real nats-server behind it.

mod access;
mod admission;
mod browser;
mod collections;
mod errors;
mod exporting;
mod harness;
mod http;
mod playing;
mod recordings;
mod resources;
mod rest;
mod rest_recordings;
mod rest_refusals;
mod tls;
mod watching;
