//! Collections: groups of streams that are searched together.

use sightline_proto::internal::{CollectionRecord, RtStreamRecord};
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::time::timestamp;
use sightline_proto::v1::{self, Collection};

use super::paging::Position;
use super::tenancy::DEFAULT_COLLECTION as DEFAULT;
use super::violations::{Violations, refused};
use super::{Session, catalog_failed};

const MAX_NAME: usize = 200;
const MAX_DESCRIPTION: usize = 2000;

impl Session {
    /// Creates a collection.
    pub(crate) async fn create_collection(
        &self,
        request: v1::CreateCollectionRequest,
    ) -> Result<Collection, ApiError> {
        let mut faults = Violations::default();
        faults.text("name", &request.name, 1, MAX_NAME);
        faults.text("description", &request.description, 0, MAX_DESCRIPTION);
        let request_id = faults.request_id(&request.request_id);
        faults.into_result()?;
        let record = self
            .create_once(request_id, &request, |id| CollectionRecord {
                collection: Some(Collection {
                    id: id.to_owned(),
                    name: request.name.clone(),
                    description: request.description.clone(),
                    create_time: Some(timestamp(self.clock.now_us())),
                }),
                tenant: self.tenant(),
            })
            .await?;
        Ok(record.collection.clone().unwrap_or_default())
    }

    /// One collection.
    pub(crate) async fn get_collection(&self, id: &str) -> Result<Collection, ApiError> {
        if id == DEFAULT {
            return Ok(default());
        }
        let found = self.find::<CollectionRecord>("collection_id", id).await?;
        Ok(found.value.collection.clone().unwrap_or_default())
    }

    /// Collections: the default first, then oldest first.
    pub(crate) fn list_collections(
        &self,
        request: &v1::ListCollectionsRequest,
    ) -> Result<v1::ListCollectionsResponse, ApiError> {
        let mut faults = Violations::default();
        let size = faults.page_size(request.page_size);
        faults.into_result()?;
        let made = self.all::<CollectionRecord>();
        let made = made.filter_map(|record| record.collection.clone());
        let all = std::iter::once(default()).chain(made);
        let pages = self.pages("ListCollections", &());
        let (collections, next_page_token) =
            pages.cut(all, &request.page_token, size, false, position)?;
        Ok(v1::ListCollectionsResponse {
            collections,
            next_page_token,
        })
    }

    /// Changes what is given of a collection.
    pub(crate) async fn update_collection(
        &self,
        request: v1::UpdateCollectionRequest,
    ) -> Result<Collection, ApiError> {
        let mut faults = Violations::default();
        if let Some(name) = &request.name {
            faults.text("name", name, 1, MAX_NAME);
        }
        if let Some(description) = &request.description {
            faults.text("description", description, 0, MAX_DESCRIPTION);
        }
        faults.into_result()?;
        let id = &request.collection_id;
        not_default(id, "changed")?;
        self.get_collection(id).await?;
        let record = self
            .catalog
            .modify::<CollectionRecord>(id, |record| {
                let Some(collection) = record.collection.as_mut() else {
                    return false;
                };
                let before = collection.clone();
                if let Some(name) = &request.name {
                    collection.name.clone_from(name);
                }
                if let Some(description) = &request.description {
                    collection.description.clone_from(description);
                }
                *collection != before
            })
            .await
            .map_err(catalog_failed)?;
        Ok(record.collection.clone().unwrap_or_default())
    }

    /// Deletes a collection that has no streams.
    pub(crate) async fn delete_collection(&self, id: &str) -> Result<(), ApiError> {
        not_default(id, "deleted")?;
        let found = self.find::<CollectionRecord>("collection_id", id).await?;
        let of_it = |record: &RtStreamRecord| {
            let stream = record.rtstream.as_ref();
            stream.is_some_and(|stream| stream.collection_id == id)
        };
        if self.all::<RtStreamRecord>().any(|record| of_it(&record)) {
            let allowed = "a collection without streams: this one has some";
            let reason = Reason::FailedPrecondition;
            return Err(refused(reason, "collection_id", allowed));
        }
        self.catalog
            .delete::<CollectionRecord>(id, found.revision)
            .await
            .map_err(catalog_failed)
    }

    /// The collection as it is called in records, on the bus and in the vector store; the default one if none is named.
    pub(super) async fn collection(&self, id: &str) -> Result<String, ApiError> {
        if id.is_empty() || id == DEFAULT {
            return Ok(self.default_collection());
        }
        self.get_collection(id).await?;
        Ok(id.to_owned())
    }
}

fn default() -> Collection {
    Collection {
        id: DEFAULT.to_owned(),
        name: DEFAULT.to_owned(),
        ..Default::default()
    }
}

fn not_default(id: &str, verb: &str) -> Result<(), ApiError> {
    if id != DEFAULT {
        return Ok(());
    }
    let allowed = format!("a collection that you created: \"{DEFAULT}\" can't be {verb}");
    Err(refused(
        Reason::FailedPrecondition,
        "collection_id",
        allowed,
    ))
}

/// The default comes before every id.
fn position(collection: &Collection) -> Position {
    let made = collection.id != DEFAULT;
    Position::of_id(if made { collection.id.as_str() } else { "" })
}
