//! Exports: stretches of recordings as MP4 files, from the work queue EXPORTS.
//!
//! A child writes the file into the scratch directory from segments that the worker reads for it, and the worker stores it. Done
//! twice, it is the same file under the same name.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sightline_bus::{Handler, Outgoing, Received, Refusal, StreamName, Work, work};
use sightline_catalog::CatalogError;
use sightline_proto::internal::child_command::Command;
use sightline_proto::internal::child_report::Report;
use sightline_proto::internal::{ExportEnd, ExportJob, ExportRecord, ExportSegment, WriteExport};
use sightline_proto::v1::Export;
use sightline_proto::v1::export::State;
use sightline_recordings::{Segment, StoreError};
use sightline_service::{Shutdown, chain};
use tokio::time::{Instant, sleep, timeout};

use crate::process::ChildProcess;
use crate::reading::{self, ReadError};
use crate::{Error, PAUSE, Shared};

/// What files under way are called; their process follows.
const PREFIX: &str = "export-";
/// How long after a crash another worker begins again.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// How long one may take: a day of video is some tens of GB.
const DEADLINE: Duration = Duration::from_secs(2 * 3600);
/// How long the child may take for one segment, and for completing the file.
const SEGMENT_DEADLINE: Duration = Duration::from_secs(60);
const LAST_DEADLINE: Duration = Duration::from_secs(15 * 60);
/// How often it is tried when that may help, with pauses that grow by this.
const TRIES: u64 = 4;
const RETRY: Duration = Duration::from_secs(5);
/// How often it is begun at all: workers that stop do not count as tries, but those that die of it have to end.
const BEGINNINGS: u64 = 12;
/// How often progress is told at most.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Makes the scratch directory, and removes what processes that are gone left there.
pub(crate) async fn prepare(scratch: &Path) -> Result<(), Error> {
    let scratch = scratch.to_owned();
    let failed = |path: PathBuf| move |source| Error::Scratch { path, source };
    tokio::fs::create_dir_all(&scratch)
        .await
        .map_err(failed(scratch.clone()))?;
    let mut entries = tokio::fs::read_dir(&scratch)
        .await
        .map_err(failed(scratch.clone()))?;
    while let Ok(Some(entry)) = entries.next_entry().await {
        let left = entry.file_name().to_str().is_some_and(is_left_over);
        if left && let Err(error) = tokio::fs::remove_file(entry.path()).await {
            tracing::warn!(%error, path = %entry.path().display(), "a file that was left is not removed");
        }
    }
    Ok(())
}

/// Writes exports until shutdown; what is under way then is begun again by another worker.
pub(crate) async fn run(shared: Arc<Shared>, shutdown: Shutdown) {
    while !shutdown.is_cancelled() {
        let exports = Work {
            stream: StreamName::Exports,
            durable: "exports".to_owned(),
            filter: "export.*".to_owned(),
            concurrency: 1,
            ack_wait: ACK_WAIT,
            deadline: DEADLINE,
            // Given up here, where its record says so.
            max_deliver: -1,
        };
        let exporter = Exporter {
            shared: Arc::clone(&shared),
            shutdown: shutdown.clone(),
        };
        if let Err(error) = work(&shared.bus, exports, exporter, shutdown.clone()).await {
            tracing::debug!(%error, "exports cannot be taken, trying again");
            sleep(PAUSE).await;
        }
    }
}

/// Why there is no file, in words.
enum Trouble {
    /// Trying again may help.
    Later(String),
    /// It would not.
    Never(String),
}

struct Exporter {
    shared: Arc<Shared>,
    shutdown: Shutdown,
}

#[async_trait]
impl Handler<ExportJob> for Exporter {
    async fn handle(&self, received: &Received<ExportJob>) -> Result<Vec<Outgoing>, Refusal> {
        let id = &received.message.export_id;
        let made = tokio::select! {
            made = self.begin(received) => made,
            () = self.shutdown.cancelled() => return Err(Refusal::Retry {
                after: Duration::ZERO,
                reason: "the worker stops".to_owned(),
            }),
        };
        let reason = match made {
            Ok(()) => return Ok(Vec::new()),
            Err(Trouble::Later(reason)) if received.deliveries < TRIES => {
                tracing::warn!(export = id, reason, "export failed, trying again");
                let after = RETRY * u32::try_from(received.deliveries).unwrap_or(1);
                return Err(Refusal::Retry { after, reason });
            }
            Err(Trouble::Later(reason) | Trouble::Never(reason)) => reason,
        };
        tracing::warn!(export = id, reason, "export failed");
        self.change(id, |export| {
            export.set_state(State::Failed);
            export.state_detail.clone_from(&reason);
        })
        .await?;
        Ok(Vec::new())
    }
}

impl Exporter {
    async fn begin(&self, received: &Received<ExportJob>) -> Result<(), Trouble> {
        let job = &received.message;
        let found = self.shared.catalog.fetch::<ExportRecord>(&job.export_id);
        let found = found.await.map_err(|error| Trouble::Later(chain(&error)))?;
        if found.is_none() {
            // It was deleted while it was written.
            let removed = self.shared.library.store().remove_export(&job.export_id);
            return removed.await.or_else(|error| match error {
                StoreError::NotFound { .. } => Ok(()),
                error => Err(Trouble::Later(chain(&error))),
            });
        }
        let running = found.as_ref().and_then(|found| {
            let export = found.value.export.as_ref()?;
            (export.state() == State::Running).then_some(&found.value)
        });
        // Done already, or not wanted any more.
        let Some(record) = running else {
            return Ok(());
        };
        if received.deliveries > BEGINNINGS {
            let reason = format!("given up after it was begun {BEGINNINGS} times");
            return Err(Trouble::Never(reason));
        }
        self.make(job, record).await
    }

    async fn make(&self, job: &ExportJob, record: &ExportRecord) -> Result<(), Trouble> {
        let library = &self.shared.library;
        let segments = library
            .segments(&job.rtstream_id, record.start_us, record.end_us)
            .await
            .map_err(|error| Trouble::Later(chain(&error)))?;
        if segments.is_empty() {
            let reason = "nothing is recorded between these times".to_owned();
            return Err(Trouble::Never(reason));
        }
        let name = format!("{PREFIX}{}-{}.mp4", std::process::id(), job.export_id);
        let file = Scratch(self.shared.config.scratch.join(name));
        let duration_us = self.write(job, &segments, &file.0).await?;
        let stored = library.store().put_export(&job.export_id, &file.0).await;
        let bytes = stored.map_err(|error| Trouble::Later(chain(&error)))?;
        tracing::info!(export = job.export_id, bytes, duration_us, "export is done");
        let done = |export: &mut Export| {
            export.set_state(State::Done);
            export.state_detail.clear();
            export.progress = 1.0;
            export.bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            export.duration_seconds = duration_us as f64 / 1e6;
        };
        let changed = self.change(&job.export_id, done).await;
        let known = changed.map_err(|refusal| Trouble::Later(reason_of(refusal)))?;
        if !known {
            // The stream was deleted meanwhile, and whoever removed its exports did not find this one.
            let removed = library.store().remove_export(&job.export_id).await;
            return removed.map_err(|error| Trouble::Later(chain(&error)));
        }
        Ok(())
    }

    /// Has a child write the file, and returns how long it plays.
    async fn write(
        &self,
        job: &ExportJob,
        segments: &[Segment],
        file: &Path,
    ) -> Result<i64, Trouble> {
        let path = file.to_str().ok_or_else(|| {
            Trouble::Never("the scratch directory's name is not UTF-8".to_owned())
        })?;
        let child = ChildProcess::spawn(&self.shared.config.child);
        let mut child = child
            .map_err(|error| Trouble::Later(format!("the child cannot be started: {error}")))?;
        let wanted = WriteExport {
            file: path.to_owned(),
        };
        // A child that takes nothing more has something to say.
        let fed = match child.send(Command::Export(wanted)).await {
            Ok(()) => self.feed(job, segments, &mut child).await?,
            Err(_) => false,
        };
        let report = match timeout(LAST_DEADLINE, child.next()).await {
            Ok(report) => report,
            Err(late) => return Err(Trouble::Later(format!("the file is not completed: {late}"))),
        };
        match report {
            Some(Ok(Report::Exported(exported))) if fed => Ok(exported.duration_us),
            Some(Ok(Report::Failed(failed))) if failed.permanent => {
                Err(Trouble::Never(failed.reason))
            }
            Some(Ok(Report::Failed(failed))) => Err(Trouble::Later(failed.reason)),
            _ => {
                let status = child.end().await;
                let reason = format!("the child of this export died ({status})");
                Err(Trouble::Later(reason))
            }
        }
    }

    /// Gives the child one segment after the other, each when it has taken the one before; false if it takes no more.
    async fn feed(
        &self,
        job: &ExportJob,
        segments: &[Segment],
        child: &mut ChildProcess,
    ) -> Result<bool, Trouble> {
        let mut told = Instant::now();
        for (number, segment) in segments.iter().enumerate() {
            let store = self.shared.library.store();
            let ts = match reading::segment(store, &job.rtstream_id, *segment).await {
                Ok(ts) => ts,
                // Retention was quicker.
                Err(ReadError::Store(StoreError::NotFound { .. })) => continue,
                Err(error) => return Err(Trouble::Later(chain(&error))),
            };
            let given = child.send(Command::ExportSegment(ExportSegment { ts }));
            match timeout(SEGMENT_DEADLINE, given).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Ok(false),
                Err(late) => {
                    let reason = format!("the child does not take a segment: {late}");
                    return Err(Trouble::Later(reason));
                }
            }
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                let progress = (number + 1) as f32 / segments.len() as f32;
                // The next one may get through.
                let _ = self
                    .change(&job.export_id, |export| export.progress = progress)
                    .await;
            }
        }
        Ok(child.send(Command::ExportEnd(ExportEnd {})).await.is_ok())
    }

    /// Changes a running export's record; false if there is none.
    async fn change(&self, id: &str, change: impl Fn(&mut Export)) -> Result<bool, Refusal> {
        let changed = self.shared.catalog.modify::<ExportRecord>(id, |record| {
            let running = |export: &&mut Export| export.state() == State::Running;
            let export = record.export.as_mut().filter(running);
            export.map(&change).is_some()
        });
        match changed.await {
            Ok(_) => Ok(true),
            Err(CatalogError::Missing { .. }) => Ok(false),
            Err(error) => Err(Refusal::Retry {
                after: RETRY,
                reason: chain(&error),
            }),
        }
    }
}

fn reason_of(refusal: Refusal) -> String {
    match refusal {
        Refusal::Retry { reason, .. } | Refusal::Reject { reason } => reason,
    }
}

/// A file under way, removed whatever becomes of it, with what a child that was killed leaves beside it.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        for path in [&self.0, &self.0.with_extension("part")] {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(%error, path = %path.display(), "a file under way is not removed");
                }
                _ => {}
            }
        }
    }
}

/// Whether a file was left by a process that is gone, or by one before this that had the same number.
fn is_left_over(name: &str) -> bool {
    let Some((process, _)) = name
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.split_once('-'))
    else {
        return false;
    };
    let Ok(process) = process.parse::<i32>() else {
        return false;
    };
    let Some(pid) = rustix::process::Pid::from_raw(process) else {
        return true;
    };
    let own = std::process::id().cast_signed() == process;
    own || rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_left_of_processes_that_are_gone_is_removed() {
        let dir = tempfile::tempdir().expect("a directory");
        let scratch = dir.path().join("deep/scratch");
        prepare(&scratch).await.expect("made");
        let own = std::process::id();
        let parent = std::os::unix::process::parent_id();
        for (name, stays) in [
            (format!("export-{own}-exp-1.mp4"), false),
            (format!("export-{}-exp-2.mp4", i32::MAX), false),
            (format!("export-{parent}-exp-3.mp4"), true),
            ("export-.mp4".to_owned(), true),
            (format!("export-{own}-exp-4.part"), false),
            ("somebody's".to_owned(), true),
        ] {
            let file = scratch.join(name);
            std::fs::write(&file, "x").expect("written");
            prepare(&scratch).await.expect("made");
            assert_eq!(file.exists(), stays, "{}", file.display());
        }
    }
}
