//! The units that H.264 and H.265 pictures are made of: what a picture begins with, and what has to be put in front of it.
//!
//! Only what lies before a picture's first slice is looked at, so that the bulk of the bytes is never scanned.

use gstreamer as gst;

use crate::codecs::caps;

/// Parameter sets together are not believed to be longer than this.
const MAX_SETS: usize = 64 << 10;
/// What begins a unit.
pub(crate) const START_CODE: [u8; 4] = [0, 0, 0, 1];

/// How pictures are coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Coding {
    H264,
    H265,
}

/// How the units of a picture are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// By start codes.
    StartCodes,
    /// By their length in this many bytes before each, 1 to 4.
    Lengths(u8),
}

/// What the head of a picture says about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Head {
    /// Whether it begins with an access unit delimiter.
    pub(crate) delimited: bool,
    /// Whether it holds parameter sets that are enough for a decoder.
    pub(crate) sets: bool,
    /// Whether decoding can begin here for certain.
    pub(crate) entry: bool,
}

enum Kind {
    Delimiter,
    Sequence,
    Parameters,
    OtherSet,
    Slice { entry: bool },
    Message,
    Other,
}

impl Coding {
    /// What recorded pictures are.
    pub(crate) fn caps(self) -> gst::Caps {
        caps(match self {
            Self::H264 => "video/x-h264,stream-format=byte-stream,alignment=au",
            Self::H265 => "video/x-h265,stream-format=byte-stream,alignment=au",
        })
    }

    /// An access unit delimiter that allows every kind of slice.
    pub(crate) fn delimiter(self) -> &'static [u8] {
        match self {
            Self::H264 => &[0, 0, 0, 1, 0x09, 0xf0],
            Self::H265 => &[0, 0, 0, 1, 0x46, 0x01, 0x50],
        }
    }

    fn kind(self, first: u8) -> Kind {
        match (self, first & 0x1f, first >> 1 & 0x3f) {
            (Self::H264, 9, _) | (Self::H265, _, 35) => Kind::Delimiter,
            (Self::H264, 7, _) | (Self::H265, _, 33) => Kind::Sequence,
            (Self::H264, 8, _) | (Self::H265, _, 34) => Kind::Parameters,
            (Self::H264, 13, _) | (Self::H265, _, 32) => Kind::OtherSet,
            (Self::H264, kind @ 1..=5, _) => Kind::Slice { entry: kind == 5 },
            (Self::H265, _, kind @ 0..=31) => Kind::Slice {
                entry: (16..=23).contains(&kind),
            },
            (Self::H264, 6, _) => Kind::Message,
            _ => Kind::Other,
        }
    }

    /// Looks at a picture up to its first slice. Parameter sets among that are put into `sets`, with start codes, if they are
    /// complete.
    pub(crate) fn head(self, framing: Framing, data: &[u8], sets: &mut Vec<u8>) -> Head {
        let mut head = Head::default();
        let (mut found, mut recovers) = (Vec::new(), false);
        let (mut sequence, mut parameters) = (false, false);
        let mut units = Units::new(framing, data);
        let mut first = true;
        while let Some(start) = units.next_start() {
            let Some(byte) = data.get(start) else { break };
            let kind = self.kind(*byte);
            if let Kind::Slice { entry } = kind {
                head.entry = entry || recovers;
                break;
            }
            let unit = units.rest_of_unit();
            match kind {
                Kind::Delimiter => head.delimited |= first,
                Kind::Message => recovers |= has_recovery_point(unit),
                Kind::Sequence | Kind::Parameters | Kind::OtherSet => {
                    sequence |= matches!(kind, Kind::Sequence);
                    parameters |= matches!(kind, Kind::Parameters);
                    append(&mut found, unit);
                }
                Kind::Slice { .. } | Kind::Other => {}
            }
            first = false;
        }
        head.sets = sequence && parameters;
        if head.sets && found.len() <= MAX_SETS && *sets != found {
            *sets = found;
        }
        head
    }

    /// What a container says about the stream as a whole: how long the lengths are, and the parameter sets with start codes.
    /// None if it makes no sense.
    pub(crate) fn configuration(self, data: &[u8]) -> Option<(Framing, Vec<u8>)> {
        if data.len() > MAX_SETS {
            return None;
        }
        let mut sets = Vec::with_capacity(data.len() + 16);
        let length = match self {
            Self::H264 => {
                let mut rest = Reader(data.get(5..)?);
                for mask in [0x1f, 0xff] {
                    // A record without parameter sets of the second kind may end here.
                    let count = rest.byte().unwrap_or(0) & mask;
                    for _ in 0..count {
                        append(&mut sets, rest.unit()?);
                    }
                }
                data.get(4)? & 3
            }
            Self::H265 => {
                let mut rest = Reader(data.get(22..)?);
                for _ in 0..rest.byte()? {
                    let kind = rest.byte()? & 0x3f;
                    for _ in 0..rest.length()? {
                        let unit = rest.unit()?;
                        if (32..=34).contains(&kind) {
                            append(&mut sets, unit);
                        }
                    }
                }
                data.get(21)? & 3
            }
        };
        Some((Framing::Lengths(length + 1), sets))
    }
}

impl Framing {
    /// How long a picture is with start codes; none if its lengths do not fit it.
    pub(crate) fn length(self, data: &[u8]) -> Option<usize> {
        let Self::Lengths(size) = self else {
            return (!data.is_empty()).then_some(data.len());
        };
        let (mut rest, mut length) = (data, 0);
        while !rest.is_empty() {
            let unit = first_unit(usize::from(size), rest)?;
            rest = &rest[usize::from(size) + unit.len()..];
            if !unit.is_empty() {
                length += START_CODE.len() + unit.len();
            }
        }
        (length > 0).then_some(length)
    }

    /// Hands out a picture with start codes, in pieces.
    pub(crate) fn write(self, data: &[u8], mut put: impl FnMut(&[u8])) {
        let Self::Lengths(size) = self else {
            return put(data);
        };
        let mut rest = data;
        while let Some(unit) = first_unit(usize::from(size), rest) {
            rest = &rest[usize::from(size) + unit.len()..];
            if !unit.is_empty() {
                put(&START_CODE);
                put(unit);
            }
        }
    }
}

/// The unit that data with lengths begins with.
fn first_unit(size: usize, data: &[u8]) -> Option<&[u8]> {
    let length = data.get(..size)?;
    let length = length.iter().fold(0, |sum, b| sum << 8 | usize::from(*b));
    data.get(size..)?.get(..length)
}

fn append(sets: &mut Vec<u8>, unit: &[u8]) {
    if !unit.is_empty() {
        sets.extend_from_slice(&START_CODE);
        sets.extend_from_slice(unit);
    }
}

/// Whether a message says that decoding can begin at this picture.
fn has_recovery_point(unit: &[u8]) -> bool {
    let mut rest = Reader(unit.get(1..).unwrap_or_default());
    // What ends the messages is one byte.
    while rest.0.len() > 2 {
        let (Some(kind), Some(size)) = (rest.number(), rest.number()) else {
            return false;
        };
        if kind == 6 {
            return true;
        }
        rest.0 = rest.0.get(size..).unwrap_or_default();
    }
    false
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn length(&mut self) -> Option<usize> {
        let (high, low) = (self.byte()?, self.byte()?);
        Some(usize::from(high) << 8 | usize::from(low))
    }

    fn unit(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        let unit = self.0.get(..length)?;
        self.0 = &self.0[length..];
        Some(unit)
    }

    /// Bytes of 255 that are added up, and the last.
    fn number(&mut self) -> Option<usize> {
        let mut sum = 0;
        loop {
            let byte = self.byte()?;
            sum += usize::from(byte);
            if byte != 0xff {
                return Some(sum);
            }
        }
    }
}

/// Walks over the units of a picture without looking further than asked.
struct Units<'a> {
    framing: Framing,
    data: &'a [u8],
    /// Where the unit under way begins.
    start: usize,
    /// Where the next one is looked for.
    next: usize,
}

impl<'a> Units<'a> {
    fn new(framing: Framing, data: &'a [u8]) -> Self {
        Self {
            framing,
            data,
            start: 0,
            next: 0,
        }
    }

    /// Where the next unit begins.
    fn next_start(&mut self) -> Option<usize> {
        let rest = self.data.get(self.next..)?;
        self.start = match self.framing {
            Framing::StartCodes => self.next + start_code(rest)? + 3,
            Framing::Lengths(size) => self.next + usize::from(size),
        };
        (self.start < self.data.len()).then_some(self.start)
    }

    /// The unit that `next_start` has found, and goes behind it.
    fn rest_of_unit(&mut self) -> &'a [u8] {
        let rest = self.data.get(self.start..).unwrap_or_default();
        match self.framing {
            Framing::StartCodes => {
                let end = start_code(rest).unwrap_or(rest.len());
                self.next = self.start + end;
                let zeros = rest[..end].iter().rev().take_while(|b| **b == 0).count();
                &rest[..end - zeros]
            }
            Framing::Lengths(size) => {
                let at = self.data.get(self.next..).unwrap_or_default();
                let unit = first_unit(usize::from(size), at).unwrap_or_default();
                // A length that does not fit ends the walk.
                self.next = match first_unit(usize::from(size), at) {
                    Some(unit) => self.start + unit.len(),
                    None => self.data.len(),
                };
                unit
            }
        }
    }
}

/// Where the first start code is.
fn start_code(data: &[u8]) -> Option<usize> {
    let mut at = 2;
    // A byte above 1 is in no start code, nor are the two before it its beginning.
    while let Some(byte) = data.get(at) {
        match byte {
            0 => at += 1,
            1 if data[at - 1] == 0 && data[at - 2] == 0 => return Some(at - 2),
            _ => at += 3,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_codes_are_found_wherever_they_lie() {
        for before in 0..9 {
            let data = [vec![7; before], vec![0, 0, 1, 9]].concat();
            assert_eq!(start_code(&data), Some(before));
            let data = [vec![1; before], vec![0, 0, 0, 1, 9]].concat();
            assert_eq!(start_code(&data), Some(before + 1));
        }
        assert_eq!(start_code(&[0, 1, 0, 2, 0, 0]), None);
    }

    #[test]
    fn heads_are_read_up_to_the_first_slice_in_either_framing() {
        let units: &[&[u8]] = &[
            &[9, 0xf0],
            &[0x67, 1, 2],
            &[0x68, 3],
            &[0x65, 4, 0x67],
            &[0x67],
        ];
        let expected = Head {
            delimited: true,
            sets: true,
            entry: true,
        };
        let mut with_codes = Vec::new();
        let mut with_lengths = Vec::new();
        for unit in units {
            append(&mut with_codes, unit);
            with_lengths.extend([0, unit.len() as u8]);
            with_lengths.extend(*unit);
        }
        let sets = [0, 0, 0, 1, 0x67, 1, 2, 0, 0, 0, 1, 0x68, 3];
        for (framing, data) in [
            (Framing::StartCodes, &with_codes),
            (Framing::Lengths(2), &with_lengths),
        ] {
            let mut seen = Vec::new();
            assert_eq!(Coding::H264.head(framing, data, &mut seen), expected);
            assert_eq!(seen, sets, "{framing:?}");
            let mut converted = Vec::new();
            framing.write(data, |piece| converted.extend_from_slice(piece));
            assert_eq!(converted, with_codes);
            assert_eq!(framing.length(data), Some(with_codes.len()));
        }
    }

    #[test]
    fn lengths_beyond_the_picture_are_refused() {
        for data in [
            &[0, 0, 0, 9, 1][..],
            &[0, 0, 0, 1, 1, 0],
            &[0, 0, 0, 0],
            &[],
        ] {
            assert_eq!(Framing::Lengths(4).length(data), None, "{data:?}");
        }
    }

    #[test]
    fn a_recovery_point_is_an_entry() {
        let head = |message: &[u8]| {
            let data = [&[0, 0, 1, 6][..], message, &[0, 0, 1, 0x41, 9]].concat();
            let mut sets = Vec::new();
            Coding::H264
                .head(Framing::StartCodes, &data, &mut sets)
                .entry
        };
        assert!(head(&[5, 2, 8, 8, 6, 1, 0xc4, 0x80]));
        assert!(!head(&[5, 4, 8, 6, 1, 0xc4, 0x80]));
        assert!(!head(&[0xff, 0xff]));
    }
}
