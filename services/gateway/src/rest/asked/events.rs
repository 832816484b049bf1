//! Events, and alerts on them.

use serde::Deserialize;
use sightline_proto::v1;

/// What to watch for.
#[derive(Deserialize)]
pub(crate) struct Create {
    event_prompt: String,
    label: String,
}

impl Create {
    pub(crate) fn request(self) -> v1::CreateEventRequest {
        v1::CreateEventRequest {
            prompt: self.event_prompt,
            label: self.label,
            ..Default::default()
        }
    }
}

/// Which event to watch an index for, and whom to tell.
#[derive(Deserialize)]
pub(crate) struct CreateAlert {
    event_id: String,
    callback_url: Option<String>,
    pub(crate) ws_connection_id: Option<String>,
}

impl CreateAlert {
    pub(crate) fn request(self, index_id: String) -> v1::CreateAlertRequest {
        v1::CreateAlertRequest {
            event_id: self.event_id,
            index_id,
            callback_url: self.callback_url.unwrap_or_default(),
            ..Default::default()
        }
    }
}
