//! What is wanted from a source while it plays: changed from outside at any time, read on media threads.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sightline_proto::internal::TakeFrom;

/// Steers a source that plays.
#[derive(Debug, Default)]
pub struct Control {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    take: Option<TakeFrom>,
    /// Raised with every change of `take`.
    version: u64,
    stopped: bool,
}

impl Control {
    /// Says what to take from now on. Nothing is read before this is called once.
    pub fn take(&self, take: TakeFrom) {
        let mut state = self.lock();
        state.take = Some(take);
        state.version += 1;
        self.changed.notify_all();
    }

    /// Ends the source; `play` returns soon.
    pub fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    /// Whether the source is to end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Waits until it is known what to take; false if the source was stopped first.
    pub(crate) fn wait_for_take(&self) -> bool {
        let waiting = |state: &mut State| state.take.is_none() && !state.stopped;
        let state = self
            .changed
            .wait_while(self.lock(), waiting)
            .unwrap_or_else(PoisonError::into_inner);
        !state.stopped
    }

    /// What to take, if that has changed since `version`, with its own version.
    pub(crate) fn take_since(&self, version: u64) -> Option<(TakeFrom, u64)> {
        let state = self.lock();
        if state.version == version {
            return None;
        }
        Some((state.take.clone().unwrap_or_default(), state.version))
    }

    /// Waits until a moment; false if the source was stopped before.
    pub(crate) fn wait_until(&self, moment: Instant) -> bool {
        let mut state = self.lock();
        while !state.stopped {
            let left = moment.saturating_duration_since(Instant::now());
            if left < Duration::from_micros(50) {
                return true;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        false
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
