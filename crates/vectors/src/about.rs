//! What a store says about itself, so that one with other vectors or of another release is told from one that fits.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{EmbeddingModel, Named, VectorError};

/// Changes when a store of an older release can't be used.
const FORMAT: u32 = 1;

/// Written when a store is complete.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct About {
    format: u32,
    pub(crate) identity: String,
    model: String,
    dimension: u64,
    /// Where the model was loaded from.
    #[serde(default)]
    source: String,
    /// Revisions of the models that were in use in its place before.
    #[serde(default)]
    pub(crate) replaces: Vec<String>,
}

impl About {
    /// Of a store that is being made.
    pub(crate) fn new(model: &EmbeddingModel) -> Self {
        Self {
            format: FORMAT,
            identity: Uuid::new_v4().simple().to_string(),
            model: model.revision.clone(),
            dimension: model.dimension as u64,
            source: model.source.clone(),
            replaces: Vec::new(),
        }
    }

    /// Takes note of whose place it is to take.
    pub(crate) fn replace(&mut self, current: &Self) {
        let before = current.replaces.iter().chain([&current.model]);
        let others = before.filter(|revision| **revision != self.model);
        self.replaces = others.cloned().collect();
    }

    /// The store as others name it.
    pub(crate) fn named(about: Option<Self>, name: String) -> Named {
        match about {
            Some(about) => Named {
                name,
                model: about.model(),
                replaces: about.replaces,
            },
            None => Named {
                name,
                model: EmbeddingModel {
                    revision: String::new(),
                    dimension: 0,
                    source: String::new(),
                },
                replaces: Vec::new(),
            },
        }
    }

    /// The model whose vectors the store holds.
    fn model(&self) -> EmbeddingModel {
        EmbeddingModel {
            revision: self.model.clone(),
            dimension: usize::try_from(self.dimension).unwrap_or(0),
            source: self.source.clone(),
        }
    }

    /// Takes note of where the model is now; whether that is new.
    pub(crate) fn moved(&mut self, model: &EmbeddingModel) -> bool {
        let moved = !model.source.is_empty() && self.source != model.source;
        if moved {
            self.source.clone_from(&model.source);
        }
        moved
    }

    /// Refuses the store at `place`, a folder or collection, unless it fits.
    pub(crate) fn check(&self, model: &EmbeddingModel, place: &str) -> Result<(), VectorError> {
        let problem = if self.format != FORMAT {
            format!("has format {}, and this release uses {FORMAT}", self.format)
        } else if self.dimension != model.dimension as u64 || self.model != model.revision {
            format!(
                "holds vectors of {} numbers by embedding model {}, and the model in use is {} with {}",
                self.dimension, self.model, model.revision, model.dimension
            )
        } else {
            return Ok(());
        };
        Err(VectorError::Mismatch {
            place: place.to_owned(),
            problem,
        })
    }
}
