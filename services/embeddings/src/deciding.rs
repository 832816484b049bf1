//! What is to happen to the stores, where processes on the same server may want different models: during a rollout, or because
//! one was left behind.
//!
//! - A store is filled by who wants its model, and while such a process is at work nobody else gives it up.
//! - The model that came last holds: who wants one that was replaced leaves the stores as they are, as long as a process that
//!   wants the present one is at work. So an old process that starts again undoes nothing; and where all processes are given
//!   the old model again, it comes back when the last of the others is gone.
//!
//! Whoever wants a store's model says so every few seconds, where the stores are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sightline_service::{Shutdown, chain, failpoint};
use sightline_vectors::{EmbeddingModel, Named, State, Stores, VectorError};
use tokio::time::sleep;

use crate::keeping::Keeping;

/// How often is looked what has changed.
const LOOK: Duration = Duration::from_secs(1);
/// How often a process says that it is at work …
const BEAT: Duration = Duration::from_secs(3);
/// … and how many looks in a row find nothing said when none is. Time alone does not count: nobody can say anything while the
/// server is away.
const SILENT: u32 = 20;
/// More steps than any state needs.
const MOST_STEPS: usize = 4;

/// What is to be done before the stores are as this process wants them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Begin,
    GiveUp,
}

/// What other processes said last, by store, and how often that was found since.
#[derive(Default)]
pub(crate) struct Pulses(Mutex<HashMap<String, (String, u32)>>);

impl Pulses {
    /// Whether a process is at work, now that its store's pulse was found to be this; one that was never seen is.
    fn is_beating(&self, name: &str, pulse: String) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.get_mut(name) {
            Some((last, looks)) if *last == pulse => {
                *looks = looks.saturating_add(1);
                *looks < SILENT
            }
            _ => {
                seen.insert(name.to_owned(), (pulse, 0));
                true
            }
        }
    }
}

impl Keeping {
    /// Makes what is missing at the start.
    pub(crate) async fn decide(&self) -> Result<State, VectorError> {
        let mut state = self.stores.state().await?;
        for _ in 0..MOST_STEPS {
            let Some(step) = self.step(&state).await? else {
                break;
            };
            self.take(step).await?;
            state = self.stores.state().await?;
        }
        Ok(state)
    }

    async fn step(&self, state: &State) -> Result<Option<Step>, VectorError> {
        let fits = |named: &Named| named.model.same_as(&self.wanted);
        let Some(current) = &state.current else {
            return Ok(Some(Step::Begin));
        };
        let wanted = state.rebuild.is_some() || !fits(current);
        if let Some(next) = &state.next {
            let kept = if fits(next) {
                wanted
            } else {
                self.is_kept(next).await?
            };
            return Ok((!kept).then_some(Step::GiveUp));
        }
        let was_replaced = current.replaces.contains(&self.wanted.revision);
        if !wanted || (was_replaced && self.is_kept(current).await?) {
            return Ok(None);
        }
        Ok(Some(Step::Begin))
    }

    /// Whether another process that wants a store's model is at work.
    async fn is_kept(&self, named: &Named) -> Result<bool, VectorError> {
        let pulse = self.stores.pulse(&named.name).await?;
        Ok(pulse.is_some_and(|pulse| self.pulses.is_beating(&named.name, pulse)))
    }

    async fn take(&self, step: Step) -> Result<(), VectorError> {
        match step {
            Step::GiveUp => {
                tracing::info!("nobody fills the new vector store any more: it is given up");
                self.stores.give_up().await
            }
            Step::Begin => {
                let _nothing_is_tidied = self.changing.lock().await;
                self.stores.begin(&self.wanted).await?;
                failpoint::hit("embeddings.after_create");
                Ok(())
            }
        }
    }

    /// The next store, if its model is the one that this process wants: otherwise another process fills it.
    pub(crate) fn next_of<'a>(&self, state: &'a State) -> Option<&'a Named> {
        let next = state.next.as_ref();
        next.filter(|next| next.model.same_as(&self.wanted))
    }

    /// Waits until something else is written than `state`, or something is left to do.
    pub(crate) async fn changed(&self, state: &State) {
        loop {
            sleep(LOOK).await;
            match self.differs(state).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(error = chain(&error), "vector stores are looked at later");
                }
            }
        }
    }

    async fn differs(&self, state: &State) -> Result<bool, VectorError> {
        let now = self.stores.state().await?;
        Ok(now != *state || self.step(&now).await?.is_some())
    }
}

/// Says until shutdown that a process which wants this model is at work.
pub(crate) async fn beat(stores: Arc<dyn Stores>, wanted: EmbeddingModel, shutdown: Shutdown) {
    let beating = async {
        loop {
            if let Err(error) = beat_once(stores.as_ref(), &wanted).await {
                tracing::debug!(error = chain(&error), "others are told later");
            }
            sleep(BEAT).await;
        }
    };
    tokio::select! {
        () = beating => {}
        () = shutdown.cancelled() => {}
    }
}

async fn beat_once(stores: &dyn Stores, wanted: &EmbeddingModel) -> Result<(), VectorError> {
    let state = stores.state().await?;
    for named in [state.current, state.next].into_iter().flatten() {
        if named.model.same_as(wanted) {
            stores.beat(&named.name).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Pulses, SILENT};

    #[test]
    fn who_says_nothing_for_many_looks_is_gone() {
        let pulses = Pulses::default();
        let looks =
            |pulse: &str, times: u32| (0..times).all(|_| pulses.is_beating("a", pulse.to_owned()));
        assert!(looks("", SILENT));
        assert!(!looks("", 1));
        assert!(looks("1", SILENT) && looks("2", SILENT));
        assert!(pulses.is_beating("b", "2".to_owned()));
        assert!(!looks("2", 1));
    }
}
