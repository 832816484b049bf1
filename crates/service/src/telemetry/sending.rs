//! What waits for the collector, and the task that sends it.
//!
//! Whatever makes spans and log lines never waits: what a queue has no room for is dropped and counted, and so is what the collector
//! does not take in time. It is not sent again, so that a collector that is down or slow costs the room of its queues and nothing
//! else.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;

use super::exporting::Dropped;
use crate::Shutdown;

/// How many spans, or log lines, wait at most: some MB.
pub(super) const ROOM: usize = 2048;
/// How many are sent together.
const BATCH: usize = 512;
/// How long the first of them waits for others.
const GATHER: Duration = Duration::from_secs(1);
/// How long the collector may take for them.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
/// How long it has to take everything to be told of as sound again.
const SOUND: Duration = Duration::from_secs(10);

/// Where spans or log lines are put.
#[derive(Debug, Clone)]
pub(super) struct Outbox<T> {
    sender: Sender<T>,
    full: Counter,
}

impl<T> Outbox<T> {
    /// With the other end, which [`run`] takes from.
    pub(super) fn new(signal: &'static str, dropped: &Dropped) -> (Self, Receiver<T>) {
        let (sender, queue) = channel(ROOM);
        let full = dropped.full(signal);
        (Self { sender, full }, queue)
    }

    /// Never waits.
    pub(super) fn put(&self, item: T) {
        if self.sender.try_send(item).is_err() {
            self.full.inc();
        }
    }
}

/// One kind of telemetry, and how it is sent.
pub(super) trait Signal: Send + 'static {
    /// What is sent many of together.
    type Item: Send + 'static;

    /// Sends; how many the collector did not want.
    fn send(&mut self, items: Vec<Self::Item>) -> impl Future<Output = Result<i64, Status>> + Send;
}

/// Sends what is put into a queue, until `stop`; what waits then is sent as well.
pub(super) async fn run<S: Signal>(
    mut signal: S,
    mut queue: Receiver<S::Item>,
    mut taken: Taken,
    stop: Shutdown,
) {
    loop {
        let mut batch = Vec::with_capacity(BATCH);
        tokio::select! {
            () = gather(&mut queue, &mut batch) => {}
            () = stop.cancelled() => {}
        }
        while batch.len() < BATCH
            && let Ok(item) = queue.try_recv()
        {
            batch.push(item);
        }
        if batch.is_empty() {
            return;
        }
        let count = batch.len();
        taken.send(count, signal.send(batch)).await;
    }
}

async fn gather<T>(queue: &mut Receiver<T>, batch: &mut Vec<T>) {
    if queue.recv_many(batch, BATCH).await < BATCH {
        sleep(GATHER).await;
    }
}

/// Whether the collector takes one kind of telemetry. It is told once when it no longer does, and once when it does again.
pub(super) struct Taken {
    signal: &'static str,
    refused: Counter,
    failed: Option<Instant>,
}

impl Taken {
    pub(super) fn new(signal: &'static str, dropped: &Dropped) -> Self {
        Self {
            signal,
            refused: dropped.refused(signal),
            failed: None,
        }
    }

    /// Waits for the answer to `count` things, and counts what is lost.
    pub(super) async fn send(
        &mut self,
        count: usize,
        answer: impl Future<Output = Result<i64, Status>>,
    ) {
        let reason = match timeout(DEADLINE, answer).await {
            Ok(Ok(unwanted)) => {
                self.refused.inc_by(u64::try_from(unwanted).unwrap_or(0));
                return self.took();
            }
            Ok(Err(status)) => format!("{:?}: {}", status.code(), status.message()),
            Err(_) => format!("no answer within {DEADLINE:?}"),
        };
        self.refused.inc_by(count as u64);
        let signal = self.signal;
        if self.failed.replace(Instant::now()).is_none() {
            tracing::warn!(
                signal,
                reason,
                "the collector does not take telemetry, which is dropped until it does"
            );
        }
    }

    fn took(&mut self) {
        let failed = self.failed;
        if failed.is_some_and(|failed| failed.elapsed() >= SOUND) {
            self.failed = None;
            tracing::info!(signal = self.signal, "the collector takes telemetry again");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// A collector that never answers, until it does.
    struct Collector {
        away: Arc<AtomicBool>,
        took: Sender<usize>,
    }

    impl Signal for Collector {
        type Item = usize;

        async fn send(&mut self, items: Vec<usize>) -> Result<i64, Status> {
            if self.away.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            let _ = self.took.send(items.len()).await;
            Ok(0)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_never_answers_costs_what_is_counted_and_nobody_waits() {
        let (dropped, stop) = (Dropped::default(), Shutdown::new());
        let away = Arc::new(AtomicBool::new(true));
        let (took, mut taken) = channel(16);
        let (outbox, queue) = Outbox::new("traces", &dropped);
        let collector = Collector {
            away: Arc::clone(&away),
            took,
        };
        let state = Taken::new("traces", &dropped);
        let running = tokio::spawn(run(collector, queue, state, stop.clone()));
        // The first batch is on its way, the queue fills up, and the rest finds no room.
        (0..BATCH).for_each(|n| outbox.put(n));
        tokio::time::sleep(GATHER * 2).await;
        (0..ROOM + 10).for_each(|n| outbox.put(n));
        assert_eq!(dropped.full("traces").get(), 10);
        assert_eq!(dropped.refused("traces").get(), 0);
        tokio::time::sleep(DEADLINE).await;
        assert_eq!(dropped.refused("traces").get(), BATCH as u64);
        away.store(false, Ordering::Relaxed);
        // The batch that was under way is lost as well, all others come.
        let mut came = 0;
        while came < ROOM - BATCH {
            came += taken.recv().await.expect("it runs");
        }
        // What waits at the end is sent.
        outbox.put(1);
        stop.cancel();
        running.await.expect("it ends");
        assert_eq!(taken.recv().await, Some(1));
        assert_eq!(dropped.refused("traces").get(), 2 * BATCH as u64);
        assert_eq!(dropped.full("traces").get(), 10);
    }
}
