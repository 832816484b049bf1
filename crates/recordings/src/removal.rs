//! Removing what belongs to streams that are gone: whole recordings, player pages, exports. Cut off anywhere, again goes on.

use std::io;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use sightline_proto::ids::Kind;

use crate::error::StoreError;
use crate::names;
use crate::store::{AT_ONCE, DEADLINE, Store, failed, within};

/// A player page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Its slug.
    pub slug: String,
    /// The stream that it plays.
    pub rtstream_id: String,
    /// When its links stop working, in microseconds since the Unix epoch; 0: never.
    pub expires_us: i64,
}

impl Store {
    /// The ids of all streams of which something is recorded.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn streams(&self) -> Result<Vec<String>, StoreError> {
        let folder = Path::from(names::RECORDINGS);
        let listing = self.objects.list_with_delimiter(Some(&folder));
        let listed = within(DEADLINE, "list", "recordings", listing).await?;
        let names = listed.common_prefixes.iter().filter_map(Path::filename);
        let ids = names.filter(|id| names::uuid(Kind::RtStream, id).is_some());
        Ok(ids.map(str::to_owned).collect())
    }

    /// Removes everything that is recorded of a stream.
    ///
    /// # Errors
    /// When the store fails; `NotFound` when `rtstream` is no id of a stream. A part may be removed then.
    pub async fn remove_stream(&self, rtstream: &str) -> Result<(), StoreError> {
        let folder = names::stream(rtstream)?;
        let listed = self.objects.list(Some(&folder));
        self.remove_all(listed.map_ok(|object| object.location).boxed())
            .await?;
        // What was being written when its writer was killed is no object.
        let Some(root) = &self.folder else {
            return Ok(());
        };
        let folder = root.join(folder.as_ref());
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(folder)).await;
        match removed.unwrap_or_else(|error| Err(error.into())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let source = object_store::Error::Generic {
                    store: "LocalFileSystem",
                    source: error.into(),
                };
                Err(failed("remove", "recording", source))
            }
            _ => Ok(()),
        }
    }

    /// All player pages; damaged ones are left out.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn pages(&self) -> Result<Vec<Page>, StoreError> {
        let folder = Path::from(names::PLAYERS);
        let listed = self.objects.list_with_delimiter(Some(&folder));
        let listed = within(DEADLINE, "list", "player pages", listed).await?;
        let slugs = listed
            .objects
            .into_iter()
            .filter_map(|meta| meta.location.filename().map(str::to_owned));
        let reading = futures::stream::iter(slugs).map(async |slug| match self.page(&slug).await {
            Ok(page) => Ok(Some(Page {
                slug,
                rtstream_id: page.rtstream_id,
                expires_us: page.expires_us,
            })),
            Err(StoreError::NotFound { .. } | StoreError::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        });
        let read = reading.buffer_unordered(AT_ONCE);
        read.try_filter_map(async |page| Ok(page))
            .try_collect()
            .await
    }

    /// Removes a player page; it may be gone already.
    ///
    /// # Errors
    /// When the store fails; `NotFound` when the slug can't be one.
    pub async fn remove_page(&self, slug: &str) -> Result<(), StoreError> {
        self.remove(&names::page(slug)?, "player page").await
    }

    /// Removes the file of an export; it may be gone already.
    ///
    /// # Errors
    /// When the store fails; `NotFound` when `export_id` is no id of an export.
    pub async fn remove_export(&self, export_id: &str) -> Result<(), StoreError> {
        self.remove(&names::export(export_id)?, "export").await
    }

    /// Removes objects; some may be gone already.
    pub(crate) async fn remove_all(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> Result<(), StoreError> {
        let mut removing = self.objects.delete_stream(paths);
        loop {
            let next = async { Ok(removing.next().await) };
            match within(DEADLINE, "remove", "recording", next).await? {
                None => return Ok(()),
                Some(Ok(_) | Err(object_store::Error::NotFound { .. })) => {}
                Some(Err(error)) => return Err(failed("remove", "recording", error)),
            }
        }
    }
}
