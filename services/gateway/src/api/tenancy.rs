//! Whose things are whose: what a caller sees of the catalog.

use sightline_catalog::Entry;
use sightline_proto::ids::Kind;
use sightline_proto::internal::{
    AlertRecord, CollectionRecord, EndpointRecord, EventRecord, ExportRecord, IndexRecord,
    KeyRecord, RtStreamRecord,
};

use super::Session;
use crate::auth::DEFAULT_TENANT;

/// The collection that every tenant has, by the id that callers see; it has no record.
pub(crate) const DEFAULT_COLLECTION: &str = "default";

/// A record that callers name by an id.
pub(super) trait Owned: Entry {
    /// What its ids look like.
    const ID: Kind;

    /// Whether callers of this tenant see it.
    fn is_of(&self, tenant: &str) -> bool;
}

macro_rules! owned {
    ($($record:ty => $kind:ident,)*) => {
        $(impl Owned for $record {
            const ID: Kind = Kind::$kind;

            fn is_of(&self, tenant: &str) -> bool {
                owner(&self.tenant) == tenant
            }
        })*
    };
}

owned! {
    RtStreamRecord => RtStream,
    IndexRecord => Index,
    EventRecord => Event,
    AlertRecord => Alert,
    CollectionRecord => Collection,
    ExportRecord => Export,
    EndpointRecord => Endpoint,
}

/// Keys are for operators, who see those of all tenants.
impl Owned for KeyRecord {
    const ID: Kind = Kind::Key;

    fn is_of(&self, _tenant: &str) -> bool {
        true
    }
}

/// Whose a record is: those made before there were tenants name none.
pub(super) fn owner(tenant: &str) -> &str {
    if tenant.is_empty() {
        DEFAULT_TENANT
    } else {
        tenant
    }
}

impl Session {
    /// Whose things the caller makes and sees.
    pub(super) fn tenant(&self) -> String {
        self.caller.tenant.as_ref().to_owned()
    }

    /// The caller's default collection, as it is called in records, on the bus and in the vector store.
    pub(super) fn default_collection(&self) -> String {
        match self.caller.tenant.as_ref() {
            DEFAULT_TENANT => DEFAULT_COLLECTION.to_owned(),
            tenant => format!("{DEFAULT_COLLECTION}_{tenant}"),
        }
    }

    /// A collection as the caller knows it.
    pub(super) fn shown_collection(&self, id: &str) -> String {
        if id == self.default_collection() {
            return DEFAULT_COLLECTION.to_owned();
        }
        id.to_owned()
    }
}
