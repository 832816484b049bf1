//! The command line of what an alert is told: when it fires, how bad that is, and what its receivers get.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use sightline_proto::v1::policy::Awake;
use sightline_proto::v1::{DeliveryMode, Severity};

use crate::client::moment::duration;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// When an alert fires, and what is told of it.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "When it fires, and what is told")]
pub struct AlertOptions {
    /// How many of the last windows (--of) have to count for a firing to open; 1 if unset.
    #[arg(long, value_name = "N", group = "change")]
    pub required: Option<u32>,
    /// Of how many windows, 1 to 20; 1 if unset.
    #[arg(long, value_name = "M", group = "change")]
    pub of: Option<u32>,
    /// After how many windows that do not count a firing is over, 1 to 20; 1 if unset.
    #[arg(long, value_name = "N", group = "change")]
    pub close_after: Option<u32>,
    /// For how long it does not fire again once a firing is over, for example 5m; 24h at most.
    #[arg(long, value_name = "TIME", value_parser = duration, group = "change")]
    pub cooldown: Option<Duration>,
    /// When it is awake, for example "mon-fri 22:00-06:00" or "sat,sun 00:00-24:00"; may be repeated. Days are those on which
    /// it starts; every day without them. "always" for all the time.
    #[arg(long, value_name = "DAYS FROM-TO", group = "change")]
    pub awake: Vec<Hours>,
    /// The time zone of --awake, for example Europe/Berlin; UTC if unset.
    #[arg(long, value_name = "ZONE", group = "change")]
    pub time_zone: Option<String>,
    /// How bad its firings are; warning if unset.
    #[arg(long, value_enum, group = "change")]
    pub severity: Option<HowBad>,
    /// What is delivered of a firing; complete if unset.
    #[arg(long, value_enum, group = "change")]
    pub delivery: Option<Deliver>,
    /// Deliver nothing before this time, or for so long: 2026-11-26T08:00:00Z, or 8h; "now" ends the silence.
    #[arg(long, value_name = "TIME", group = "change")]
    pub mute_until: Option<Until>,
    /// A further receiver, by the name that the server's operator gave it; may be repeated. In an update, these replace those
    /// that are there.
    #[arg(long = "sink", value_name = "NAME", group = "change")]
    pub sinks: Vec<String>,
    /// A file with the template of the webhook's body; an empty file for the usual body.
    #[arg(long, value_name = "FILE", group = "change")]
    pub template: Option<PathBuf>,
}

impl AlertOptions {
    /// Whether something of the policy is given.
    pub fn has_policy(&self) -> bool {
        let numbers = [self.required, self.of, self.close_after];
        numbers.iter().any(Option::is_some)
            || self.cooldown.is_some()
            || self.time_zone.is_some()
            || !self.awake.is_empty()
    }
}

/// How bad a firing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HowBad {
    /// Good to know.
    Info,
    /// Somebody should look.
    Warning,
    /// Somebody has to act now.
    Critical,
}

impl From<HowBad> for Severity {
    fn from(given: HowBad) -> Self {
        match given {
            HowBad::Info => Self::Info,
            HowBad::Warning => Self::Warning,
            HowBad::Critical => Self::Critical,
        }
    }
}

/// Which of a firing's messages are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Deliver {
    /// That it fired, without waiting for anything.
    First,
    /// That it fired, with explanation and clip if they come within 700 ms; else they follow.
    Complete,
    /// That it fired, then explanation and clip, then that it is over.
    All,
}

impl From<Deliver> for DeliveryMode {
    fn from(given: Deliver) -> Self {
        match given {
            Deliver::First => Self::First,
            Deliver::Complete => Self::Complete,
            Deliver::All => Self::All,
        }
    }
}

/// A time, or how long from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Microseconds since the Unix epoch.
    At(i64),
    /// Microseconds after now.
    In(i64),
}

impl Until {
    /// As a timestamp of the API.
    pub fn timestamp(self, now_us: i64) -> prost_types::Timestamp {
        sightline_proto::time::timestamp(match self {
            Self::At(us) => us,
            Self::In(us) => now_us.saturating_add(us),
        })
    }
}

impl FromStr for Until {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "now" {
            return Ok(Self::In(0));
        }
        if let Ok(time) = text.parse::<Timestamp>() {
            return Ok(Self::At(time.as_microsecond()));
        }
        let from_now = duration(text).map_err(
            |_| "write a time such as 2026-11-26T08:00:00Z, or for how long, such as 90m or 8h",
        )?;
        let us = i64::try_from(from_now.as_micros());
        Ok(Self::In(us.unwrap_or(i64::MAX)))
    }
}

/// A part of the week; none means always.
#[derive(Debug, Clone, PartialEq)]
pub struct Hours(pub Option<Awake>);

impl FromStr for Hours {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim().to_lowercase();
        if text == "always" {
            return Ok(Self(None));
        }
        let parsed = match text.split_once(char::is_whitespace) {
            Some((days, time)) => days_of(days).zip(time_of(time.trim())),
            None => time_of(&text).map(|time| (Vec::new(), time)),
        };
        let usage = "write days and hours such as \"mon-fri 22:00-06:00\" or \"sat,sun 00:00-24:00\", or \"always\"";
        let (days, (from_minute, to_minute)) = parsed.ok_or(usage)?;
        Ok(Self(Some(Awake {
            days,
            from_minute,
            to_minute,
        })))
    }
}

/// `mon-wed,sun` as their numbers.
fn days_of(text: &str) -> Option<Vec<u32>> {
    let number = |day: &str| DAYS.iter().position(|name| *name == day);
    let mut days = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first)?, number(last)?);
        // Friday to Monday goes over the weekend.
        let count = (last + 7 - first) % 7 + 1;
        days.extend((first..first + count).map(|day| (day % 7) as u32 + 1));
    }
    days.sort_unstable();
    days.dedup();
    Some(days)
}

/// `22:00-06:00` in minutes after midnight.
fn time_of(text: &str) -> Option<(u32, u32)> {
    let minute = |text: &str| {
        let (hours, minutes) = text.split_once(':')?;
        let (hours, minutes): (u32, u32) = (hours.parse().ok()?, minutes.parse().ok()?);
        let minute = hours * 60 + minutes;
        (hours <= 24 && minutes < 60 && minute <= 24 * 60).then_some(minute)
    };
    let (from, to) = text.split_once('-')?;
    let (from, to) = (minute(from)?, minute(to)?);
    (from < 24 * 60).then_some((from, to))
}

/// A part of the week as it is written on the command line.
pub fn written(part: &Awake) -> String {
    let clock = |minute: u32| format!("{:02}:{:02}", minute / 60, minute % 60);
    let name = |day: &u32| DAYS.get((*day as usize).wrapping_sub(1)).copied();
    let days: Vec<&str> = part.days.iter().filter_map(name).collect();
    let hours = format!("{}-{}", clock(part.from_minute), clock(part.to_minute));
    format!("{} {hours}", days.join(","))
        .trim_start()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Days, from and to.
    type Part = (&'static [u32], u32, u32);

    #[test]
    fn parts_of_the_week_are_read_as_people_write_them() {
        let cases: &[(&str, Option<Part>)] = &[
            ("mon-fri 22:00-06:00", Some((&[1, 2, 3, 4, 5], 1320, 360))),
            ("Sat,Sun 00:00-24:00", Some((&[6, 7], 0, 1440))),
            ("fri-mon  8:30-9:00", Some((&[1, 5, 6, 7], 510, 540))),
            ("mon,mon,wed-thu 0:00-0:00", Some((&[1, 3, 4], 0, 0))),
            ("22:00-06:00", Some((&[], 1320, 360))),
            ("mon", None),
            ("mon 22-06", None),
            ("mun 22:00-06:00", None),
            ("mon 24:00-06:00", None),
            ("mon 22:00-24:01", None),
            ("mon 22:60-23:00", None),
            ("mon 22:00", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let found = text.parse::<Hours>().ok().and_then(|hours| hours.0);
            let expected = expected.map(|(days, from_minute, to_minute)| Awake {
                days: days.to_vec(),
                from_minute,
                to_minute,
            });
            assert_eq!(found, expected, "{text:?}");
            if let Some(part) = found {
                let again: Hours = written(&part).parse().expect("its own words");
                assert_eq!(again.0, Some(part));
            }
        }
        assert_eq!("always".parse(), Ok(Hours(None)));
    }

    #[test]
    fn times_to_come_are_taken() {
        for (text, expected) in [
            ("now", Some(Until::In(0))),
            ("8h", Some(Until::In(28_800_000_000))),
            ("1970-01-01T00:00:01Z", Some(Until::At(1_000_000))),
            ("-8h", None),
            ("tomorrow", None),
        ] {
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }
}
