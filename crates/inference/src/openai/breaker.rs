//! Stops asking a server that keeps failing: after some failures in a row, calls fail at once for some seconds; then one
//! is let through, and what becomes of it decides for the others.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row after which nothing is asked any more.
const FAILURES: u32 = 5;
/// How long nothing is asked then.
const PAUSE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// Until when nothing is asked; after it, one call at a time.
    open_until: Option<Instant>,
    trying: bool,
}

/// Leave to ask once. Dropping it without a word (the caller gave up) says nothing about the server.
pub(super) struct Leave<'a> {
    breaker: &'a Breaker,
    trial: bool,
}

impl Breaker {
    /// Leave to ask, or how long to wait before asking for it again.
    pub(super) fn ask(&self) -> Result<Leave<'_>, Duration> {
        let mut state = self.state();
        let Some(until) = state.open_until else {
            return Ok(self.leave(false));
        };
        let now = Instant::now();
        if now < until {
            return Err(until - now);
        }
        if state.trying {
            return Err(Duration::from_secs(1));
        }
        state.trying = true;
        Ok(self.leave(true))
    }

    fn leave(&self, trial: bool) -> Leave<'_> {
        Leave {
            breaker: self,
            trial,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Leave<'_> {
    /// The server answered, be it with a refusal.
    pub(super) fn answered(self) {
        let mut state = self.breaker.state();
        state.failures = 0;
        state.open_until = None;
    }

    /// The server did not answer, or nothing of use.
    pub(super) fn failed(self) {
        let mut state = self.breaker.state();
        state.failures = state.failures.saturating_add(1);
        if state.failures >= FAILURES {
            state.open_until = Some(Instant::now() + PAUSE);
        }
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if self.trial {
            self.breaker.state().trying = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(breaker: &Breaker, times: u32) {
        for _ in 0..times {
            breaker.ask().expect("closed").failed();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn opens_after_failures_in_a_row_and_lets_one_call_through_afterwards() {
        let breaker = Breaker::default();
        fail(&breaker, FAILURES - 1);
        breaker.ask().expect("still closed").answered();
        fail(&breaker, FAILURES);
        assert_eq!(breaker.ask().err(), Some(PAUSE));

        tokio::time::advance(PAUSE).await;
        let trial = breaker.ask().expect("one is let through");
        assert!(breaker.ask().is_err(), "but no second beside it");
        trial.failed();
        assert_eq!(breaker.ask().err(), Some(PAUSE), "one failure is enough");

        tokio::time::advance(PAUSE).await;
        drop(breaker.ask().expect("one is let through"));
        let trial = breaker.ask().expect("the one before gave up");
        trial.answered();
        fail(&breaker, FAILURES - 1);
        assert!(breaker.ask().is_ok(), "it counts from nought again");
    }
}
