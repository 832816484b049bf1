//! Links to the recording of what was seen, heard or reported.

use std::sync::Arc;

use prost_types::Timestamp;
use sightline_catalog::Catalog;
use sightline_proto::internal::RtStreamRecord;
use sightline_proto::time::micros;
use sightline_proto::v1::{Firing, Scene, SearchHit, TranscriptSegment};
use sightline_recordings::links::Links;
use sightline_service::clock::Clock;

/// Adds links to what happened in streams that are recorded. Clones share everything.
#[derive(Clone)]
pub(crate) struct Linker {
    links: Links,
    catalog: Catalog,
    clock: Arc<dyn Clock>,
}

impl Linker {
    pub(crate) fn new(links: &Links, catalog: &Catalog, clock: &Arc<dyn Clock>) -> Self {
        Self {
            links: links.clone(),
            catalog: catalog.clone(),
            clock: Arc::clone(clock),
        }
    }

    /// The same, with links when its stream is recorded.
    pub(crate) fn link<T: Linkable>(&self, mut happened: T) -> T {
        let (rtstream, start, end) = happened.place();
        let recorded = self
            .catalog
            .get::<RtStreamRecord>(rtstream)
            .and_then(|record| record.value.rtstream.as_ref().map(|stream| stream.store));
        if recorded == Some(true) {
            let (start_us, end_us) = (start.map_or(0, micros), end.map_or(0, micros));
            let now_us = self.clock.now_us();
            let links = self.links.around(rtstream, start_us, end_us, now_us);
            happened.set(links.stream_url, links.player_url);
        }
        happened
    }
}

/// What happened in a stream at a time.
pub(crate) trait Linkable {
    fn place(&self) -> (&str, Option<&Timestamp>, Option<&Timestamp>);
    fn set(&mut self, stream_url: String, player_url: String);
}

macro_rules! linkable {
    ($($message:ty),*) => {
        $(impl Linkable for $message {
            fn place(&self) -> (&str, Option<&Timestamp>, Option<&Timestamp>) {
                (&self.rtstream_id, self.start_time.as_ref(), self.end_time.as_ref())
            }

            fn set(&mut self, stream_url: String, player_url: String) {
                self.stream_url = stream_url;
                self.player_url = player_url;
            }
        })*
    };
}

linkable!(Scene, TranscriptSegment, SearchHit, Firing);
