//! The tracks of a source: which are taken, and how their media reaches them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use crate::audio::AudioTrack;
use crate::chain::element;
use crate::codecs::{self, Codec, Medium};
use crate::error::Failure;
use crate::picture::Coded;
use crate::record::Recorder;
use crate::session::Session;
use crate::timeline::{Pace, container_us};
use crate::video::VideoTrack;

/// Sources with more tracks are refused.
const MAX_TRACKS: usize = 8;
/// What a live source may be ahead of its decoding before pictures are dropped.
const LIVE_QUEUE: Duration = Duration::from_secs(5);
/// The same in bytes.
const LIVE_QUEUE_BYTES: u32 = 32 << 20;

/// The tracks of one pipeline: the first of pictures and the first of audio.
pub(crate) struct Tracks {
    session: Arc<Session>,
    pipeline: gst::Pipeline,
    recorder: Arc<Recorder>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    offered: usize,
    video: Option<Arc<Mutex<VideoTrack>>>,
    audio: Option<Arc<Mutex<AudioTrack>>>,
    /// A sink that can seek.
    sink: Option<gst_app::AppSink>,
    /// Tracks that can't be decoded.
    unsupported: Vec<String>,
    /// Pads that are held until the source is let go.
    held: Vec<(gst::Pad, gst::PadProbeId)>,
}

impl Tracks {
    pub(crate) fn new(session: Arc<Session>, pipeline: gst::Pipeline) -> Self {
        Self {
            recorder: Arc::new(Recorder::new(Arc::clone(&session))),
            session,
            pipeline,
            state: Mutex::default(),
        }
    }

    /// Whether a track of this kind is still looked for. Counts the offer.
    ///
    /// # Errors
    /// When there are too many tracks.
    pub(crate) fn wants(&self, medium: Option<Medium>) -> Result<bool, Failure> {
        let mut state = self.lock();
        state.offered += 1;
        if state.offered > MAX_TRACKS {
            return Err(Failure::permanent(format!(
                "it has more than {MAX_TRACKS} tracks"
            )));
        }
        Ok(match medium {
            Some(Medium::Video) => state.video.is_none(),
            Some(Medium::Audio) => state.audio.is_none(),
            None => false,
        })
    }

    /// Remembers a track that can't be decoded.
    pub(crate) fn unsupported(&self, medium: Option<Medium>, what: String) {
        if medium == Some(Medium::Audio) {
            self.recorder.lacks_sound(&what);
        }
        self.lock().unsupported.push(what);
    }

    /// What records them.
    pub(crate) fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// Links a pad that carries a codec to the track of its kind.
    ///
    /// # Errors
    /// When a plugin is missing or the pad does not fit.
    pub(crate) fn attach(&self, pad: &gst::Pad, codec: &'static Codec) -> Result<(), Failure> {
        self.recorder.expect(codec);
        let recorder = Arc::clone(&self.recorder);
        let sink = match codec.medium {
            Medium::Video => {
                let track = VideoTrack::new(Arc::clone(&self.session), codec)?;
                let track = Arc::new(Mutex::new(track));
                self.lock().video = Some(Arc::clone(&track));
                sink_for(codec, Arc::clone(&self.session), recorder, track)
            }
            Medium::Audio => {
                let track = AudioTrack::new(Arc::clone(&self.session), codec);
                let track = Arc::new(Mutex::new(track));
                self.lock().audio = Some(Arc::clone(&track));
                self.session.set_has_audio();
                sink_for(codec, Arc::clone(&self.session), recorder, track)
            }
        };
        let mut elements: Vec<gst::Element> = Vec::with_capacity(3);
        let live = self.session.timeline.pace == Pace::Live;
        elements.extend(codec.parser(live)?);
        if live {
            elements.push(live_queue()?);
        }
        elements.push(sink.clone().upcast());
        self.add(&elements)?;
        let first = elements.first().and_then(|e| e.static_pad("sink"));
        let linked = first.map(|first| pad.link(&first));
        if !matches!(linked, Some(Ok(_))) {
            let reason = format!("a track cannot be read: {linked:?}");
            return Err(Failure::passing(reason));
        }
        let mut state = self.lock();
        if state.sink.is_none() || codec.medium == Medium::Video {
            state.sink = Some(sink);
        }
        Ok(())
    }

    /// Adds elements to the running pipeline, in a row.
    ///
    /// # Errors
    /// When they do not fit together.
    pub(crate) fn add(&self, elements: &[gst::Element]) -> Result<(), Failure> {
        let unfit = |e: gst::glib::BoolError| {
            Failure::passing(format!("a track cannot be read: {}", e.message))
        };
        self.pipeline
            .add_many(elements)
            .and_then(|()| gst::Element::link_many(elements))
            .map_err(unfit)?;
        // The last first: nothing is pushed into an element that is not ready.
        for element in elements.iter().rev() {
            element.sync_state_with_parent().map_err(unfit)?;
        }
        Ok(())
    }

    /// Holds a pad's media back until `let_go`. The first that comes is announced on the pipeline's bus.
    pub(crate) fn hold(&self, pad: &gst::Pad) {
        let (session, bus) = (Arc::clone(&self.session), self.pipeline.bus());
        let mask =
            gst::PadProbeType::BLOCK | gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
        let probe = pad.add_probe(mask, move |pad, info| {
            if let Some(first_us) = first_time(pad, info) {
                session.timeline.set_first_us(first_us);
            }
            if let Some(bus) = &bus {
                let first = gst::Structure::new_empty("first-media");
                let _ = bus.post(gst::message::Application::new(first));
            }
            gst::PadProbeReturn::Ok
        });
        self.lock()
            .held
            .extend(probe.map(|probe| (pad.clone(), probe)));
    }

    /// Lets go what was held.
    pub(crate) fn let_go(&self) {
        let held = std::mem::take(&mut self.lock().held);
        for (pad, probe) in held {
            pad.remove_probe(probe);
        }
    }

    /// Checks that there is something to read, once all tracks are known.
    ///
    /// # Errors
    /// When there is not.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let state = self.lock();
        if state.video.is_some() || (state.audio.is_some() && state.unsupported.is_empty()) {
            return Ok(());
        }
        Err(Failure::permanent(if state.unsupported.is_empty() {
            "it has neither pictures nor sound".to_owned()
        } else {
            format!(
                "it has no track that can be decoded: {} is not supported",
                state.unsupported.join(", ")
            )
        }))
    }

    /// Starts at a position, or at the keyframe before it.
    ///
    /// # Errors
    /// When the source can't.
    pub(crate) fn seek(&self, position_us: i64) -> Result<(), Failure> {
        let sink = self.lock().sink.clone();
        let seeks = sink.is_some_and(|sink| {
            sink.seek(
                1.0,
                gst::SeekFlags::FLUSH | gst::SeekFlags::KEY_UNIT | gst::SeekFlags::SNAP_BEFORE,
                gst::SeekType::Set,
                gst::ClockTime::from_useconds(position_us.max(0).unsigned_abs()),
                gst::SeekType::None,
                gst::ClockTime::NONE,
            )
            .is_ok()
        });
        if seeks {
            Ok(())
        } else {
            Err(Failure::permanent(
                "it cannot be continued in its middle: it has no index",
            ))
        }
    }

    /// The source ended: what is under way is over.
    ///
    /// # Errors
    /// When the last picture can't be encoded.
    pub(crate) fn finish(&self) -> Result<(), Failure> {
        let (video, audio) = {
            let state = self.lock();
            (state.video.clone(), state.audio.clone())
        };
        if let Some(audio) = audio {
            locked(&audio).finish();
        }
        if let Some(video) = video {
            locked(&video).finish()?;
        }
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        locked(&self.state)
    }
}

/// Something that media of one track is given to, in the order in which it arrives.
trait Track: Send + 'static {
    /// Takes the next piece. `broken` says that some before it are missing.
    fn take(&mut self, coded: Coded, broken: bool) -> Result<(), Failure>;
}

impl Track for VideoTrack {
    fn take(&mut self, coded: Coded, broken: bool) -> Result<(), Failure> {
        let key = !coded.buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        self.push(coded, key, broken)
    }
}

impl Track for AudioTrack {
    fn take(&mut self, coded: Coded, _broken: bool) -> Result<(), Failure> {
        self.push(&coded.caps, &coded.buffer, coded.position_us)
    }
}

fn sink_for<T: Track>(
    codec: &Codec,
    session: Arc<Session>,
    recorder: Arc<Recorder>,
    track: Arc<Mutex<T>>,
) -> gst_app::AppSink {
    let medium = codec.medium;
    let taken = move |sink: &gst_app::AppSink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        let _handling = session.activity.handling();
        match take(&session, &recorder, medium, &track, sink, &sample) {
            Ok(true) => Ok(gst::FlowSuccess::Ok),
            Ok(false) => Err(gst::FlowError::Eos),
            Err(failure) => {
                session.fail(failure);
                Err(gst::FlowError::Error)
            }
        }
    };
    gst_app::AppSink::builder()
        .caps(&codec.parsed_caps())
        .sync(false)
        .async_(false)
        .enable_last_sample(false)
        .max_buffers(1)
        .callbacks(
            gst_app::AppSinkCallbacks::builder()
                .new_sample(taken)
                .build(),
        )
        .build()
}

/// The container's time of what is about to pass a pad.
fn first_time(pad: &gst::Pad, info: &gst::PadProbeInfo) -> Option<i64> {
    let pts = match &info.data {
        Some(gst::PadProbeData::Buffer(buffer)) => buffer.pts()?,
        Some(gst::PadProbeData::BufferList(list)) => list.get(0)?.pts()?,
        _ => return None,
    };
    let segment = pad.sticky_event::<gst::event::Segment>(0)?;
    container_us(segment.segment().downcast_ref()?, pts)
}

/// Hands one piece of media to its track when it is due; false if the source was stopped meanwhile.
fn take<T: Track>(
    session: &Session,
    recorder: &Recorder,
    medium: Medium,
    track: &Mutex<T>,
    sink: &gst_app::AppSink,
    sample: &gst::Sample,
) -> Result<bool, Failure> {
    let (Some(buffer), Some(caps)) = (sample.buffer_owned(), sample.caps_owned()) else {
        return Ok(true);
    };
    let segment = sample.segment().and_then(gst::Segment::downcast_ref);
    let (Some(segment), Some(pts)) = (segment, buffer.pts()) else {
        return Ok(true);
    };
    let running_now = sink.current_running_time();
    let Some(position_us) = session.timeline.arrived(segment, pts, running_now) else {
        return Ok(true);
    };
    if session.timeline.is_before_start(position_us) {
        return Ok(!session.control.is_stopped());
    }
    if medium == Medium::Video {
        let (width, height) = codecs::check_size(&caps)?;
        session.open(width, height);
    }
    if let Some(due) = session.timeline.due(position_us)
        && !session.control.wait_until(due)
    {
        return Ok(false);
    }
    if session.control.is_stopped() {
        return Ok(false);
    }
    let duration = buffer.duration().map_or(0, gst::ClockTime::useconds);
    session.read_up_to(position_us.saturating_add_unsigned(duration));
    let broken = buffer.flags().contains(gst::BufferFlags::DISCONT);
    let coded = Coded {
        buffer,
        caps,
        position_us,
    };
    recorder.take(medium, &coded, broken);
    locked(track).take(coded, broken)?;
    Ok(true)
}

/// Cameras do not wait: what can't be decoded in time is dropped, oldest first, up to the next keyframe.
fn live_queue() -> Result<gst::Element, Failure> {
    let queue = element("queue")?;
    queue.set_property("max-size-buffers", 0u32);
    queue.set_property("max-size-bytes", LIVE_QUEUE_BYTES);
    let time = u64::try_from(LIVE_QUEUE.as_nanos()).unwrap_or(u64::MAX);
    queue.set_property("max-size-time", time);
    queue.set_property_from_str("leaky", "downstream");
    Ok(queue)
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
