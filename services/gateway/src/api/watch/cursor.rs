//! Cursors of Watch: a place in the stream of observations, opaque to callers.
//!
//! base64url of a version, the bus sequence and 4 bytes of its SHA-256, so that what was mistyped or cut is told from a place.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

const VERSION: u8 = 1;
const LENGTH: usize = 1 + 8 + 4;

/// The cursor of the message with this sequence.
pub(crate) fn encode(sequence: u64) -> String {
    let mut bytes = Vec::with_capacity(LENGTH);
    bytes.push(VERSION);
    bytes.extend_from_slice(&sequence.to_be_bytes());
    bytes.extend_from_slice(&check_of(&bytes));
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The sequence of a cursor; `None` if Watch never gave it out.
pub(crate) fn decode(cursor: &str) -> Option<u64> {
    let bytes: [u8; LENGTH] = URL_SAFE_NO_PAD.decode(cursor).ok()?.try_into().ok()?;
    let (place, check) = bytes.split_at(1 + 8);
    if place[0] != VERSION || check != check_of(place) {
        return None;
    }
    Some(u64::from_be_bytes(place[1..].try_into().ok()?))
}

fn check_of(place: &[u8]) -> [u8; 4] {
    let hash = Sha256::digest(place);
    [hash[0], hash[1], hash[2], hash[3]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_survive_the_round_trip() {
        for sequence in [0, 1, 1_234_567, u64::MAX] {
            assert_eq!(decode(&encode(sequence)), Some(sequence));
        }
    }

    #[test]
    fn garbage_is_no_cursor() {
        let good = encode(7);
        let cut = &good[..good.len() - 1];
        let mut swapped = good.clone().into_bytes();
        swapped[6] = if swapped[6] == b'A' { b'B' } else { b'A' };
        let swapped = String::from_utf8(swapped).expect("ASCII");
        for cursor in [
            "",
            "7",
            "AAAAAAAAAAAAAAAAAA",
            "?",
            cut,
            &swapped,
            &good.repeat(2),
        ] {
            assert_eq!(decode(cursor), None, "{cursor:?}");
        }
    }
}
