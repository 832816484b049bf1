//! Cameras: RTSP over TCP.

use std::sync::Arc;

use gstreamer as gst;
use gstreamer::prelude::*;
use percent_encoding::percent_decode_str;
use url::Url;

use crate::background::Background;
use crate::chain::element;
use crate::codecs::{self, Medium};
use crate::error::Failure;
use crate::file::announce_last_pad;
use crate::guard::Guard;
use crate::session::Session;
use crate::target::Target;
use crate::tracks::Tracks;

/// How long packets are put in order for, in milliseconds. Over TCP they are, so that this only bounds a queue.
const LATENCY_MS: u32 = 200;

/// The ports of RTSP, plain and with TLS.
pub(crate) const PORTS: (u16, u16) = (554, 322);

/// Builds the pipeline for a camera; tracks attach themselves as they are found. What is returned is to be kept as long.
///
/// # Errors
/// When its URL can't be used.
pub(crate) fn build(
    target: Target,
    url: &Url,
    pipeline: &gst::Pipeline,
    session: &Arc<Session>,
    tracks: &Arc<Tracks>,
) -> Result<Background, Failure> {
    let guard = Guard::start(target, Arc::clone(session))?;
    let source = element("rtspsrc")?;
    source.set_property("location", through(url, guard.port()));
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    if !url.username().is_empty() {
        source.set_property("user-id", decoded(url.username()));
        source.set_property("user-pw", decoded(url.password().unwrap_or_default()));
    }
    source.set_property_from_str("protocols", "tcp");
    source.set_property("latency", LATENCY_MS);
    pipeline
        .add(&source)
        .map_err(|e| Failure::passing(format!("it cannot be opened: {}", e.message)))?;
    select_tracks(&source, session, tracks);
    attach_tracks(&source, session, tracks);
    announce_last_pad(&source, pipeline.downgrade());
    Ok(guard.into_background())
}

/// The same path, by way of the guard and without credentials.
fn through(url: &Url, port: u16) -> String {
    let query = url.query().map_or(String::new(), |q| format!("?{q}"));
    format!("rtsp://127.0.0.1:{port}{}{query}", url.path())
}

/// Only tracks that are read are asked of the camera.
fn select_tracks(source: &gst::Element, session: &Arc<Session>, tracks: &Arc<Tracks>) {
    let (session, tracks) = (Arc::downgrade(session), Arc::downgrade(tracks));
    let chosen = std::sync::Mutex::new(Vec::new());
    source.connect("select-stream", false, move |values| {
        let caps = values.get(2).and_then(|v| v.get::<gst::Caps>().ok());
        let (Some(tracks), Some(caps)) = (tracks.upgrade(), caps) else {
            return Some(false.to_value());
        };
        let medium = caps.structure(0).and_then(codecs::medium_of_rtp);
        let wanted = match tracks.wants(medium) {
            Ok(wanted) => wanted,
            Err(failure) => {
                if let Some(session) = session.upgrade() {
                    session.fail(failure);
                }
                false
            }
        };
        let mut chosen = chosen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = codecs::depayloader(&caps).is_some();
        if wanted && !known {
            tracks.unsupported(medium, encoding(&caps));
        }
        let select = wanted && known && !chosen.contains(&medium);
        if select {
            if medium == Some(Medium::Video) {
                tracks.recorder().expect_pictures();
            }
            chosen.push(medium);
            if let Some(session) = session.upgrade().filter(|_| medium == Some(Medium::Audio)) {
                session.set_has_audio();
            }
        }
        Some(select.to_value())
    });
}

fn attach_tracks(source: &gst::Element, session: &Arc<Session>, tracks: &Arc<Tracks>) {
    let (session, tracks) = (Arc::downgrade(session), Arc::downgrade(tracks));
    source.connect_pad_added(move |_, pad| {
        let attached = tracks.upgrade().map_or(Ok(()), |t| attach(&t, pad));
        if let (Err(failure), Some(session)) = (attached, session.upgrade()) {
            session.fail(failure);
        }
    });
}

/// Pads are told apart by what they carry: any of them can be the first.
fn attach(tracks: &Tracks, pad: &gst::Pad) -> Result<(), Failure> {
    let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    let Some((medium, depayloader, put_out)) = codecs::depayloader(&caps) else {
        return Ok(());
    };
    let put_out = codecs::caps(put_out);
    let Some(codec) = codecs::codec_of(&put_out) else {
        tracks.unsupported(Some(medium), encoding(&caps));
        return Ok(());
    };
    let depayloader = element(depayloader)?;
    let filter = element("capsfilter")?;
    filter.set_property("caps", put_out);
    let output = filter
        .static_pad("src")
        .ok_or_else(|| Failure::passing("a track cannot be read: its filter has no output"))?;
    tracks.add(&[depayloader.clone(), filter])?;
    tracks.attach(&output, codec)?;
    let input = depayloader
        .static_pad("sink")
        .ok_or_else(|| Failure::passing("a track cannot be read: it has no input"))?;
    // Last of all: nothing is pushed into what is not linked.
    pad.link(&input)
        .map_err(|e| Failure::passing(format!("a track cannot be read: {e}")))?;
    Ok(())
}

/// What an RTP payload is called, in what its description says.
fn encoding(caps: &gst::Caps) -> String {
    let name = caps
        .structure(0)
        .and_then(|s| s.get::<&str>("encoding-name").ok());
    name.unwrap_or("an unnamed encoding")
        .chars()
        .take(40)
        .collect()
}
