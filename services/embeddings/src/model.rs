//! The embedder for async callers: a few texts at a time, in turn, so that a search waits for some texts of a batch and not
//! for all of it.

use std::sync::Arc;

use sightline_inference::{Embedder, InferenceError};
use thiserror::Error;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::{JoinError, spawn_blocking};

/// Texts of one turn: some 50 ms on one core with all-MiniLM-L6-v2.
const TURN: usize = 8;

/// Texts that could not be embedded.
#[derive(Debug, Error)]
pub(crate) enum EmbedError {
    /// The model failed.
    #[error(transparent)]
    Model(#[from] InferenceError),
    /// The model panicked.
    #[error("the embedding model panicked")]
    Panicked(#[from] JoinError),
}

/// The embedder, which blocks and takes one caller at a time.
pub(crate) struct Model {
    embedder: Arc<dyn Embedder>,
    turn: Arc<Mutex<()>>,
}

impl Model {
    pub(crate) fn new(embedder: Arc<dyn Embedder>) -> Self {
        Self {
            embedder,
            turn: Arc::default(),
        }
    }

    /// The right to use the embedder; handed on in the order of asking. It is held while the model works, whoever still waits.
    pub(crate) async fn turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }

    /// The embedder, for whoever has the turn.
    pub(crate) fn embedder(&self) -> Arc<dyn Embedder> {
        Arc::clone(&self.embedder)
    }

    /// The model's revision.
    pub(crate) fn revision(&self) -> &str {
        self.embedder.revision()
    }

    /// One vector for each text, in order.
    pub(crate) async fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, EmbedError> {
        let mut vectors = Vec::with_capacity(texts.len());
        for some in texts.chunks(TURN) {
            let turn = self.turn().await;
            let (embedder, some) = (self.embedder(), some.to_vec());
            let embedding = spawn_blocking(move || {
                let _turn = turn;
                embedder.embed(&some)
            });
            vectors.extend(embedding.await??);
        }
        Ok(vectors)
    }

    /// Whether the model does its work at all.
    pub(crate) async fn works(&self) -> bool {
        self.embed(&["does it work".to_owned()]).await.is_ok()
    }
}
