//! Playing a source from its opening to its end, watched.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use sightline_proto::internal::{Ended, OpenSource};
use sightline_service::clock::Clock;
use url::Url;

use crate::control::Control;
use crate::error::Failure;
use crate::file;
use crate::session::{Reports, Session};
use crate::timeline::{Pace, Timeline};
use crate::tracks::Tracks;

/// How long opening may take, up to the first media.
const OPEN_DEADLINE: Duration = Duration::from_secs(20);
/// How long a live source may send nothing.
const SILENCE: Duration = Duration::from_secs(10);
/// How often the watchdogs look.
const LOOK: Duration = Duration::from_millis(100);

/// Plays a source until it ends, fails or is stopped, and reports what it yields. Blocks; call it on a thread of its own.
///
/// Reports come in this order: `Opened` first, windows of each sampling in theirs, utterances in theirs. `Ended` and
/// `Failed` are what this returns. A live source never ends: when it stops, that is a failure that may pass.
///
/// # Errors
/// When the source can't be read or breaks off.
pub fn play(
    open: &OpenSource,
    control: &Arc<Control>,
    clock: Arc<dyn Clock>,
    reports: Reports,
) -> Result<Ended, Failure> {
    gst::init().map_err(|e| Failure::permanent(format!("GStreamer does not start: {e}")))?;
    let url = Url::parse(&open.url)
        .map_err(|e| Failure::permanent(format!("its URL cannot be read: {e}")))?;
    let pace = match (url.scheme(), open.real_time) {
        ("file", true) => Pace::RealTime,
        ("file", false) => Pace::Fast,
        ("rtsp" | "rtsps", _) => Pace::Live,
        (scheme, _) => {
            let reason = format!("{scheme}:// is not supported: use rtsp://, rtsps:// or file://");
            return Err(Failure::permanent(reason));
        }
    };
    if !control.wait_for_take() {
        return Ok(Ended::default());
    }
    let timeline = Timeline::new(open, pace, clock);
    let session = Session::new(Arc::clone(control), timeline, open.frame_edge, reports);
    let session = Arc::new(session);
    let pipeline = gst::Pipeline::new();
    let tracks = Arc::new(Tracks::new(Arc::clone(&session), pipeline.clone()));
    file::build(&url, &pipeline, &session, &tracks)?;
    let player = Player {
        open,
        session,
        pipeline,
        tracks,
        started: Instant::now(),
    };
    player.run()
}

struct Player<'a> {
    open: &'a OpenSource,
    session: Arc<Session>,
    pipeline: gst::Pipeline,
    tracks: Arc<Tracks>,
    started: Instant,
}

impl Player<'_> {
    fn run(&self) -> Result<Ended, Failure> {
        // A file is held until all its tracks are known; a camera does not wait.
        self.set_state(match self.session.timeline.pace {
            Pace::Live => gst::State::Playing,
            Pace::RealTime | Pace::Fast => gst::State::Paused,
        })?;
        let bus = self.pipeline.bus().ok_or_else(|| broken("it has no bus"))?;
        loop {
            let message = bus.timed_pop(gst::ClockTime::try_from(LOOK).ok());
            if let Some(failure) = self.session.failure() {
                return Err(failure);
            }
            if self.session.control.is_stopped() {
                return Ok(self.ended());
            }
            match message.as_ref().map(|m| m.view()) {
                Some(gst::MessageView::Application(_)) => self.all_tracks_known()?,
                Some(gst::MessageView::Error(error)) => return Err(self.explain(&error.error())),
                Some(gst::MessageView::Eos(_)) => return self.finish(),
                _ => {}
            }
            self.watch()?;
        }
    }

    fn all_tracks_known(&self) -> Result<(), Failure> {
        self.tracks.check()?;
        if self.session.timeline.pace == Pace::Live {
            return Ok(());
        }
        if let Some(length) = self.pipeline.query_duration::<gst::ClockTime>() {
            let length_us = i64::try_from(length.useconds()).unwrap_or(i64::MAX);
            self.session.set_length_us(length_us);
        }
        if self.open.start_position_us > 0 {
            self.tracks.seek(self.open.start_position_us)?;
        }
        self.set_state(gst::State::Playing)
    }

    fn finish(&self) -> Result<Ended, Failure> {
        if self.session.timeline.pace == Pace::Live {
            return Err(Failure::passing("the camera ended the stream"));
        }
        if !self.session.is_open() {
            return Err(Failure::permanent("it has no pictures and no sound in it"));
        }
        self.session.set_length_us(self.session.read_us());
        self.tracks.finish()?;
        Ok(self.ended())
    }

    fn ended(&self) -> Ended {
        Ended {
            duration_us: self.session.read_us(),
        }
    }

    fn watch(&self) -> Result<(), Failure> {
        let activity = &self.session.activity;
        if !self.session.is_open() {
            if self.started.elapsed() > OPEN_DEADLINE {
                let seconds = OPEN_DEADLINE.as_secs();
                let reason = format!("no picture or sound came within {seconds} s");
                return Err(Failure::passing(reason));
            }
        } else if activity.silent_for() > SILENCE {
            let reason = format!("it has sent nothing for {} s", SILENCE.as_secs());
            return Err(Failure::passing(reason));
        } else if self.session.timeline.pace == Pace::Live && activity.lacks_pictures() {
            let reason = "it sends pictures, but none that can be decoded";
            return Err(Failure::passing(reason));
        }
        Ok(())
    }

    /// What a pipeline's error means. Its text alone is used: its details may hold the source's address.
    fn explain(&self, error: &gst::glib::Error) -> Failure {
        let reason = error.message().trim_end_matches('.').to_owned();
        if error.is::<gst::StreamError>() && self.session.timeline.pace != Pace::Live {
            return Failure::permanent(format!("it is damaged or not a video: {reason}"));
        }
        Failure::passing(reason)
    }

    fn set_state(&self, state: gst::State) -> Result<(), Failure> {
        match self.pipeline.set_state(state) {
            Ok(_) => Ok(()),
            Err(error) => {
                // The reason was posted before the state change failed.
                let posted = self.pipeline.bus().and_then(|bus| {
                    let message = bus.pop_filtered(&[gst::MessageType::Error])?;
                    match message.view() {
                        gst::MessageView::Error(error) => Some(self.explain(&error.error())),
                        _ => None,
                    }
                });
                Err(posted.unwrap_or_else(|| broken(&error.to_string())))
            }
        }
    }
}

impl Drop for Player<'_> {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

fn broken(what: &str) -> Failure {
    Failure::passing(format!("the pipeline does not start: {what}"))
}
