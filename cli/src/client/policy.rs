//! What an alert is told on the command line, as the API's messages, and what people see of it.

use anyhow::{Context, Result};
use sightline_proto::time::{duration, duration_micros};
use sightline_proto::v1::{Alert, DeliveryMode, Policy, Severity};

use super::args::{AlertOptions, written};

/// What the options say, over what was there.
///
/// # Errors
/// When the template can't be read.
pub fn told(options: &AlertOptions, before: Alert, now_us: i64) -> Result<Alert> {
    let mut alert = before;
    if options.has_policy() {
        alert.policy = Some(policy(options, alert.policy.unwrap_or_default()));
    }
    if let Some(severity) = options.severity {
        alert.set_severity(Severity::from(severity));
    }
    if let Some(delivery) = options.delivery {
        alert.set_delivery(DeliveryMode::from(delivery));
    }
    if let Some(until) = options.mute_until {
        alert.mute_time = Some(until.timestamp(now_us));
    }
    if !options.sinks.is_empty() {
        alert.sinks.clone_from(&options.sinks);
    }
    if let Some(file) = &options.template {
        let read = std::fs::read_to_string(file);
        alert.template = read.with_context(|| format!("cannot read {}", file.display()))?;
    }
    Ok(alert)
}

fn policy(options: &AlertOptions, before: Policy) -> Policy {
    let cooldown = options.cooldown.map(|time| {
        let us = i64::try_from(time.as_micros());
        duration(us.unwrap_or(i64::MAX))
    });
    Policy {
        required: options.required.unwrap_or(before.required),
        of: options.of.unwrap_or(before.of),
        close_after: options.close_after.unwrap_or(before.close_after),
        cooldown: cooldown.or(before.cooldown),
        schedule: if options.awake.is_empty() {
            before.schedule
        } else {
            let given = options.awake.iter();
            given.filter_map(|hours| hours.0.clone()).collect()
        },
        time_zone: options.time_zone.clone().unwrap_or(before.time_zone),
    }
}

/// A policy in a few words; empty for the usual one.
pub fn words(policy: &Policy) -> String {
    let mut words = Vec::new();
    if policy.of > 1 {
        words.push(format!("{} of {}", policy.required.max(1), policy.of));
    }
    if policy.close_after > 1 {
        words.push(format!("over after {}", policy.close_after));
    }
    let rest_us = policy.cooldown.as_ref().map_or(0, duration_micros);
    if rest_us > 0 {
        words.push(format!("rests {} s", rest_us as f64 / 1e6));
    }
    if !policy.schedule.is_empty() {
        let parts: Vec<String> = policy.schedule.iter().map(written).collect();
        let zone = if policy.time_zone.is_empty() {
            "UTC"
        } else {
            &policy.time_zone
        };
        words.push(format!("{} {zone}", parts.join(" and ")));
    }
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use clap::{ArgGroup, Args, Command, FromArgMatches};

    use super::*;

    fn options(words: &[&str]) -> AlertOptions {
        let command = Command::new("alert").group(ArgGroup::new("change").multiple(true));
        let command = AlertOptions::augment_args(command);
        let matches = command.get_matches_from(["alert"].iter().chain(words));
        AlertOptions::from_arg_matches(&matches).expect("options")
    }

    #[test]
    fn what_is_not_given_stays_as_it_was() {
        let given = options(&[
            "--required=2",
            "--of=3",
            "--cooldown=5m",
            "--awake=mon-fri 22:00-06:00",
            "--time-zone=Europe/Berlin",
            "--severity=critical",
            "--delivery=first",
            "--mute-until=1h",
            "--sink=duty",
        ]);
        let alert = told(&given, Alert::default(), 5).expect("told");
        let policy = alert.policy.clone().expect("set");
        assert_eq!(
            words(&policy),
            "2 of 3, rests 300 s, mon,tue,wed,thu,fri 22:00-06:00 Europe/Berlin"
        );
        assert_eq!(alert.severity(), Severity::Critical);
        assert_eq!(alert.delivery(), DeliveryMode::First);
        let muted = alert.mute_time.as_ref().map(sightline_proto::time::micros);
        assert_eq!(muted, Some(3_600_000_005));
        assert_eq!(alert.sinks, ["duty"]);

        let changed = told(&options(&["--close-after=4"]), alert.clone(), 9).expect("told");
        let expected = Alert {
            policy: Some(Policy {
                close_after: 4,
                ..policy
            }),
            ..alert.clone()
        };
        assert_eq!(changed, expected);
        assert_eq!(told(&options(&[]), alert.clone(), 9).expect("told"), alert);
        let always = told(&options(&["--awake=always"]), changed, 9).expect("told");
        let policy = always.policy.expect("set");
        assert_eq!(words(&policy), "2 of 3, over after 4, rests 300 s");
        assert_eq!(words(&Policy::default()), "");
    }

    #[test]
    fn a_template_comes_from_its_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("chat.txt");
        std::fs::write(&file, "{{ label }}").expect("written");
        let path = file.to_str().expect("UTF-8");
        let alert = told(&options(&["--template", path]), Alert::default(), 0);
        assert_eq!(alert.expect("read").template, "{{ label }}");
        let lost = options(&["--template", "/nowhere/chat.txt"]);
        let error = told(&lost, Alert::default(), 0).expect_err("it is not there");
        assert!(error.to_string().contains("/nowhere/chat.txt"), "{error}");
    }
}
