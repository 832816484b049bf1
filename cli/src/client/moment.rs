//! Times as people write and read them.

use std::str::FromStr;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use sightline_proto::time::micros;

/// A time, or how long ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Microseconds since the Unix epoch.
    At(i64),
    /// Microseconds before now.
    Ago(i64),
}

impl Moment {
    /// As a timestamp of the API.
    pub fn timestamp(self, now_us: i64) -> prost_types::Timestamp {
        sightline_proto::time::timestamp(match self {
            Self::At(us) => us,
            Self::Ago(us) => now_us.saturating_sub(us),
        })
    }
}

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(time) = text.parse::<Timestamp>() {
            return Ok(Self::At(time.as_microsecond()));
        }
        let ago = duration(text).map_err(|_| {
            "write a time such as 2026-11-26T08:00:00Z, or how long ago, such as 90s, 10m or 2h"
        })?;
        Ok(Self::Ago(
            i64::try_from(ago.as_micros()).unwrap_or(i64::MAX),
        ))
    }
}

/// A length of time such as `90s`, `10m` or `2h 30m`.
///
/// # Errors
/// When it is none; the error says how to write one.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<SignedDuration>().ok();
    let positive = parsed.and_then(|parsed| Duration::try_from(parsed).ok());
    positive.ok_or_else(|| "write a length of time such as 90s, 10m or 2h".to_owned())
}

/// What people's times depend on.
pub struct View {
    /// Microseconds since the Unix epoch.
    pub now_us: i64,
    /// Where the people are.
    pub zone: TimeZone,
}

impl View {
    /// How long ago something was, roughly: `3 min ago`.
    pub fn age(&self, time: Option<&prost_types::Timestamp>) -> String {
        let Some(time) = time else {
            return String::new();
        };
        let seconds = (self.now_us - micros(time)).max(0) / 1_000_000;
        match seconds {
            0..=9 => "just now".to_owned(),
            10..=119 => format!("{seconds} s ago"),
            120..=7_199 => format!("{} min ago", seconds / 60),
            7_200..=172_799 => format!("{} h ago", seconds / 3600),
            _ => format!("{} days ago", seconds / 86_400),
        }
    }

    /// A time of day, with its date unless that is today.
    pub fn time(&self, time: Option<&prost_types::Timestamp>) -> String {
        let local = |us| {
            Some(
                Timestamp::from_microsecond(us)
                    .ok()?
                    .to_zoned(self.zone.clone()),
            )
        };
        let Some(time) = time.and_then(|time| local(micros(time))) else {
            return String::new();
        };
        let today = local(self.now_us).is_some_and(|now| now.date() == time.date());
        let shown = if today {
            "%H:%M:%S"
        } else {
            "%Y-%m-%d %H:%M:%S"
        };
        time.strftime(shown).to_string()
    }

    /// A stretch of time: when it starts, and how many seconds it is long.
    pub fn stretch(
        &self,
        start: Option<&prost_types::Timestamp>,
        end: Option<&prost_types::Timestamp>,
    ) -> [String; 2] {
        let length = start
            .zip(end)
            .map(|(start, end)| micros(end) - micros(start));
        let length = length.map(|us| format!("{:.1} s", us as f64 / 1e6));
        [self.time(start), length.unwrap_or_default()]
    }
}

#[cfg(test)]
mod tests {
    use sightline_proto::time::timestamp;

    use super::*;

    const SECOND: i64 = 1_000_000;

    #[test]
    fn times_and_ages_are_taken() {
        let cases = [
            ("1970-01-01T00:00:01Z", Some(Moment::At(SECOND))),
            ("1970-01-01T02:00:01+02:00", Some(Moment::At(SECOND))),
            ("90s", Some(Moment::Ago(90 * SECOND))),
            ("1h 30m", Some(Moment::Ago(5400 * SECOND))),
            ("-1h", None),
            ("yesterday", None),
            ("5", None),
        ];
        for (text, moment) in cases {
            assert_eq!(text.parse().ok(), moment, "{text}");
        }
    }

    #[test]
    fn times_are_shown_for_people() {
        let view = View {
            now_us: 1_764_000_000 * SECOND,
            zone: TimeZone::UTC,
        };
        for (before, age, time) in [
            (-5, "just now", "16:00:05"),
            (0, "just now", "16:00:00"),
            (70, "70 s ago", "15:58:50"),
            (3 * 60, "3 min ago", "15:57:00"),
            (5 * 3600, "5 h ago", "11:00:00"),
            (3 * 86_400, "3 days ago", "2025-11-21 16:00:00"),
        ] {
            let then = Some(timestamp(view.now_us - before * SECOND));
            assert_eq!(view.age(then.as_ref()), age);
            assert_eq!(view.time(then.as_ref()), time);
        }
        assert_eq!(view.age(None), "");
    }
}
