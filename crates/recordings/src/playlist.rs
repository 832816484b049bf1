//! HLS playlists (RFC 8216) of a stretch of a recording.

use jiff::Timestamp;

use crate::names::Segment;

/// Whether more segments may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The playlist is complete (VOD, with an end).
    Complete,
    /// More may be appended: players ask again (EVENT).
    Open,
}

/// Two segments further apart than this have a gap between them, in microseconds.
pub const GAP_US: i64 = 50_000;

/// What a playlist without segments gives as their longest duration: what a segment lasts when keyframes come often.
const USUAL_SECONDS: i64 = 4;
/// About what a segment takes in a playlist, and the head with its tags.
const SEGMENT_CHARS: usize = 52;
const HEAD_CHARS: usize = 512;

/// The playlist of these segments, in order of start, for a player that is to begin at `from_us`. Segment addresses are file
/// names, relative to the playlist's. Program date time at the start and after each gap, where there is a discontinuity too.
/// Segments that lie within what was already played are left out.
pub fn playlist(segments: &[Segment], from_us: i64, ending: Ending) -> String {
    // A week has 151,200 segments: one allocation, and numbers written by hand.
    let mut text = String::with_capacity(HEAD_CHARS + segments.len() * SEGMENT_CHARS);
    head(&mut text, segments, from_us, ending);
    let mut played_us = None;
    for segment in segments {
        match place(played_us, segment) {
            Place::Within => continue,
            Place::Next => {}
            Place::First => date_time(&mut text, segment.start_us),
            Place::Apart => {
                text.push_str("#EXT-X-DISCONTINUITY\n");
                date_time(&mut text, segment.start_us);
            }
        }
        played_us = Some(segment.end_us());
        entry(&mut text, segment);
    }
    if ending == Ending::Complete {
        text.push_str("#EXT-X-ENDLIST\n");
    }
    text
}

/// The stretches without holes that these segments, in order of start, make up, in order: where each starts and ends.
pub fn stretches(segments: &[Segment]) -> Vec<(i64, i64)> {
    let mut found: Vec<(i64, i64)> = Vec::new();
    for segment in segments {
        match found.last_mut() {
            Some((_, end)) if segment.start_us.saturating_sub(*end) <= GAP_US => {
                *end = segment.end_us().max(*end);
            }
            _ => found.push((segment.start_us, segment.end_us())),
        }
    }
    found
}

/// How a segment follows what was played.
enum Place {
    First,
    Next,
    Apart,
    Within,
}

fn place(played_us: Option<i64>, segment: &Segment) -> Place {
    match played_us {
        None => Place::First,
        Some(played) if segment.end_us() <= played => Place::Within,
        Some(played) if (segment.start_us - played).abs() <= GAP_US => Place::Next,
        Some(_) => Place::Apart,
    }
}

fn head(text: &mut String, segments: &[Segment], from_us: i64, ending: Ending) {
    let longest = segments.iter().map(|s| s.duration_us).max();
    let target = longest.map_or(USUAL_SECONDS, |us| {
        us.div_euclid(1_000_000) + i64::from(us.rem_euclid(1_000_000) > 0)
    });
    text.push_str("#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:");
    number(text, target.unsigned_abs());
    text.push_str("\n#EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-PLAYLIST-TYPE:");
    text.push_str(match ending {
        Ending::Complete => "VOD\n",
        Ending::Open => "EVENT\n",
    });
    let into = segments
        .first()
        .map_or(0, |s| from_us.saturating_sub(s.start_us));
    if into > 0 {
        text.push_str("#EXT-X-START:TIME-OFFSET=");
        seconds(text, into);
        text.push_str(",PRECISE=YES\n");
    }
}

fn date_time(text: &mut String, us: i64) {
    // Rounded here: a timestamp's own precision would cut.
    let ms = us.saturating_add(500).div_euclid(1000);
    let time = Timestamp::from_millisecond(ms).unwrap_or_default();
    text.push_str(&format!("#EXT-X-PROGRAM-DATE-TIME:{time:.3}\n"));
}

fn entry(text: &mut String, segment: &Segment) {
    let mut line = Backwards::new();
    let duration_us = segment.duration_us.unsigned_abs();
    line.text(b".ts\n");
    line.number(duration_us, 1);
    line.text(b"-");
    line.number(segment.start_us.unsigned_abs(), 1);
    line.text(b",\n");
    line.seconds(duration_us);
    line.text(b"#EXTINF:");
    text.push_str(line.written());
}

fn number(text: &mut String, number: u64) {
    let mut line = Backwards::new();
    line.number(number, 1);
    text.push_str(line.written());
}

fn seconds(text: &mut String, us: i64) {
    let mut line = Backwards::new();
    line.seconds(us.unsigned_abs());
    text.push_str(line.written());
}

/// A short text written from its end, as digits come out of a number: a long playlist takes two thirds of the time.
struct Backwards {
    /// Three numbers of at most 20 digits, and what is between them.
    text: [u8; 96],
    at: usize,
}

impl Backwards {
    fn new() -> Self {
        Self {
            text: [0; 96],
            at: 96,
        }
    }

    fn text(&mut self, text: &[u8]) {
        let end = self.at;
        self.at -= text.len();
        self.text[self.at..end].copy_from_slice(text);
    }

    /// A number with at least so many digits.
    fn number(&mut self, mut number: u64, digits: usize) {
        let longest = self.at - digits;
        while number > 0 || self.at > longest {
            self.at -= 1;
            self.text[self.at] = b'0' + (number % 10) as u8;
            number /= 10;
        }
    }

    /// Microseconds as seconds with six decimals.
    fn seconds(&mut self, us: u64) {
        self.number(us % 1_000_000, 6);
        self.text(b".");
        self.number(us / 1_000_000, 1);
    }

    fn written(&self) -> &str {
        std::str::from_utf8(&self.text[self.at..]).unwrap_or_default()
    }
}
