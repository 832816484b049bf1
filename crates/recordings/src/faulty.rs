//! A store for tests that fails, hangs, or lets something else happen at a chosen call.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use crate::store::Store;

/// What happens at a call and, if it is not `Meanwhile`, at all later ones.
pub(crate) enum Fault {
    /// The caller was killed: nothing more is done.
    Cut,
    /// The store does not answer.
    Hang,
    /// Something else happens first, and the call is done afterwards.
    Meanwhile(Mutex<Option<BoxFuture<'static, ()>>>),
}

/// The store with a fault at its call number `at`.
pub(crate) fn faulty(store: &Store, at: usize, fault: Fault) -> (Store, Arc<Faulty>) {
    let faulty = Arc::new(Faulty {
        inner: Arc::clone(&store.objects),
        calls: Arc::default(),
        at,
        fault: Arc::new(fault),
    });
    let store = Store {
        objects: Arc::clone(&faulty) as Arc<dyn ObjectStore>,
        folder: store.folder.clone(),
    };
    (store, faulty)
}

#[derive(Clone)]
pub(crate) struct Faulty {
    inner: Arc<dyn ObjectStore>,
    calls: Arc<AtomicUsize>,
    at: usize,
    fault: Arc<Fault>,
}

impl Faulty {
    /// Whether it came to the fault.
    pub fn happened(&self) -> bool {
        self.calls.load(Ordering::Relaxed) > self.at
    }

    async fn call(&self) -> Result<()> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        match &*self.fault {
            _ if call < self.at => Ok(()),
            Fault::Hang => std::future::pending().await,
            Fault::Cut => Err(Error::Generic {
                store: "faulty",
                source: "cut off".into(),
            }),
            Fault::Meanwhile(other) => {
                let other = other.lock().unwrap_or_else(PoisonError::into_inner).take();
                if let Some(other) = other {
                    other.await;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        to: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.call().await?;
        self.inner.put_opts(to, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.call().await?;
        self.inner.put_multipart_opts(to, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.call().await?;
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        paths
            .then(move |path| {
                let this = this.clone();
                async move {
                    let path = path?;
                    this.call().await?;
                    this.inner.delete(&path).await?;
                    Ok(path)
                }
            })
            .boxed()
    }

    /// Not used by what is tested.
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.call().await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.call().await?;
        self.inner.copy_opts(from, to, options).await
    }
}
