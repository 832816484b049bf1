//! The stores of a Qdrant server: a collection for each, and two aliases that say which is which. An alias is moved at once for
//! everybody, so that several processes that share a server see one switch.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use qdrant_client::qdrant::CreateAliasBuilder;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::about::About;
use crate::stores::{is_name, new_name};
use crate::{EmbeddingModel, Named, Progress, Rebuild, State, Stores, VectorError, VectorStore};

use super::client::{ABOUT, Client};
use super::{QdrantConfig, QdrantStore};

/// The point of a collection that says that it is to be built anew.
const REBUILD: Uuid = Uuid::max();
/// The point of a collection that says how far it is filled.
const PROGRESS: Uuid = Uuid::from_u128(1);
/// The point of a collection that says that somebody who wants its model is at work.
const BEAT: Uuid = Uuid::from_u128(2);

/// Another one each time.
#[derive(Serialize, Deserialize)]
struct Beat {
    beat: String,
}

/// The collections of a Qdrant server whose names begin with that of the configuration.
pub struct QdrantStores {
    /// Its collection is the base of the names, and the one in use of an older release.
    client: Client,
    /// Collections that nothing named when it was tidied last: one that another process is just making is among them.
    unnamed: Mutex<HashSet<String>>,
}

/// What the aliases name.
struct Aliases {
    current: Option<String>,
    next: Option<String>,
}

impl QdrantStores {
    /// Stores on the server of a configuration.
    ///
    /// # Errors
    /// When its address can't be used; nothing is asked of the server yet.
    pub fn new(config: QdrantConfig) -> Result<Self, VectorError> {
        Ok(Self {
            client: Client::new(config)?,
            unnamed: Mutex::default(),
        })
    }

    fn base(&self) -> &str {
        &self.client.config.collection
    }

    fn alias(&self, which: &str) -> String {
        format!("{}-{which}", self.base())
    }

    fn config(&self, collection: &str) -> QdrantConfig {
        QdrantConfig {
            collection: collection.to_owned(),
            ..self.client.config.clone()
        }
    }

    fn client(&self, collection: &str) -> Result<Client, VectorError> {
        Client::new(self.config(collection))
    }

    async fn aliases(&self) -> Result<Aliases, VectorError> {
        let listing = self.client.qdrant.list_aliases().await;
        let aliases = listing
            .map_err(self.client.failed("list its aliases"))?
            .aliases;
        let named = |which: &str| {
            let alias = self.alias(which);
            let mut found = aliases.iter().filter(|found| found.alias_name == alias);
            found.next().map(|found| found.collection_name.clone())
        };
        let mut current = named("current");
        if current.is_none() && self.client.exists().await? {
            current = Some(self.base().to_owned());
        }
        // Both name one collection between the two steps of a switch.
        let next = named("next").filter(|next| current.as_ref() != Some(next));
        Ok(Aliases { current, next })
    }

    async fn set(&self, which: &str, collection: &str) -> Result<(), VectorError> {
        let request = CreateAliasBuilder::new(collection, self.alias(which));
        let set = self.client.qdrant.create_alias(request).await;
        set.map(drop).map_err(self.client.failed("set an alias"))
    }

    async fn unset(&self, which: &str) -> Result<(), VectorError> {
        let unset = self.client.qdrant.delete_alias(self.alias(which)).await;
        unset
            .map(drop)
            .map_err(self.client.failed("delete an alias"))
    }

    async fn named(&self, collection: Option<String>) -> Result<Option<Named>, VectorError> {
        let Some(name) = collection else {
            return Ok(None);
        };
        let about = self.client(&name)?.about().await?;
        Ok(Some(About::named(about, name)))
    }

    /// Has a new collection say whose place it is to take.
    async fn note_replaced(&self, name: &str, current: Option<&str>) -> Result<(), VectorError> {
        let Some(current) = current else {
            return Ok(());
        };
        let new = self.client(name)?;
        let current = self.client(current)?.about().await?;
        if let (Some(mut about), Some(current)) = (new.about().await?, current) {
            about.replace(&current);
            new.put(ABOUT, &about).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Stores for QdrantStores {
    async fn state(&self) -> Result<State, VectorError> {
        let Aliases { current, next } = self.aliases().await?;
        let rebuild = match &current {
            Some(name) => self.client(name)?.get(REBUILD).await?,
            None => None,
        };
        Ok(State {
            current: self.named(current).await?,
            next: self.named(next).await?,
            rebuild,
        })
    }

    async fn begin(&self, model: &EmbeddingModel) -> Result<(), VectorError> {
        let name = format!("{}-{}", self.base(), new_name(model));
        QdrantStore::connect(self.config(&name), model.clone()).await?;
        let aliases = self.aliases().await?;
        self.note_replaced(&name, aliases.current.as_deref())
            .await?;
        // Of several processes that begin at the same time, the first one's is taken by all; the others' are removed.
        let aliases = self.aliases().await?;
        match (aliases.current, aliases.next) {
            (None, _) => self.set("current", &name).await,
            (Some(_), None) => self.set("next", &name).await,
            (Some(_), Some(_)) => Ok(()),
        }
    }

    async fn open(&self, named: &Named) -> Result<Arc<dyn VectorStore>, VectorError> {
        let store = QdrantStore::connect(self.config(&named.name), named.model.clone());
        Ok(Arc::new(store.await?))
    }

    async fn switch(&self, next: &str) -> Result<(), VectorError> {
        let aliases = self.aliases().await?;
        if aliases.next.as_deref() == Some(next) {
            self.set("current", next).await?;
        }
        self.unset("next").await
    }

    async fn give_up(&self) -> Result<(), VectorError> {
        self.unset("next").await
    }

    async fn tidy(&self) -> Result<usize, VectorError> {
        let Aliases { current, next } = self.aliases().await?;
        let listing = self.client.qdrant.list_collections().await;
        let collections = listing
            .map_err(self.client.failed("list its collections"))?
            .collections;
        let prefix = self.alias("");
        let names = collections.into_iter().map(|described| described.name);
        let unnamed = names.filter(|name| {
            let ours = name == self.base() || name.strip_prefix(&prefix).is_some_and(is_name);
            ours && ![&current, &next].contains(&&Some(name.clone()))
        });
        let unnamed: HashSet<String> = unnamed.collect();
        let before = {
            let mut last = self.unnamed.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *last, unnamed.clone())
        };
        let mut removed = 0;
        for name in unnamed.intersection(&before) {
            // It may be named by now.
            let Aliases { current, next } = self.aliases().await?;
            let kept = [&current, &next].contains(&&Some(name.clone()));
            // What is not ours has no word of ours in it.
            if !kept && self.client(name)?.about().await.is_ok() {
                QdrantStore::delete(self.config(name)).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    async fn beat(&self, name: &str) -> Result<(), VectorError> {
        let beat = Uuid::new_v4().simple().to_string();
        self.client(name)?.put(BEAT, &Beat { beat }).await
    }

    async fn pulse(&self, name: &str) -> Result<Option<String>, VectorError> {
        let beat: Option<Beat> = self.client(name)?.get(BEAT).await?;
        Ok(Some(beat.map(|beat| beat.beat).unwrap_or_default()))
    }

    async fn ask(&self, rebuild: Rebuild) -> Result<(), VectorError> {
        let Some(current) = self.aliases().await?.current else {
            let message = "the qdrant server holds no vector store yet".to_owned();
            return Err(VectorError::Invalid(message));
        };
        self.client(&current)?.put(REBUILD, &rebuild).await
    }

    async fn note(&self, progress: Progress) -> Result<(), VectorError> {
        match self.aliases().await?.next {
            Some(next) => self.client(&next)?.put(PROGRESS, &progress).await,
            None => Ok(()),
        }
    }

    async fn progress(&self) -> Result<Option<Progress>, VectorError> {
        match self.aliases().await?.next {
            Some(next) => self.client(&next)?.get(PROGRESS).await,
            None => Ok(None),
        }
    }
}
