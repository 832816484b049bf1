//! Leases: who runs which stream.
//!
//! The lease is the un-acked message of RUNS. Its holder extends it while the stream runs; if the holder falls silent for
//! `ack_wait`, the bus hands the message to another worker. There is no election code here.

use std::time::Duration;

use async_nats::jetstream::{AckKind, Message as Raw};

use tokio::time::timeout;

use crate::connection::Bus;
use crate::durable::Durable;
use crate::error::BusError;
use crate::settling::settle;
use crate::streams::StreamName;
use crate::work::Work;

/// How leases are taken.
#[derive(Debug, Clone)]
pub struct LeaseConfig {
    /// After how long without an extension a lease goes to another worker.
    pub ack_wait: Duration,
}

/// Where leases come from.
pub struct Leases {
    bus: Bus,
    ack_wait: Duration,
    durable: Durable,
}

impl Bus {
    /// Opens the source of leases.
    ///
    /// # Errors
    /// When the bus does not answer.
    pub async fn leases(&self, config: LeaseConfig) -> Result<Leases, BusError> {
        let work = Work {
            stream: StreamName::Runs,
            durable: "ingest".to_owned(),
            filter: "run.*".to_owned(),
            concurrency: 1,
            ack_wait: config.ack_wait,
            deadline: Duration::MAX,
            max_deliver: -1,
        };
        // Every running stream is one un-acked message: the limit lies far above what a cluster runs.
        let durable = Durable::make(self, &work, 1_000_000).await?;
        Ok(Leases {
            bus: self.clone(),
            ack_wait: config.ack_wait,
            durable,
        })
    }
}

impl Leases {
    /// Waits for a stream to run. Call it only while there is room for one more. Giving up the wait is safe: a lease that is
    /// on its way at that moment comes again after `ack_wait`.
    ///
    /// # Errors
    /// When the bus is not there; call it again after a pause.
    pub async fn next(&mut self) -> Result<Lease, BusError> {
        loop {
            let pulled = self.durable.pull_one().await;
            let raw = pulled.map_err(|source| BusError::Consumer {
                consumer: "ingest".to_owned(),
                source,
            })?;
            if let Some(raw) = raw {
                return Ok(Lease {
                    bus: self.bus.clone(),
                    ack_wait: self.ack_wait,
                    raw,
                });
            }
        }
    }
}

/// The right and the duty to run one stream.
pub struct Lease {
    bus: Bus,
    ack_wait: Duration,
    raw: Raw,
}

impl Lease {
    /// The stream to run.
    pub fn rtstream_id(&self) -> &str {
        self.raw.subject.strip_prefix("run.").unwrap_or_default()
    }

    /// Keeps the lease for another `ack_wait`. Call it every third of that, and stop the stream when it has failed for a
    /// whole one. It can't tell that the lease has gone to another worker already: the generation in the catalog does.
    ///
    /// # Errors
    /// When the bus does not confirm within a third of `ack_wait`.
    pub async fn extend(&self) -> Result<(), BusError> {
        // Confirmed, because a connection can be dead for long before it is known to be.
        let extending = self.raw.double_ack_with(AckKind::Progress);
        match timeout(self.ack_wait / 3, extending).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(self.failed("extended", source)),
            Err(source) => Err(self.failed("extended", source.into())),
        }
    }

    /// The run is over: nobody is to run this stream.
    ///
    /// # Errors
    /// When the bus does not confirm within `ack_wait`; another worker then gets the lease and finds nothing to run.
    pub async fn release(self) -> Result<(), BusError> {
        match timeout(self.ack_wait, self.raw.double_ack()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(self.failed("released", source)),
            Err(source) => Err(self.failed("released", source.into())),
        }
    }

    /// Another worker is to go on at once.
    ///
    /// # Errors
    /// When the bus is not there; the lease then runs out by itself.
    pub async fn hand_over(self) -> Result<(), BusError> {
        settle(&self.raw, AckKind::Nak(None)).await?;
        self.bus.flush().await;
        Ok(())
    }

    fn failed(&self, action: &'static str, source: crate::error::Cause) -> BusError {
        BusError::Message {
            subject: self.raw.subject.to_string(),
            action,
            source,
        }
    }
}
