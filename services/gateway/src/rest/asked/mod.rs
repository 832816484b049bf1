//! What bodies and queries hold, and which of the core's requests they stand for. Nothing is called here, so that all of it can be
//! fuzzed (`fuzz/src/rest.rs`).

pub(crate) mod events;
pub(crate) mod indexes;
pub(crate) mod search;
pub(crate) mod streams;
pub(crate) mod transcripts;
pub(crate) mod understandings;

use serde::Deserialize;
use serde_json::Value;
use sightline_proto::reasons::ApiError;
use sightline_proto::v1;

use crate::rest::request::unsupported;

/// A collection to create.
#[derive(Deserialize)]
pub(crate) struct CreateCollection {
    name: String,
    description: Option<String>,
    is_public: Option<Value>,
}

impl CreateCollection {
    pub(crate) fn request(self) -> Result<v1::CreateCollectionRequest, ApiError> {
        unsupported([("is_public", &self.is_public)])?;
        Ok(v1::CreateCollectionRequest {
            name: self.name,
            description: self.description.unwrap_or_default(),
            ..Default::default()
        })
    }
}

/// What to change of a collection.
#[derive(Deserialize)]
pub(crate) struct UpdateCollection {
    name: Option<String>,
    description: Option<String>,
}

impl UpdateCollection {
    pub(crate) fn request(self, collection_id: String) -> v1::UpdateCollectionRequest {
        v1::UpdateCollectionRequest {
            collection_id,
            name: self.name,
            description: self.description,
        }
    }
}

/// How to name an export.
#[derive(Deserialize)]
pub(crate) struct Export {
    pub(crate) name: Option<String>,
}
