//! Many messages side by side, for handlers that mostly wait.

use std::sync::Arc;

use anyhow::Result;
use async_trait::async_trait;
use sightline_bus::{
    Handler, Outgoing, Received, Refusal, StreamName, Subject, Work, work_side_by_side,
};
use sightline_proto::internal::Observation;
use sightline_service::Shutdown;
use tokio::sync::{Barrier, Semaphore};
use tokio::time::timeout;

use crate::harness::{ACK_WAIT, LONG, Platform, observation};

/// More than one pull takes.
const PLACES: usize = 150;

struct AllAtOnce {
    entered: Semaphore,
    full: Arc<Barrier>,
}

#[async_trait]
impl Handler<Observation> for AllAtOnce {
    async fn handle(&self, _: &Received<Observation>) -> Result<Vec<Outgoing>, Refusal> {
        if let Ok(place) = self.entered.try_acquire() {
            place.forget();
            self.full.wait().await;
        }
        Ok(Vec::new())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_places_are_taken_at_once_and_what_is_beyond_them_waits() -> Result<()> {
    let platform = Platform::start().await?;
    for n in 0..2 * PLACES {
        let id = n.to_string();
        let new = platform
            .bus
            .publish_once(&Subject::Hold, &id, &observation(&id))
            .await?;
        assert!(new);
    }
    let known = observation("0");
    let again = platform.bus.publish_once(&Subject::Hold, "0", &known);
    assert!(!again.await?, "known by its id");
    let full = Arc::new(Barrier::new(PLACES + 1));
    let handler = AllAtOnce {
        entered: Semaphore::new(PLACES),
        full: Arc::clone(&full),
    };
    let work = Work {
        stream: StreamName::Enrichments,
        durable: "hold".to_owned(),
        filter: Subject::Hold.to_string(),
        concurrency: PLACES,
        ack_wait: ACK_WAIT,
        deadline: LONG,
        max_deliver: -1,
    };
    let shutdown = Shutdown::new();
    let (bus, stop) = (platform.bus.clone(), shutdown.clone());
    let working = tokio::spawn(async move { work_side_by_side(&bus, work, handler, stop).await });
    platform
        .outstanding(&Subject::Hold, 2 * PLACES as u64)
        .await?;
    timeout(LONG, full.wait()).await?;
    platform.outstanding(&Subject::Hold, 0).await?;
    shutdown.cancel();
    timeout(LONG, working).await???;
    Ok(())
}
