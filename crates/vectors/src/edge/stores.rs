//! The stores of one data directory: a folder for each below the place, and `stores.json`, which says which is which.
//!
//! `stores.json` is replaced whole, and a folder is removed only when no line of it names it any more.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::stores::new_name;
use crate::{
    EmbeddingModel, Named, Progress, Rebuild, State, Stores, VectorError, VectorStore, about,
};

use super::EdgeStore;
use super::files::{self, ABOUT, Folder, open_failed, read_json, remove, write_json};

const INDEX: &str = "stores.json";
const REBUILD: &str = "rebuild.json";
const PROGRESS: &str = "progress.json";
/// The name of the store that an older release kept in the place itself.
const FIRST: &str = "first";

/// Which store is which.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Index {
    current: Option<String>,
    #[serde(default)]
    next: Option<String>,
}

/// The stores below a folder of this machine.
pub struct EdgeStores {
    root: PathBuf,
    /// None for who only looks and wishes.
    lock: Option<Folder>,
}

impl EdgeStores {
    /// Takes the place for this process, made if there is none.
    ///
    /// # Errors
    /// `Locked` while another process has it, `Open` when its files can't be used.
    pub fn lock(root: &Path) -> Result<Self, VectorError> {
        let lock = Folder::lock(root)?;
        let stores = Self {
            root: root.to_owned(),
            lock: Some(lock),
        };
        stores.adopt()?;
        Ok(stores)
    }

    /// Looks at a place that another process may have: its state can be read, and a wish be left there.
    #[must_use]
    pub fn look(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            lock: None,
        }
    }

    /// Whether a process has the place now.
    #[must_use]
    pub fn in_use(&self) -> bool {
        self.lock.is_some() || matches!(Folder::lock(&self.root), Err(VectorError::Locked { .. }))
    }

    /// Deletes every store below the place: the next one that is made there is empty and has another identity.
    ///
    /// # Errors
    /// `Locked` while a process has it, `Open` when it can't be deleted.
    pub fn delete(root: &Path) -> Result<(), VectorError> {
        let stores = Self::lock(root)?;
        stores.write(&Index::default())?;
        stores.remove_all_but(&Index::default()).map(drop)
    }

    /// Takes over the one store of an older release, which lay in the place itself.
    fn adopt(&self) -> Result<(), VectorError> {
        if !self.root.join(ABOUT).exists() {
            return Ok(());
        }
        if !self.root.join(INDEX).exists() {
            self.write(&Index {
                current: Some(FIRST.to_owned()),
                next: None,
            })?;
        }
        let to = self.root.join(FIRST);
        let moved = fs::create_dir_all(&to)
            .and_then(|()| remove(fs::rename(self.root.join("edge"), to.join("edge"))))
            .and_then(|()| fs::rename(self.root.join(ABOUT), to.join(ABOUT)));
        moved.map_err(|error| self.failed(error))
    }

    fn index(&self) -> Result<Index, VectorError> {
        let index = read_json(&self.root.join(INDEX));
        index
            .map(Option::unwrap_or_default)
            .map_err(|source| open_failed(&self.root, source))
    }

    fn write(&self, index: &Index) -> Result<(), VectorError> {
        write_json(&self.root.join(INDEX), index).map_err(|error| self.failed(error))
    }

    fn change(&self, change: impl FnOnce(&mut Index)) -> Result<(), VectorError> {
        let before = self.index()?;
        let mut index = before.clone();
        change(&mut index);
        if index == before {
            return Ok(());
        }
        self.write(&index)
    }

    /// A store by its name. One that is gone, or does not say what it is any more, holds vectors of nobody; one that can't be read
    /// now may be read later.
    fn named(&self, name: String) -> Result<Named, VectorError> {
        let about = match files::about(&self.root.join(&name)) {
            Err(VectorError::Open { source, .. }) if !source.is::<std::io::Error>() => {
                tracing::warn!(%source, name, "a vector store does not say what it holds");
                None
            }
            read => read?,
        };
        let model = about.as_ref().map(about::About::model);
        let model = model.unwrap_or_else(|| EmbeddingModel {
            revision: String::new(),
            dimension: 0,
            source: String::new(),
        });
        Ok(Named { name, model })
    }

    fn remove_all_but(&self, index: &Index) -> Result<usize, VectorError> {
        let mut removed = 0;
        let entries = fs::read_dir(&self.root).map_err(|error| self.failed(error))?;
        for entry in entries {
            let entry = entry.map_err(|error| self.failed(error))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let kept = [&index.current, &index.next];
            if entry.path().is_dir() && !kept.contains(&&Some(name)) {
                remove(fs::remove_dir_all(entry.path())).map_err(|error| self.failed(error))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn failed(&self, source: std::io::Error) -> VectorError {
        open_failed(&self.root, source.into())
    }
}

#[async_trait]
impl Stores for EdgeStores {
    async fn state(&self) -> Result<State, VectorError> {
        let Index { current, next } = self.index()?;
        let wish = current
            .as_ref()
            .map(|name| self.root.join(name).join(REBUILD));
        let rebuild = match wish {
            Some(file) => read_json(&file).map_err(|source| open_failed(&self.root, source))?,
            None => None,
        };
        Ok(State {
            current: current.map(|name| self.named(name)).transpose()?,
            next: next.map(|name| self.named(name)).transpose()?,
            rebuild,
        })
    }

    async fn begin(&self, model: &EmbeddingModel) -> Result<(), VectorError> {
        let name = new_name(model);
        let dir = self.root.join(&name);
        let made = EdgeStore::open(&dir, model.clone()).await?;
        // Closing it waits for its thread.
        let closed = spawn_blocking(move || drop(made)).await;
        closed.map_err(|error| open_failed(&dir, error.into()))?;
        self.change(|index| match index.current {
            None => index.current = Some(name),
            Some(_) => index.next = Some(name),
        })
    }

    async fn open(&self, named: &Named) -> Result<Arc<dyn VectorStore>, VectorError> {
        let dir = self.root.join(&named.name);
        if files::about(&dir)?.is_none() {
            return Err(open_failed(&dir, "it holds no store".into()));
        }
        Ok(Arc::new(EdgeStore::open(&dir, named.model.clone()).await?))
    }

    async fn switch(&self, next: &str) -> Result<(), VectorError> {
        self.change(|index| {
            if index.next.as_deref() == Some(next) {
                index.current = index.next.take();
            }
        })
    }

    async fn give_up(&self) -> Result<(), VectorError> {
        self.change(|index| index.next = None)
    }

    async fn tidy(&self) -> Result<usize, VectorError> {
        self.remove_all_but(&self.index()?)
    }

    async fn ask(&self, rebuild: Rebuild) -> Result<(), VectorError> {
        let Some(current) = self.index()?.current else {
            let message = format!("there is no vector store in {}", self.root.display());
            return Err(VectorError::Invalid(message));
        };
        let file = self.root.join(current).join(REBUILD);
        write_json(&file, &rebuild).map_err(|error| self.failed(error))
    }

    async fn note(&self, progress: Progress) -> Result<(), VectorError> {
        let Some(next) = self.index()?.next else {
            return Ok(());
        };
        let file = self.root.join(next).join(PROGRESS);
        write_json(&file, &progress).map_err(|error| self.failed(error))
    }

    async fn progress(&self) -> Result<Option<Progress>, VectorError> {
        let Some(next) = self.index()?.next else {
            return Ok(None);
        };
        let progress = read_json(&self.root.join(next).join(PROGRESS));
        progress.map_err(|source| open_failed(&self.root, source))
    }
}
