//! Writes MPEG-TS: one pass over coded pictures and sound into one buffer that is large enough from the start.

use super::nal::Coding;

pub(super) const PACKET: usize = 188;
const PAYLOAD: usize = 184;
/// Where what is found in the stream.
pub(super) const PMT_PID: u16 = 0x1000;
pub(super) const VIDEO_PID: u16 = 0x100;
pub(super) const AUDIO_PID: u16 = 0x101;
/// How far the clock of the stream is behind its first byte's decoding time, in ticks of 90 kHz.
const CLOCK_BEHIND: u64 = 9_000;
/// Times of a transport stream have 33 bits.
const TIME_MASK: u64 = (1 << 33) - 1;

/// Ticks of 90 kHz, of a wall time in microseconds.
pub(crate) fn ticks(wall_us: i64) -> i64 {
    (i128::from(wall_us) * 9).div_euclid(100) as i64
}

/// When something is shown and decoded, in ticks of 90 kHz; only the lowest 33 bits are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    pub(crate) shown: i64,
    pub(crate) decoded: i64,
}

/// A segment under way.
pub(crate) struct Muxer {
    out: Vec<u8>,
    video: Track,
    audio: Track,
    /// Whether the clock goes with the pictures.
    has_video: bool,
    /// Of what was begun: which track, and what is still to come of it.
    audio_now: bool,
    left: usize,
    /// Bytes free in the packet under way.
    room: usize,
}

struct Track {
    pid: u16,
    stream_id: u8,
    counter: u8,
    begun: bool,
}

impl Track {
    fn new(pid: u16, stream_id: u8) -> Self {
        Self {
            pid,
            stream_id,
            counter: 0,
            begun: false,
        }
    }
}

/// How much space a unit of this many bytes takes at most.
pub(crate) fn space(bytes: usize) -> usize {
    // The header, and a clock before it.
    (bytes + 19 + 8).div_ceil(PAYLOAD) * PACKET
}

impl Muxer {
    /// A segment with these tracks, whose units take `space` altogether.
    pub(crate) fn new(video: Option<Coding>, audio: bool, space: usize) -> Self {
        let mut out = Vec::with_capacity(space + 2 * PACKET);
        tables(&mut out, video, audio);
        Self {
            out,
            video: Track::new(VIDEO_PID, 0xe0),
            audio: Track::new(AUDIO_PID, 0xc0),
            has_video: video.is_some(),
            audio_now: false,
            left: 0,
            room: 0,
        }
    }

    /// Begins a picture of this many bytes; all of them have to be `put` next.
    pub(crate) fn picture(&mut self, times: Times, key: bool, bytes: usize) {
        self.audio_now = false;
        self.begin(times, key, true, bytes);
    }

    /// Begins frames of sound of this many bytes together; all of them have to be `put` next.
    pub(crate) fn sound(&mut self, shown: i64, bytes: usize) {
        self.audio_now = true;
        let times = Times {
            shown,
            decoded: shown,
        };
        let clock = !self.has_video;
        self.begin(times, clock, clock, bytes);
    }

    /// Writes the next bytes of what was begun.
    pub(crate) fn put(&mut self, mut bytes: &[u8]) {
        debug_assert!(bytes.len() <= self.left, "no more than was said");
        while !bytes.is_empty() {
            if self.room == 0 {
                self.next_packet();
            }
            let (now, later) = bytes.split_at(self.room.min(bytes.len()));
            self.out.extend_from_slice(now);
            self.room -= now.len();
            self.left -= now.len();
            bytes = later;
        }
    }

    /// The whole segment.
    pub(crate) fn finish(self) -> Vec<u8> {
        debug_assert_eq!(self.left, 0, "what was begun is complete");
        self.out
    }

    fn track(&mut self) -> &mut Track {
        if self.audio_now {
            &mut self.audio
        } else {
            &mut self.video
        }
    }

    fn begin(&mut self, times: Times, entry: bool, clock: bool, bytes: usize) {
        debug_assert_eq!(self.left, 0, "what was begun is complete");
        let track = self.track();
        let first = !std::mem::replace(&mut track.begun, true);
        let (header, header_length) = pes_header(track.stream_id, times, bytes);
        let mut field = [0; 7];
        field[0] = u8::from(first) << 7 | u8::from(entry) << 6 | u8::from(clock) << 4;
        if clock {
            let base = masked(times.decoded).wrapping_sub(CLOCK_BEHIND) & TIME_MASK;
            field[1..5].copy_from_slice(&u32::try_from(base >> 1).unwrap_or(0).to_be_bytes());
            field[5] = u8::from(base & 1 == 1) << 7 | 0x7e;
        }
        let field = match (clock, field[0]) {
            (true, _) => &field[..],
            (false, 0) => &[][..],
            (false, _) => &field[..1],
        };
        self.left = header_length + bytes;
        self.packet(true, field);
        self.put(&header[..header_length]);
    }

    fn next_packet(&mut self) {
        if self.left >= PAYLOAD {
            let track = self.track();
            let [high, low] = track.pid.to_be_bytes();
            let head = [0x47, high, low, 0x10 | track.counter];
            track.counter = (track.counter + 1) & 15;
            self.out.extend_from_slice(&head);
            self.room = PAYLOAD;
        } else {
            self.packet(false, &[]);
        }
    }

    /// Begins a packet with an adaptation field of these bytes, longer if it would not be full otherwise.
    fn packet(&mut self, begins: bool, field: &[u8]) {
        let wanted = if field.is_empty() { 0 } else { 1 + field.len() };
        let room = (PAYLOAD - wanted).min(self.left);
        let adaptation = PAYLOAD - room;
        let track = self.track();
        let [high, low] = track.pid.to_be_bytes();
        let has_field = u8::from(adaptation > 0) << 5;
        let head = [
            0x47,
            u8::from(begins) << 6 | high,
            low,
            0x10 | has_field | track.counter,
        ];
        track.counter = (track.counter + 1) & 15;
        self.out.extend_from_slice(&head);
        if let Some(length) = adaptation.checked_sub(1) {
            self.out.push(u8::try_from(length).unwrap_or(183));
            let end = self.out.len() + length;
            if length > 0 {
                self.out
                    .extend_from_slice(if field.is_empty() { &[0] } else { field });
            }
            self.out.resize(end, 0xff);
        }
        self.room = room;
    }
}

fn masked(time: i64) -> u64 {
    time.cast_unsigned() & TIME_MASK
}

/// The header of a unit, and how long it is.
fn pes_header(stream_id: u8, times: Times, bytes: usize) -> ([u8; 19], usize) {
    let (shown, decoded) = (masked(times.shown), masked(times.decoded));
    let both = shown != decoded;
    let times_length = if both { 10 } else { 5 };
    // Pictures may be longer than can be said; 0 is for those.
    let length = match stream_id {
        0xc0 => u16::try_from(bytes + 3 + times_length).unwrap_or(0),
        _ => 0,
    };
    let mut header = [0; 19];
    header[..4].copy_from_slice(&[0, 0, 1, stream_id]);
    header[4..6].copy_from_slice(&length.to_be_bytes());
    header[6] = 0x84;
    header[7] = if both { 0xc0 } else { 0x80 };
    header[8] = u8::try_from(times_length).unwrap_or(5);
    header[9..14].copy_from_slice(&timestamp(if both { 3 } else { 2 }, shown));
    header[14..].copy_from_slice(&timestamp(1, decoded));
    (header, 9 + times_length)
}

fn timestamp(prefix: u8, time: u64) -> [u8; 5] {
    let bits = |shift: u32, mask: u64| u8::try_from(time >> shift & mask).unwrap_or(0);
    [
        prefix << 4 | bits(30, 7) << 1 | 1,
        bits(22, 0xff),
        bits(15, 0x7f) << 1 | 1,
        bits(7, 0xff),
        bits(0, 0x7f) << 1 | 1,
    ]
}

/// What the stream holds and where: the program association and map tables.
fn tables(out: &mut Vec<u8>, video: Option<Coding>, audio: bool) {
    let [high, low] = PMT_PID.to_be_bytes();
    table(out, 0, &[0, 0, 1, 0xc1, 0, 0, 0, 1, 0xe0 | high, low]);
    let clock_pid = if video.is_some() {
        VIDEO_PID
    } else {
        AUDIO_PID
    };
    let [high, low] = clock_pid.to_be_bytes();
    let mut map = vec![2, 0, 1, 0xc1, 0, 0, 0xe0 | high, low, 0xf0, 0];
    let mut stream = |kind: u8, pid: u16| {
        let [high, low] = pid.to_be_bytes();
        map.extend_from_slice(&[kind, 0xe0 | high, low, 0xf0, 0]);
    };
    match video {
        Some(Coding::H264) => stream(0x1b, VIDEO_PID),
        Some(Coding::H265) => stream(0x24, VIDEO_PID),
        None => {}
    }
    if audio {
        stream(0x0f, AUDIO_PID);
    }
    table(out, PMT_PID, &map);
}

/// One table in a packet of its own: its number, then what follows its length.
fn table(out: &mut Vec<u8>, pid: u16, content: &[u8]) {
    let begin = out.len();
    let [high, low] = pid.to_be_bytes();
    // An adaptation field that says that counting begins anew.
    out.extend_from_slice(&[0x47, 0x40 | high, low, 0x30, 1, 0x80, 0]);
    let section = out.len();
    let length = u8::try_from(content.len() - 1 + 4).unwrap_or(0);
    out.extend_from_slice(&[content[0], 0xb0, length]);
    out.extend_from_slice(&content[1..]);
    let sum = crc(&out[section..]);
    out.extend_from_slice(&sum.to_be_bytes());
    out.resize(begin + PACKET, 0xff);
}

fn crc(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |mut sum, byte| {
        sum ^= u32::from(*byte) << 24;
        for _ in 0..8 {
            let carry = sum >> 31 == 1;
            sum = sum << 1 ^ if carry { 0x04c1_1db7 } else { 0 };
        }
        sum
    })
}
