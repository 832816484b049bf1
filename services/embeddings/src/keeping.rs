//! Which stores are open, and what has to happen to them: a new one is made when the model is another one or somebody wishes it,
//! filled beside the one in use (`filling`), and takes its place. Other processes on the same server may do the same at the
//! same time, so what is written is looked at again and again, and followed.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use sightline_bus::{BusError, StreamName};
use sightline_inference::Embedder;
use sightline_service::{Shutdown, chain, failpoint};
use sightline_vectors::{EmbeddingModel, Named, State, Stores, VectorError};
use tokio::sync::{Mutex, mpsc};
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{Instant, interval, sleep};

use crate::filling::Filling;
use crate::serving::{Gone, Open, Serving, Shared};
use crate::{Config, Error, KINDS, Loader, Parts, intake};

/// How often is looked what has changed.
const LOOK: Duration = Duration::from_secs(1);
/// How long until a store that could not be opened is tried again.
const AGAIN: Duration = Duration::from_secs(10);
/// How long a store that was replaced stays: others may still be searching it.
const LEAVE: Duration = Duration::from_secs(3);
/// How long calls may still have it; none takes longer.
const DRAIN: Duration = Duration::from_secs(15);
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
}

/// A store that is open, and who fills it.
struct Side {
    shared: Arc<Shared>,
    /// Whether its model is there.
    whole: bool,
    stop: Shutdown,
    intakes: Vec<JoinHandle<()>>,
}

/// Why taking observations ended.
enum Ended {
    Bus(BusError),
    Panicked(Box<dyn Any + Send>),
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
    pub(crate) async fn run(mut self, mut state: State, shutdown: Shutdown) -> Result<(), Error> {
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
                        () = shutdown.cancelled() => break 'kept None,
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
        for (_, side) in self.sides.drain() {
            side.close().await;
        }
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
            sleep(LOOK).await;
        }
    }

    async fn try_to_follow(&mut self, state: &mut State) -> Result<(), VectorError> {
        let mut seen = self.keeping.stores.state().await?;
        if seen.rebuild.is_some() && seen.next.is_none() {
            self.keeping.begin().await?;
            seen = self.keeping.stores.state().await?;
        }
        self.adopt(&seen).await?;
        *state = seen;
        Ok(())
    }

    /// Opens and closes stores until those of `state` are open.
    async fn adopt(&mut self, state: &State) -> Result<(), VectorError> {
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
        let names = [state.current.as_ref(), next.as_ref()];
        let names = names.map(|named| named.map(|named| named.name.clone()));
        let [current, next] = names.clone();
        self.answer(current.as_deref(), next.as_deref());
        let gone = self
            .sides
            .extract_if(|name, _| !names.contains(&Some(name.clone())));
        let gone: Vec<Side> = gone.map(|(_, side)| side).collect();
        for side in gone {
            side.close().await;
        }
        Ok(())
    }

    /// Removes stores that are neither in use nor to be, and the bus's consumers of all that are not open, in the background.
    fn clean_up(&self, state: &State, cleaning: &mut JoinSet<()>) {
        let named = [&state.current, &state.next].into_iter().flatten();
        let mut consumers = Some(Vec::new());
        for named in named {
            // What another process fills has consumers that look idle from here.
            let durables = self.sides.get(&named.name).map(Side::durables);
            consumers = consumers.zip(durables).map(|(mut all, more)| {
                all.extend(more);
                all
            });
        }
        while cleaning.try_join_next().is_some() {}
        cleaning.spawn(self.keeping.clean_up(consumers));
    }

    async fn open_side(&mut self, named: &Named) -> Result<(), VectorError> {
        if self.sides.contains_key(&named.name) {
            return Ok(());
        }
        let side = self.keeping.side(named, &self.ended).await?;
        self.sides.insert(named.name.clone(), side);
        Ok(())
    }

    /// Which stores answer from now on.
    fn answer(&self, current: Option<&str>, next: Option<&str>) {
        let side = |name: Option<&str>| self.sides.get(name?);
        if let Some(open) = open_of(side(current), side(next)) {
            self.keeping.serving.set(open);
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
        filling.fill().await;
        let whole = Filling {
            old: old.filter(|old| old.whole).map(|old| &old.shared),
            ..filling
        };
        let answer = || self.answer(Some(&named.name), None);
        loop {
            match whole.switch(&named.name, answer).await {
                Ok(true) => break,
                Ok(false) => tracing::info!("the new vector store has to catch up first"),
                Err(error) => tracing::warn!(error = chain(&error), "the switch is tried again"),
            }
            sleep(LOOK).await;
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

/// What answers with these sides open.
fn open_of(current: Option<&Side>, next: Option<&Side>) -> Option<Open> {
    let shared = |side: &Side| Arc::clone(&side.shared);
    let all: Vec<_> = [current, next].into_iter().flatten().map(shared).collect();
    let (search, listed) = match (current, next) {
        (Some(current), Some(next)) if !current.whole => (next, all.clone()),
        (Some(side), _) | (None, Some(side)) => (side, vec![shared(side)]),
        (None, None) => return None,
    };
    Some(Open {
        search: shared(search),
        listed,
        all,
    })
}

impl Keeping {
    /// Makes what is missing at the start.
    async fn decide(&self) -> Result<State, VectorError> {
        let mut state = self.stores.state().await?;
        if state.current.is_none() {
            self.begin().await?;
            state = self.stores.state().await?;
        }
        let fits = |named: &Named| named.model.same_as(&self.wanted);
        let wanted = state.rebuild.is_some() || !state.current.as_ref().is_some_and(fits);
        if state
            .next
            .as_ref()
            .is_some_and(|next| !wanted || !fits(next))
        {
            self.stores.give_up().await?;
            state.next = None;
        }
        if wanted && state.next.is_none() {
            self.begin().await?;
        }
        self.stores.state().await
    }

    async fn begin(&self) -> Result<(), VectorError> {
        let _nothing_is_tidied = self.changing.lock().await;
        self.stores.begin(&self.wanted).await?;
        failpoint::hit("embeddings.after_create");
        Ok(())
    }

    /// The next store, if its model is the one that this process has: with another one, another process fills it.
    fn next_of<'a>(&self, state: &'a State) -> Option<&'a Named> {
        state
            .next
            .as_ref()
            .filter(|next| next.model.same_as(&self.wanted))
    }

    /// Waits until something else is written than `state`, or something is left to do.
    async fn changed(&self, state: &State) {
        loop {
            sleep(LOOK).await;
            match self.stores.state().await {
                Ok(now) if now != *state || (now.rebuild.is_some() && now.next.is_none()) => {
                    return;
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(error = chain(&error), "vector stores are looked at later");
                }
            }
        }
    }

    /// Opens a store and begins to fill it from the bus.
    async fn side(&self, named: &Named, ended: &mpsc::Sender<Ended>) -> Result<Side, VectorError> {
        let mut named = named.clone();
        let embedder = if named.model.same_as(&self.wanted) {
            named.model.source.clone_from(&self.wanted.source);
            Some(Arc::clone(&self.embedder))
        } else {
            self.load(&named.model).await
        };
        let store = self.stores.open(&named).await?;
        let whole = embedder.is_some();
        let embedder = embedder.unwrap_or_else(|| Arc::new(Gone(named.model.revision.clone())));
        let shared = Shared::new(self.config.clone(), self.parts.clone(), embedder, store);
        let shared = Arc::new(shared);
        let stop = Shutdown::new();
        let intakes = KINDS.into_iter().filter(|_| whole).map(|kind| {
            let intake = intake::run(Arc::clone(&shared), kind, stop.clone());
            watched(tokio::spawn(intake), ended.clone())
        });
        Ok(Side {
            intakes: intakes.collect(),
            shared,
            whole,
            stop,
        })
    }

    /// The model of a store of another one.
    async fn load(&self, model: &EmbeddingModel) -> Option<Arc<dyn Embedder>> {
        let (loader, of) = (Arc::clone(&self.loader), model.clone());
        let loaded = spawn_blocking(move || loader(&of)).await.ok().flatten();
        let fits = |embedder: &Arc<dyn Embedder>| embedder.revision() == model.revision;
        let loaded = loaded.filter(fits);
        if loaded.is_none() {
            tracing::warn!(
                model = model.revision,
                source = model.source,
                "the embedding model of the vector store in use is gone: until the new store is filled, search finds what it has so far"
            );
        }
        loaded
    }

    /// Consumers that are not kept are removed, if it is known which are.
    fn clean_up(&self, keep: Option<Vec<String>>) -> impl Future<Output = ()> + use<> {
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
            let Some(keep) = keep else { return };
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

impl Side {
    fn durables(&self) -> Vec<String> {
        let identity = self.shared.store.identity();
        KINDS.map(|kind| intake::durable(kind, identity)).to_vec()
    }

    /// Takes no more, and closes the store when the last call has its answer.
    async fn close(mut self) {
        self.stop.cancel();
        for intake in &mut self.intakes {
            let _ = intake.await;
        }
        let until = Instant::now() + DRAIN;
        while Arc::strong_count(&self.shared) > 1 && Instant::now() < until {
            sleep(Duration::from_millis(20)).await;
        }
        // Closing waits for what is being written.
        let _ = spawn_blocking(move || drop(self)).await;
    }
}

/// Passes on how a task ends, unless it was told to.
fn watched(task: JoinHandle<Result<(), BusError>>, ended: mpsc::Sender<Ended>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let end = match task.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => Ended::Bus(error),
            Err(panicked) => Ended::Panicked(panicked.into_panic()),
        };
        let _ = ended.try_send(end);
    })
}
