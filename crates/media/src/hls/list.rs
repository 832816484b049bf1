//! What playlists say: which segment comes first, where a segment lies, and what is not fetched.

use m3u8_rs::{ByteRange, KeyMethod, MasterPlaylist, MediaPlaylist, MediaSegment, Playlist};
use url::Url;

use crate::error::Failure;

/// A stream that goes on is begun this many segments before its end.
const FROM_END: usize = 3;

/// Whether bytes begin like a playlist.
pub(crate) fn is_playlist(head: &[u8]) -> bool {
    let head = head.strip_prefix("\u{feff}".as_bytes()).unwrap_or(head);
    head.starts_with(b"#EXTM3U")
}

pub(crate) fn parse(text: &[u8]) -> Result<Playlist, Failure> {
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    if std::str::from_utf8(text).is_err() {
        return Err(senseless());
    }
    m3u8_rs::parse_playlist_res(text).map_err(|_| senseless())
}

pub(crate) fn senseless() -> Failure {
    Failure::passing("its playlist cannot be read")
}

/// The one with the most to see, whose sound is in the same segments if there is such a one.
pub(crate) fn variant(master: &MasterPlaylist) -> Result<String, Failure> {
    let apart = |group: &Option<String>| {
        master
            .alternatives
            .iter()
            .any(|a| a.uri.is_some() && group.as_ref() == Some(&a.group_id))
    };
    let variants = master.variants.iter().filter(|v| !v.is_i_frame);
    let best = variants.max_by_key(|v| (!apart(&v.audio), v.bandwidth));
    best.map(|v| v.uri.clone())
        .ok_or_else(|| Failure::permanent("its playlist names no pictures"))
}

/// The segment to begin with, and where in the stream that is.
pub(crate) fn beginning(list: &MediaPlaylist, start_us: i64) -> (usize, i64) {
    let count = list.segments.len();
    if !list.end_list {
        // Who comes back has seen what is there: a server whose source is gone would show its last segments for ever.
        let kept = if start_us > 0 { 0 } else { FROM_END };
        return (count.saturating_sub(kept), start_us);
    }
    let mut begins_us = 0;
    for (at, segment) in list.segments.iter().enumerate() {
        let duration_us = (f64::from(segment.duration) * 1e6) as i64;
        let ends_us = i64::saturating_add(begins_us, duration_us);
        if ends_us > start_us || at + 1 == count {
            return (at, begins_us);
        }
        begins_us = ends_us;
    }
    (0, 0)
}

pub(crate) fn refuse_encrypted(segments: &[MediaSegment]) -> Result<(), Failure> {
    let key = segments
        .iter()
        .rev()
        .find_map(|segment| segment.key.as_ref());
    match key {
        Some(key) if key.method != KeyMethod::None => Err(Failure::permanent(
            "its segments are encrypted, which is not supported",
        )),
        _ => Ok(()),
    }
}

/// Where in its file the last of the segments lies: behind the one before it, unless it says where.
pub(crate) fn range(segments: &[MediaSegment]) -> Option<(u64, Option<u64>)> {
    let mut place = None;
    for segment in segments {
        place = segment
            .byte_range
            .as_ref()
            .map(|ByteRange { length, offset }| {
                let after = place.and_then(|(_, to): (u64, Option<u64>)| to);
                let from = offset.or(after).unwrap_or(0);
                (from, Some(from.saturating_add(*length)))
            });
    }
    place
}

/// What a playlist names, seen from where the playlist is.
pub(crate) fn joined(base: &Url, uri: &str) -> Result<Url, Failure> {
    let joined = base.join(uri).ok();
    let usable = joined.filter(|url| matches!(url.scheme(), "http" | "https"));
    let mut url = usable.ok_or_else(|| {
        Failure::permanent("its playlist names something that is not fetched over HTTP")
    })?;
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_fragment(None);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fuzzing_found_is_read_or_refused() {
        let folder = sightline_testkit::repository().join("fuzz/corpus/playlists");
        let base = Url::parse("https://video.example/live/").expect("a URL");
        let (mut read, mut refused) = (0, 0);
        for file in std::fs::read_dir(folder).expect("a corpus") {
            let text = std::fs::read(file.expect("a file").path()).expect("read");
            let Ok(Playlist::MediaPlaylist(list)) = parse(&text) else {
                refused += 1;
                continue;
            };
            read += 1;
            let (first, _) = beginning(&list, 1_000_000);
            assert!(first <= list.segments.len());
            for segment in &list.segments {
                let url = joined(&base, &segment.uri);
                assert!(url.is_err() || url.is_ok_and(|url| url.username().is_empty()));
            }
            let place = range(&list.segments);
            assert!(place.is_none_or(|(from, to)| to.is_some_and(|to| to >= from)));
        }
        assert!(read > 0 && refused > 0, "{read} {refused}");
    }
}
