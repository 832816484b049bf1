//! The gateway over real gRPC and HTTP, with a real nats-server behind it.

mod access;
mod admission;
mod alerting;
mod backtesting;
mod browser;
mod changing;
mod collections;
mod deleting;
mod endpoints;
mod errors;
mod exporting;
mod harness;
mod http;
mod keys;
mod playing;
mod recordings;
mod records;
mod resources;
mod rest;
mod rest_openapi;
mod rest_recordings;
mod rest_refusals;
mod tenants;
mod tls;
mod watching;
mod websockets;
