//! The state machine against tables.

use super::*;
use sightline_proto::v1;

mod properties;

const RULE: Rule = Rule {
    threshold: 0.5,
    awake: Hours::ALL,
    required: 1,
    of: 1,
    close_after: 1,
    cooldown_us: 0,
    now_us: 7,
};

fn judged(window: u64, fires: bool) -> JudgedWindow {
    let start_us = i64::try_from(window).expect("small") * 5;
    JudgedWindow {
        window,
        start_us,
        end_us: start_us + 5,
        probability: if fires { 0.9 } else { 0.1 },
        captured_us: start_us + 4,
        ..JudgedWindow::default()
    }
}

/// First and last window of each firing, in order, from all decisions made.
fn firings(decisions: &[Decision]) -> Vec<(i64, u64, u64)> {
    let mut firings: Vec<(i64, u64, u64)> = Vec::new();
    for decision in decisions.iter().filter(|decision| !decision.closes) {
        let first = decision.firing.first.as_ref().expect("set").window;
        let (epoch, last) = (decision.epoch_us, decision.window.window);
        assert_eq!(decision.firing.last_window, last);
        match firings.iter_mut().find(|f| (f.0, f.1) == (epoch, first)) {
            Some(firing) => firing.2 = firing.2.max(last),
            None => firings.push((epoch, first, last)),
        }
    }
    firings
}

/// First and last window of each firing that closed, in order; each closes once and with its end.
fn closed(decisions: &[Decision]) -> Vec<(i64, u64, u64)> {
    let closings = decisions.iter().filter(|decision| decision.closes);
    let closed = closings.map(|decision| {
        assert!(!decision.opens());
        let firing = decision.firing;
        let first = firing.first.as_ref().expect("set").window;
        (decision.epoch_us, first, firing.last_window)
    });
    closed.collect()
}

fn fold(state: &mut EvaluationRecord, verdicts: &[(u64, bool)]) -> Vec<Decision> {
    fold_by(&RULE, state, verdicts)
}

fn fold_by(rule: &Rule, state: &mut EvaluationRecord, verdicts: &[(u64, bool)]) -> Vec<Decision> {
    let apply_one = |&(window, fires): &(u64, bool)| apply(state, 1, judged(window, fires), rule);
    verdicts.iter().flat_map(apply_one).collect()
}

/// `arrivals`: window numbers in order of arrival, those that fire with a `+`. `expected`: `first-last` of each firing.
fn check(arrivals: &str, expected: &str) {
    check_by(RULE, arrivals, expected);
}

fn check_by(rule: Rule, arrivals: &str, expected: &str) {
    let verdicts: Vec<_> = arrivals
        .split_whitespace()
        .map(|word| {
            let number = word.trim_end_matches('+');
            (number.parse().expect("a number"), word.ends_with('+'))
        })
        .collect();
    let mut state = EvaluationRecord::default();
    let decisions = fold_by(&rule, &mut state, &verdicts);
    let found = firings(&decisions);
    let mut over = found.clone();
    if state.open.is_some() {
        over.pop();
    }
    assert_eq!(closed(&decisions), over, "{arrivals} by {rule:?}");
    let found: Vec<_> = found.iter().map(|(_, a, b)| format!("{a}-{b}")).collect();
    assert_eq!(found.join(" "), expected, "{arrivals} by {rule:?}");
}

#[test]
fn so_many_of_the_last_windows_have_to_count() {
    let rule = |required, of| Rule {
        required,
        of,
        ..RULE
    };
    for (required, of, arrivals, expected) in [
        (2, 2, "0+ 1 2+ 3 4+ 5+ 6+ 7", "5-6"),
        (2, 3, "0+ 1 2+ 3 4 5+ 6 7", "2-2"),
        (3, 5, "0+ 1+ 2 3 4+ 5+ 6", "4-5"),
        (1, 3, "0+ 1 2 3+ 4", "0-0 3-3"),
        // What is unknown does not count, and takes its place.
        (2, 3, "0+ 2+ 3 4", "2-2"),
        (2, 3, "0+ 3+ 4 5", ""),
        (2, 3, "1+ 0+ 2 3", "1-1"),
    ] {
        check_by(rule(required, of), arrivals, expected);
    }
}

#[test]
fn a_firing_closes_after_so_many_windows_that_do_not_count() {
    let rule = |close_after| Rule {
        close_after,
        ..RULE
    };
    for (close_after, arrivals, expected) in [
        (2, "0+ 1 2+ 3 4 5+ 6", "0-2 5-5"),
        (3, "0+ 1 2 3+ 4 5 6 7+ 8", "0-3 7-7"),
        // Two unknown ones are bridged as well, and do not count as quiet.
        (2, "0+ 1 4+ 5 6", "0-4"),
        (2, "0+ 1 5+ 6 7", "0-0 5-5"),
    ] {
        check_by(rule(close_after), arrivals, expected);
    }
}

#[test]
fn none_opens_until_it_has_cooled_down() {
    // Windows last 5.
    let rule = |cooldown_us| Rule {
        cooldown_us,
        ..RULE
    };
    for (cooldown_us, arrivals, expected) in [
        (0, "0+ 1 2+ 3", "0-0 2-2"),
        (5, "0+ 1 2+ 3", "0-0 2-2"),
        (6, "0+ 1 2+ 3 4+ 5", "0-0 4-4"),
        // In the middle of it the time is over.
        (14, "0+ 1 2+ 3+ 4+ 5+ 6", "0-0 4-5"),
    ] {
        check_by(rule(cooldown_us), arrivals, expected);
    }
    let mut state = EvaluationRecord::default();
    let mut decisions = fold_by(&rule(10), &mut state, &[(0, true), (1, true)]);
    for (epoch, window) in [(2, 3), (2, 4), (2, 5)] {
        decisions.extend(apply(&mut state, epoch, judged(window, true), &rule(10)));
        while give_up(&mut state) {
            decisions.extend(settle(&mut state, &rule(10)));
        }
    }
    assert_eq!(
        firings(&decisions),
        [(1, 0, 1), (2, 4, 5)],
        "in the next epoch too"
    );
}

#[test]
fn an_alert_without_a_policy_fires_by_each_window() {
    let policy = v1::Policy {
        required: 2,
        of: 3,
        close_after: 4,
        cooldown: Some(sightline_proto::time::duration(5_000_006)),
        ..v1::Policy::default()
    };
    for (policy, expected) in [
        (None, (1, 1, 1, 0)),
        (Some(v1::Policy::default()), (1, 1, 1, 0)),
        (Some(policy), (2, 3, 4, 5_000_006)),
    ] {
        let alert = v1::Alert {
            policy,
            ..v1::Alert::default()
        };
        let rule = Rule::of(&alert, 7);
        let found = (rule.required, rule.of, rule.close_after, rule.cooldown_us);
        assert_eq!(found, expected);
    }
}

#[test]
fn consecutive_windows_are_one_firing() {
    check("0 1 2 3", "");
    check("0+", "0-0");
    check("0 1+ 2", "1-1");
    check("0 1+ 2+ 3+ 4", "1-3");
    check("0+ 1 2+ 3 4+", "0-0 2-2 4-4");
}

#[test]
fn windows_are_evaluated_in_order() {
    check("0 2+ 1+ 3", "1-2");
    check("1+ 0+", "0-1");
    check("0+ 2+ 1", "0-0 2-2");
    check("0+ 2 1+", "0-1");
    check("1 0+ 3+ 2 5 4+", "0-0 3-4");
}

#[test]
fn a_missing_window_is_waited_for_until_the_second_one_after_it() {
    check("0 2+", "");
    check("0 2+ 3", "2-2");
    check("0 2 3+ 4", "3-3");
    // Too late: it counted as unknown.
    check("0 2 3 1+ 4 5", "");
    check("0+ 2+ 3+ 1 4", "0-3");
    check("0 100+", "");
    check("0 100+ 101", "100-100");
}

#[test]
fn a_firing_spans_two_unknown_windows_and_not_three() {
    check("0+ 2+ 3+", "0-3");
    check("0+ 3+ 4", "0-3");
    check("0+ 4+ 5", "0-0 4-4");
    check("0+ 2 3+ 4", "0-0 3-3");
}

#[test]
fn what_was_seen_before_changes_nothing() {
    check("0+ 0+ 0 1+ 0 1 2", "0-1");
    check("0 2+ 2 2+ 1 2+", "2-2");
}

#[test]
fn batches_of_a_transcript_wait_for_no_number_that_is_left_out() {
    let batches = [
        (0, true),
        (9, true),
        (10, true),
        (9, false),
        (13, true),
        (14, false),
        (40, true),
    ];
    let mut state = EvaluationRecord::default();
    for (batch, fires) in batches {
        let judged = JudgedWindow {
            by_similarity: true,
            ..judged(batch, fires)
        };
        let decisions = apply(&mut state, 1, judged, &RULE);
        let again = batch == 9 && !fires;
        let counted = firings(&decisions).len();
        assert_eq!(counted, usize::from(fires), "{batch}");
        assert!(state.waiting.is_empty() && (again || state.next_window == batch + 1));
    }
}

#[test]
fn a_probability_fires_from_the_threshold_on() {
    for (probability, fires) in [
        (0.5, true),
        (0.499_999, false),
        (1.0, true),
        (0.0, false),
        (f32::NAN, false),
    ] {
        let mut window = judged(0, true);
        window.probability = probability;
        let decisions = apply(&mut EvaluationRecord::default(), 1, window, &RULE);
        assert_eq!(decisions.len(), usize::from(fires), "{probability}");
    }
}

#[test]
fn a_new_epoch_ends_the_one_before() {
    let mut state = EvaluationRecord::default();
    let mut decisions = fold(&mut state, &[(0, false), (1, true), (3, true)]);
    // Numbers start again; 3 of the old epoch has waited long enough.
    for (epoch, window, fires) in [(2, 0, true), (1, 2, true), (1, 4, true), (2, 1, false)] {
        decisions.extend(apply(&mut state, epoch, judged(window, fires), &RULE));
    }
    assert_eq!(firings(&decisions), [(1, 1, 3), (2, 0, 0)]);
}

#[test]
fn giving_up_lets_the_last_window_of_a_stream_fire() {
    let mut state = EvaluationRecord::default();
    assert_eq!(fold(&mut state, &[(0, false), (2, true)]), []);
    assert!(give_up(&mut state));
    assert_eq!(firings(&settle(&mut state, &RULE)), [(1, 2, 2)]);
    assert!(!give_up(&mut state));
    // The one that was given up comes after all.
    assert_eq!(fold(&mut state, &[(1, true)]), []);
}

#[test]
fn a_firing_closes_by_windows_an_epoch_or_because_it_is_over() {
    let mut state = EvaluationRecord::default();
    assert!(!end(&mut state), "none is open");
    let decisions = fold(&mut state, &[(0, true), (1, true), (2, false)]);
    assert_eq!(closed(&decisions), [(1, 0, 1)]);
    let closing = decisions.last().expect("set");
    assert_eq!((closing.firing.end_us, closing.window.window), (10, 0));
    let mut decisions = fold(&mut state, &[(3, true), (5, true)]);
    decisions.extend(apply(&mut state, 2, judged(0, true), &RULE));
    assert_eq!(closed(&decisions), [(1, 3, 5)], "with what waited");
    // It does not go on, although the next window counts.
    assert!(end(&mut state) && is_over(&state));
    let mut decisions = settle(&mut state, &RULE);
    assert_eq!(closed(&decisions), [(2, 0, 0)]);
    decisions.extend(apply(&mut state, 2, judged(1, true), &RULE));
    assert_eq!(firings(&decisions), [(2, 1, 1)]);
    // Even where nobody said so in between.
    end(&mut state);
    let decisions = apply(&mut state, 2, judged(2, true), &RULE);
    assert_eq!(
        (firings(&decisions), closed(&decisions)),
        (vec![(2, 2, 2)], vec![(2, 1, 1)])
    );
}

#[test]
fn windows_that_start_while_the_alert_sleeps_do_not_count() {
    // It is awake for the first hour of each day; windows last a quarter.
    let rule = Rule {
        awake: Hours::of(&v1::Policy {
            schedule: vec![v1::policy::Awake {
                to_minute: 60,
                ..v1::policy::Awake::default()
            }],
            ..v1::Policy::default()
        }),
        ..RULE
    };
    let quarter_us = 900_000_000;
    let mut state = EvaluationRecord::default();
    let mut decisions = Vec::new();
    for window in (0..8).chain(94..99) {
        let start_us = i64::try_from(window).expect("small") * quarter_us;
        let judged = JudgedWindow {
            start_us,
            end_us: start_us + quarter_us,
            ..judged(window, true)
        };
        decisions.extend(apply(&mut state, 1, judged, &rule));
    }
    assert_eq!(closed(&decisions), [(1, 0, 3)]);
    assert_eq!(firings(&decisions), [(1, 0, 3), (1, 96, 98)]);
}

#[test]
fn the_opening_stays_as_it_was_decided() {
    let mut state = EvaluationRecord::default();
    let opened = apply(&mut state, 1, judged(0, true), &RULE).remove(0);
    assert!(opened.opens());
    let later = Rule { now_us: 99, ..RULE };
    let extended = apply(&mut state, 1, judged(1, true), &later).remove(0);
    assert!(!extended.opens());
    assert_eq!(extended.firing.decided_us, 7);
    assert_eq!(extended.firing.first, opened.firing.first);
    assert_eq!(extended.firing.end_us, 10);
}
