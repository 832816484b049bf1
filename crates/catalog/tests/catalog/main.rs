//! The catalog on a real nats-server, its seal and its sources on a real file system.

mod records;
mod seal;
mod source;
mod watching;
