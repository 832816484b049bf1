//! Checks of what an alert is told: when it fires, how bad that is, and what its receivers get.

use prost_types::Timestamp;
use sightline_policy::is_time_zone;
use sightline_proto::v1::Policy;
use sightline_proto::v1::policy::Awake;

use super::violations::{Violations, shown};

/// How many windows a policy may look back at.
const MAX_WINDOWS: u32 = 20;
const MAX_COOLDOWN_S: i64 = 24 * 3600;
/// How many parts of the week a schedule may have.
const MAX_PARTS: usize = 50;
const DAY_MINUTES: u32 = 24 * 60;
const MAX_SINKS: usize = 10;
/// The end of the year 9999.
const MAX_TIME_S: i64 = 253_402_300_799;

/// A probability from which on windows count.
pub(super) fn check_threshold(faults: &mut Violations, threshold: f32) {
    if !(threshold > 0.0 && threshold <= 1.0) {
        let allowed = format!("above 0 and at most 1, or unset; got {threshold}");
        faults.add("threshold", allowed);
    }
}

/// When windows become firings.
pub(super) fn check_policy(faults: &mut Violations, policy: Option<&Policy>) {
    let Some(policy) = policy else { return };
    let of = policy.of.max(1);
    if policy.of > MAX_WINDOWS {
        let allowed = format!("1 to {MAX_WINDOWS}, or 0 for 1; got {of}");
        faults.add("policy.of", allowed);
    }
    if policy.required > of {
        let got = policy.required;
        faults.add(
            "policy.required",
            format!("at most policy.of, {of}; got {got}"),
        );
    }
    if policy.close_after > MAX_WINDOWS {
        let got = policy.close_after;
        let allowed = format!("1 to {MAX_WINDOWS}, or 0 for 1; got {got}");
        faults.add("policy.close_after", allowed);
    }
    let cooldown = policy.cooldown.unwrap_or_default();
    let whole = (0..1_000_000_000).contains(&cooldown.nanos);
    let us = sightline_proto::time::duration_micros(&cooldown);
    if !(0..=MAX_COOLDOWN_S * 1_000_000).contains(&us) || !whole {
        faults.add("policy.cooldown", "0 to 24 hours");
    }
    check_schedule(faults, &policy.schedule);
    if !is_time_zone(&policy.time_zone) {
        let got = shown(&policy.time_zone);
        let allowed = format!(
            "the IANA name of a time zone, such as \"Europe/Berlin\", or empty for UTC; got {got}"
        );
        faults.add("policy.time_zone", allowed);
    }
}

fn check_schedule(faults: &mut Violations, parts: &[Awake]) {
    if parts.len() > MAX_PARTS {
        let allowed = format!("at most {MAX_PARTS} parts of the week, got {}", parts.len());
        faults.add("policy.schedule", allowed);
        return;
    }
    for (number, part) in (1..).zip(parts) {
        if part.days.len() > 7 || part.days.iter().any(|day| !(1..=7).contains(day)) {
            let allowed = format!("part {number}: each 1 (Monday) to 7 (Sunday), seven at most");
            faults.add("policy.schedule.days", allowed);
        }
        let (from, to) = (part.from_minute, part.to_minute);
        if from >= DAY_MINUTES {
            let allowed = format!("part {number}: minutes after midnight, 0 to 1439; got {from}");
            faults.add("policy.schedule.from_minute", allowed);
        }
        if to > DAY_MINUTES {
            let allowed = format!("part {number}: minutes after midnight, 0 to 1440; got {to}");
            faults.add("policy.schedule.to_minute", allowed);
        }
    }
}

/// A value of an enumeration; its default where it is none.
pub(super) fn one_of<T: TryFrom<i32> + Default>(
    faults: &mut Violations,
    field: &'static str,
    given: i32,
) -> T {
    T::try_from(given).unwrap_or_else(|_| {
        faults.add(
            field,
            format!("one of the values of the API, or 0; got {given}"),
        );
        T::default()
    })
}

/// A time that clocks show.
pub(super) fn check_time(faults: &mut Violations, field: &'static str, time: Option<&Timestamp>) {
    let valid = |time: &Timestamp| {
        (0..=MAX_TIME_S).contains(&time.seconds) && (0..1_000_000_000).contains(&time.nanos)
    };
    if !time.is_none_or(valid) {
        faults.add(field, "a time from 1970 to 9999");
    }
}

/// Receivers that the operator has named.
pub(super) fn check_sinks(faults: &mut Violations, sinks: &[String], known: &[String]) {
    if sinks.len() > MAX_SINKS {
        faults.add("sinks", format!("at most {MAX_SINKS}, got {}", sinks.len()));
        return;
    }
    for (at, sink) in sinks.iter().enumerate() {
        if !known.contains(sink) {
            let known = if known.is_empty() {
                "nothing, for this server has no sinks".to_owned()
            } else {
                format!("one of {}", known.join(", "))
            };
            faults.add("sinks", format!("{known}; got {}", shown(sink)));
        } else if sinks[..at].contains(sink) {
            faults.add("sinks", format!("each once; got {} again", shown(sink)));
        }
    }
}

/// A template that makes a body of what there is to say.
pub(super) fn check_template(faults: &mut Violations, template: &str) {
    if template.is_empty() {
        return;
    }
    if let Err(error) = sightline_message::check(template) {
        let allowed = format!("a template that makes a message of a sample; {error}");
        faults.add("template", allowed);
    }
}
