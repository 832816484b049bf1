//! AAC: from a container's description to the header that every frame has in a transport stream.

use crate::mp4::Description;

/// The sampling rates that AAC has a number for.
const RATES: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000,
    7_350,
];
/// Length of a header.
pub(crate) const HEADER: usize = 7;
/// Longer frames, with their header, cannot be written.
pub(crate) const MAX_FRAME: usize = (1 << 13) - 1;
/// Samples in a frame.
pub(crate) const SAMPLES: i64 = 1024;

/// What a header says of all frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Config {
    profile: u8,
    rate_index: u8,
    channels: u8,
}

impl Config {
    /// Reads an AudioSpecificConfig. None for what such a header cannot say: then the sound has to be coded anew.
    pub(crate) fn parse(data: &[u8]) -> Option<Self> {
        let mut bits = Bits { data, at: 0 };
        let mut kind = bits.object_type()?;
        let rate_index = bits.rate_index()?;
        let channels = bits.take(4)?;
        // HE-AAC: what it extends is what a header names; decoders find the extension themselves.
        if kind == 5 || kind == 29 {
            bits.rate_index()?;
            kind = bits.object_type()?;
        }
        let profile = (1..=4).contains(&kind).then(|| kind - 1)?;
        let short_frames = bits.take(1)? == 1;
        if short_frames || !(1..=7).contains(&channels) {
            return None;
        }
        Some(Self {
            profile: u8::try_from(profile).ok()?,
            rate_index: u8::try_from(rate_index).ok()?,
            channels: u8::try_from(channels).ok()?,
        })
    }

    /// The header of a frame of this many bytes, at most `MAX_FRAME - HEADER`.
    pub(crate) fn header(self, bytes: usize) -> [u8; HEADER] {
        let length = u16::try_from((bytes + HEADER).min(MAX_FRAME)).unwrap_or(0);
        let [high, low] = length.to_be_bytes();
        [
            0xff,
            0xf1,
            self.profile << 6 | self.rate_index << 2 | self.channels >> 2,
            self.channels << 6 | high >> 3,
            high << 5 | low >> 3,
            low << 5 | 0x1f,
            0xfc,
        ]
    }
}

/// A frame without its header, and what that says.
pub(crate) struct Frame<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) rate: u32,
    /// An AudioSpecificConfig.
    config: [u8; 2],
    channels: u8,
}

impl Frame<'_> {
    /// What a file says of it.
    pub(crate) fn description(&self) -> Description {
        Description {
            kind: b"mp4a",
            setup: self.config.to_vec(),
            size: (0, 0),
            pixel: (1, 1),
            channels: u16::from(self.channels),
            rate: self.rate,
        }
    }
}

/// Takes frames with headers apart, up to the first that makes no sense.
pub(crate) fn frames(mut data: &[u8]) -> Vec<Frame<'_>> {
    let mut frames = Vec::new();
    while let Some(frame) = data.get(..HEADER) {
        let header = if frame[1] & 1 == 1 {
            HEADER
        } else {
            HEADER + 2
        };
        let length = u16::from_be_bytes([frame[3] & 3, frame[4]]);
        let length = usize::from(length << 3 | u16::from(frame[5] >> 5));
        let rate_index = frame[2] >> 2 & 15;
        let channels = (frame[2] & 1) << 2 | frame[3] >> 6;
        let (Some(content), Some(rate)) =
            (data.get(header..length), RATES.get(usize::from(rate_index)))
        else {
            break;
        };
        let kind = (frame[2] >> 6) + 1;
        frames.push(Frame {
            data: content,
            config: [kind << 3 | rate_index >> 1, rate_index << 7 | channels << 3],
            rate: *rate,
            channels,
        });
        data = &data[length..];
    }
    frames
}

struct Bits<'a> {
    data: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.data.get(self.at / 8)?;
            value = value << 1 | u32::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value)
    }

    fn object_type(&mut self) -> Option<u32> {
        match self.take(5)? {
            31 => Some(32 + self.take(6)?),
            kind => Some(kind),
        }
    }

    fn rate_index(&mut self) -> Option<usize> {
        match self.take(4)? {
            15 => {
                let rate = self.take(24)?;
                RATES.iter().position(|known| *known == rate)
            }
            index => usize::try_from(index).ok().filter(|i| *i < RATES.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_become_headers_or_are_refused() {
        for (data, expected) in [
            // LC, 44.1 kHz, two channels.
            (&[0x12, 0x10][..], Some((1, 4, 2))),
            // LC, 48 kHz, one channel, with an extension behind.
            (&[0x11, 0x88, 0x56, 0xe5, 0], Some((1, 3, 1))),
            // HE-AAC: 24 kHz doubled to 48 kHz.
            (&[0x2b, 0x11, 0x88, 0], Some((1, 6, 2))),
            // Channels by a table of their own.
            (&[0x12, 0x00], None),
            // Frames of 960 samples.
            (&[0x12, 0x14], None),
            // xHE-AAC.
            (&[0xf9, 0x46, 0x40, 0x00], None),
            (&[0x12], None),
            (&[], None),
        ] {
            let found = Config::parse(data).map(|c| (c.profile, c.rate_index, c.channels));
            assert_eq!(found, expected, "{data:x?}");
        }
    }

    #[test]
    fn a_header_says_how_long_its_frame_is() {
        let config = Config::parse(&[0x12, 0x10]).expect("a configuration");
        assert_eq!(
            config.header(100),
            [0xff, 0xf1, 0x50, 0x80, 0x0d, 0x7f, 0xfc]
        );
    }
}
