//! Elements in a row that are fed and emptied on the caller's thread: what goes in comes out before `push` returns.
//!
//! So nothing is queued between reading and the finished picture, and nothing is decoded that was not asked for.

use std::sync::{Arc, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_video as gst_video;

use crate::error::Failure;

/// A buffer that came out, with what it is.
pub(crate) struct Output {
    pub(crate) buffer: gst::Buffer,
    pub(crate) caps: gst::Caps,
}

/// Elements in a row.
pub(crate) struct Chain {
    elements: gst::Bin,
    input: gst::Pad,
    _output: gst::Pad,
    outputs: Arc<Mutex<Vec<Output>>>,
    caps: Option<gst::Caps>,
}

impl Chain {
    /// Links the elements, at least one, and starts them.
    ///
    /// # Errors
    /// When they do not fit together or do not start.
    pub(crate) fn new(elements: &[gst::Element]) -> Result<Self, Failure> {
        let broken = |what: &str| Failure::passing(format!("the decoder cannot be built: {what}"));
        let (Some(first), Some(last)) = (elements.first(), elements.last()) else {
            return Err(broken("it has no elements"));
        };
        let bin = gst::Bin::new();
        bin.add_many(elements)
            .and_then(|()| gst::Element::link_many(elements))
            .map_err(|e| broken(&e.message))?;
        let outputs = Arc::new(Mutex::new(Vec::new()));
        let output = collecting_pad(Arc::clone(&outputs));
        let input = gst::Pad::builder(gst::PadDirection::Src).build();
        let pad = |element: &gst::Element, name: &str| {
            element.static_pad(name).ok_or_else(|| broken("a pad"))
        };
        input
            .link(&pad(first, "sink")?)
            .map_err(|e| broken(&e.to_string()))?;
        pad(last, "src")?
            .link(&output)
            .map_err(|e| broken(&e.to_string()))?;
        let active = |pad: &gst::Pad| pad.set_active(true).map_err(|e| broken(&e.message));
        active(&output)?;
        bin.set_state(gst::State::Playing)
            .map_err(|e| broken(&e.to_string()))?;
        active(&input)?;
        input.push_event(gst::event::StreamStart::new("chain"));
        Ok(Self {
            elements: bin,
            input,
            _output: output,
            outputs,
            caps: None,
        })
    }

    /// Feeds a buffer and returns what has come out.
    ///
    /// # Errors
    /// When the elements refuse it.
    pub(crate) fn push(
        &mut self,
        caps: &gst::Caps,
        buffer: gst::Buffer,
    ) -> Result<Vec<Output>, Failure> {
        if self.caps.as_ref() != Some(caps) {
            let first = self.caps.replace(caps.clone()).is_none();
            self.input.push_event(gst::event::Caps::new(caps));
            if first {
                let segment = gst::FormattedSegment::<gst::ClockTime>::new();
                self.input.push_event(gst::event::Segment::new(&segment));
            }
        }
        self.input
            .push(buffer)
            .map_err(|e| Failure::passing(format!("decoding failed: {e}")))?;
        Ok(self.collect())
    }

    /// Makes a decoder give out the pictures that it holds back for reordering. The next buffer must be a keyframe.
    pub(crate) fn drain_pictures(&mut self) -> Vec<Output> {
        self.input
            .push_event(gst_video::StillFrameEvent::builder(true).build());
        self.collect()
    }

    /// Ends the stream and returns what was held back.
    pub(crate) fn finish(self) -> Vec<Output> {
        self.input.push_event(gst::event::Eos::new());
        self.collect()
    }

    fn collect(&self) -> Vec<Output> {
        std::mem::take(&mut *self.outputs.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        let _ = self.input.set_active(false);
        let _ = self.elements.set_state(gst::State::Null);
    }
}

fn collecting_pad(outputs: Arc<Mutex<Vec<Output>>>) -> gst::Pad {
    gst::Pad::builder(gst::PadDirection::Sink)
        .chain_function(move |pad, _, buffer| {
            let caps = pad.current_caps().ok_or(gst::FlowError::NotNegotiated)?;
            outputs
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(Output { buffer, caps });
            Ok(gst::FlowSuccess::Ok)
        })
        .build()
}

/// Decoders drop what lies before 0, and sound may start a little before it: times in a chain are an hour later.
pub(crate) const SHIFT_US: i64 = 3_600_000_000;

/// A buffer of sound for a chain, with its position as its time.
pub(crate) fn timed(buffer: &gst::Buffer, position_us: i64) -> gst::Buffer {
    let shifted = (position_us + SHIFT_US).max(0).unsigned_abs();
    let mut buffer = buffer.copy();
    if let Some(buffer) = buffer.get_mut() {
        buffer.set_pts(gst::ClockTime::from_useconds(shifted));
        buffer.set_dts(gst::ClockTime::NONE);
    }
    buffer
}

/// An element of a kind that GStreamer's own plugins bring.
///
/// # Errors
/// When the plugin is not installed.
pub(crate) fn element(kind: &'static str) -> Result<gst::Element, Failure> {
    gst::ElementFactory::make(kind).build().map_err(|_| {
        Failure::permanent(format!(
            "GStreamer's element {kind} is missing: install gstreamer1.0-plugins-{{base,good,bad}} and gstreamer1.0-libav"
        ))
    })
}
