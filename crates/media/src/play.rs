//! Playing a source from its opening to its end, watched.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use sightline_egress::Policy;
use sightline_proto::internal::{Ended, OpenSource};
use sightline_service::clock::Clock;
use url::Url;

use crate::audio::LEAD_US;
use crate::background::Background;
use crate::control::Control;
use crate::error::Failure;
use crate::session::{Reports, Session};
use crate::timeline::{Pace, Timeline};
use crate::tracks::Tracks;
use crate::ways::Way;

/// How long opening may take, up to the first media.
const OPEN_DEADLINE: Duration = Duration::from_secs(20);
/// How long a file may take to name its tracks once media of one of them has come.
const TRACKS_DEADLINE: Duration = Duration::from_millis(500);
/// How long a live source may send nothing.
const SILENCE: Duration = Duration::from_secs(10);
/// How long closing may take.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
/// How often the watchdogs look.
const LOOK: Duration = Duration::from_millis(100);

/// Plays a source until it ends, fails or is stopped, and reports what it yields. Blocks; call it on a thread of its own.
///
/// Reports come in this order: `Opened` first, windows of each sampling in theirs, utterances in theirs, segments of the
/// recording in theirs, the last of them before this returns. `Ended` and `Failed` are what this returns. A live source never ends: when it stops, that is a failure that may pass.
///
/// `policy` says which addresses the source may be at, and whatever it leads to.
///
/// # Errors
/// When the source can't be read or breaks off.
pub fn play(
    open: &OpenSource,
    policy: &Policy,
    control: &Arc<Control>,
    clock: Arc<dyn Clock>,
    reports: Reports,
) -> Result<Ended, Failure> {
    gst::init().map_err(|e| Failure::permanent(format!("GStreamer does not start: {e}")))?;
    let url = Url::parse(&open.url)
        .map_err(|e| Failure::permanent(format!("its URL cannot be read: {e}")))?;
    if !control.wait_for_take() {
        return Ok(Ended::default());
    }
    let Some(way) = Way::find(open, &url, policy, control, clock.now_us())? else {
        return Ok(Ended::default());
    };
    let pace = way.pace();
    let timeline = Timeline::new(pace, way.start_us(), open.epoch_us, clock);
    let timeline = timeline.beginning(way.begins_us());
    // A file that is played fast is over before anybody would read along.
    let interim = pace != Pace::Fast;
    let (control, edge) = (Arc::clone(control), open.frame_edge);
    let endless = way.is_endless();
    let session = Session::new(control, timeline, edge, interim, endless, reports);
    let session = Arc::new(session);
    let pipeline = gst::Pipeline::new();
    let tracks = Arc::new(Tracks::new(Arc::clone(&session), pipeline.clone()));
    // Only files on this machine are read from anywhere at once.
    let seek_to_us = way.is_file().then_some(way.start_us());
    let background = way.build(&pipeline, &session, &tracks)?;
    let player = Player {
        seek_to_us: seek_to_us.filter(|us| *us > 0),
        session,
        pipeline,
        tracks,
        started: Instant::now(),
        all_tracks: Cell::new(false),
        first_media: Cell::new(None),
        starts: Cell::new(false),
        _background: background,
    };
    player.run()
}

struct Player {
    /// Files on this machine: where to start, if not at the start.
    seek_to_us: Option<i64>,
    session: Arc<Session>,
    pipeline: gst::Pipeline,
    tracks: Arc<Tracks>,
    started: Instant,
    /// Files: whether all tracks are known.
    all_tracks: Cell<bool>,
    /// Files: since when media is held back.
    first_media: Cell<Option<Instant>>,
    /// Files: whether it was let go.
    starts: Cell<bool>,
    /// What talks to the network: dropped after the pipeline was closed.
    _background: Option<Background>,
}

impl Player {
    fn run(&self) -> Result<Ended, Failure> {
        let played = self.play();
        let stopped = self.session.control.is_stopped();
        // Whatever came of it that it ends in its middle.
        let played = match self.session.broken_off() {
            Some(failure) if !stopped => Err(failure),
            _ => played,
        };
        let at_end = played.is_ok() && !stopped;
        self.tracks.recorder().finish(at_end);
        played
    }

    fn play(&self) -> Result<Ended, Failure> {
        self.set_state(gst::State::Playing)?;
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
                Some(gst::MessageView::Application(what)) => self.learn(what.structure())?,
                Some(gst::MessageView::Error(error)) => return Err(self.explain(&error.error())),
                Some(gst::MessageView::Eos(_)) => return self.finish(),
                _ => {}
            }
            self.start_if_ready()?;
            self.watch()?;
        }
    }

    /// What the pipeline's own threads have found out.
    fn learn(&self, what: Option<&gst::StructureRef>) -> Result<(), Failure> {
        match what.map(|what| what.name().as_str()) {
            Some("no-more-pads") => {
                self.all_tracks.set(true);
                self.tracks.check()?;
            }
            Some("first-media") if self.first_media.get().is_none() => {
                self.first_media.set(Some(Instant::now()));
            }
            _ => {}
        }
        Ok(())
    }

    /// Lets a file go from where it is wanted, once its tracks are known and where it starts.
    fn start_if_ready(&self) -> Result<(), Failure> {
        let Some(first_media) = self.first_media.get().filter(|_| !self.starts.get()) else {
            return Ok(());
        };
        // Some containers name a track only by its first media, which may be behind what is held.
        if !self.all_tracks.get() && first_media.elapsed() < TRACKS_DEADLINE {
            return Ok(());
        }
        self.starts.set(true);
        let origin_us = self.session.timeline.origin_us().unwrap_or(0);
        let length = self.pipeline.query_duration::<gst::ClockTime>();
        // Those that count from anywhere also only guess at their length.
        if let Some(length) = length.filter(|_| origin_us == 0) {
            let length_us = i64::try_from(length.useconds()).unwrap_or(i64::MAX);
            self.session.set_length_us(length_us);
        }
        if let Some(to_us) = self.seek_to_us {
            let from_us = (to_us - LEAD_US).max(0);
            self.tracks.seek(from_us + origin_us)?;
        }
        self.tracks.let_go();
        Ok(())
    }

    fn finish(&self) -> Result<Ended, Failure> {
        if self.session.is_endless() {
            return Err(Failure::passing("the camera ended the stream"));
        }
        // What was over before it was found again has nothing in it any more.
        if !self.session.is_open() && !self.session.timeline.is_late() {
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
        let live = self.session.timeline.pace == Pace::Live;
        let silence = SILENCE.as_secs();
        let reason = if !self.session.is_open() {
            if self.started.elapsed() < OPEN_DEADLINE {
                return Ok(());
            }
            // What is behind is read through to where it is wanted, however long that takes.
            if self.session.timeline.is_late() && activity.silent_for() < SILENCE {
                return Ok(());
            }
            let deadline = OPEN_DEADLINE.as_secs();
            format!("no picture or sound came within {deadline} s")
        } else if live && activity.mute_for() > SILENCE {
            format!("it has sent nothing for {silence} s")
        } else if activity.silent_for() > SILENCE {
            format!("it has sent no picture and no sound for {silence} s")
        } else if self.session.is_endless() && activity.lacks_pictures() {
            "it sends pictures, but none that can be decoded".to_owned()
        } else {
            return Ok(());
        };
        Err(Failure::passing(reason))
    }

    /// What a pipeline's error means. Its text alone is used: its details may hold the source's address.
    fn explain(&self, error: &gst::glib::Error) -> Failure {
        let reason = error.message().trim_end_matches('.').to_owned();
        if error.matches(gst::ResourceError::NotAuthorized) {
            return Failure::permanent(
                "the camera refuses the user name and password, or asks for some",
            );
        }
        let live = self.session.is_endless();
        if live && error.matches(gst::ResourceError::Read) {
            return Failure::passing("the camera closed the connection before it sent anything");
        }
        if live && error.matches(gst::ResourceError::NotFound) {
            return Failure::passing("the camera knows no stream at this path");
        }
        if error.is::<gst::StreamError>() && !live {
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

impl Drop for Player {
    fn drop(&mut self) {
        // A source that hangs may hang its closing too.
        let (closed, waiting) = sync_channel(1);
        let pipeline = self.pipeline.clone();
        self.session.control.stop();
        std::thread::spawn(move || {
            let _ = pipeline.set_state(gst::State::Null);
            let _ = closed.send(());
        });
        let _ = waiting.recv_timeout(CLOSE_DEADLINE);
    }
}

fn broken(what: &str) -> Failure {
    Failure::passing(format!("the pipeline does not start: {what}"))
}
