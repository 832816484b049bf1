//! The stores of one data directory: a folder for each below the place, and `stores.json`, which says which is which.
//!
//! `stores.json` is replaced whole, and a folder is removed only when no line of it names it any more.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::about::About;
use crate::stores::new_name;
use crate::{EmbeddingModel, Named, Progress, Rebuild, State, Stores, VectorError, VectorStore};

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
    place: Place,
    /// None for who only looks and wishes.
    lock: Option<Folder>,
}

impl EdgeStores {
    /// Takes the place for this process, made if there is none. It blocks, for a moment.
    ///
    /// # Errors
    /// `Locked` while another process has it, `Open` when its files can't be used.
    pub fn lock(root: &Path) -> Result<Self, VectorError> {
        let lock = Folder::lock(root)?;
        let stores = Self {
            place: Place(root.to_owned()),
            lock: Some(lock),
        };
        stores.place.adopt()?;
        Ok(stores)
    }

    /// Looks at a place that another process may have: its state can be read, and a wish be left there.
    #[must_use]
    pub fn look(root: &Path) -> Self {
        Self {
            place: Place(root.to_owned()),
            lock: None,
        }
    }

    /// Whether a process has the place now.
    #[must_use]
    pub fn in_use(&self) -> bool {
        self.lock.is_some()
            || matches!(Folder::lock(&self.place.0), Err(VectorError::Locked { .. }))
    }

    /// Deletes every store below the place: the next one that is made there is empty and has another identity. It blocks.
    ///
    /// # Errors
    /// `Locked` while a process has it, `Open` when it can't be deleted.
    pub fn delete(root: &Path) -> Result<(), VectorError> {
        let stores = Self::lock(root)?;
        stores.place.write(&Index::default())?;
        stores.place.remove_all_but(&Index::default()).map(drop)
    }

    /// Works on the place's files off the async threads.
    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Place) -> Result<T, VectorError> + Send + 'static,
    ) -> Result<T, VectorError> {
        let place = self.place.clone();
        let working = spawn_blocking(move || work(&place)).await;
        working.map_err(|error| open_failed(&self.place.0, error.into()))?
    }
}

/// The folder. Its files are read and written by threads that may block.
#[derive(Clone)]
struct Place(PathBuf);

impl Place {
    fn file(&self, store: &str, name: &str) -> PathBuf {
        self.0.join(store).join(name)
    }

    /// Takes over the one store of an older release, which lay in the place itself.
    fn adopt(&self) -> Result<(), VectorError> {
        let Self(root) = self;
        if !root.join(ABOUT).exists() {
            return Ok(());
        }
        if !root.join(INDEX).exists() {
            self.write(&Index {
                current: Some(FIRST.to_owned()),
                next: None,
            })?;
        }
        let to = root.join(FIRST);
        let moved = fs::create_dir_all(&to)
            .and_then(|()| remove(fs::rename(root.join("edge"), to.join("edge"))))
            .and_then(|()| fs::rename(root.join(ABOUT), to.join(ABOUT)));
        moved.map_err(|error| self.failed(error))
    }

    fn index(&self) -> Result<Index, VectorError> {
        Ok(self.read(&self.0.join(INDEX))?.unwrap_or_default())
    }

    fn write(&self, index: &Index) -> Result<(), VectorError> {
        self.put(&self.0.join(INDEX), index)
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

    fn state(&self) -> Result<State, VectorError> {
        let Index { current, next } = self.index()?;
        let rebuild = match &current {
            Some(name) => self.read(&self.file(name, REBUILD))?,
            None => None,
        };
        Ok(State {
            current: current.map(|name| self.named(name)).transpose()?,
            next: next.map(|name| self.named(name)).transpose()?,
            rebuild,
        })
    }

    /// A store by its name. One that is gone, or does not say what it is any more, holds vectors of nobody; one that can't be read
    /// now may be read later.
    fn named(&self, name: String) -> Result<Named, VectorError> {
        let about = match files::about(&self.0.join(&name)) {
            Err(VectorError::Open { source, .. }) if !source.is::<std::io::Error>() => {
                tracing::warn!(%source, name, "a vector store does not say what it holds");
                None
            }
            read => read?,
        };
        Ok(About::named(about, name))
    }

    /// Names a store that was made: the one in use if there is none yet, otherwise the next one.
    fn begin(&self, name: String) -> Result<(), VectorError> {
        let current = self.index()?.current;
        let current = current.map(|current| files::about(&self.0.join(current)));
        // One that can't be read is replaced by nobody's order.
        if let Some(Ok(Some(current))) = current
            && let Some(mut about) = files::about(&self.0.join(&name))?
        {
            about.replace(&current);
            self.put(&self.file(&name, ABOUT), &about)?;
        }
        self.change(|index| match index.current {
            None => index.current = Some(name),
            Some(_) => index.next = Some(name),
        })
    }

    fn remove_all_but(&self, index: &Index) -> Result<usize, VectorError> {
        let mut removed = 0;
        let entries = fs::read_dir(&self.0).map_err(|error| self.failed(error))?;
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

    fn read<T: DeserializeOwned>(&self, file: &Path) -> Result<Option<T>, VectorError> {
        read_json(file).map_err(|source| open_failed(&self.0, source))
    }

    fn put(&self, file: &Path, value: &impl Serialize) -> Result<(), VectorError> {
        write_json(file, value).map_err(|error| self.failed(error))
    }

    fn failed(&self, source: std::io::Error) -> VectorError {
        open_failed(&self.0, source.into())
    }
}

#[async_trait]
impl Stores for EdgeStores {
    async fn state(&self) -> Result<State, VectorError> {
        self.with(Place::state).await
    }

    async fn begin(&self, model: &EmbeddingModel) -> Result<(), VectorError> {
        let name = new_name(model);
        let made = EdgeStore::open(&self.place.0.join(&name), model.clone()).await?;
        self.with(move |place| {
            // Closing it waits for its thread.
            drop(made);
            place.begin(name)
        })
        .await
    }

    async fn open(&self, named: &Named) -> Result<Arc<dyn VectorStore>, VectorError> {
        let dir = self.place.0.join(&named.name);
        let looked = dir.clone();
        let about = self.with(move |_| files::about(&looked)).await?;
        if about.is_none() {
            return Err(open_failed(&dir, "it holds no store".into()));
        }
        Ok(Arc::new(EdgeStore::open(&dir, named.model.clone()).await?))
    }

    async fn switch(&self, next: &str) -> Result<(), VectorError> {
        let next = next.to_owned();
        let change = move |index: &mut Index| {
            if index.next.as_ref() == Some(&next) {
                index.current = index.next.take();
            }
        };
        self.with(move |place| place.change(change)).await
    }

    async fn give_up(&self) -> Result<(), VectorError> {
        self.with(|place| place.change(|index| index.next = None))
            .await
    }

    async fn tidy(&self) -> Result<usize, VectorError> {
        self.with(|place| place.remove_all_but(&place.index()?))
            .await
    }

    async fn ask(&self, rebuild: Rebuild) -> Result<(), VectorError> {
        self.with(move |place| {
            let Some(current) = place.index()?.current else {
                let message = format!("there is no vector store in {}", place.0.display());
                return Err(VectorError::Invalid(message));
            };
            place.put(&place.file(&current, REBUILD), &rebuild)
        })
        .await
    }

    async fn note(&self, progress: Progress) -> Result<(), VectorError> {
        self.with(move |place| match place.index()?.next {
            Some(next) => place.put(&place.file(&next, PROGRESS), &progress),
            None => Ok(()),
        })
        .await
    }

    async fn progress(&self) -> Result<Option<Progress>, VectorError> {
        self.with(|place| match place.index()?.next {
            Some(next) => place.read(&place.file(&next, PROGRESS)),
            None => Ok(None),
        })
        .await
    }
}
