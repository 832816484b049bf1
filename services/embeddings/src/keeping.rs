//! Which stores are open, and what has to happen to them: a new one is made when the model is another one or somebody wishes it,
//! filled beside the one in use (`filling`), and takes its place. Other processes on the same server may do the same at the
//! same time, so what is written is looked at again and again, and followed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use sightline_bus::StreamName;
use sightline_inference::Embedder;
use sightline_service::{Shutdown, chain, failpoint};
use sightline_vectors::{EmbeddingModel, Named, State, Stores, VectorError};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};

use crate::deciding::Pulses;
use crate::filling::Filling;
use crate::handover::hand_over;
use crate::serving::{Open, Serving};
use crate::side::{Ended, Side};
use crate::{Config, Error, Loader, MODEL, Parts, intake};

/// How long to wait when something failed, or a new store was not quick enough to take its place, doubled each time …
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// … up to this, so that a store which can't keep up does not hold up the one in use.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long judging what the store before has not got to may take, where that is closed.
const HAND_OVER: Duration = Duration::from_secs(30);
/// How long until a store that could not be opened is tried again.
const AGAIN: Duration = Duration::from_secs(10);
/// How long a store that was replaced stays: others may still be searching it.
const LEAVE: Duration = Duration::from_secs(3);
/// How often to look for consumers of stores that are gone.
const TIDY: Duration = Duration::from_secs(60);

/// What keeping stores takes.
pub(crate) struct Keeping {
    pub(crate) config: Config,
    pub(crate) parts: Parts,
    pub(crate) wanted: EmbeddingModel,
    pub(crate) embedder: Arc<dyn Embedder>,
    pub(crate) stores: Arc<dyn Stores>,
    pub(crate) loader: Loader,
    pub(crate) serving: Arc<Serving>,
    /// Held while a store is made, which nothing names yet, and while such stores are removed.
    pub(crate) changing: Arc<Mutex<()>>,
    /// What other processes said.
    pub(crate) pulses: Pulses,
    /// Nothing new is begun after it.
    pub(crate) stop: Shutdown,
}

/// The stores that are open, by name.
pub(crate) struct Keeper {
    keeping: Keeping,
    sides: HashMap<String, Side>,
    ended: mpsc::Sender<Ended>,
    ends: Option<mpsc::Receiver<Ended>>,
}

impl Keeper {
    /// Opens what is to be open, made where it is missing. Something answers from then on.
    ///
    /// # Errors
    /// When the store in use can't be opened, and no other is there to take its place.
    pub(crate) async fn open(keeping: Keeping) -> Result<(Self, State), Error> {
        let (ended, ends) = mpsc::channel(1);
        let mut keeper = Self {
            keeping,
            sides: HashMap::new(),
            ended,
            ends: Some(ends),
        };
        let state = keeper.keeping.decide().await?;
        keeper.adopt(&state).await?;
        Ok((keeper, state))
    }

    /// Keeps stores as they are to be until shutdown.
    ///
    /// # Errors
    /// When observations can't be taken from the bus.
    pub(crate) async fn run(mut self, mut state: State) -> Result<(), Error> {
        let mut ends = self.ends.take();
        let mut tidy = interval(TIDY);
        // What is removed in the background.
        let mut cleaning = JoinSet::new();
        let ended = 'kept: loop {
            {
                // Tidying does not begin the filling anew.
                let (changed, filled) = (self.keeping.changed(&state), self.fill(&state));
                tokio::pin!(changed, filled);
                loop {
                    tokio::select! {
                        () = self.keeping.stop.cancelled() => break 'kept None,
                        ended = next_end(&mut ends) => break 'kept Some(ended),
                        _ = tidy.tick() => self.clean_up(&state, &mut cleaning),
                        () = &mut changed => break,
                        () = &mut filled => break,
                    }
                }
            }
            self.follow(&mut state).await;
            self.clean_up(&state, &mut cleaning);
        };
        self.keeping.serving.clear();
        // It has the stores' place, which the next process wants.
        cleaning.shutdown().await;
        join_all(self.sides.drain().map(|(_, side)| side.close())).await;
        match ended {
            None => Ok(()),
            Some(Ended::Bus(error)) => Err(error.into()),
            Some(Ended::Panicked(panic)) => std::panic::resume_unwind(panic),
        }
    }

    /// Does what is written now.
    async fn follow(&mut self, state: &mut State) {
        if let Err(error) = self.try_to_follow(state).await {
            tracing::warn!(
                error = chain(&error),
                "the vector stores stay as they are for now"
            );
            sleep(FIRST_PAUSE).await;
        }
    }

    async fn try_to_follow(&mut self, state: &mut State) -> Result<(), VectorError> {
        let seen = self.keeping.decide().await?;
        self.adopt(&seen).await?;
        *state = seen;
        Ok(())
    }

    /// Opens and closes stores until those of `state` are open. After shutdown all stay as they are, to be closed.
    async fn adopt(&mut self, state: &State) -> Result<(), VectorError> {
        let stop = self.keeping.stop.clone();
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            opened = self.open_sides(state) => opened?,
        }
        let names = [state.current.as_ref(), self.keeping.next_of(state)];
        let names = names.map(|named| named.map(|named| named.name.clone()));
        let [current, next] = names.clone();
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = self.hand_over(current.as_deref(), &names) => {}
        }
        self.answer(current.as_deref(), next.as_deref());
        let gone = self
            .sides
            .extract_if(|name, _| !names.contains(&Some(name.clone())));
        let gone: Vec<Side> = gone.map(|(_, side)| side).collect();
        join_all(gone.into_iter().map(Side::close)).await;
        Ok(())
    }

    async fn open_sides(&mut self, state: &State) -> Result<(), VectorError> {
        let next = self.keeping.next_of(state).cloned();
        if let Some(next) = &next {
            self.open_side(next).await?;
        }
        if let Some(current) = &state.current
            && let Err(error) = self.open_side(current).await
        {
            if next.is_none() {
                return Err(error);
            }
            tracing::error!(
                error = chain(&error),
                name = current.name,
                "the vector store in use can't be opened: search answers from what the new one has so far; it is tried again, and removing it goes on without it"
            );
        }
        Ok(())
    }

    /// Removes stores that are neither in use nor to be, and the bus's consumers of all that are not open, in the background.
    fn clean_up(&self, state: &State, cleaning: &mut JoinSet<()>) {
        let named = [&state.current, &state.next].into_iter().flatten();
        let open = named.filter_map(|named| {
            let side = self.sides.get(&named.name)?;
            Some((named.name.clone(), side.durables()))
        });
        let open = open.collect();
        while cleaning.try_join_next().is_some() {}
        cleaning.spawn(self.keeping.clean_up(open));
    }

    async fn open_side(&mut self, named: &Named) -> Result<(), VectorError> {
        if self.sides.contains_key(&named.name) {
            return Ok(());
        }
        let side = self.keeping.side(named, &self.ended).await?;
        self.sides.insert(named.name.clone(), side);
        Ok(())
    }

    /// Has the store in use judge, after the one that did and is gone now.
    async fn hand_over(&self, current: Option<&str>, names: &[Option<String>]) {
        let Some(new) = current.and_then(|name| self.sides.get(name)) else {
            return;
        };
        for (name, old) in &self.sides {
            let judged = old.whole && old.shared.leads() && !names.contains(&Some(name.clone()));
            if !judged || !new.whole {
                continue;
            }
            let handed = timeout(HAND_OVER, hand_over(&old.shared, &new.shared)).await;
            if !matches!(handed, Ok(Ok(()))) {
                tracing::warn!(?handed, "some batches of transcripts may be left unjudged");
            }
        }
    }

    /// Which stores answer from now on.
    fn answer(&self, current: Option<&str>, next: Option<&str>) {
        let side = |name: Option<&str>| self.sides.get(name?);
        if let Some((open, whole)) = open_of(side(current), side(next)) {
            self.keeping.serving.set(open);
            // Another process may have the model, and answer what is searched.
            self.keeping.parts.readiness.set(MODEL, whole);
        }
    }

    /// Fills the next store, if there is one, and makes it the one in use. Otherwise it never ends.
    async fn fill(&self, state: &State) {
        let next = self.keeping.next_of(state);
        let Some((named, new)) = next.and_then(|n| Some((n, self.sides.get(&n.name)?))) else {
            return std::future::pending().await;
        };
        let old = state.current.as_ref();
        let is_there = |named: &&Named| !named.model.revision.is_empty();
        let unread = |named: &Named| !self.sides.contains_key(&named.name);
        if old.filter(is_there).is_some_and(unread) {
            // What it has must not be left behind because it could not be read once.
            return sleep(AGAIN).await;
        }
        let old = old.and_then(|named| self.sides.get(&named.name));
        let filling = Filling {
            stores: self.keeping.stores.as_ref(),
            old: old.map(|old| &old.shared),
            new: &new.shared,
            copy_before_us: state.rebuild.and_then(|rebuild| rebuild.from_us),
        };
        let mut told = filling.copy().await;
        let whole = Filling {
            old: old.filter(|old| old.whole).map(|old| &old.shared),
            ..filling
        };
        let answer = || self.answer(Some(&named.name), None);
        let mut pause = FIRST_PAUSE;
        loop {
            whole.catch_up(&mut told).await;
            match whole.switch(&named.name, answer).await {
                Ok(true) => break,
                Ok(false) => tracing::info!("the new vector store has to catch up first"),
                Err(error) => tracing::warn!(error = chain(&error), "the switch is tried again"),
            }
            // The one in use goes on meanwhile.
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        tracing::info!(name = named.name, "the new vector store is in use");
    }
}

async fn next_end(ends: &mut Option<mpsc::Receiver<Ended>>) -> Ended {
    let next = async { ends.as_mut()?.recv().await };
    match next.await {
        Some(ended) => ended,
        None => std::future::pending().await,
    }
}

/// What answers with these sides open, and whether it can be searched.
fn open_of(current: Option<&Side>, next: Option<&Side>) -> Option<(Open, bool)> {
    let shared = |side: &Side| Arc::clone(&side.shared);
    let all: Vec<_> = [current, next].into_iter().flatten().map(shared).collect();
    let (search, listed) = match (current, next) {
        (Some(current), Some(next)) if !current.whole => (next, all.clone()),
        (Some(side), _) | (None, Some(side)) => (side, vec![shared(side)]),
        (None, None) => return None,
    };
    let open = Open {
        search: shared(search),
        listed,
        all,
    };
    Some((open, search.whole))
}

impl Keeping {
    /// Removes stores that nothing names, and consumers but for those of the stores that are open. If one is named that is not
    /// open here, none is: another process's look idle from here.
    fn clean_up(&self, open: HashMap<String, Vec<String>>) -> impl Future<Output = ()> + use<> {
        let (stores, bus) = (Arc::clone(&self.stores), self.parts.bus.clone());
        let changing = Arc::clone(&self.changing);
        async move {
            sleep(LEAVE).await;
            let tidied = {
                let _nothing_is_begun = changing.lock().await;
                stores.tidy().await
            };
            match tidied {
                Ok(0) => {}
                Ok(removed) => {
                    failpoint::hit("embeddings.after_remove");
                    tracing::info!(removed, "old vector stores are removed");
                }
                Err(error) => {
                    tracing::warn!(
                        error = chain(&error),
                        "an old vector store is left for later"
                    );
                }
            }
            // What was begun meanwhile is named now.
            let named = match stores.state().await {
                Ok(state) => [state.current, state.next].into_iter().flatten(),
                Err(error) => {
                    tracing::debug!(error = chain(&error), "consumers are looked through later");
                    return;
                }
            };
            if named
                .into_iter()
                .any(|named| !open.contains_key(&named.name))
            {
                return;
            }
            let keep: Vec<String> = open.into_values().flatten().collect();
            let prefix = intake::DURABLE_PREFIX;
            let removing = bus.remove_idle_consumers(StreamName::Observations, prefix, &keep);
            match removing.await {
                Ok(removed) if removed.is_empty() => {}
                Ok(removed) => {
                    tracing::info!(?removed, "consumers of stores that are gone are removed");
                }
                Err(error) => tracing::debug!(%error, "consumers are looked through later"),
            }
        }
    }
}
