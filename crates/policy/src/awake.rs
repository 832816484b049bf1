//! When an alert is awake: parts of the week, by the wall clock of a time zone.
//!
//! Days and minutes are those that a clock on the wall shows. Where it is set back, a part that holds the repeated hour is
//! awake twice as long; where it is set forward, the hour that is left out is nobody's.

use jiff::Timestamp;
use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use sightline_proto::v1::Policy;
use sightline_proto::v1::policy::Awake;

/// The parts of the week in which windows count.
#[derive(Debug, Clone)]
pub(crate) struct Hours {
    /// None means always.
    parts: Vec<Awake>,
    zone: TimeZone,
}

impl Hours {
    /// Always.
    pub(crate) const ALL: Self = Self {
        parts: Vec::new(),
        zone: TimeZone::UTC,
    };

    /// Those of a policy. A time zone that is not known is UTC: the gateway, which knows the same ones, refuses it.
    pub(crate) fn of(policy: &Policy) -> Self {
        if policy.schedule.is_empty() {
            return Self::ALL;
        }
        let zone = match policy.time_zone.as_str() {
            "" => TimeZone::UTC,
            name => TimeZone::get(name).unwrap_or(TimeZone::UTC),
        };
        Self {
            parts: policy.schedule.clone(),
            zone,
        }
    }

    /// Whether this time, in microseconds since the Unix epoch, is among them.
    pub(crate) fn contain(&self, us: i64) -> bool {
        if self.parts.is_empty() {
            return true;
        }
        let Ok(time) = Timestamp::from_microsecond(us) else {
            return false;
        };
        let shown = self.zone.to_datetime(time);
        let minute = u32::try_from(i32::from(shown.hour()) * 60 + i32::from(shown.minute()));
        let minute = minute.unwrap_or_default();
        self.parts
            .iter()
            .any(|part| holds(part, shown.weekday(), minute))
    }
}

/// Whether a time zone is known by this name; empty is UTC.
pub fn is_time_zone(name: &str) -> bool {
    name.is_empty() || TimeZone::get(name).is_ok()
}

fn holds(part: &Awake, day: Weekday, minute: u32) -> bool {
    let starts = |day: Weekday| {
        let number = u32::try_from(day.to_monday_one_offset()).unwrap_or_default();
        part.days.is_empty() || part.days.contains(&number)
    };
    let (from, to) = (part.from_minute, part.to_minute);
    if from < to {
        return starts(day) && (from..to).contains(&minute);
    }
    (starts(day) && minute >= from) || (starts(day.previous()) && minute < to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(days: &[u32], from: u32, to: u32) -> Awake {
        Awake {
            days: days.to_vec(),
            from_minute: from,
            to_minute: to,
        }
    }

    #[test]
    fn days_nights_and_changes_of_the_clock_are_those_of_the_wall() {
        let office = || part(&[1, 2, 3, 4, 5], 8 * 60, 18 * 60);
        let night = || part(&[1, 2, 3, 4, 5], 22 * 60, 6 * 60);
        let second_hour = || part(&[], 2 * 60, 3 * 60);
        let berlin = "Europe/Berlin";
        // 2026-11-24 is a Tuesday; in Berlin clocks are set forward on 2026-03-29 at 02:00 and back on 2026-10-25 at 03:00.
        let cases: &[(&[Awake], &str, &str, bool)] = &[
            (&[], berlin, "2026-11-24T03:00:00Z", true),
            (&[office()], "", "2026-11-24T07:59:59Z", false),
            (&[office()], "", "2026-11-24T08:00:00Z", true),
            (&[office()], "", "2026-11-24T17:59:59.9Z", true),
            (&[office()], "", "2026-11-24T18:00:00Z", false),
            (&[office()], "", "2026-11-28T12:00:00Z", false),
            (&[office()], berlin, "2026-11-24T07:00:00Z", true),
            (&[office()], berlin, "2026-07-21T06:00:00Z", true),
            (&[office()], berlin, "2026-07-21T05:59:00Z", false),
            (
                &[office()],
                "America/New_York",
                "2026-11-24T13:00:00Z",
                true,
            ),
            (&[office()], "Asia/Kolkata", "2026-11-24T02:29:00Z", false),
            (&[office()], "Asia/Kolkata", "2026-11-24T02:30:00Z", true),
            // The night belongs to the day on which it begins: Friday's ends on Saturday, Sunday's is none.
            (&[night()], "", "2026-11-27T21:59:00Z", false),
            (&[night()], "", "2026-11-27T22:00:00Z", true),
            (&[night()], "", "2026-11-28T05:59:00Z", true),
            (&[night()], "", "2026-11-28T06:00:00Z", false),
            (&[night()], "", "2026-11-28T23:00:00Z", false),
            (&[night()], "", "2026-11-30T05:00:00Z", false),
            (&[night()], "", "2026-11-30T22:00:00Z", true),
            (&[part(&[7], 1380, 60)], "", "2026-11-30T00:59:00Z", true),
            // A day and what begins and ends at the same minute.
            (&[part(&[2], 0, 1440)], "", "2026-11-24T23:59:59Z", true),
            (&[part(&[2], 0, 1440)], "", "2026-11-25T00:00:00Z", false),
            (&[part(&[2], 600, 600)], "", "2026-11-24T09:59:00Z", false),
            (&[part(&[2], 600, 600)], "", "2026-11-25T09:59:00Z", true),
            (&[part(&[2], 600, 600)], "", "2026-11-25T10:00:00Z", false),
            (&[part(&[2], 0, 0)], "", "2026-11-24T12:00:00Z", true),
            (&[part(&[2], 0, 0)], "", "2026-11-25T00:00:00Z", false),
            // There is no 02:30 on the one day, and there are two on the other.
            (&[second_hour()], berlin, "2026-03-29T00:59:00Z", false),
            (&[second_hour()], berlin, "2026-03-29T01:00:00Z", false),
            (&[second_hour()], berlin, "2026-10-25T00:30:00Z", true),
            (&[second_hour()], berlin, "2026-10-25T01:30:00Z", true),
            (&[second_hour()], berlin, "2026-10-25T02:00:00Z", false),
            // The night of the change is an hour shorter.
            (
                &[part(&[6], 1320, 360)],
                berlin,
                "2026-03-29T03:59:00Z",
                true,
            ),
            (
                &[part(&[6], 1320, 360)],
                berlin,
                "2026-03-29T04:00:00Z",
                false,
            ),
            // Any of several.
            (&[office(), night()], "", "2026-11-24T23:00:00Z", true),
            (&[office(), night()], "", "2026-11-24T19:00:00Z", false),
            // What the gateway refuses is UTC.
            (&[office()], "Mars/Olympus", "2026-11-24T08:00:00Z", true),
        ];
        for (schedule, zone, time, awake) in cases {
            let hours = Hours::of(&Policy {
                schedule: schedule.to_vec(),
                time_zone: (*zone).to_owned(),
                ..Policy::default()
            });
            let us = time.parse::<Timestamp>().expect("a time").as_microsecond();
            assert_eq!(hours.contain(us), *awake, "{schedule:?} {zone} {time}");
        }
        assert!(
            !Hours::of(&Policy {
                schedule: vec![office()],
                ..Policy::default()
            })
            .contain(i64::MAX)
        );
    }

    /// Where a machine has no zoneinfo.
    #[test]
    fn time_zones_are_built_in() {
        let bundled = jiff::tz::TimeZoneDatabase::bundled();
        for zone in ["Europe/Berlin", "America/New_York", "Asia/Kolkata"] {
            assert!(bundled.get(zone).is_ok(), "{zone}");
            assert!(is_time_zone(zone));
        }
        assert!(is_time_zone("") && !is_time_zone("Mars/Olympus"));
    }
}
