//! Collections in this skin.

use axum::Extension;
use http::{HeaderMap, Uri};
use serde::Serialize;
use serde_json::json;
use sightline_proto::v1;

use super::answer::{Answer, Data};
use super::asked::{CreateCollection, UpdateCollection};
use super::paging;
use super::request::{Body, Ids};
use crate::api::Session;
use crate::server::Peer;
use crate::websocket;

#[derive(Serialize)]
struct Collection {
    id: String,
    name: String,
    description: String,
    is_public: bool,
}

fn shown(collection: v1::Collection) -> Collection {
    Collection {
        id: collection.id,
        name: collection.name,
        description: collection.description,
        is_public: false,
    }
}

/// `POST /collection`
pub(super) async fn create(session: Session, Body(body): Body<CreateCollection>) -> Answer {
    let request = body.request()?;
    Data::of(shown(session.create_collection(request).await?))
}

/// `GET /collection`: all of them.
pub(super) async fn list(session: Session) -> Answer {
    let fetch = |page_size, page_token| {
        let request = v1::ListCollectionsRequest {
            page_size,
            page_token,
        };
        let page = session.list_collections(&request);
        std::future::ready(page.map(|page| (page.collections, page.next_page_token)))
    };
    let all = paging::all(fetch).await?;
    let all: Vec<Collection> = all.into_iter().map(shown).collect();
    Data::of(json!({ "collections": all }))
}

/// `GET /collection/{id}`
pub(super) async fn get(session: Session, ids: Ids) -> Answer {
    Data::of(shown(session.get_collection(&ids.id).await?))
}

/// `GET /collection/{id}/websocket`: the address of a WebSocket, good for five minutes.
pub(super) async fn websocket(
    session: Session,
    ids: Ids,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    uri: Uri,
) -> Answer {
    let collection = session.get_collection(&ids.id).await?;
    let peer = peer.map(|Extension(peer)| peer);
    let address = websocket::address(&session, &collection.id, &headers, &uri, peer.as_ref())?;
    Data::of(json!({ "websocket_url": address }))
}

/// `PATCH /collection/{id}`
pub(super) async fn update(
    session: Session,
    ids: Ids,
    Body(body): Body<UpdateCollection>,
) -> Answer {
    let request = body.request(ids.id);
    Data::of(shown(session.update_collection(request).await?))
}

/// `DELETE /collection/{id}`
pub(super) async fn delete(session: Session, ids: Ids) -> Answer {
    session.delete_collection(&ids.id).await?;
    Data::of(json!({}))
}
