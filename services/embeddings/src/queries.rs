//! Queries into vectors: those that wait at the same time are read together, which takes half as long for each, and what was asked
//! before is not read again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sightline_inference::{Embedder, InferenceError};
use thiserror::Error;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use crate::model::Model;

/// Queries that are read together at most; further ones wait for the next turn. The more there are, the longer each takes.
const TOGETHER: usize = 16;
/// Queries whose vectors are kept; the oldest goes first. 512 vectors of 384 numbers are 0.8 MB.
const KEPT: usize = 512;

/// A query that could not be embedded.
#[derive(Debug, Clone, Error)]
pub(crate) enum QueryError {
    /// The model failed.
    #[error(transparent)]
    Model(Arc<InferenceError>),
    /// The model panicked, or gave fewer vectors than there were texts.
    #[error("the embedding model gave no vector")]
    Nothing,
}

type Vector = Arc<Vec<f32>>;

/// Embeds queries.
#[derive(Default)]
pub(crate) struct Queries(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// As many as there are calls that wait.
    waiting: VecDeque<Waiting>,
    kept: HashMap<String, Vector>,
    /// The keys of `kept`, oldest first.
    order: VecDeque<String>,
}

struct Waiting {
    query: String,
    answer: oneshot::Sender<Result<Vector, QueryError>>,
}

impl Queries {
    /// The vector of a query.
    pub(crate) async fn embed(&self, model: &Model, query: String) -> Result<Vector, QueryError> {
        let (answer, mut answered) = oneshot::channel();
        {
            let mut state = lock(&self.0);
            if let Some(vector) = state.kept.get(&query) {
                return Ok(Arc::clone(vector));
            }
            state.waiting.push_back(Waiting { query, answer });
        }
        loop {
            // Whoever's turn it is reads for those who wait longest: mostly the answer is there before one's own turn.
            let turn = tokio::select! {
                biased;
                vector = &mut answered => return vector.unwrap_or(Err(QueryError::Nothing)),
                turn = model.turn() => turn,
            };
            let (state, embedder) = (Arc::clone(&self.0), model.embedder());
            // It goes on for the others when this caller goes away.
            let reading = spawn_blocking(move || {
                let _turn = turn;
                read(&state, embedder.as_ref());
            });
            if let Err(error) = reading.await {
                tracing::error!(%error, "the embedding model panicked");
            }
        }
    }
}

/// Reads some of the queries that wait, and answers all who asked for them.
fn read(state: &Mutex<State>, embedder: &dyn Embedder) {
    let mut asked = lock(state).take();
    let texts: Vec<String> = asked.keys().cloned().collect();
    if texts.is_empty() {
        return;
    }
    for (text, vector) in texts.iter().zip(vectors(&texts, embedder)) {
        for answer in asked.remove(text).into_iter().flatten() {
            let _ = answer.send(vector.clone());
        }
        if let Ok(vector) = vector {
            lock(state).keep(text.clone(), vector);
        }
    }
}

/// A vector for each text; where the model fails at several, each is tried alone, so that one bad query costs no other.
fn vectors(texts: &[String], embedder: &dyn Embedder) -> Vec<Result<Vector, QueryError>> {
    match embedder.embed_queries(texts) {
        Ok(vectors) if vectors.len() == texts.len() => {
            vectors.into_iter().map(|v| Ok(Arc::new(v))).collect()
        }
        Ok(_) => vec![Err(QueryError::Nothing); texts.len()],
        Err(_) if texts.len() > 1 => {
            let alone = texts.chunks(1).flat_map(|one| vectors(one, embedder));
            alone.collect()
        }
        Err(error) => vec![Err(QueryError::Model(Arc::new(error)))],
    }
}

type Answers = Vec<oneshot::Sender<Result<Vector, QueryError>>>;

impl State {
    /// The queries that wait longest, each with all who ask for it; who went away asks no more.
    fn take(&mut self) -> HashMap<String, Answers> {
        self.waiting.retain(|waiting| !waiting.answer.is_closed());
        let mut taken: HashMap<String, Answers> = HashMap::new();
        let mut left = VecDeque::new();
        for waiting in self.waiting.drain(..) {
            if taken.len() < TOGETHER || taken.contains_key(&waiting.query) {
                taken.entry(waiting.query).or_default().push(waiting.answer);
            } else {
                left.push_back(waiting);
            }
        }
        self.waiting = left;
        taken
    }

    fn keep(&mut self, query: String, vector: Vector) {
        if self.kept.insert(query.clone(), vector).is_none() {
            self.order.push_back(query);
        }
        if self.order.len() > KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.kept.remove(&oldest);
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives the length of each text, and notes how many it was given at a time.
    #[derive(Default)]
    struct Lengths(Mutex<Vec<usize>>);

    impl Embedder for Lengths {
        fn revision(&self) -> &str {
            "lengths"
        }

        fn dimension(&self) -> usize {
            1
        }

        fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, InferenceError> {
            let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            given.push(texts.len());
            Ok(texts.iter().map(|text| vec![text.len() as f32]).collect())
        }
    }

    #[tokio::test]
    async fn queries_that_wait_are_read_together_and_once() {
        let embedder = Arc::new(Lengths::default());
        let model = Arc::new(Model::new(embedder.clone()));
        let queries = Arc::new(Queries::default());
        // Forty callers with twenty queries wait while the model is busy.
        let busy = model.turn().await;
        let asking: Vec<_> = (0..40)
            .map(|n| {
                let (queries, model) = (Arc::clone(&queries), Arc::clone(&model));
                tokio::spawn(async move { queries.embed(&model, "x".repeat(n % 20 + 1)).await })
            })
            .collect();
        while lock(&queries.0).waiting.len() < 40 {
            tokio::task::yield_now().await;
        }
        drop(busy);
        for (n, asked) in asking.into_iter().enumerate() {
            let vector = asked.await.expect("no panic").expect("a vector");
            assert_eq!(*vector, [(n % 20 + 1) as f32]);
        }
        let again = queries.embed(&model, "x".to_owned()).await;
        assert_eq!(*again.expect("kept"), [1.0]);
        let given = embedder.0.lock().expect("not poisoned").clone();
        assert_eq!(given, [TOGETHER, 20 - TOGETHER], "texts of each turn");
    }
}
