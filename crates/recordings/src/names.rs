//! Names of objects: all that has to be known of a segment, and nothing that a caller passes gets out of its folder.

use jiff::Timestamp;
use object_store::path::Path;
use sightline_proto::ids::Kind;
use uuid::Uuid;

use crate::error::StoreError;

/// The longest segment, in microseconds. One is cut after 120 s at the latest; a picture that comes late makes it longer.
pub const LONGEST_US: i64 = 600_000_000;

pub(crate) const HOUR_US: i64 = 3_600_000_000;
/// Nothing starts later than about the year 9890: four digits of a year are enough for ever.
const LATEST_US: i64 = 250_000_000_000_000_000;
const SLUG_PART: usize = 64;
const SLUG: usize = 96;

/// One segment of a stream's recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// Where it starts, in microseconds since the Unix epoch.
    pub start_us: i64,
    /// How long it lasts, in microseconds.
    pub duration_us: i64,
    /// Its size; 0 where only its name is known.
    pub bytes: u64,
}

impl Segment {
    /// Where it ends.
    pub fn end_us(&self) -> i64 {
        self.start_us.saturating_add(self.duration_us)
    }

    /// `<start_us>-<duration_us>.ts`
    pub fn file_name(&self) -> String {
        format!("{}-{}.ts", self.start_us, self.duration_us)
    }

    /// The segment with this file name; none if it is not exactly one that `file_name` makes of a time after 1970 and a
    /// duration of more than nothing and at most [`LONGEST_US`].
    pub fn parse(file_name: &str) -> Option<Self> {
        let (start, duration) = file_name.strip_suffix(".ts")?.split_once('-')?;
        let segment = Self {
            start_us: number(start)?,
            duration_us: number(duration)?,
            bytes: 0,
        };
        segment.can_be().then_some(segment)
    }

    /// Whether a segment may be like this.
    pub(crate) fn can_be(&self) -> bool {
        (0..=LATEST_US).contains(&self.start_us) && (1..=LONGEST_US).contains(&self.duration_us)
    }

    /// The hour that it starts in, counted from the Unix epoch.
    pub(crate) fn hour(&self) -> i64 {
        self.start_us.div_euclid(HOUR_US)
    }
}

/// What a slug may begin with: letters and digits in lower case, everything else one hyphen, at most 64 characters.
pub fn slug_part(wanted: &str) -> String {
    let mut part = String::with_capacity(SLUG_PART);
    for c in wanted.chars() {
        if part.len() == SLUG_PART {
            break;
        }
        if c.is_ascii_alphanumeric() {
            part.push(c.to_ascii_lowercase());
        } else if !part.is_empty() && !part.ends_with('-') {
            part.push('-');
        }
    }
    part.truncate(part.trim_end_matches('-').len());
    part
}

/// The UUID in an id of this kind, which is written in the one way that ids are written in.
pub(crate) fn uuid(kind: Kind, id: &str) -> Option<Uuid> {
    let text = id.strip_prefix(kind.prefix())?;
    let uuid = Uuid::try_parse(text).ok()?;
    let mut buffer = Uuid::encode_buffer();
    (uuid.hyphenated().encode_lower(&mut buffer) == text).then_some(uuid)
}

/// The folder of a stream.
pub(crate) fn stream(rtstream: &str) -> Result<Path, StoreError> {
    if uuid(Kind::RtStream, rtstream).is_none() {
        return Err(not_found("recording of that stream"));
    }
    Ok(Path::from_iter([RECORDINGS, rtstream]))
}

/// The folder of an hour of a stream.
pub(crate) fn hour(rtstream: &str, hour: i64) -> Result<Path, StoreError> {
    Ok(stream(rtstream)?.join(hour_name(hour)))
}

/// The index of an hour of a stream.
pub(crate) fn index(rtstream: &str, number: i64) -> Result<Path, StoreError> {
    Ok(hour(rtstream, number)?.join(INDEX))
}

/// A segment of a stream.
pub(crate) fn segment(rtstream: &str, segment: Segment) -> Result<Path, StoreError> {
    if !segment.can_be() {
        return Err(not_found("such segment"));
    }
    Ok(hour(rtstream, segment.hour())?.join(segment.file_name()))
}

/// What a player page shows.
pub(crate) fn page(slug: &str) -> Result<Path, StoreError> {
    let good = (1..=SLUG).contains(&slug.len())
        && slug
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if !good {
        return Err(not_found("such player page"));
    }
    Ok(Path::from_iter([PLAYERS, slug]))
}

/// The file of an export.
pub(crate) fn export(export_id: &str) -> Result<Path, StoreError> {
    if uuid(Kind::Export, export_id).is_none() {
        return Err(not_found("such export"));
    }
    Ok(Path::from_iter([EXPORTS, &format!("{export_id}.mp4")]))
}

/// What the index of an hour is called.
pub(crate) const INDEX: &str = "index";
/// Where recordings are.
pub(crate) const RECORDINGS: &str = "recordings";
/// Where player pages are.
pub(crate) const PLAYERS: &str = "players";
/// Where exports are.
pub(crate) const EXPORTS: &str = "exports";

/// `2026-11-25T21`
pub(crate) fn hour_name(hour: i64) -> String {
    let start = Timestamp::from_second(hour.saturating_mul(3600)).unwrap_or_default();
    start.strftime("%Y-%m-%dT%H").to_string()
}

/// The hour of this name; none if it is not exactly one that `hour_name` makes.
pub(crate) fn parse_hour(name: &str) -> Option<i64> {
    let start: Timestamp = format!("{name}:00:00Z").parse().ok()?;
    let hour = start.as_second().div_euclid(3600);
    (hour_name(hour) == name).then_some(hour)
}

fn not_found(what: &str) -> StoreError {
    StoreError::NotFound {
        what: what.to_owned(),
    }
}

/// Digits alone, and no more of them than needed.
fn number(digits: &str) -> Option<i64> {
    let plain = digits.bytes().all(|b| b.is_ascii_digit());
    let short = digits == "0" || !digits.starts_with('0');
    (plain && short).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const UUID: &str = "01900000-0000-7000-8000-00000000000a";

    #[test]
    fn file_names_are_strict() {
        let cases = [
            ("0-1.ts", Some((0, 1))),
            (
                "1764000000000000-4000000.ts",
                Some((1_764_000_000_000_000, 4_000_000)),
            ),
            ("1-600000000.ts", Some((1, LONGEST_US))),
            ("1-600000001.ts", None),
            ("1-0.ts", None),
            ("01-1.ts", None),
            ("1-01.ts", None),
            ("+1-1.ts", None),
            ("-1-1.ts", None),
            ("1--1.ts", None),
            (" 1-1.ts", None),
            ("1-1.TS", None),
            ("1-1.ts#1", None),
            ("1-1.ts/", None),
            ("../1-1.ts", None),
            ("1.ts", None),
            ("-1.ts", None),
            ("1-.ts", None),
            ("250000000000000001-1.ts", None),
            ("99999999999999999999-1.ts", None),
            ("१-1.ts", None),
            ("", None),
        ];
        for (name, expected) in cases {
            let parsed = Segment::parse(name);
            assert_eq!(
                parsed.map(|s| (s.start_us, s.duration_us)),
                expected,
                "{name}"
            );
        }
    }

    #[test]
    fn hours_have_one_name() {
        for (hour, name) in [
            (0, "1970-01-01T00"),
            (490_005, "2025-11-24T21"),
            (69_444_444, "9892-03-08T12"),
        ] {
            assert_eq!(hour_name(hour), name);
            assert_eq!(parse_hour(name), Some(hour));
        }
        for name in [
            "",
            "2025-11-24",
            "2025-11-24T24",
            "2025-02-30T00",
            "2025-11-24t21",
            "2025-11-24T21 ",
            "2025-11-24T21:00",
        ] {
            assert_eq!(parse_hour(name), None, "{name}");
        }
    }

    /// One name in its folder and no more, whatever is passed.
    fn stays(path: Result<Path, StoreError>, folder: &str, depth: usize) -> bool {
        path.is_ok_and(|path| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-.".contains(c);
            let parts: Vec<_> = path.parts().map(|part| part.as_ref().to_owned()).collect();
            let plain = parts
                .iter()
                .all(|part| part.chars().all(plain) && !part.starts_with('.'));
            plain && parts.len() == depth && parts[0] == folder
        })
    }

    fn times() -> impl Strategy<Value = Segment> {
        (0..=LATEST_US, 1..=LONGEST_US).prop_map(|(start_us, duration_us)| Segment {
            start_us,
            duration_us,
            bytes: 0,
        })
    }

    proptest! {
        #[test]
        fn segments_are_named_and_found(one in times(), other in times()) {
            prop_assert_eq!(Segment::parse(&one.file_name()), Some(one));
            prop_assert_eq!(parse_hour(&hour_name(one.hour())), Some(one.hour()));
            let stream = format!("rts-{UUID}");
            prop_assert!(stays(segment(&stream, one), "recordings", 4));
            let same = segment(&stream, one).ok() == segment(&stream, other).ok();
            prop_assert_eq!(same, one == other);
        }

        #[test]
        fn a_name_parses_as_what_it_is_or_not_at_all(name in "[0-9+. -]{0,24}-[0-9+ ]{0,12}(.ts)?|.*") {
            prop_assert!(Segment::parse(&name).is_none_or(|segment| segment.file_name() == name));
            prop_assert!(parse_hour(&name).is_none_or(|hour| hour_name(hour) == name));
        }

        #[test]
        fn nothing_passed_leaves_its_folder(text in "[a-z0-9./%#-]{0,100}|.*", start in any::<i64>(), duration in any::<i64>()) {
            let id = format!("rts-{UUID}");
            for id in [&text, &format!("rts-{text}"), &format!("exp-{text}"), &format!("{id}{text}")] {
                prop_assert!(stream(id).is_err() || stays(stream(id), "recordings", 2));
                prop_assert!(export(id).is_err() || stays(export(id), "exports", 2));
                prop_assert!(page(id).is_err() || stays(page(id), "players", 2));
            }
            let times = Segment { start_us: start, duration_us: duration, bytes: 0 };
            prop_assert!(segment(&id, times).is_err() || stays(segment(&id, times), "recordings", 4));
        }

        #[test]
        fn a_slug_part_is_plain(wanted in ".{0,200}") {
            let part = slug_part(&wanted);
            prop_assert!(part.len() <= 64 && !part.starts_with('-') && !part.ends_with('-'));
            prop_assert!(!part.contains("--"));
            prop_assert!(part.is_empty() || page(&part).is_ok());
            prop_assert_eq!(slug_part(&part), part);
        }
    }
}
