//! Where stores are: the one in use, and the one that is filled to take its place when the model changes or somebody asks for it.
//!
//! What is written here, and in which order, decides what a killed process leaves behind: [`Stores::switch`] is the one moment
//! from which on the new store is the one in use, and whatever is neither in use nor to be is removed by [`Stores::tidy`].

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::{EmbeddingModel, VectorError, VectorStore};

/// A store that can be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Its name among the stores of one place.
    pub name: String,
    /// The model whose vectors it holds; one without a revision where that can't be told.
    pub model: EmbeddingModel,
    /// Revisions of the models whose stores were in use before it, so that one of these is not taken for a newer one.
    pub replaces: Vec<String>,
}

/// Somebody's wish that the store in use be built anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuild {
    /// What starts from here on comes from OBSERVATIONS alone, in microseconds since the Unix epoch; what starts before is also
    /// copied from the store in use. None: everything is copied as well.
    pub from_us: Option<i64>,
}

/// How far the next store is filled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Records and observations that have been taken over.
    pub done: u64,
    /// How many there are of them, as far as is known yet.
    pub total: u64,
}

/// What stores there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    /// The store in use; none before the first one is made.
    pub current: Option<Named>,
    /// The one that is to take its place.
    pub next: Option<Named>,
    /// Set while somebody's wish to have the one in use built anew is not fulfilled.
    pub rebuild: Option<Rebuild>,
}

/// A place for stores.
#[async_trait]
pub trait Stores: Send + Sync {
    /// What stores there are.
    async fn state(&self) -> Result<State, VectorError>;

    /// Makes an empty store: the one in use if there is none yet, otherwise the next one.
    ///
    /// # Errors
    /// `Foreign` when something that is not ours has its name.
    async fn begin(&self, model: &EmbeddingModel) -> Result<(), VectorError>;

    /// Opens a store, and notes where its model is now.
    async fn open(&self, named: &Named) -> Result<Arc<dyn VectorStore>, VectorError>;

    /// Makes the next store, which has this name, the one in use. Doing it again does nothing.
    async fn switch(&self, next: &str) -> Result<(), VectorError>;

    /// Gives up the next store.
    async fn give_up(&self) -> Result<(), VectorError>;

    /// Removes every store that is neither in use nor to be, which nobody has open any more. Returns how many there were.
    async fn tidy(&self) -> Result<usize, VectorError>;

    /// Tells other processes that one which wants the model of this store is at work. Does nothing where there can be no other.
    async fn beat(&self, _name: &str) -> Result<(), VectorError> {
        Ok(())
    }

    /// Something that [`Stores::beat`] changes; none where no other process can be at work.
    async fn pulse(&self, _name: &str) -> Result<Option<String>, VectorError> {
        Ok(None)
    }

    /// Wishes that the store in use be built anew. Whoever runs it sees that soon, or when it starts.
    ///
    /// # Errors
    /// `Invalid` when there is no store.
    async fn ask(&self, rebuild: Rebuild) -> Result<(), VectorError>;

    /// Notes how far the next store is filled, for those who watch from elsewhere.
    async fn note(&self, progress: Progress) -> Result<(), VectorError>;

    /// What was noted last; none if nothing was, or if there is no next store.
    async fn progress(&self) -> Result<Option<Progress>, VectorError>;
}

/// A new store's name: it carries the model, so that people see which is which.
pub(crate) fn new_name(model: &EmbeddingModel) -> String {
    let sound = |c: char| c.is_ascii_alphanumeric();
    let revision: String = model.revision.chars().filter(|c| sound(*c)).collect();
    let unique = uuid::Uuid::new_v4().simple().to_string();
    format!("{}-{}", &revision[..revision.len().min(32)], &unique[..8])
}

/// Whether a name was made by [`new_name`].
pub(crate) fn is_name(name: &str) -> bool {
    name.split_once('-').is_some_and(|(revision, unique)| {
        unique.len() == 8
            && unique.bytes().all(|c| c.is_ascii_hexdigit())
            && revision.bytes().all(|c| c.is_ascii_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_carry_the_model_and_are_known_again() {
        for (revision, expected) in [
            ("0123456789abcdef", "0123456789abcdef-"),
            ("http://host:1/v1 m.2", "httphost1v1m2-"),
            ("", "-"),
        ] {
            let model = EmbeddingModel {
                revision: revision.to_owned(),
                dimension: 3,
                source: String::new(),
            };
            let name = new_name(&model);
            assert!(name.starts_with(expected) && is_name(&name), "{name}");
            assert_ne!(name, new_name(&model));
        }
        for other in ["current", "next", "a-b", "test-0123-01234567", "a-0123456x"] {
            assert!(!is_name(other), "{other}");
        }
    }
}
