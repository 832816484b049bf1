//! Reads the segments that `mux` writes: whole pictures and pieces of sound, with their times.

use super::mux::{AUDIO_PID, PACKET, PMT_PID, VIDEO_PID};
use super::nal::Coding;

/// Times of a transport stream begin again after this many ticks.
const WRAP: i64 = 1 << 33;
/// What lies this little before what was read last does, and not a whole round behind it.
const BACK: i64 = 600 * 90_000;

/// A picture, or frames of sound with their headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) is_video: bool,
    /// Ticks of 90 kHz, 33 bits.
    pub(crate) shown: i64,
    pub(crate) decoded: i64,
    pub(crate) key: bool,
    pub(crate) data: Vec<u8>,
}

/// What a segment holds.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) coding: Option<Coding>,
    pub(crate) units: Vec<Unit>,
}

/// Takes a segment apart; none if it is none.
pub(crate) fn demux(ts: &[u8]) -> Option<Contents> {
    let mut contents = Contents::default();
    let mut open: [Option<Unit>; 2] = [None, None];
    for packet in ts.chunks(PACKET) {
        if packet.len() != PACKET || packet[0] != 0x47 {
            return None;
        }
        let pid = u16::from_be_bytes([packet[1] & 0x1f, packet[2]]);
        let begins = packet[1] & 0x40 != 0;
        let (key, payload) = payload(packet)?;
        let is_video = match pid {
            PMT_PID => {
                contents.coding = coding(payload);
                continue;
            }
            VIDEO_PID => true,
            AUDIO_PID => false,
            _ => continue,
        };
        let slot = &mut open[usize::from(is_video)];
        if begins {
            contents.units.extend(slot.take());
            *slot = Some(unit(is_video, key, payload)?);
        } else if let Some(unit) = slot {
            unit.data.extend_from_slice(payload);
        }
    }
    contents.units.extend(open.into_iter().flatten());
    Some(contents)
}

/// A time that was read, on the scale of one that is known: at most ten minutes before it.
pub(crate) fn unwrapped(known: i64, read: i64) -> i64 {
    let ahead = (read - known + BACK).rem_euclid(WRAP);
    known - BACK + ahead
}

/// Whether a packet is an entry point, and what it carries.
fn payload(packet: &[u8]) -> Option<(bool, &[u8])> {
    let has_field = packet[3] & 0x20 != 0;
    let field = if has_field {
        1 + usize::from(packet[4])
    } else {
        0
    };
    let key = field > 1 && packet[5] & 0x40 != 0;
    Some((key, packet.get(4 + field..)?))
}

fn unit(is_video: bool, key: bool, payload: &[u8]) -> Option<Unit> {
    let header = payload.get(..9)?;
    if header[..3] != [0, 0, 1] || header[7] & 0x80 == 0 {
        return None;
    }
    let shown = time(payload.get(9..14)?);
    let decoded = match header[7] & 0x40 {
        0 => shown,
        _ => time(payload.get(14..19)?),
    };
    Some(Unit {
        is_video,
        shown,
        decoded,
        key,
        data: payload.get(9 + usize::from(header[8])..)?.to_vec(),
    })
}

fn time(bytes: &[u8]) -> i64 {
    let [a, b, c, d, e] = [0, 1, 2, 3, 4].map(|at| i64::from(bytes[at]));
    (a >> 1 & 7) << 30 | b << 22 | (c >> 1) << 15 | d << 7 | e >> 1
}

/// How the pictures are coded, from the program map.
fn coding(section: &[u8]) -> Option<Coding> {
    match (section.get(13)?, section.get(14)? & 0x1f, section.get(15)?) {
        (0x1b, 1, 0) => Some(Coding::H264),
        (0x24, 1, 0) => Some(Coding::H265),
        _ => None,
    }
}
