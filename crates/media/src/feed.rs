//! Bytes that this process fetches itself, on their way into the pipeline: held back while enough of them wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::chain::element;
use crate::error::Failure;
use crate::file;
use crate::session::Session;
use crate::timeline::Pace;
use crate::tracks::Tracks;

/// Bytes that wait in the pipeline before more are fetched.
const WAITING: u64 = 4 << 20;
/// How long is waited for a sign before it is looked again.
const LOOK: Duration = Duration::from_millis(200);

/// What was found out about bytes before the pipeline for them is built.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    /// The element that takes them apart.
    pub(crate) container: &'static str,
    /// How they are played.
    pub(crate) pace: Pace,
    /// Whether they have no end, so that one is a failure.
    pub(crate) endless: bool,
    /// Where in the stream they begin: where that is not what their own times say.
    pub(crate) begins_us: i64,
    /// How many there are, where any of them can be asked for.
    pub(crate) length: Option<u64>,
}

/// A pipeline's intake.
pub(crate) struct Feed {
    source: gst_app::AppSrc,
    wishes: Arc<Wishes>,
}

/// What becomes of bytes that are offered.
pub(crate) enum Flow {
    /// They are taken.
    On,
    /// Those from here on are wanted instead.
    From(u64),
    /// No more are.
    Over,
}

#[derive(Default)]
struct Wishes {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// The place of what is pushed next.
    next: u64,
    /// What is wanted instead.
    from: Option<u64>,
    /// Whether what waited is being thrown away.
    turning: bool,
}

impl Wishes {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Feed {
    /// Builds the pipeline; tracks attach themselves as they are found.
    ///
    /// # Errors
    /// When a plugin is missing.
    pub(crate) fn build(
        found: &Found,
        pipeline: &gst::Pipeline,
        session: &Arc<Session>,
        tracks: &Arc<Tracks>,
    ) -> Result<Self, Failure> {
        let wishes = Arc::new(Wishes::default());
        let source = intake(found, &wishes);
        let demuxer = element(found.container)?;
        if demuxer.has_property("single-stream") {
            demuxer.set_property("single-stream", true);
        }
        pipeline
            .add_many([source.upcast_ref(), &demuxer])
            .and_then(|()| source.link(&demuxer))
            .map_err(|e| Failure::passing(format!("it cannot be opened: {}", e.message)))?;
        file::attach_tracks(&demuxer, pipeline, session, tracks);
        Ok(Self { source, wishes })
    }

    /// Offers the next bytes; waits while enough wait already.
    pub(crate) async fn push(&self, bytes: &Bytes) -> Flow {
        loop {
            if let Some(flow) = self.try_push(bytes) {
                return flow;
            }
            let _ = timeout(LOOK, self.wishes.changed.notified()).await;
        }
    }

    fn try_push(&self, bytes: &Bytes) -> Option<Flow> {
        let mut state = self.wishes.lock();
        if let Some(from) = state.from.take() {
            state.next = from;
            return Some(Flow::From(from));
        }
        if state.turning || self.source.current_level_bytes() >= WAITING {
            return None;
        }
        match self
            .source
            .push_buffer(gst::Buffer::from_slice(bytes.clone()))
        {
            Ok(_) => {
                state.next = state.next.saturating_add(bytes.len() as u64);
                Some(Flow::On)
            }
            Err(gst::FlowError::Flushing) => None,
            Err(_) => Some(Flow::Over),
        }
    }

    /// Says that there are no more, and waits until some from elsewhere are wanted after all.
    pub(crate) async fn end(&self) -> u64 {
        let _ = self.source.end_of_stream();
        loop {
            let from = self.wishes.lock().from.take();
            if let Some(from) = from {
                self.wishes.lock().next = from;
                return from;
            }
            let _ = timeout(LOOK, self.wishes.changed.notified()).await;
        }
    }
}

fn intake(found: &Found, wishes: &Arc<Wishes>) -> gst_app::AppSrc {
    // These count by when their bytes came, so that their times keep up with this machine's clock.
    let stamped =
        found.pace == Pace::Live && matches!(found.container, "tsdemux" | "multipartdemux");
    let (wanted, turned) = (Arc::clone(wishes), Arc::clone(wishes));
    let callbacks = gst_app::AppSrcCallbacks::builder()
        .need_data(move |_, _| {
            wanted.lock().turning = false;
            wanted.changed.notify_one();
        })
        .seek_data(move |_, from| {
            let mut state = turned.lock();
            if from != state.next {
                state.from = Some(from);
                state.turning = true;
            }
            turned.changed.notify_one();
            true
        })
        .build();
    let source = gst_app::AppSrc::builder()
        .is_live(stamped)
        .do_timestamp(stamped)
        .format(if stamped {
            gst::Format::Time
        } else {
            gst::Format::Bytes
        })
        .max_bytes(WAITING)
        .callbacks(callbacks)
        .build();
    source.set_property("min-percent", 50u32);
    if let Some(length) = found.length.and_then(|length| i64::try_from(length).ok()) {
        source.set_stream_type(gst_app::AppStreamType::Seekable);
        source.set_size(length);
    }
    source
}
