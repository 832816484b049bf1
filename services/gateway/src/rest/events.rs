//! Events and alerts in this skin.

use serde_json::{Value, json};
use sightline_proto::internal::subscribed::To;
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::v1;
use sightline_proto::v1::alert::State as Doing;

use super::answer::{Answer, Data, renaming};
use super::asked::events::{Create, CreateAlert};
use super::indexes::index_of;
use super::paging;
use super::request::{Body, Ids, Switch};
use crate::api::Session;

/// `POST /rtstream/event`
pub(super) async fn create(session: Session, Body(body): Body<Create>) -> Answer {
    let names = [("prompt", "event_prompt")];
    let event = session
        .create_event(body.request())
        .await
        .map_err(renaming(&names))?;
    Data::of(json!({"event_id": event.id}))
}

/// `GET /rtstream/event`: all of them.
pub(super) async fn list(session: Session) -> Answer {
    let fetch = |page_size, page_token| {
        let request = v1::ListEventsRequest {
            page_size,
            page_token,
        };
        let page = session.list_own_events(&request);
        std::future::ready(page.map(|page| (page.events, page.next_page_token)))
    };
    let events = paging::all(fetch).await?.into_iter().map(|event| {
        json!({
            "event_id": event.id,
            "event_prompt": event.prompt,
            "label": event.label,
        })
    });
    Data::of(json!({ "events": events.collect::<Vec<_>>() }))
}

/// `POST /rtstream/{id}/index/{index}/alert`
pub(super) async fn create_alert(
    session: Session,
    ids: Ids,
    Body(body): Body<CreateAlert>,
) -> Answer {
    let connection = session.connection(body.ws_connection_id.as_deref()).await?;
    let index = index_of(&session, &ids).await?;
    let request = body.request(index.id);
    let alert = session.create_alert(request).await?;
    let firings = To::AlertId(alert.id.clone());
    session.tell(&connection, firings).await?;
    Data::of(json!({"alert_id": alert.id}))
}

/// `GET /rtstream/{id}/index/{index}/alert`: all of them.
pub(super) async fn list_alerts(session: Session, ids: Ids) -> Answer {
    let index = index_of(&session, &ids).await?;
    let session = &session;
    let fetch = |page_size, page_token| {
        let request = v1::ListAlertsRequest {
            index_id: index.id.clone(),
            page_size,
            page_token,
            ..Default::default()
        };
        async move {
            let page = session.list_alerts(request).await?;
            Ok((page.alerts, page.next_page_token))
        }
    };
    let alerts = paging::all(fetch).await?.into_iter();
    let alerts: Vec<Value> = alerts.map(|alert| shown(session, alert)).collect();
    Data::of(json!({ "alerts": alerts }))
}

/// `PATCH /rtstream/{id}/index/{index}/alert/{alert}/status`
pub(super) async fn set_alert_status(
    session: Session,
    ids: Ids,
    Body(body): Body<Switch>,
) -> Answer {
    let index = index_of(&session, &ids).await?;
    let alert = session.alert(&ids.alert).await?;
    if alert.index_id != index.id {
        let message = format!("the index {} has no alert {}", index.id, alert.id);
        return Err(ApiError::new(Reason::NotFound, message).into());
    }
    let state = if body.is_on(["enable", "enabled"], ["disable", "disabled"])? {
        Doing::Enabled
    } else {
        Doing::Disabled
    };
    let alert = session.set_alert_state(&alert.id, state).await?;
    Data::of(shown(&session, alert))
}

fn shown(session: &Session, alert: v1::Alert) -> Value {
    let event = session.event(&alert.event_id).unwrap_or_default();
    let status = match alert.state() {
        Doing::Enabled => "enabled",
        Doing::Disabled | Doing::Unspecified => "disabled",
    };
    json!({
        "alert_id": alert.id,
        "event_id": alert.event_id,
        "prompt": event.prompt,
        "label": event.label,
        "callback_url": alert.callback_url,
        "status": status,
    })
}
