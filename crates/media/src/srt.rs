//! SRT: this process calls, at an address that was decided on, and gets MPEG-TS.

use std::net::SocketAddr;
use std::sync::Arc;

use gstreamer as gst;
use gstreamer::prelude::*;
use url::Url;

use crate::chain::element;
use crate::error::Failure;
use crate::file;
use crate::session::Session;
use crate::tracks::Tracks;

/// How long packets may be late, in milliseconds, where the URL does not say.
const LATENCY_MS: i32 = 125;

/// What the URL says beside where to call.
#[derive(Default)]
struct Options {
    stream: Option<String>,
    passphrase: Option<String>,
    key_length: Option<String>,
    latency_ms: Option<i32>,
}

/// Builds the pipeline; tracks attach themselves as they are found.
///
/// # Errors
/// When a plugin is missing or the URL makes no sense.
pub(crate) fn build(
    url: &Url,
    address: SocketAddr,
    pipeline: &gst::Pipeline,
    session: &Arc<Session>,
    tracks: &Arc<Tracks>,
) -> Result<(), Failure> {
    let options = options(url)?;
    let source = element("srtsrc")?;
    source.set_property("uri", format!("srt://{address}"));
    source.set_property_from_str("mode", "caller");
    source.set_property("latency", options.latency_ms.unwrap_or(LATENCY_MS));
    // Pipelines are built anew instead: the worker knows of it then.
    source.set_property("auto-reconnect", false);
    if let Some(stream) = options.stream {
        source.set_property("streamid", stream);
    }
    if let Some(length) = options.key_length {
        source.set_property_from_str("pbkeylen", &length);
    }
    if let Some(passphrase) = options.passphrase {
        source.set_property("passphrase", passphrase);
    }
    let demuxer = element("tsdemux")?;
    pipeline
        .add_many([&source, &demuxer])
        .and_then(|()| source.link(&demuxer))
        .map_err(|e| Failure::passing(format!("it cannot be opened: {}", e.message)))?;
    note_bytes(&source, session);
    file::attach_tracks(&demuxer, pipeline, session, tracks);
    Ok(())
}

fn note_bytes(source: &gst::Element, session: &Arc<Session>) {
    let weak = Arc::downgrade(session);
    if let Some(pad) = source.static_pad("src") {
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            if let Some(session) = weak.upgrade() {
                session.activity.received();
            }
            gst::PadProbeReturn::Ok
        });
    }
}

/// What `sightline_catalog::source` has let through.
fn options(url: &Url) -> Result<Options, Failure> {
    let mut options = Options::default();
    for (key, value) in url.query_pairs() {
        let value = value.into_owned();
        match &*key {
            "streamid" => options.stream = Some(value),
            "passphrase" => options.passphrase = Some(value),
            "pbkeylen" if matches!(&*value, "16" | "24" | "32") => {
                options.key_length = Some(value);
            }
            "latency" => options.latency_ms = value.parse().ok().filter(|ms| *ms >= 0),
            "mode" if value == "caller" => {}
            _ => {
                let reason = "its URL asks for something of SRT that is not supported";
                return Err(Failure::permanent(reason));
            }
        }
    }
    Ok(options)
}
