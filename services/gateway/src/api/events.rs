//! Events (what to watch for) and alerts (an event on an index, and whom to tell).

use sightline_proto::ids::Kind;
use sightline_proto::internal::{AlertRecord, EventRecord};
use sightline_proto::reasons::ApiError;
use sightline_proto::time::timestamp;
use sightline_proto::v1::alert::State;
use sightline_proto::v1::{self, Alert, Event};

use super::paging::{Pages, Position};
use super::violations::Violations;
use super::{Session, callback, catalog_failed};

const MAX_PROMPT: usize = 1000;
const MAX_LABEL: usize = 100;

impl Session {
    /// Creates a reusable event.
    pub(crate) async fn create_event(
        &self,
        request: v1::CreateEventRequest,
    ) -> Result<Event, ApiError> {
        let mut faults = Violations::default();
        faults.text("prompt", &request.prompt, 1, MAX_PROMPT);
        faults.text("label", &request.label, 1, MAX_LABEL);
        let request_id = faults.request_id(&request.request_id);
        faults.into_result()?;
        let record = self
            .create_once(Kind::Event, request_id, &request, |id| EventRecord {
                event: Some(Event {
                    id: id.to_owned(),
                    prompt: request.prompt.clone(),
                    label: request.label.clone(),
                    create_time: Some(timestamp(self.clock.now_us())),
                }),
            })
            .await?;
        Ok(record.event.clone().unwrap_or_default())
    }

    /// Events, oldest first.
    pub(crate) fn list_events(
        &self,
        request: &v1::ListEventsRequest,
    ) -> Result<v1::ListEventsResponse, ApiError> {
        let mut faults = Violations::default();
        let size = faults.page_size(request.page_size);
        faults.into_result()?;
        let pages = Pages::of("ListEvents", &());
        let events = self
            .catalog
            .list::<EventRecord>()
            .into_iter()
            .filter_map(|(_, record)| record.value.event.clone());
        let (events, next_page_token) =
            pages.cut(events, &request.page_token, size, false, |event| {
                Position::of_id(&event.id)
            })?;
        Ok(v1::ListEventsResponse {
            events,
            next_page_token,
        })
    }

    /// Creates an alert, enabled.
    pub(crate) async fn create_alert(
        &self,
        request: v1::CreateAlertRequest,
    ) -> Result<Alert, ApiError> {
        let mut faults = Violations::default();
        let threshold = request.threshold.unwrap_or(self.config.default_threshold);
        if !(threshold > 0.0 && threshold <= 1.0) {
            let allowed = format!("above 0 and at most 1, or unset; got {threshold}");
            faults.add("threshold", allowed);
        }
        let request_id = faults.request_id(&request.request_id);
        faults.into_result()?;
        self.find::<EventRecord>(Kind::Event, "event_id", &request.event_id)
            .await?;
        let index = self.index(&request.index_id).await?;
        callback::check(&request.callback_url, &self.config.egress)?;
        let record = self
            .create_once(Kind::Alert, request_id, &request, |id| AlertRecord {
                alert: Some(Alert {
                    id: id.to_owned(),
                    event_id: request.event_id.clone(),
                    index_id: request.index_id.clone(),
                    rtstream_id: index.rtstream_id,
                    callback_url: request.callback_url.clone(),
                    state: State::Enabled.into(),
                    threshold,
                    create_time: Some(timestamp(self.clock.now_us())),
                }),
            })
            .await?;
        Ok(record.alert.clone().unwrap_or_default())
    }

    /// Alerts, oldest first.
    pub(crate) async fn list_alerts(
        &self,
        request: v1::ListAlertsRequest,
    ) -> Result<v1::ListAlertsResponse, ApiError> {
        let mut faults = Violations::default();
        let size = faults.page_size(request.page_size);
        faults.into_result()?;
        if !request.index_id.is_empty() {
            self.index(&request.index_id).await?;
        }
        let pages = Pages::of(
            "ListAlerts",
            &v1::ListAlertsRequest {
                page_size: 0,
                page_token: String::new(),
                ..request.clone()
            },
        );
        let alerts = self
            .catalog
            .list::<AlertRecord>()
            .into_iter()
            .filter_map(|(_, record)| record.value.alert.clone())
            .filter(|alert| request.index_id.is_empty() || alert.index_id == request.index_id);
        let (alerts, next_page_token) =
            pages.cut(alerts, &request.page_token, size, false, |alert| {
                Position::of_id(&alert.id)
            })?;
        Ok(v1::ListAlertsResponse {
            alerts,
            next_page_token,
        })
    }

    /// Enables or disables an alert.
    pub(crate) async fn set_alert_state(&self, id: &str, state: State) -> Result<Alert, ApiError> {
        self.alert(id).await?;
        let record = self
            .catalog
            .modify::<AlertRecord>(id, |record| {
                let Some(alert) = record.alert.as_mut() else {
                    return false;
                };
                let changes = alert.state() != state;
                alert.set_state(state);
                changes
            })
            .await
            .map_err(catalog_failed)?;
        Ok(record.alert.clone().unwrap_or_default())
    }

    /// One event; none that is not known.
    pub(crate) fn event(&self, id: &str) -> Option<Event> {
        self.catalog.get::<EventRecord>(id)?.value.event.clone()
    }

    /// One alert, as it was described.
    pub(crate) async fn alert(&self, id: &str) -> Result<Alert, ApiError> {
        let found = self
            .find::<AlertRecord>(Kind::Alert, "alert_id", id)
            .await?;
        Ok(found.value.alert.clone().unwrap_or_default())
    }
}
