//! What sources that are fetched answer with: playlists, RTMP's messages, and how pictures and sound are coded.

use futures_executor::block_on;
use m3u8_rs::Playlist;
use url::Url;

use self::aac::Config;
use self::chunks::{Message, Reader};
use self::nal::{Coding, Framing};
use crate::codecs::Medium;

#[path = "../../crates/media/src/record/aac.rs"]
mod aac;
#[path = "../../crates/media/src/rtmp/amf.rs"]
mod amf;
#[path = "../../crates/media/src/rtmp/chunks.rs"]
mod chunks;
#[path = "../../crates/media/src/hls/list.rs"]
mod list;
#[path = "../../crates/media/src/record/nal.rs"]
mod nal;
#[path = "../../crates/media/src/rtmp/tags.rs"]
mod tags;

/// A playlist: each of its segments is fetched over HTTP, from a place that is told without credentials.
pub fn playlists(data: &[u8]) {
    let base = Url::parse("https://user:secret@video.example/live/index.m3u8").expect("a URL");
    let check = |uri: &str| {
        if let Ok(url) = list::joined(&base, uri) {
            assert!(matches!(url.scheme(), "http" | "https") && url.has_host());
            assert!(url.username().is_empty() && url.password().is_none());
        }
    };
    match list::parse(data) {
        Ok(Playlist::MasterPlaylist(master)) => {
            if let Ok(uri) = list::variant(&master) {
                check(&uri);
            }
        }
        Ok(Playlist::MediaPlaylist(media)) => {
            let count = media.segments.len();
            for start_us in [0, 1, 1_000_000, i64::MAX] {
                let (first, begins_us) = list::beginning(&media, start_us);
                assert!(first <= count);
                assert!(!media.end_list || count == 0 || first < count);
                std::hint::black_box(begins_us);
            }
            for at in 0..count {
                let _ = list::refuse_encrypted(&media.segments[..=at]);
                let range = list::range(&media.segments[..=at]);
                assert!(range.is_none_or(|(from, to)| to.is_none_or(|to| to >= from)));
                check(&media.segments[at].uri);
            }
        }
        Err(failure) => assert!(!failure.permanent, "a server may mend it"),
    }
}

/// What a server sends, in chunks, up to what breaks the connection.
pub fn rtmp_messages(mut data: &[u8]) {
    let mut reader = Reader::default();
    while let Ok(message) = block_on(reader.next(&mut data)) {
        let number = message
            .data
            .first_chunk()
            .map(|bytes| u32::from_be_bytes(*bytes));
        match (message.kind, number) {
            (1, Some(size)) => reader.set_size(size),
            (2, Some(stream)) => reader.abort(stream),
            (8, _) => {
                let _ = tags::implied(&message.data);
                tags::read(Medium::Audio, &message.data);
            }
            (9, _) => {
                tags::read(Medium::Video, &message.data);
            }
            _ => {
                for value in amf::read_all(&message.data) {
                    let _ = value.text("code");
                }
            }
        }
        again(&message);
    }
}

/// What is written is read.
fn again(message: &Message) {
    let mut reader = Reader::default();
    reader.set_size(u32::MAX);
    let bytes = chunks::write(message, 1);
    let read = block_on(reader.next(&mut bytes.as_slice())).expect("whole");
    assert!(read.kind == message.kind && read.data == message.data);
}

/// A picture or sound as a camera or a container gives it; the first byte says which.
pub fn coded_media(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else {
        return;
    };
    let coding = if kind & 1 == 0 {
        Coding::H264
    } else {
        Coding::H265
    };
    match kind >> 1 & 3 {
        0 => {
            let framing = match kind >> 3 & 7 {
                size @ 1..=4 => Framing::Lengths(size),
                _ => Framing::StartCodes,
            };
            picture(coding, framing, data);
        }
        1 => {
            if let Some((framing, sets)) = coding.configuration(data) {
                assert!(sets.len() <= 3 * data.len() + 16);
                picture(coding, framing, data);
            }
        }
        2 => sound(data),
        _ => {
            for frame in aac::frames(data) {
                assert!(frame.data.len() <= aac::MAX_FRAME && frame.rate > 0);
                Config::parse(&frame.description().setup);
            }
        }
    }
}

fn picture(coding: Coding, framing: Framing, data: &[u8]) {
    let mut sets = vec![1];
    let head = coding.head(framing, data, &mut sets);
    assert!(head.sets || sets == [1]);
    let mut written = 0;
    framing.write(data, |piece| written += piece.len());
    assert!(framing.length(data).is_none_or(|length| length == written));
}

/// A frame with the header that a configuration makes is that frame.
fn sound(data: &[u8]) {
    let (setup, content) = data.split_at(data.len().min(8));
    let Some(config) = Config::parse(setup) else {
        return;
    };
    let bytes = [&config.header(content.len())[..], content].concat();
    let frames = aac::frames(&bytes);
    assert_eq!(frames.len(), 1);
    assert_eq!(frames[0].data, content);
}
