//! The bus's promises on a real nats-server.

mod ask;
mod embedded;
mod harness;
mod in_order;
mod leases;
mod messages;
mod operating;
mod restarted;
mod side_by_side;
mod work;
