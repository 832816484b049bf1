//! Events: what to watch for.

use sightline_proto::internal::{AlertRecord, EventRecord};
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::time::timestamp;
use sightline_proto::v1::{self, Event};

use super::paging::Position;
use super::violations::{Violations, refused};
use super::{Session, catalog_failed};

pub(super) const MAX_PROMPT: usize = 1000;
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
            .create_once(request_id, &request, |id| EventRecord {
                event: Some(Event {
                    id: id.to_owned(),
                    prompt: request.prompt.clone(),
                    label: request.label.clone(),
                    create_time: Some(timestamp(self.clock.now_us())),
                    prompt_revision: 1,
                }),
                tenant: self.tenant(),
            })
            .await?;
        Ok(event_of(&record))
    }

    /// Events, oldest first.
    pub(crate) fn list_events(
        &self,
        request: &v1::ListEventsRequest,
    ) -> Result<v1::ListEventsResponse, ApiError> {
        let mut faults = Violations::default();
        let size = faults.page_size(request.page_size);
        faults.into_result()?;
        let pages = self.pages("ListEvents", &());
        let events = self.all::<EventRecord>().map(|record| event_of(&record));
        let (events, next_page_token) =
            pages.cut(events, &request.page_token, size, false, |event| {
                Position::of_id(&event.id)
            })?;
        Ok(v1::ListEventsResponse {
            events,
            next_page_token,
        })
    }

    /// One event.
    pub(crate) async fn get_event(&self, id: &str) -> Result<Event, ApiError> {
        let found = self.find::<EventRecord>("event_id", id).await?;
        Ok(event_of(&found.value))
    }

    /// Changes the prompt or the label of an event.
    pub(crate) async fn update_event(
        &self,
        request: v1::UpdateEventRequest,
    ) -> Result<Event, ApiError> {
        let mut faults = Violations::default();
        if let Some(prompt) = &request.prompt {
            faults.text("prompt", prompt, 1, MAX_PROMPT);
        }
        if let Some(label) = &request.label {
            faults.text("label", label, 1, MAX_LABEL);
        }
        faults.into_result()?;
        let id = &request.event_id;
        self.get_event(id).await?;
        let record = self
            .catalog
            .modify::<EventRecord>(id, |record| {
                let Some(event) = record.event.as_mut() else {
                    return false;
                };
                let before = event.clone();
                if let Some(label) = &request.label {
                    event.label.clone_from(label);
                }
                if let Some(prompt) = request.prompt.as_ref().filter(|new| **new != event.prompt) {
                    event.prompt.clone_from(prompt);
                    event.prompt_revision += 1;
                }
                *event != before
            })
            .await
            .map_err(catalog_failed)?;
        Ok(event_of(&record))
    }

    /// Deletes an event that no alert uses.
    pub(crate) async fn delete_event(&self, id: &str) -> Result<(), ApiError> {
        let found = self.find::<EventRecord>("event_id", id).await?;
        let uses_it = |record: &AlertRecord| {
            let alert = record.alert.as_ref();
            alert.is_some_and(|alert| alert.event_id == id)
        };
        if self.all::<AlertRecord>().any(|record| uses_it(&record)) {
            let allowed = "an event that no alert uses: delete its alerts first";
            return Err(refused(Reason::FailedPrecondition, "event_id", allowed));
        }
        let deleted = self.catalog.delete::<EventRecord>(id, found.revision);
        deleted.await.map_err(catalog_failed)
    }

    /// For the REST skin: one event, if it is still there.
    pub(crate) fn event(&self, id: &str) -> Option<Event> {
        self.catalog.get::<EventRecord>(id)?.value.event.clone()
    }
}

fn event_of(record: &EventRecord) -> Event {
    record.event.clone().unwrap_or_default()
}
