//! What the bucket holds: one record a key, `<kind>.<id>`.

use std::any::Any;
use std::sync::Arc;

use bytes::Bytes;
use prost::{DecodeError, Message};
use sightline_proto::internal::{
    AlertRecord, BatchingRecord, CollectionRecord, DeletionRecord, EndpointRecord,
    EvaluationRecord, EventRecord, ExportRecord, IndexRecord, KeyRecord, RequestRecord,
    RtStreamRecord, RunRecord, SubscriptionRecord, UpkeepRecord,
};

use crate::error::CatalogError;
use crate::view::Value;

/// A kind of record.
pub trait Entry: Message + Default + Clone + Any {
    /// The key's first part.
    const KIND: &'static str;
}

/// The kinds, and how a key's first part says what its value is.
macro_rules! kinds {
    ($($kind:literal => $record:ty,)*) => {
        $(impl Entry for $record {
            const KIND: &'static str = $kind;
        })*

        /// The record in a value; none for kinds of a later release.
        pub(crate) fn decode(key: &str, payload: Bytes) -> Result<Option<Value>, DecodeError> {
            match key.split_once('.').map_or("", |(kind, _)| kind) {
                $($kind => Ok(Some(Arc::new(<$record>::decode(payload)?))),)*
                _ => Ok(None),
            }
        }
    };
}

kinds! {
    "rtstream" => RtStreamRecord,
    "run" => RunRecord,
    "index" => IndexRecord,
    "event" => EventRecord,
    "alert" => AlertRecord,
    "collection" => CollectionRecord,
    "evaluation" => EvaluationRecord,
    "request" => RequestRecord,
    "export" => ExportRecord,
    "upkeep" => UpkeepRecord,
    "key" => KeyRecord,
    "subscription" => SubscriptionRecord,
    "batching" => BatchingRecord,
    "deletion" => DeletionRecord,
    "endpoint" => EndpointRecord,
}

/// The key of a record.
pub(crate) fn key<T: Entry>(id: &str) -> String {
    format!("{}.{id}", T::KIND)
}

/// The key of a record whose id can be part of one.
pub(crate) fn valid_key<T: Entry>(id: &str) -> Result<String, CatalogError> {
    let key = key::<T>(id);
    if is_valid(&key) {
        Ok(key)
    } else {
        Err(CatalogError::Id { id: id.to_owned() })
    }
}

/// Whether a key has a kind and an id that hold nothing with a meaning to the server.
pub(crate) fn is_valid(key: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    key.split_once('.')
        .is_some_and(|(_, id)| !id.is_empty() && id.bytes().all(plain))
}
