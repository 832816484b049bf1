//! Files: the container is told by its first bytes, never by its name.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_base as gst_base;
use url::Url;

use crate::chain::element;
use crate::codecs;
use crate::error::Failure;
use crate::session::Session;
use crate::timeline::Pace;
use crate::tracks::Tracks;

/// How much of a file is looked at to tell what it is.
const HEAD_BYTES: u64 = 64 << 10;

/// Builds the pipeline for a file; tracks attach themselves as they are found.
///
/// # Errors
/// When it can't be read or is no video.
pub(crate) fn build(
    url: &Url,
    pipeline: &gst::Pipeline,
    session: &Arc<Session>,
    tracks: &Arc<Tracks>,
) -> Result<(), Failure> {
    let path = url
        .to_file_path()
        .map_err(|()| Failure::permanent("its URL names no file on this machine"))?;
    let (container, from_start) = container_of(&path)?;
    if from_start {
        session.timeline.set_origin_us(0);
    }
    let source = element("filesrc")?;
    source.set_property("location", path);
    let demuxer = element(container)?;
    pipeline
        .add_many([&source, &demuxer])
        .and_then(|()| source.link(&demuxer))
        .map_err(|e| Failure::passing(format!("it cannot be opened: {}", e.message)))?;
    attach_tracks(&demuxer, pipeline, session, tracks);
    Ok(())
}

/// Attaches what a demuxer finds, and says on the pipeline's bus when that is all. What can wait is held until then.
pub(crate) fn attach_tracks(
    demuxer: &gst::Element,
    pipeline: &gst::Pipeline,
    session: &Arc<Session>,
    tracks: &Arc<Tracks>,
) {
    let (weak_tracks, weak_session) = (Arc::downgrade(tracks), Arc::downgrade(session));
    let hold = session.timeline.pace != Pace::Live;
    demuxer.connect_pad_added(move |_, pad| {
        let found = weak_tracks
            .upgrade()
            .map_or(Ok(()), |t| attach(&t, pad, hold));
        if let (Err(failure), Some(session)) = (found, weak_session.upgrade()) {
            session.fail(failure);
        }
    });
    announce_last_pad(demuxer, pipeline.downgrade());
}

/// The element for a file's container, and whether its times count from the start of the file.
fn container_of(path: &Path) -> Result<(&'static str, bool), Failure> {
    let unreadable = |e: std::io::Error| {
        let reason = format!("the file cannot be read: {e}");
        match e.kind() {
            std::io::ErrorKind::Interrupted | std::io::ErrorKind::TimedOut => {
                Failure::passing(reason)
            }
            _ => Failure::permanent(reason),
        }
    };
    let file = File::open(path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(Failure::permanent("it is no regular file"));
    }
    let mut head = Vec::new();
    file.take(HEAD_BYTES)
        .read_to_end(&mut head)
        .map_err(unreadable)?;
    if head.is_empty() {
        return Err(Failure::permanent("the file is empty"));
    }
    let unknown = || Failure::permanent("it is not a video: its content is of no known kind");
    let (caps, _) =
        gst_base::type_find_helper_for_data(gst::Object::NONE, &head).map_err(|_| unknown())?;
    let name = caps.structure(0).map(|s| s.name().to_string());
    codecs::demuxer(&caps).ok_or_else(|| match name {
        Some(name) => Failure::permanent(format!("it is not a video: its content is {name}")),
        None => unknown(),
    })
}

fn attach(tracks: &Tracks, pad: &gst::Pad, hold: bool) -> Result<(), Failure> {
    let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    let medium = codecs::medium_of(&caps);
    if !tracks.wants(medium)? {
        return Ok(());
    }
    match codecs::codec_of(&caps) {
        Some(codec) => {
            if hold {
                tracks.hold(pad);
            }
            tracks.attach(pad, codec)
        }
        None => {
            let name = caps.structure(0).map(|s| s.name().to_string());
            tracks.unsupported(medium, name.unwrap_or_default());
            Ok(())
        }
    }
}

/// Says on the pipeline's bus when all tracks are known.
pub(crate) fn announce_last_pad(
    demuxer: &gst::Element,
    pipeline: gst::glib::WeakRef<gst::Pipeline>,
) {
    demuxer.connect_no_more_pads(move |_| {
        if let Some(bus) = pipeline.upgrade().and_then(|p| p.bus()) {
            let structure = gst::Structure::new_empty("no-more-pads");
            let _ = bus.post(gst::message::Application::new(structure));
        }
    });
}
