//! The one thread that changes the store. It takes together what waits, so that a flush, the dear part of a write, is paid
//! once for all of it.

use std::sync::PoisonError;
use std::thread::{self, JoinHandle};

use qdrant_edge::{EdgeShard, UpdateOperation};
use tokio::sync::{mpsc, oneshot};

use crate::VectorError;
use crate::error::Cause;

use super::Shard;
use super::files::{Folder, guarded};

/// Spent log files, of 8 MiB each, at which the library is opened anew to be rid of them: it keeps them open.
const MOST_SPENT_WAL_FILES: usize = 8;

/// A change to be made, and who waits for it.
pub(super) struct Job {
    change: UpdateOperation,
    done: oneshot::Sender<Result<(), String>>,
}

impl Job {
    pub(super) fn new(change: UpdateOperation) -> (Self, oneshot::Receiver<Result<(), String>>) {
        let (done, receiver) = oneshot::channel();
        (Self { change, done }, receiver)
    }
}

/// Starts the thread. It ends, with everything flushed and the folder free, when nobody can send any more.
pub(super) fn start(
    folder: Folder,
    shard: Shard,
    queue: mpsc::Receiver<Job>,
) -> Result<JoinHandle<()>, VectorError> {
    let writer = Writer { folder, shard };
    thread::Builder::new()
        .name("vectors".to_owned())
        .spawn(move || writer.run(queue))
        .map_err(|error| VectorError::Write {
            reason: format!("no thread could be started: {error}"),
        })
}

struct Writer {
    folder: Folder,
    shard: Shard,
}

impl Writer {
    fn run(self, mut queue: mpsc::Receiver<Job>) {
        while let Some(first) = queue.blocking_recv() {
            let mut changes = vec![first.change];
            let mut waiting = vec![first.done];
            while let Ok(Job { change, done }) = queue.try_recv() {
                changes.push(change);
                waiting.push(done);
            }
            let stored = self.store(changes).map_err(|error| error.to_string());
            for done in waiting {
                // Whoever does not wait any more stores the same again.
                let _ = done.send(stored.clone());
            }
        }
        self.close();
    }

    fn store(&self, changes: Vec<UpdateOperation>) -> Result<(), Cause> {
        if !self.is_open() {
            self.reopen()?;
        }
        let stored = self.write(changes);
        let spent = self.folder.spent_wal_files().map_or(0, |files| files.len());
        if stored.is_err() || spent >= MOST_SPENT_WAL_FILES {
            // After a failure the library would refuse everything, or keep in memory what is not on disk.
            if let Err(error) = self.reopen() {
                tracing::error!(%error, "the vector store cannot be opened again, trying at the next write");
            }
        }
        stored
    }

    fn write(&self, changes: Vec<UpdateOperation>) -> Result<(), Cause> {
        let shard = self.shard.read().unwrap_or_else(PoisonError::into_inner);
        let shard = shard.as_ref().ok_or("it is closed")?;
        guarded(|| {
            for change in changes {
                shard.update(change)?;
            }
            shard.flush();
            Ok(())
        })
    }

    fn is_open(&self) -> bool {
        let shard = self.shard.read().unwrap_or_else(PoisonError::into_inner);
        shard.is_some()
    }

    fn reopen(&self) -> Result<(), Cause> {
        let mut shard = self.shard.write().unwrap_or_else(PoisonError::into_inner);
        close(shard.take());
        *shard = Some(self.folder.load()?);
        Ok(())
    }

    fn close(&self) {
        let mut shard = self.shard.write().unwrap_or_else(PoisonError::into_inner);
        close(shard.take());
    }
}

/// Dropping the library's handle flushes, and panics where it can't.
fn close(shard: Option<EdgeShard>) {
    if let Err(error) = guarded(|| {
        drop(shard);
        Ok(())
    }) {
        tracing::debug!(%error, "the vector store was closed without a last flush");
    }
}
