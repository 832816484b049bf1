//! Putting segments into the object store beside everything else: a store that hangs or fails holds nothing back.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sightline_recordings::{Segment, Store, StoreError};
use sightline_service::{chain, failpoint};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::metrics::IngestMetrics;

/// Segments that wait while another is put. When there are more, or more bytes, the oldest waiting is lost.
const WAITING: usize = 16;
const WAITING_BYTES: usize = 64 << 20;
/// News that was not yet taken; then the uploader waits.
const NEWS: usize = 16;
/// Pauses between tries: doubled up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// What became of segments, in the order in which they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// One is stored.
    Stored(Segment),
    /// One can never be stored. Why, in words.
    Refused(Segment, String),
    /// The store does not take one; it is tried again. Why, in words.
    Failing(String),
}

/// Stores the segments of one stream, one after the other. Dropping it ends that.
pub(crate) struct Uploader {
    queue: Arc<Queue>,
    news: mpsc::Receiver<News>,
    _task: JoinSet<()>,
}

impl Uploader {
    pub(crate) fn start(store: Store, rtstream_id: &str, metrics: IngestMetrics) -> Self {
        let queue = Arc::new(Queue::default());
        let (sender, news) = mpsc::channel(NEWS);
        let mut task = JoinSet::new();
        let uploading = Task {
            store,
            rtstream_id: rtstream_id.to_owned(),
            metrics,
            queue: Arc::clone(&queue),
            news: sender,
        };
        task.spawn(uploading.run());
        Self {
            queue,
            news,
            _task: task,
        }
    }

    /// Takes a segment to store, and returns those that are lost for it: the oldest that still wait.
    pub(crate) fn push(&self, segment: Segment, ts: Bytes) -> Vec<Segment> {
        let mut pieces = self.queue.lock();
        pieces.queued.push_back(Piece { segment, ts });
        let mut lost = Vec::new();
        while pieces.too_many() {
            // The first is being put, and may be stored at any moment.
            lost.extend(pieces.queued.remove(1).map(|piece| piece.segment));
        }
        drop(pieces);
        self.queue.changed.notify_one();
        lost
    }

    /// Whether one more would cost another.
    pub(crate) fn is_full(&self) -> bool {
        let pieces = self.queue.lock();
        pieces.queued.len() > WAITING || pieces.waiting_bytes() > WAITING_BYTES / 2
    }

    /// Waits for what happens; none once it is closed and everything is stored. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Option<News> {
        self.news.recv().await
    }

    /// Nothing more will come.
    pub(crate) fn close(&self) {
        self.queue.lock().closed = true;
        self.queue.changed.notify_one();
    }

    /// What is not stored.
    pub(crate) fn left(&self) -> Vec<Segment> {
        let pieces = self.queue.lock();
        pieces.queued.iter().map(|piece| piece.segment).collect()
    }
}

#[derive(Default)]
struct Queue {
    pieces: Mutex<Pieces>,
    changed: Notify,
}

#[derive(Default)]
struct Pieces {
    /// The first is being put.
    queued: VecDeque<Piece>,
    closed: bool,
}

#[derive(Clone)]
struct Piece {
    segment: Segment,
    ts: Bytes,
}

impl Pieces {
    fn waiting_bytes(&self) -> usize {
        self.queued.iter().skip(1).map(|piece| piece.ts.len()).sum()
    }

    fn too_many(&self) -> bool {
        self.queued.len() > 1 + WAITING
            || (self.queued.len() > 2 && self.waiting_bytes() > WAITING_BYTES)
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Pieces> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next one to put, which stays in the queue; none once it is closed and empty.
    async fn first(&self) -> Option<Piece> {
        loop {
            {
                let pieces = self.lock();
                if let Some(piece) = pieces.queued.front() {
                    return Some(piece.clone());
                }
                if pieces.closed {
                    return None;
                }
            }
            self.changed.notified().await;
        }
    }

    /// Waits, but not for long once nothing more will come.
    async fn pause(&self, pause: Duration) {
        let waited = Instant::now();
        loop {
            let pause = if self.lock().closed {
                FIRST_PAUSE
            } else {
                pause
            };
            let left = pause.saturating_sub(waited.elapsed());
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = sleep(left) => {}
                () = self.changed.notified() => {}
            }
        }
    }
}

struct Task {
    store: Store,
    rtstream_id: String,
    metrics: IngestMetrics,
    queue: Arc<Queue>,
    news: mpsc::Sender<News>,
}

impl Task {
    async fn run(self) {
        while let Some(piece) = self.queue.first().await {
            let Some(news) = self.put(&piece).await else {
                return;
            };
            // Told first: what is still in the queue and not told is not stored.
            if self.news.send(news).await.is_err() {
                return;
            }
            self.queue.lock().queued.pop_front();
        }
    }

    /// Puts a segment until it is stored, and says what became of it; none when nobody listens any more. It is not given up: a put
    /// that is told to have failed may have succeeded, and a gap would be told where there is none.
    async fn put(&self, piece: &Piece) -> Option<News> {
        let (segment, size) = (piece.segment, piece.ts.len() as u64);
        let mut pause = FIRST_PAUSE;
        failpoint::hit("ingest.before_segment");
        loop {
            let started = Instant::now();
            let put = self
                .store
                .put_segment(&self.rtstream_id, segment, piece.ts.clone());
            let reason = match put.await {
                Ok(()) => {
                    failpoint::hit("ingest.after_segment");
                    let took = started.elapsed().as_secs_f64();
                    self.metrics.stored(size, took);
                    return Some(News::Stored(Segment {
                        bytes: size,
                        ..segment
                    }));
                }
                // It has no name.
                Err(error @ StoreError::NotFound { .. }) => {
                    return Some(News::Refused(segment, chain(&error)));
                }
                Err(error) => chain(&error),
            };
            tracing::debug!(
                rtstream = self.rtstream_id,
                reason,
                "a segment is not stored, trying again"
            );
            self.news.send(News::Failing(reason)).await.ok()?;
            self.queue.pause(pause).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }
}
