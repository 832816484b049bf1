//! Playlists as players read them: m3u8-rs is the oracle.

use m3u8_rs::{MediaPlaylist, MediaPlaylistType, parse_media_playlist_res};
use proptest::prelude::*;
use sightline_recordings::Segment;
use sightline_recordings::playlist::{Ending, GAP_US, playlist, stretches};

use crate::{BEGIN_US, SECOND_US, segment};

fn parsed(text: &str) -> MediaPlaylist {
    parse_media_playlist_res(text.as_bytes()).expect("a player can read it")
}

#[test]
fn a_playlist_reads_like_this() {
    let segments = [
        segment(0, 4, 1),
        Segment {
            start_us: BEGIN_US + 4_000_000,
            duration_us: 4_200_001,
            bytes: 1,
        },
        // Within what was played.
        segment(5, 2, 1),
        Segment {
            start_us: BEGIN_US + 60_123_500,
            duration_us: 4_000_000,
            bytes: 1,
        },
    ];
    let text = playlist(&segments, BEGIN_US + 1_500_000, Ending::Complete);
    let expected = "#EXTM3U
#EXT-X-VERSION:6
#EXT-X-TARGETDURATION:5
#EXT-X-MEDIA-SEQUENCE:0
#EXT-X-INDEPENDENT-SEGMENTS
#EXT-X-PLAYLIST-TYPE:VOD
#EXT-X-START:TIME-OFFSET=1.500000,PRECISE=YES
#EXT-X-PROGRAM-DATE-TIME:2025-11-24T16:00:00.000Z
#EXTINF:4.000000,
1764000000000000-4000000.ts
#EXTINF:4.200001,
1764000004000000-4200001.ts
#EXT-X-DISCONTINUITY
#EXT-X-PROGRAM-DATE-TIME:2025-11-24T16:01:00.124Z
#EXTINF:4.000000,
1764000060123500-4000000.ts
#EXT-X-ENDLIST
";
    assert_eq!(text, expected);
}

#[test]
fn an_open_playlist_has_no_end_and_may_be_empty() {
    for segments in [vec![], vec![segment(0, 4, 1)]] {
        let list = parsed(&playlist(&segments, 0, Ending::Open));
        assert_eq!(list.playlist_type, Some(MediaPlaylistType::Event));
        assert!(!list.end_list && list.start.is_none());
        assert_eq!(
            (list.segments.len(), list.target_duration),
            (segments.len(), 4)
        );
    }
}

#[test]
fn holes_are_seen() {
    let cases = [
        (vec![], vec![]),
        (vec![(0, 4), (4, 4)], vec![(0, 8)]),
        (vec![(0, 4), (5, 4)], vec![(0, 4), (5, 9)]),
        (vec![(0, 9), (2, 3), (9, 1), (9, 2)], vec![(0, 11)]),
    ];
    for (segments, expected) in cases {
        let segments: Vec<Segment> = segments.iter().map(|(s, d)| segment(*s, *d, 0)).collect();
        let us = |second: i64| BEGIN_US + second * SECOND_US;
        let expected: Vec<(i64, i64)> = expected.iter().map(|(s, e)| (us(*s), us(*e))).collect();
        assert_eq!(stretches(&segments), expected);
    }
}

/// Segments in order of start, with gaps and overlaps small and large.
fn recordings() -> impl Strategy<Value = Vec<Segment>> {
    let step = prop_oneof![Just(0), -60_000..60_000i64, -9_000_000..9_000_000i64];
    prop::collection::vec((step, 1..20_000_000i64), 0..40).prop_map(|steps| {
        let mut at = BEGIN_US;
        let mut segments: Vec<Segment> = Vec::new();
        for (step, duration_us) in steps {
            at = (at + step).max(segments.last().map_or(BEGIN_US, |s| s.start_us + 1));
            segments.push(Segment {
                start_us: at,
                duration_us,
                bytes: 0,
            });
            at += duration_us;
        }
        segments
    })
}

proptest! {
    #[test]
    fn players_read_what_was_recorded(segments in recordings(), from in -5_000_000..30_000_000i64) {
        let from_us = BEGIN_US + from;
        let list = parsed(&playlist(&segments, from_us, Ending::Complete));
        prop_assert!(list.unknown_tags.is_empty() && list.independent_segments && list.end_list);
        let mut end_us = None;
        let mut played = Vec::new();
        for entry in &list.segments {
            let one = Segment::parse(&entry.uri).expect("an address is a file name");
            prop_assert!(segments.contains(&one));
            prop_assert!((f64::from(entry.duration) * 1e6 - one.duration_us as f64).abs() < 2.0);
            prop_assert!(entry.duration.round() as u64 <= list.target_duration);
            // A break is told, and only a break.
            let breaks = end_us.is_some_and(|end: i64| (one.start_us - end).abs() > GAP_US);
            prop_assert_eq!(entry.discontinuity, breaks);
            let time = entry.program_date_time.as_ref().map(|time| time.timestamp_micros());
            prop_assert_eq!(time.is_some(), breaks || end_us.is_none());
            prop_assert!(time.is_none_or(|time| (time - one.start_us).abs() <= 500));
            prop_assert!(end_us.is_none_or(|end| one.end_us() > end), "it adds something");
            end_us = Some(one.end_us());
            played.push(one);
        }
        // Nothing is lost by what is left out.
        prop_assert_eq!(stretches(&played), stretches(&segments));
        let into_us = segments.first().map_or(0, |s| from_us - s.start_us);
        let offset = list.start.map_or(0.0, |start| start.time_offset);
        prop_assert!((offset * 1e6 - into_us.max(0) as f64).abs() < 1.0);
    }
}
