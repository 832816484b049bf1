//! What the muxer writes is read back whole, whatever it was; and nothing hostile stops it.

use gstreamer as gst;
use proptest::prelude::*;

use super::cut::{Cutter, Picture, Segment, Sound};
use super::mux::{PACKET, ticks};
use super::nal::{Coding, Framing};
use super::write::{DecodingTimes, write};
use super::{aac, demux};

const EPOCH_US: i64 = 1_764_000_000_000_000;

fn picture(bytes: &[u8], position_us: i64, key: bool) -> Picture {
    Picture {
        data: gst::Buffer::from_slice(bytes.to_vec()),
        coding: Coding::H264,
        framing: Framing::StartCodes,
        sets: None,
        delimited: true,
        key,
        position_us,
        duration_us: 40_000,
        length: bytes.len(),
    }
}

fn sound(bytes: &[u8], position_us: i64) -> Sound {
    Sound {
        data: gst::Buffer::from_slice(bytes.to_vec()),
        config: aac::Config::parse(&[0x11, 0x88]),
        position_us,
        duration_us: 21_333,
    }
}

/// Every packet is one, counted from 0 in its track, and the first of a track says that counting begins anew.
fn check_packets(ts: &[u8]) {
    let mut next = std::collections::HashMap::new();
    assert_eq!(ts.len() % PACKET, 0);
    for packet in ts.chunks(PACKET) {
        assert_eq!(packet[0], 0x47);
        let pid = u16::from_be_bytes([packet[1] & 0x1f, packet[2]]);
        let first = !next.contains_key(&pid);
        let counter = next.entry(pid).or_insert(0u8);
        assert_eq!(packet[3] & 15, *counter);
        *counter = (*counter + 1) & 15;
        let (has_field, length) = (packet[3] & 0x20 != 0, packet[4]);
        assert!(!has_field || length <= 183);
        assert_eq!(first, has_field && length > 0 && packet[5] & 0x80 != 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_written_is_read_back(
        pictures in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..2000), 0..4i64), 1..40),
        sounds in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..500), 0..60),
        wraps in any::<bool>(),
    ) {
        gst::init().expect("gstreamer");
        // 2^33 ticks are 95,443.717 s.
        let epoch_us = if wraps { 95_443_000_000 } else { EPOCH_US };
        let at = |number: usize| i64::try_from(number).expect("small") * 40_000;
        let segment = Segment {
            start_us: 0,
            end_us: at(pictures.len()),
            pictures: pictures.iter().enumerate()
                .map(|(n, (bytes, late))| picture(bytes, at(n) + late * 40_000, n == 0))
                .collect(),
            sounds: sounds.iter().enumerate().map(|(n, bytes)| sound(bytes, at(n) / 2)).collect(),
        };
        let ts = write(&segment, epoch_us, &mut DecodingTimes::default());
        check_packets(&ts);
        let contents = demux(&ts).expect("a segment");
        assert_eq!(contents.coding, Some(Coding::H264));
        let (video, audio): (Vec<_>, Vec<_>) = contents.units.iter().partition(|unit| unit.is_video);
        assert_eq!(video.len(), pictures.len());
        let mut last = None;
        for (unit, wanted) in video.iter().zip(&segment.pictures) {
            let known = ticks(epoch_us);
            let (shown, decoded) = (super::unwrapped(known, unit.shown), super::unwrapped(known, unit.decoded));
            assert_eq!(&unit.data[..], &wanted.data.map_readable().expect("bytes")[..]);
            // Those of the same time are told apart by a tick.
            assert!((0..64).contains(&(shown - ticks(epoch_us + wanted.position_us))));
            assert!(decoded <= shown && last.is_none_or(|last| decoded > last));
            assert_eq!(unit.key, wanted.key);
            last = Some(decoded);
        }
        let heard: Vec<u8> = audio.iter().flat_map(|unit| unit.data.clone()).collect();
        let frames: Vec<_> = aac::frames(&heard).iter().map(|f| f.data.to_vec()).collect();
        assert_eq!(frames, sounds);
    }

    #[test]
    fn hostile_pictures_and_descriptions_are_refused_or_written(
        data in prop::collection::vec(prop_oneof![Just(0u8), Just(1), any::<u8>()], 0..300),
        size in 1..5u8,
        coding in prop_oneof![Just(Coding::H264), Just(Coding::H265)],
    ) {
        let mut sets = Vec::new();
        for framing in [Framing::Lengths(size), Framing::StartCodes] {
            coding.head(framing, &data, &mut sets);
            let mut written = 0;
            framing.write(&data, |piece| written += piece.len());
            if let Some(length) = framing.length(&data) {
                assert_eq!(written, length);
            }
        }
        coding.configuration(&data);
        aac::Config::parse(&data);
        aac::frames(&data);
        demux(&data);
    }

    #[test]
    fn segments_never_overlap_whatever_the_times_are(
        events in prop::collection::vec((any::<bool>(), any::<bool>(), 0..20u8, -30_000..60_000i64), 1..400),
    ) {
        gst::init().expect("gstreamer");
        let mut cutter = Cutter::new(0, true, true);
        let mut at_us = 0;
        let mut segments = Vec::new();
        for (is_video, key, odd, step_ms) in events {
            at_us = (at_us + if odd == 0 { step_ms * 1000 } else { 200_000 }).max(-1_000_000);
            if is_video {
                cutter.picture(picture(&[1], at_us, key), odd == 1);
            } else {
                cutter.sound(sound(&[1], at_us));
            }
            segments.extend(cutter.complete());
        }
        cutter.break_off(true);
        segments.extend(cutter.complete());
        let mut end_us = -20_000;
        for segment in segments {
            assert!(segment.start_us >= end_us, "{} before {end_us}", segment.start_us);
            assert!(segment.end_us > segment.start_us);
            end_us = segment.end_us;
        }
    }
}

#[test]
fn a_silent_track_stalls_nothing_and_memory_is_bounded() {
    gst::init().expect("gstreamer");
    let mut cutter = Cutter::new(0, true, true);
    let mut segments = Vec::new();
    let big = vec![0; 1 << 20];
    for second in 0..300 {
        cutter.picture(picture(&big, second * 1_000_000, second == 0), false);
        segments.extend(cutter.complete());
    }
    // One keyframe alone: cut at 24 MiB.
    assert!(segments.len() >= 11);
    assert!(segments.iter().all(|s| s.pictures.len() <= 24));
    // No pictures any more: sound is recorded alone.
    let before = segments.len();
    for frame in 0..3000 {
        cutter.sound(sound(&[1], 300_000_000 + frame * 21_333));
        segments.extend(cutter.complete());
    }
    let alone = segments
        .iter()
        .skip(before)
        .filter(|s| s.pictures.is_empty());
    assert!(alone.count() >= 10);
}

#[test]
fn what_fuzzing_found_is_read_or_refused() {
    let folder = sightline_testkit::repository().join("fuzz/corpus/coded_media");
    let mut sets = Vec::new();
    for file in std::fs::read_dir(folder).expect("a corpus") {
        let bytes = std::fs::read(file.expect("a file").path()).expect("read");
        for coding in [Coding::H264, Coding::H265] {
            let described = coding.configuration(&bytes);
            let framing = described.map_or(Framing::StartCodes, |(framing, _)| framing);
            coding.head(framing, &bytes, &mut Vec::new());
            coding.head(Framing::StartCodes, &bytes, &mut sets);
            let mut written = 0;
            framing.write(&bytes, |piece| written += piece.len());
            assert!(
                framing
                    .length(&bytes)
                    .is_none_or(|length| length == written)
            );
        }
        for frame in aac::frames(&bytes) {
            assert!(frame.data.len() <= aac::MAX_FRAME);
        }
    }
    assert!(!sets.is_empty());
}
