//! Watch: what happens, as it happens, to whoever listens; resumable by cursor without gap or repetition.

mod cursor;
mod filter;
mod following;
mod hub;
mod interim;

use std::sync::Arc;

use futures::stream::{Stream, unfold};
use sightline_bus::StreamName;
use sightline_proto::internal::{IndexRecord, RtStreamRecord};
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::v1::watch_request::Kind;
use sightline_proto::v1::watch_response::Message;
use sightline_proto::v1::{Ready, WatchRequest, WatchResponse};

pub(crate) use self::filter::Subscribed;
use self::filter::{Asked, Filter, Wanted};
use self::following::{Feed, Watch};
pub(crate) use self::hub::{Hub, PART};
use super::violations::{Violations, refused};
use super::{Session, bus_failed};

/// Every observation.
const OBSERVATIONS: &str = "obs.>";
/// Ids that one watch may name of each sort.
const MAX_IDS: usize = 100;

impl Session {
    /// Opens a watch. The stream ends with an error alone: at shutdown, when the caller's key is revoked, or when the bus is
    /// lost while catching up.
    pub(crate) async fn watch(
        self,
        request: WatchRequest,
    ) -> Result<impl Stream<Item = Result<WatchResponse, ApiError>> + Send + use<>, ApiError> {
        let asked = self.asked(&request).await?;
        self.follow(Wanted::Asked(Arc::new(asked)), &request.cursor)
            .await
    }

    /// Opens a watch of what `subscribed` holds, which may change while it is open: what comes after a change is told by it.
    /// Otherwise as `watch`.
    pub(crate) async fn watch_subscribed(
        self,
        subscribed: Subscribed,
        cursor: &str,
    ) -> Result<impl Stream<Item = Result<WatchResponse, ApiError>> + Send + use<>, ApiError> {
        self.follow(Wanted::Subscribed(subscribed), cursor).await
    }

    async fn follow(
        self,
        wanted: Wanted,
        cursor: &str,
    ) -> Result<impl Stream<Item = Result<WatchResponse, ApiError>> + Send + use<>, ApiError> {
        let filter = Filter {
            tenant: Arc::clone(&self.caller.tenant),
            wanted,
        };
        let (last, feed) = match cursor {
            "" => {
                let (live, position) = self.hub.subscribe(filter.clone());
                (position, Feed::Live(live))
            }
            cursor => (self.place(cursor).await?, Feed::behind()),
        };
        let ready = response(last, Message::Ready(Ready {}));
        let watch = Watch::new(&self, filter, feed, last, ready);
        Ok(unfold(Some(watch), |watch| async {
            let mut watch = watch?;
            match watch.next().await {
                Ok(response) => Some((Ok(response), Some(watch))),
                Err(error) => Some((Err(error), None)),
            }
        }))
    }

    async fn asked(&self, request: &WatchRequest) -> Result<Asked, ApiError> {
        let mut faults = Violations::default();
        let mut kinds = Vec::new();
        for &kind in &request.kinds {
            match Kind::try_from(kind) {
                Ok(kind) if kind != Kind::Unspecified => kinds.push(kind),
                _ => faults.add("kinds", format!("known kinds, got {kind}")),
            }
        }
        for (field, ids) in [
            ("rtstream_ids", &request.rtstream_ids),
            ("index_ids", &request.index_ids),
        ] {
            if ids.len() > MAX_IDS {
                faults.add(field, format!("at most {MAX_IDS}, got {}", ids.len()));
            }
        }
        faults.into_result()?;
        for id in &request.rtstream_ids {
            self.find::<RtStreamRecord>("rtstream_ids", id).await?;
        }
        for id in &request.index_ids {
            self.find::<IndexRecord>("index_ids", id).await?;
        }
        Ok(Asked {
            rtstream_ids: request.rtstream_ids.clone(),
            index_ids: request.index_ids.clone(),
            kinds,
            interim: request.interim,
        })
    }

    /// The sequence that a cursor stands for.
    async fn place(&self, cursor: &str) -> Result<u64, ApiError> {
        let invalid = |allowed: &str| refused(Reason::CursorInvalid, "cursor", allowed);
        let sequence = cursor::decode(cursor)
            .ok_or_else(|| invalid("the cursor of a message that Watch sent, or empty"))?;
        let newest = self
            .bus
            .last_sequence(StreamName::Observations)
            .await
            .map_err(bus_failed)?;
        if sequence > newest {
            let allowed = "a cursor of this server; this one is ahead of everything here, so it \
                           comes from another server or from before its data were deleted";
            return Err(invalid(allowed));
        }
        Ok(sequence)
    }
}

fn response(sequence: u64, message: Message) -> WatchResponse {
    WatchResponse {
        cursor: cursor::encode(sequence),
        message: Some(message),
    }
}
