//! Which pictures of a recording a sampling takes: the same ones that it took when they passed.

use sightline_proto::internal::Sampling;

use crate::record::{demux, unwrapped};
use crate::video::{Keyframes, LIVE_EARLY_US};

/// Times in segments are rounded down to ticks of 11 µs.
const ROUNDED_US: i64 = 12;

/// A recorded segment.
#[derive(Debug, Clone, Copy)]
pub struct Recorded<'a> {
    /// Where it starts, in microseconds since the Unix epoch.
    pub start_us: i64,
    /// The whole segment.
    pub ts: &'a [u8],
}

/// A picture in a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Which of the segments it is in.
    pub segment: usize,
    /// Where it is in its segment: what [`crate::thumbnail`] has to be asked for.
    pub offset_us: i64,
    /// When it was captured, in microseconds since the Unix epoch.
    pub time_us: i64,
}

/// The picture that a sampling takes for one slot, 0 to `frame_count` - 1, of its window that starts at `start_us`; none where
/// nothing is recorded. `segments` are the one in which the slot starts, the one before, because how far its keyframes are apart
/// decides between them and others, and the one after, in order of time. `live` says whether the source is a camera. What is no
/// segment is left out.
pub fn moment(
    segments: &[Recorded<'_>],
    start_us: i64,
    sampling: &Sampling,
    slot: u32,
    live: bool,
) -> Option<Moment> {
    let early_us = if live { LIVE_EARLY_US } else { 0 } + ROUNDED_US;
    let from_us = slot_start(start_us, sampling, slot) - early_us;
    let to_us = slot_start(start_us, sampling, slot + 1) - early_us;
    let slot_us = sampling.window_us / i64::from(sampling.frame_count.max(1));
    let taken = first(&pictures(segments), from_us, slot_us)?;
    (taken.time_us < to_us).then_some(taken)
}

/// Where a slot starts of a window that starts at `start_us`.
pub fn slot_start(start_us: i64, sampling: &Sampling, slot: u32) -> i64 {
    start_us + i64::from(slot) * sampling.window_us / i64::from(sampling.frame_count.max(1))
}

struct Pictured {
    moment: Moment,
    key: bool,
}

/// All pictures, in the order in which they are coded.
fn pictures(segments: &[Recorded<'_>]) -> Vec<Pictured> {
    let mut pictures = Vec::new();
    for (segment, recorded) in segments.iter().enumerate() {
        let Some(contents) = demux(recorded.ts) else {
            continue;
        };
        let about = recorded.start_us.saturating_mul(9) / 100;
        let video = contents.units.iter().filter(|unit| unit.is_video);
        let shown: Vec<_> = video
            .map(|unit| (unwrapped(about, unit.shown), unit.key))
            .collect();
        let start = shown.iter().map(|(at, _)| *at).min().unwrap_or(about);
        pictures.extend(shown.into_iter().map(|(at, key)| Pictured {
            moment: Moment {
                segment,
                offset_us: micros(at - start),
                time_us: micros(at),
            },
            key,
        }));
    }
    pictures
}

/// Rounded up, so that it is the same picture's again.
fn micros(ticks: i64) -> i64 {
    (ticks * 100 + 8).div_euclid(9)
}

/// The picture of the slot that starts here, or of a later one: the next keyframe, or whichever picture is next where keyframes
/// are too far apart.
fn first(pictures: &[Pictured], from_us: i64, slot_us: i64) -> Option<Moment> {
    let mut keyframes = Keyframes::default();
    for (number, picture) in pictures.iter().enumerate() {
        let at_us = picture.moment.time_us;
        if picture.key {
            keyframes.seen(at_us);
        }
        if at_us < from_us {
            continue;
        }
        if picture.key {
            return Some(picture.moment);
        }
        if !keyframes.are_within(slot_us, at_us) {
            return next_shown(&pictures[..=number], &pictures[number..], from_us);
        }
    }
    None
}

/// The first picture shown from then on, of those coded before and of those that are shown before the last of them.
fn next_shown(before: &[Pictured], after: &[Pictured], from_us: i64) -> Option<Moment> {
    let group = after.iter().skip(1).take_while(|picture| !picture.key);
    let open = before.iter().rposition(|picture| picture.key).unwrap_or(0);
    before[open..]
        .iter()
        .chain(group)
        .map(|picture| picture.moment)
        .filter(|moment| moment.time_us >= from_us)
        .min_by_key(|moment| moment.time_us)
}
