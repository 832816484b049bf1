//! What WebSockets are told of: one record a connection in the catalog, so that a connection can be served by any gateway and
//! outlives the gateway that served it.

use sightline_catalog::{Catalog, CatalogError};
use sightline_proto::ids::{self, Kind};
use sightline_proto::internal::subscribed::To;
use sightline_proto::internal::{
    AlertRecord, IndexRecord, RtStreamRecord, Subscribed, SubscriptionRecord,
};
use sightline_proto::reasons::{ApiError, Reason};
use sightline_service::chain;

use crate::api::{Core, Session, well_formed};

/// What one connection is told of at most.
const MAX_SUBSCRIBED: usize = 1000;
/// The record of a connection is removed when no gateway has seen it open for so long: a day, or an hour (and up to one more)
/// while it is told of nothing.
const KEPT_US: i64 = 24 * 3_600_000_000;
const EMPTY_KEPT_US: i64 = 2 * 3_600_000_000;
/// The field that names a connection, in this skin.
const FIELD: &str = "ws_connection_id";

/// A connection that exists and that the caller may use.
pub(crate) struct Connection(String);

impl Session {
    /// The connection that a request names; none if it names none.
    pub(crate) async fn connection(
        &self,
        id: Option<&str>,
    ) -> Result<Option<Connection>, ApiError> {
        let Some(id) = id.filter(|id| !id.is_empty()) else {
            return Ok(None);
        };
        match find(&self.catalog, id, &self.caller.tenant).await? {
            Some(record) => {
                has_room(&self.catalog, &record)?;
                Ok(Some(Connection(id.to_owned())))
            }
            None => Err(wrong(
                "the connection_id of a WebSocket of yours that is open, or was within a day; \
                 this one is not known here",
            )),
        }
    }

    /// Has a connection told of something from now on; told of it twice it is told once.
    pub(crate) async fn tell(
        &self,
        connection: &Option<Connection>,
        to: To,
    ) -> Result<(), ApiError> {
        let Some(Connection(id)) = connection else {
            return Ok(());
        };
        let catalog = &self.catalog;
        let mut full = false;
        let told = catalog.modify::<SubscriptionRecord>(id, |record| {
            full = false;
            let to = Some(to.clone());
            if record.subscribed.iter().any(|known| known.to == to) {
                return false;
            }
            if record.subscribed.len() >= MAX_SUBSCRIBED {
                record.subscribed.retain(|known| exists(catalog, known));
            }
            full = record.subscribed.len() >= MAX_SUBSCRIBED;
            if !full {
                record.subscribed.push(Subscribed { to });
            }
            !full
        });
        told.await.map_err(failed)?;
        // If it is open here, it is told of what happens from this moment on; other gateways follow the catalog.
        self.sockets.refresh();
        if full { Err(too_much()) } else { Ok(()) }
    }
}

/// Makes a new connection known; its id.
pub(super) async fn open(core: &Core, tenant: &str) -> Result<String, CatalogError> {
    let id = ids::new_id(Kind::Connection);
    let record = SubscriptionRecord {
        tenant: tenant.to_owned(),
        subscribed: Vec::new(),
        seen_us: core.clock.now_us(),
    };
    core.catalog.create(&id, &record).await?;
    Ok(id)
}

/// Whether there is such a connection of this tenant to go on with; if so, it is open from now on.
pub(super) async fn reopen(core: &Core, id: &str, tenant: &str) -> Result<bool, ApiError> {
    if find(&core.catalog, id, tenant).await?.is_none() {
        return Ok(false);
    }
    let now_us = core.clock.now_us();
    match seen(&core.catalog, id, now_us).await {
        Ok(()) => Ok(true),
        Err(CatalogError::Missing { .. }) => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

async fn seen(catalog: &Catalog, id: &str, now_us: i64) -> Result<(), CatalogError> {
    let seen = catalog.modify::<SubscriptionRecord>(id, |record| {
        record.seen_us = now_us;
        true
    });
    seen.await.map(drop)
}

/// A connection of this tenant.
async fn find(
    catalog: &Catalog,
    id: &str,
    tenant: &str,
) -> Result<Option<SubscriptionRecord>, ApiError> {
    if !well_formed(Kind::Connection, id) {
        return Ok(None);
    }
    let found = match catalog.get::<SubscriptionRecord>(id) {
        Some(found) => Some(found),
        // Another gateway may have made it a moment ago: the view trails the server.
        None => catalog
            .fetch::<SubscriptionRecord>(id)
            .await
            .map_err(failed)?,
    };
    let record = found.map(|found| SubscriptionRecord::clone(&found.value));
    Ok(record.filter(|record| record.tenant == tenant))
}

/// Notes that these connections are open, and removes those that nobody has seen for long.
pub(super) async fn keep(catalog: &Catalog, open: Vec<String>, now_us: i64) {
    for id in open {
        match seen(catalog, &id, now_us).await {
            Ok(()) | Err(CatalogError::Missing { .. }) => {}
            Err(error) => return put_off(&error),
        }
    }
    for (id, record) in catalog.list::<SubscriptionRecord>() {
        let empty = record.value.subscribed.is_empty();
        let kept_us = if empty { EMPTY_KEPT_US } else { KEPT_US };
        if now_us - record.value.seen_us <= kept_us {
            continue;
        }
        let deleted = catalog.delete::<SubscriptionRecord>(&id, record.revision);
        match deleted.await {
            // Its caller came back at this very moment, or another gateway was faster.
            Ok(()) | Err(CatalogError::Conflict { .. }) => {}
            Err(error) => return put_off(&error),
        }
    }
}

fn put_off(error: &CatalogError) {
    let error = chain(error);
    tracing::warn!(error, "connections are looked through again in an hour");
}

/// Whether there is room for more, without what does not exist any more.
fn has_room(catalog: &Catalog, record: &SubscriptionRecord) -> Result<(), ApiError> {
    let full = record.subscribed.len() >= MAX_SUBSCRIBED;
    if full && record.subscribed.iter().all(|known| exists(catalog, known)) {
        return Err(too_much());
    }
    Ok(())
}

fn exists(catalog: &Catalog, subscribed: &Subscribed) -> bool {
    match &subscribed.to {
        Some(To::TranscriptOfRtstreamId(id)) => catalog.get::<RtStreamRecord>(id).is_some(),
        Some(To::IndexId(id)) => catalog.get::<IndexRecord>(id).is_some(),
        Some(To::AlertId(id)) => catalog.get::<AlertRecord>(id).is_some(),
        None => false,
    }
}

fn too_much() -> ApiError {
    wrong(format!(
        "a connection that is told of fewer than {MAX_SUBSCRIBED} things; open another one"
    ))
}

fn wrong(allowed: impl Into<String>) -> ApiError {
    let allowed = allowed.into();
    let message = format!("{FIELD}: {allowed}");
    ApiError::new(Reason::InvalidArgument, message).field(FIELD, allowed)
}

fn failed(error: CatalogError) -> ApiError {
    if let CatalogError::Missing { .. } = error {
        return wrong("a connection that was open within a day; this one has been forgotten");
    }
    tracing::warn!(error = chain(&error), "the catalog failed a call");
    let message = "the catalog does not answer; try again shortly";
    ApiError::new(Reason::Unavailable, message)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sightline_bus::Bus;
    use sightline_bus::embedded::EmbeddedServer;

    use super::*;

    #[tokio::test]
    async fn connections_are_forgotten_some_time_after_they_were_open() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let nats = EmbeddedServer::start(Path::new("nats-server"), dir.path()).expect("starts");
        let bus = Bus::connect(&nats.config("test")).await.expect("bus");
        let catalog = Catalog::open(&bus).await.expect("catalog");
        let index = Subscribed {
            to: Some(To::IndexId("idx-1".to_owned())),
        };
        let now_us = 2 * KEPT_US;
        let rows = [
            ("ws-open", 0, true, true),
            ("ws-day", now_us - KEPT_US, true, true),
            ("ws-older", now_us - KEPT_US - 1, true, false),
            ("ws-empty", now_us - EMPTY_KEPT_US, false, true),
            ("ws-empty-older", now_us - EMPTY_KEPT_US - 1, false, false),
        ];
        for (id, seen_us, told, _) in rows {
            let record = SubscriptionRecord {
                tenant: "default".to_owned(),
                subscribed: if told {
                    vec![index.clone()]
                } else {
                    Vec::new()
                },
                seen_us,
            };
            catalog.create(id, &record).await.expect("made");
        }
        let open = vec!["ws-open".to_owned(), "ws-unknown".to_owned()];
        keep(&catalog, open, now_us).await;
        for (id, _, _, kept) in rows {
            let found = catalog.fetch::<SubscriptionRecord>(id).await;
            assert_eq!(found.expect("answers").is_some(), kept, "{id}");
        }
    }
}
