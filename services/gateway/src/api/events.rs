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

/// The events of a stream's health, which every tenant has and nobody makes; with what they watch for, and their labels. In
/// the order of their ids, all of which lie behind those of events that were made.
const BUILT_IN: [(&str, &str, &str); 6] = [
    (
        "evt-behind",
        "The stream is read or described too slowly",
        "falling behind",
    ),
    ("evt-black", "The picture is black", "black picture"),
    (
        "evt-frozen",
        "The picture does not change",
        "frozen picture",
    ),
    ("evt-offline", "Nothing comes from the source", "offline"),
    ("evt-recovered", "The source is back", "recovered"),
    ("evt-silent", "The sound is silent", "silent audio"),
];

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

    /// Events, oldest first, and then those that are built in.
    pub(crate) fn list_events(
        &self,
        request: &v1::ListEventsRequest,
    ) -> Result<v1::ListEventsResponse, ApiError> {
        self.page_of_events(request, built_in())
    }

    /// For the REST skin: those that were made.
    pub(crate) fn list_own_events(
        &self,
        request: &v1::ListEventsRequest,
    ) -> Result<v1::ListEventsResponse, ApiError> {
        self.page_of_events(request, std::iter::empty())
    }

    fn page_of_events(
        &self,
        request: &v1::ListEventsRequest,
        further: impl DoubleEndedIterator<Item = Event>,
    ) -> Result<v1::ListEventsResponse, ApiError> {
        let mut faults = Violations::default();
        let size = faults.page_size(request.page_size);
        faults.into_result()?;
        let pages = self.pages("ListEvents", &());
        let made = self.all::<EventRecord>().map(|record| event_of(&record));
        let events = made.chain(further);
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
        if let Some(event) = built_in().find(|event| event.id == id) {
            return Ok(event);
        }
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
        refuse_built_in(id)?;
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
        refuse_built_in(id)?;
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
        let found = self.catalog.get::<EventRecord>(id);
        let made = found.and_then(|found| found.value.event.clone());
        made.or_else(|| built_in().find(|event| event.id == id))
    }
}

fn event_of(record: &EventRecord) -> Event {
    record.event.clone().unwrap_or_default()
}

/// Whether an event is one of a stream's health.
pub(super) fn is_built_in(id: &str) -> bool {
    BUILT_IN.iter().any(|(built_in, _, _)| *built_in == id)
}

fn built_in() -> impl DoubleEndedIterator<Item = Event> {
    BUILT_IN.iter().map(|(id, prompt, label)| Event {
        id: (*id).to_owned(),
        prompt: (*prompt).to_owned(),
        label: (*label).to_owned(),
        ..Event::default()
    })
}

fn refuse_built_in(id: &str) -> Result<(), ApiError> {
    if is_built_in(id) {
        let allowed = "an event that somebody made: those of a stream's health are built in";
        return Err(refused(Reason::FailedPrecondition, "event_id", allowed));
    }
    Ok(())
}
