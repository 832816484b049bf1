//! From the parts of a segment to its bytes.

use gstreamer as gst;

use super::aac;
use super::cut::{Picture, Segment, Sound};
use super::mux::{Muxer, Times, space, ticks};

/// Sound is written in pieces of about this length.
const PIECE_US: i64 = 100_000;
/// And at most this many bytes, so that their number can be said.
const MAX_PIECE: usize = 60_000;
/// Frames of one piece follow each other to this much; otherwise a new one says the time.
const UNEVEN_US: i64 = 10_000;
/// By how much decoding is ahead of showing is a multiple of this, so that it rarely changes within a recording.
const REORDER_STEP: i64 = 22_500;

/// When pictures are decoded: told from when they are shown, because cameras do not say.
#[derive(Debug, Default)]
pub(crate) struct DecodingTimes {
    /// How far decoding is ahead of showing, in ticks of 90 kHz.
    ahead: i64,
    last: Option<i64>,
}

impl DecodingTimes {
    /// Times for pictures in the order of decoding, from when they are shown: never decoded after that, and ever later.
    pub(crate) fn assign(&mut self, shown: &[i64]) -> Vec<Times> {
        let mut sorted = shown.to_vec();
        sorted.sort_unstable();
        let late = sorted.iter().zip(shown).map(|(s, shown)| s - shown);
        let most = late.max().unwrap_or(0).max(0);
        let steps = (most + REORDER_STEP - 1) / REORDER_STEP;
        self.ahead = self.ahead.max(steps * REORDER_STEP);
        let mut times = Vec::with_capacity(shown.len());
        for (s, shown) in sorted.iter().zip(shown) {
            let next = self.last.map_or(i64::MIN, |last| last + 1);
            let decoded = (s - self.ahead).max(next);
            self.last = Some(decoded);
            times.push(Times {
                // Only where several are shown at the same time.
                shown: decoded.max(*shown),
                decoded,
            });
        }
        times
    }
}

/// The bytes of a segment, on the time base of the wall clock.
pub(crate) fn write(segment: &Segment, epoch_us: i64, decoding: &mut DecodingTimes) -> Vec<u8> {
    let at = |position_us: i64| ticks(epoch_us.saturating_add(position_us));
    let shown: Vec<_> = segment.pictures.iter().map(|p| at(p.position_us)).collect();
    let times = decoding.assign(&shown);
    let pieces = pieces(&segment.sounds);
    let bytes: usize = segment
        .pictures
        .iter()
        .map(|p| space(written_length(p)))
        .sum();
    let sound_bytes: usize = pieces.iter().map(|piece| space(length_of(piece))).sum();
    let coding = segment.pictures.first().map(|p| p.coding);
    let mut muxer = Muxer::new(coding, !pieces.is_empty(), bytes + sound_bytes);
    let mut pieces = pieces.into_iter().peekable();
    for (picture, times) in segment.pictures.iter().zip(times) {
        while let Some(piece) = pieces.next_if(|p| at(p[0].position_us) <= times.decoded) {
            write_sound(&mut muxer, at(piece[0].position_us), piece);
        }
        write_picture(&mut muxer, times, picture);
    }
    for piece in pieces {
        write_sound(&mut muxer, at(piece[0].position_us), piece);
    }
    muxer.finish()
}

fn delimiter(picture: &Picture) -> &'static [u8] {
    match picture.delimited {
        true => &[],
        false => picture.coding.delimiter(),
    }
}

fn written_length(picture: &Picture) -> usize {
    let sets = picture.sets.as_ref().map_or(0, |sets| sets.len());
    delimiter(picture).len() + sets + picture.length
}

fn write_picture(muxer: &mut Muxer, times: Times, picture: &Picture) {
    let Ok(map) = picture.data.map_readable() else {
        return;
    };
    muxer.picture(times, picture.key, written_length(picture));
    muxer.put(delimiter(picture));
    if let Some(sets) = &picture.sets {
        muxer.put(sets);
    }
    picture.framing.write(&map, |piece| muxer.put(piece));
}

fn frame_length(sound: &Sound) -> usize {
    sound.data.size() + sound.config.map_or(0, |_| aac::HEADER)
}

fn length_of(piece: &[Sound]) -> usize {
    piece.iter().map(frame_length).sum()
}

/// Frames that are written together.
fn pieces(sounds: &[Sound]) -> Vec<&[Sound]> {
    let mut pieces = Vec::with_capacity(sounds.len() / 4 + 1);
    let mut begin = 0;
    for (at, sound) in sounds.iter().enumerate().skip(1) {
        let first = &sounds[begin];
        let before = &sounds[at - 1];
        let off_us = sound.position_us - before.position_us - before.duration_us;
        let bytes = length_of(&sounds[begin..=at]);
        if sound.position_us - first.position_us >= PIECE_US
            || off_us.abs() > UNEVEN_US
            || sound.config != first.config
            || bytes > MAX_PIECE
        {
            pieces.push(&sounds[begin..at]);
            begin = at;
        }
    }
    if begin < sounds.len() {
        pieces.push(&sounds[begin..]);
    }
    pieces
}

fn write_sound(muxer: &mut Muxer, shown: i64, piece: &[Sound]) {
    let maps: Result<Vec<gst::BufferMap<'_, gst::buffer::Readable>>, _> = piece
        .iter()
        .map(|sound| sound.data.map_readable())
        .collect();
    let Ok(maps) = maps else { return };
    muxer.sound(shown, length_of(piece));
    for (sound, map) in piece.iter().zip(&maps) {
        if let Some(config) = sound.config {
            muxer.put(&config.header(map.len()));
        }
        muxer.put(map);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(decoding: &mut DecodingTimes, shown: &[i64], expected: &[i64]) {
        let times = decoding.assign(shown);
        let decoded: Vec<_> = times.iter().map(|t| t.decoded).collect();
        assert_eq!(decoded, expected, "{shown:?}");
        assert!(times.iter().all(|t| t.decoded <= t.shown));
    }

    #[test]
    fn pictures_in_order_are_decoded_when_shown() {
        check(&mut DecodingTimes::default(), &[5, 8, 11], &[5, 8, 11]);
    }

    #[test]
    fn decoding_is_ahead_of_reordered_pictures_and_ever_later() {
        let mut decoding = DecodingTimes::default();
        check(&mut decoding, &[0, 3600, 7200], &[0, 3600, 7200]);
        let reordered = [10_800, 21_600, 18_000, 14_400];
        let sorted = [7201, 7202, 7203, 7204];
        check(&mut decoding, &reordered, &sorted);
        let next = [100_000, 110_800, 107_200, 103_600];
        let ahead = [77_500, 81_100, 84_700, 88_300];
        check(&mut decoding, &next, &ahead);
    }

    #[test]
    fn pictures_of_the_same_time_are_told_apart() {
        check(&mut DecodingTimes::default(), &[5, 5, 5], &[5, 6, 7]);
    }
}
