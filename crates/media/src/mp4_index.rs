//! The index of an MP4: everything before what is coded.

use crate::codecs::Medium;
use crate::mp4::{Description, Track};

/// Units a second of times that are no track's own.
const TIMESCALE: u32 = 90_000;
/// No rotation, no scaling.
const MATRIX: [u32; 9] = [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000];

/// The bytes of a file before what is coded, which is this long.
pub(crate) fn begin(tracks: &[Track], coded_bytes: u64) -> Vec<u8> {
    // Its own length decides where what is coded begins, and is the same wherever that is.
    let length = written(tracks, coded_bytes, 0).len();
    written(tracks, coded_bytes, length as u64)
}

fn written(tracks: &[Track], coded_bytes: u64, begin: u64) -> Vec<u8> {
    let mut out = Out(Vec::new());
    out.boxed(b"ftyp", |out| out.bytes(b"isom\0\0\x02\0isomiso6mp41"));
    let tracks: Vec<_> = tracks.iter().filter(|t| !t.samples.is_empty()).collect();
    let first = tracks.iter().map(|track| track.start()).min().unwrap_or(0);
    let last = tracks.iter().map(|track| track.end()).max().unwrap_or(0);
    out.boxed(b"moov", |out| {
        out.full(b"mvhd", 1, 0, |out| {
            out.u64s(&[0, 0]);
            out.u32(TIMESCALE);
            out.i64(last - first);
            out.u32s(&[0x1_0000, 0x100_0000, 0, 0]);
            out.u32s(&MATRIX);
            out.u32s(&[0; 6]);
            out.u32(u32::try_from(tracks.len() + 1).unwrap_or(3));
        });
        for (number, track) in (1..).zip(&tracks) {
            out.boxed(b"trak", |out| trak(out, track, number, first, begin));
        }
    });
    out.u32(1);
    out.bytes(b"mdat");
    out.u64s(&[coded_bytes + 16]);
    out.0
}

impl Track {
    /// When its first sample is shown, in units of the file.
    fn start(&self) -> i64 {
        self.movie(self.first_shown())
    }

    fn end(&self) -> i64 {
        let last = self.samples.iter().map(|sample| sample.shown).max();
        self.movie(last.unwrap_or(0) + self.last_length())
    }

    fn first_shown(&self) -> i64 {
        let shown = self.samples.iter().map(|sample| sample.shown);
        shown.min().unwrap_or(0)
    }

    fn movie(&self, time: i64) -> i64 {
        let scaled = i128::from(time) * i128::from(TIMESCALE);
        i64::try_from(scaled.div_euclid(i128::from(self.timescale))).unwrap_or(0)
    }

    /// How long each sample lasts, up to the next; the last as long as the one before.
    fn lengths(&self) -> impl Iterator<Item = u32> {
        let next = self.samples.iter().skip(1).map(|sample| sample.decoded);
        let now = self.samples.iter().map(|sample| sample.decoded);
        let lengths = next.zip(now).map(|(next, now)| next - now);
        // Longer holes than these 32 bits (more than a day) are shortened.
        lengths
            .chain([self.last_length()])
            .map(|length| u32::try_from(length.max(0)).unwrap_or(u32::MAX))
    }

    fn last_length(&self) -> i64 {
        let usual = i64::from(self.timescale) / 25;
        match self.samples.as_slice() {
            [.., before, last] => (last.decoded - before.decoded).clamp(0, 25 * usual),
            _ => usual,
        }
    }
}

fn trak(out: &mut Out, track: &Track, number: u32, first: i64, begin: u64) {
    let length: i64 = track.lengths().map(i64::from).sum();
    let shown = track.end() - track.start();
    let delay = track.start() - first;
    let (width, height) = shown_size(track.descriptions.first());
    let is_video = track.medium == Medium::Video;
    out.full(b"tkhd", 1, 3, |out| {
        out.u64s(&[0, 0]);
        out.u32s(&[number, 0]);
        out.i64(delay + shown);
        out.u32s(&[0, 0, 0, if is_video { 0 } else { 0x100_0000 }]);
        out.u32s(&MATRIX);
        out.u32s(&[width << 16, height << 16]);
    });
    let first_decoded = track.samples.first().map_or(0, |sample| sample.decoded);
    out.boxed(b"edts", |out| {
        out.full(b"elst", 1, 0, |out| {
            out.u32(1 + u32::from(delay > 0));
            if delay > 0 {
                out.i64(delay);
                out.i64(-1);
                out.u32(0x1_0000);
            }
            out.i64(shown);
            out.i64(track.first_shown() - first_decoded);
            out.u32(0x1_0000);
        });
    });
    out.boxed(b"mdia", |out| {
        out.full(b"mdhd", 1, 0, |out| {
            out.u64s(&[0, 0]);
            out.u32(track.timescale);
            out.i64(length);
            out.u32(0x55c4_0000);
        });
        out.full(b"hdlr", 0, 0, |out| {
            out.u32(0);
            out.bytes(if is_video { b"vide" } else { b"soun" });
            out.bytes(&[0; 13]);
        });
        out.boxed(b"minf", |out| {
            if is_video {
                out.full(b"vmhd", 0, 1, |out| out.u32s(&[0, 0]));
            } else {
                out.full(b"smhd", 0, 0, |out| out.u32(0));
            }
            out.boxed(b"dinf", |out| {
                out.full(b"dref", 0, 0, |out| {
                    out.u32(1);
                    out.full(b"url ", 0, 1, |_| {});
                });
            });
            out.boxed(b"stbl", |out| stbl(out, track, begin));
        });
    });
}

fn stbl(out: &mut Out, track: &Track, begin: u64) {
    out.full(b"stsd", 0, 0, |out| {
        out.list(track.descriptions.iter(), |out, description| {
            out.boxed(description.kind, |out| match track.medium {
                Medium::Video => picture(out, description),
                Medium::Audio => sound(out, description),
            });
        });
    });
    out.full(b"stts", 0, 0, |out| out.runs(track.lengths()));
    if track.medium == Medium::Video {
        let late = track.samples.iter().map(|sample| {
            let late = sample.shown - sample.decoded;
            u32::try_from(late.max(0)).unwrap_or(u32::MAX)
        });
        out.full(b"ctts", 0, 0, |out| out.runs(late));
        let keys = (1..).zip(&track.samples).filter(|(_, s)| s.key);
        out.full(b"stss", 0, 0, |out| {
            out.list(keys, |out, (number, _)| out.u32(number));
        });
    }
    let mut before = None;
    let changes = (1..).zip(&track.chunks).filter(|(_, chunk)| {
        let now = Some((chunk.samples, chunk.description));
        std::mem::replace(&mut before, now) != now
    });
    out.full(b"stsc", 0, 0, |out| {
        out.list(changes, |out, (number, chunk)| {
            let description = u32::try_from(chunk.description + 1).unwrap_or(1);
            out.u32s(&[number, chunk.samples, description]);
        });
    });
    out.full(b"stsz", 0, 0, |out| {
        out.u32(0);
        out.list(track.samples.iter(), |out, sample| out.u32(sample.bytes));
    });
    out.full(b"co64", 0, 0, |out| {
        out.list(track.chunks.iter(), |out, chunk| {
            out.u64s(&[begin + chunk.at]);
        });
    });
}

fn shown_size(description: Option<&Description>) -> (u32, u32) {
    description.map_or((0, 0), |d| {
        let width = u64::from(d.size.0) * u64::from(d.pixel.0) / u64::from(d.pixel.1.max(1));
        let width = u32::try_from(width).unwrap_or(0).min(0xffff);
        (width, u32::from(d.size.1))
    })
}

fn picture(out: &mut Out, description: &Description) {
    let (width, height) = description.size;
    out.bytes(&[0, 0, 0, 0, 0, 0, 0, 1]);
    out.u32s(&[0; 4]);
    out.bytes(&width.to_be_bytes());
    out.bytes(&height.to_be_bytes());
    out.u32s(&[0x48_0000, 0x48_0000, 0]);
    out.bytes(&[0, 1]);
    out.bytes(&[0; 32]);
    out.bytes(&[0, 24, 0xff, 0xff]);
    let setup = if description.kind == b"avc1" {
        b"avcC"
    } else {
        b"hvcC"
    };
    out.boxed(setup, |out| out.bytes(&description.setup));
    if description.pixel.0 != description.pixel.1 {
        out.boxed(b"pasp", |out| {
            out.u32s(&[description.pixel.0, description.pixel.1]);
        });
    }
}

fn sound(out: &mut Out, description: &Description) {
    out.bytes(&[0, 0, 0, 0, 0, 0, 0, 1]);
    out.u32s(&[0, 0]);
    out.bytes(&description.channels.to_be_bytes());
    out.bytes(&[0, 16, 0, 0, 0, 0]);
    out.u32(description.rate.min(0xffff) << 16);
    let setup = &description.setup;
    let short = |length: usize| u8::try_from(length).unwrap_or(0x7f);
    out.full(b"esds", 0, 0, |out| {
        out.bytes(&[3, short(setup.len() + 23), 0, 0, 0]);
        out.bytes(&[4, short(setup.len() + 15), 0x40, 0x15, 0, 0, 0]);
        out.u32s(&[0, 0]);
        out.bytes(&[5, short(setup.len())]);
        out.bytes(setup);
        out.bytes(&[6, 1, 2]);
    });
}

/// Bytes under way. Numbers have their highest byte first.
struct Out(Vec<u8>);

impl Out {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn u32(&mut self, number: u32) {
        self.bytes(&number.to_be_bytes());
    }

    fn u32s(&mut self, numbers: &[u32]) {
        numbers.iter().for_each(|number| self.u32(*number));
    }

    fn u64s(&mut self, numbers: &[u64]) {
        numbers.iter().for_each(|n| self.bytes(&n.to_be_bytes()));
    }

    fn i64(&mut self, number: i64) {
        self.bytes(&number.to_be_bytes());
    }

    fn boxed(&mut self, kind: &[u8; 4], content: impl FnOnce(&mut Self)) {
        let begin = self.0.len();
        self.u32(0);
        self.bytes(kind);
        content(self);
        let length = u32::try_from(self.0.len() - begin).unwrap_or(u32::MAX);
        self.0[begin..begin + 4].copy_from_slice(&length.to_be_bytes());
    }

    fn full(&mut self, kind: &[u8; 4], version: u8, flags: u32, content: impl FnOnce(&mut Self)) {
        self.boxed(kind, |out| {
            out.u32(u32::from(version) << 24 | flags);
            content(out);
        });
    }

    /// How many there are, and each.
    fn list<T>(&mut self, items: impl Iterator<Item = T>, mut item: impl FnMut(&mut Self, T)) {
        let begin = self.0.len();
        self.u32(0);
        let mut count = 0_u32;
        for each in items {
            item(self, each);
            count += 1;
        }
        self.0[begin..begin + 4].copy_from_slice(&count.to_be_bytes());
    }

    /// The same number in a row is written once, with how often it comes.
    fn runs(&mut self, numbers: impl Iterator<Item = u32>) {
        let mut numbers = numbers.peekable();
        let runs = std::iter::from_fn(|| {
            let number = numbers.next()?;
            let mut count = 1;
            while numbers.next_if_eq(&number).is_some() {
                count += 1;
            }
            Some([count, number])
        });
        self.list(runs, |out, run| out.u32s(&run));
    }
}
