//! What takes bytes from outside, each as a function of bytes that panics where a promise is broken. `make fuzz` runs them.
//!
//! Decoders that lie inside large crates are included here by their files, so that little has to be built: each file in a module of
//! the path that its crate has for it. What they name of heavy libraries besides is in `stubs`.

#![allow(dead_code, unused_imports, private_interfaces)]

mod api;
mod embed;
mod manifests;
mod media;
mod openai;
mod rest;
mod secrets;
mod stubs;
pub mod vlm;

use std::path::Path;

use object_store::path::Path as ObjectPath;
use prost::Message;
use sightline_proto::{internal, v1};
use url::Url;

// The included files call these crates by their names.
extern crate self as fastembed;
extern crate self as gstreamer;
extern crate self as sightline_catalog;
extern crate self as sightline_inference;
extern crate self as whisper_rs;

pub use embed::embedding_models;
pub use manifests::model_manifests;
pub use media::{coded_media, playlists, rtmp_messages};
pub use openai::model_answers;
pub use rest::rest_requests;
pub use secrets::secrets;
pub use stubs::{Buffer, Caps, Pooling, TextEmbedding, codecs, get_lang_id, get_lang_str};

#[path = "../../crates/media/src/answers.rs"]
mod answers;
#[path = "../../services/gateway/src/api/watch/cursor.rs"]
mod cursor;
#[path = "../../crates/inference/src/describe.rs"]
mod describe;
#[path = "../../crates/inference/src/device.rs"]
mod device;
#[path = "../../crates/inference/src/image.rs"]
mod image;
#[path = "../../crates/inference/src/error.rs"]
mod inference_error;
#[path = "../../crates/recordings/src/links.rs"]
mod links;
#[path = "../../crates/media/src/mp4.rs"]
mod mp4;
#[path = "../../crates/media/src/mp4_index.rs"]
mod mp4_index;
#[path = "../../crates/recordings/src/names.rs"]
mod names;
#[path = "../../services/gateway/src/api/paging.rs"]
mod paging;
#[path = "../../services/gateway/src/playback/range.rs"]
mod range;
#[path = "../../crates/catalog/src/seal.rs"]
pub mod seal;
#[path = "../../crates/catalog/src/source.rs"]
mod source;
#[path = "../../crates/inference/src/transcript.rs"]
mod transcript;
#[path = "../../services/gateway/src/api/violations.rs"]
mod violations;
#[path = "../../workers/ingest/src/wire.rs"]
mod wire;

#[path = "../../crates/media/src/error.rs"]
mod media_error;
#[path = "../../crates/recordings/src/error.rs"]
mod store_error;

pub use describe::About;
pub use device::{Device, Placed};
pub use image::RgbImage;
pub use inference_error::InferenceError;
pub use transcript::{SpokenSegment, SpokenWord, Transcript};
pub use vlm::model_files;

/// Where the included files look for their errors.
mod error {
    pub use crate::media_error::Failure;
    pub use crate::store_error::StoreError;
}

/// What is decoded is encoded and decoded again. The first byte chooses a message.
pub fn bus_payloads(data: &[u8]) {
    const KINDS: [fn(&[u8]); 12] = [
        twice::<internal::FrameWindow>,
        twice::<internal::AudioChunk>,
        twice::<internal::Observation>,
        twice::<internal::Delivery>,
        twice::<internal::Attempt>,
        twice::<internal::DeadLetter>,
        twice::<internal::ExportJob>,
        twice::<internal::IndexRecord>,
        twice::<internal::RunRecord>,
        twice::<internal::EvaluationRecord>,
        twice::<internal::HourIndex>,
        twice::<v1::WatchRequest>,
    ];
    if let Some((kind, payload)) = data.split_first() {
        KINDS[usize::from(*kind) % KINDS.len()](payload);
    }
}

fn twice<M: Message + Default>(payload: &[u8]) {
    if let Ok(message) = M::decode(payload) {
        let bytes = message.encode_to_vec();
        let again = M::decode(bytes.as_slice()).expect("what was encoded is decoded");
        // Entries of a map come in any order.
        assert_eq!(again.encoded_len(), bytes.len());
    }
}

/// A child that a hostile stream has taken over says anything to its worker.
pub fn child_reports(mut data: &[u8]) {
    while let Ok(Some(report)) = wire::read::<internal::ChildReport>(&mut data) {
        std::hint::black_box(report);
    }
}

/// A cursor or page token that is taken is one that was given out.
pub fn page_tokens(data: &[u8]) {
    let pages = paging::Pages::of("default", "ListAlerts", &v1::ListAlertsRequest::default());
    if let Ok(text) = std::str::from_utf8(data) {
        if let Some(sequence) = cursor::decode(text) {
            assert_eq!(cursor::encode(sequence), text);
        }
        if let Ok(Some(position)) = pages.start(text) {
            assert_eq!(pages.token(&position), text);
        }
    }
    if let Some((time, id)) = data.split_first_chunk() {
        let position = paging::Position {
            time_us: i64::from_be_bytes(*time),
            id: String::from_utf8_lossy(id).into_owned(),
        };
        assert_eq!(pages.start(&pages.token(&position)), Ok(Some(position)));
        let sequence = u64::from_be_bytes(*time);
        assert_eq!(cursor::decode(&cursor::encode(sequence)), Some(sequence));
    }
}

/// The parts of a path below /manifests, and a Range: each on a line of its own. Nothing leads out of the folder of recordings.
pub fn playlist_requests(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.split('\n');
    let mut next = || lines.next().unwrap_or_default();
    let (rtstream, token, file, slug, range) = (next(), next(), next(), next(), next());
    let public = Url::parse("https://video.example/").expect("a URL");
    let links = links::Links::new(&public, &[7; 32], Some(1_000_000));
    let now_us = 1_700_000_000_000_000;
    let checked = links.check_clip(rtstream, token, now_us);
    if let Ok(clip) = &checked {
        assert_eq!(clip.rtstream, rtstream);
    }
    let _ = links.check_page(slug, now_us);
    let _ = links.check_export(rtstream, token, now_us);
    if let Some(segment) = names::Segment::parse(file) {
        assert_eq!(segment.file_name(), file);
        let path = names::segment(rtstream, segment);
        if let Ok(path) = path {
            let below = ObjectPath::from_iter([names::RECORDINGS, rtstream]);
            assert!(path.prefix_matches(&below), "{path}");
            let made = links::Clip {
                rtstream: rtstream.to_owned(),
                start_us: segment.start_us,
                end_us: Some(segment.end_us()),
            };
            let url = links.clip(&made, now_us).stream_url;
            let token = url.rsplit('/').nth(1).expect("a folder");
            assert_eq!(links.check_clip(rtstream, token, now_us), Ok(made));
        }
    }
    if let Some(hour) = names::parse_hour(file) {
        assert_eq!(names::hour_name(hour), file);
    }
    let part = names::slug_part(slug);
    assert!(part.is_empty() || names::page(&part).is_ok(), "{part}");
    for size in [0, 1, 1000, u64::MAX] {
        if let range::Wanted::Part(part) = range::wanted(Some(range), size) {
            assert!(part.start < part.end && part.end <= size, "{part:?}");
        }
    }
}

/// A camera's answers mean the same however they are cut into pieces; the first byte says how.
pub fn rtsp_answers(data: &[u8]) {
    let Some((size, bytes)) = data.split_first() else {
        return;
    };
    let whole = answers::Answers::default().check(bytes);
    let mut cut = answers::Answers::default();
    let pieces = bytes.chunks(usize::from(*size).max(1));
    let passed: Result<Vec<Vec<u8>>, _> = pieces.map(|piece| cut.check(piece)).collect();
    assert_eq!(passed.map(|passed| passed.concat()), whole);
    if let Ok(sound) = whole {
        assert!(bytes.starts_with(&sound));
    }
}

/// A source that is taken shows no credentials and is taken again as it is kept; any URL may be asked of the policy of webhooks.
pub fn source_urls(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(source) = source::check(text, Some(Path::new("/var/empty"))) {
        let shown = Url::parse(&source.redacted()).expect("a URL without credentials is one");
        assert!(shown.username().is_empty() && shown.password().is_none());
        assert!(shown.query().is_none_or(|query| query == "%E2%80%A6"));
        assert!(source::check(source.url().as_str(), None).is_ok());
    }
    let _ = sightline_egress::Policy::default().check_url(text);
    let _ = sightline_egress::Policy::anywhere().check_url(text);
}

/// A template that is taken is filled in, or says why not, within its bounds.
pub fn templates(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let taken = sightline_message::check(text).is_ok();
    for sparse in [false, true] {
        let body = sightline_message::render(text, &sightline_message::Body::sample(sparse));
        assert!(!taken || body.is_ok(), "it was checked with this very body");
        if let Ok(body) = body {
            assert!(body.len() <= sightline_message::MAX_OUTPUT);
            sightline_message::content_type(&body);
        }
    }
}
