//! What talks to the network beside the pipeline: a thread with a runtime of its own, ended when it is dropped.

use std::io;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::error::Failure;

/// Something that runs until it ends by itself or this is dropped.
pub(crate) struct Background {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// Runs what `work` makes, on a thread of this name.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub(crate) fn start<Work, Running>(name: &str, work: Work) -> Result<Self, Failure>
    where
        Work: FnOnce() -> Running + Send + 'static,
        Running: Future<Output = ()>,
    {
        let failed = |e: io::Error| Failure::passing(format!("cannot prepare to connect: {e}"));
        let (stop, stopped) = oneshot::channel();
        let (started, starting) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                match runtime {
                    Ok(runtime) => {
                        let _ = started.send(Ok(()));
                        runtime.block_on(async {
                            tokio::select! {
                                () = work() => {}
                                _ = stopped => {}
                            }
                        });
                        // Looking up a name can't be cut off: its thread is left to itself.
                        runtime.shutdown_background();
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                    }
                }
            })
            .map_err(failed)?;
        starting
            .recv()
            .unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
            .map_err(failed)?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
