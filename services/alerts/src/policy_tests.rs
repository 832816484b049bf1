//! The state machine against tables, and against the same verdicts in order.

use proptest::prelude::*;

use super::*;

const RULE: Rule = Rule {
    threshold: 0.5,
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
        by_similarity: false,
    }
}

/// First and last window of each firing, in order, from all decisions made.
fn firings(decisions: &[Decision]) -> Vec<(i64, u64, u64)> {
    let mut firings: Vec<(i64, u64, u64)> = Vec::new();
    for decision in decisions {
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

fn fold(state: &mut EvaluationRecord, verdicts: &[(u64, bool)]) -> Vec<Decision> {
    let apply_one = |&(window, fires): &(u64, bool)| apply(state, 1, judged(window, fires), RULE);
    verdicts.iter().flat_map(apply_one).collect()
}

/// `arrivals`: window numbers in order of arrival, those that fire with a `+`. `expected`: `first-last` of each firing.
fn check(arrivals: &str, expected: &str) {
    let verdicts: Vec<_> = arrivals
        .split_whitespace()
        .map(|word| {
            let number = word.trim_end_matches('+');
            (number.parse().expect("a number"), word.ends_with('+'))
        })
        .collect();
    let found = firings(&fold(&mut EvaluationRecord::default(), &verdicts));
    let found: Vec<_> = found.iter().map(|(_, a, b)| format!("{a}-{b}")).collect();
    assert_eq!(found.join(" "), expected, "{arrivals}");
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
        let decisions = apply(&mut state, 1, judged, RULE);
        let again = batch == 9 && !fires;
        assert_eq!(decisions.len(), usize::from(fires), "{batch}");
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
        let decisions = apply(&mut EvaluationRecord::default(), 1, window, RULE);
        assert_eq!(decisions.len(), usize::from(fires), "{probability}");
    }
}

#[test]
fn a_new_epoch_ends_the_one_before() {
    let mut state = EvaluationRecord::default();
    let mut decisions = fold(&mut state, &[(0, false), (1, true), (3, true)]);
    // Numbers start again; 3 of the old epoch has waited long enough.
    for (epoch, window, fires) in [(2, 0, true), (1, 2, true), (1, 4, true), (2, 1, false)] {
        decisions.extend(apply(&mut state, epoch, judged(window, fires), RULE));
    }
    assert_eq!(firings(&decisions), [(1, 1, 3), (2, 0, 0)]);
}

#[test]
fn giving_up_lets_the_last_window_of_a_stream_fire() {
    let mut state = EvaluationRecord::default();
    assert_eq!(fold(&mut state, &[(0, false), (2, true)]), []);
    assert!(give_up(&mut state));
    assert_eq!(firings(&settle(&mut state, RULE)), [(1, 2, 2)]);
    assert!(!give_up(&mut state));
    // The one that was given up comes after all.
    assert_eq!(fold(&mut state, &[(1, true)]), []);
}

#[test]
fn the_opening_stays_as_it_was_decided() {
    let mut state = EvaluationRecord::default();
    let opened = apply(&mut state, 1, judged(0, true), RULE).remove(0);
    assert!(opened.opens());
    let later = Rule { now_us: 99, ..RULE };
    let extended = apply(&mut state, 1, judged(1, true), later).remove(0);
    assert!(!extended.opens());
    assert_eq!(extended.firing.decided_us, 7);
    assert_eq!(extended.firing.first, opened.firing.first);
    assert_eq!(extended.firing.end_us, 10);
}

/// Windows 0 and up without gaps, then some of them missing, swapped with a neighbour and repeated.
fn deliveries() -> impl Strategy<Value = (Vec<bool>, Vec<(u64, bool)>)> {
    let window = (any::<bool>(), any::<bool>(), 0..3_usize);
    prop::collection::vec(window, 1..60).prop_map(|windows| {
        let fires: Vec<bool> = windows.iter().map(|w| w.0).collect();
        let mut arrivals: Vec<(u64, bool)> = (0..).zip(fires.iter().copied()).collect();
        let mut at = 0;
        while at + 1 < arrivals.len() {
            if windows[at].1 {
                arrivals.swap(at, at + 1);
                at += 1;
            }
            at += 1;
        }
        // A redelivery repeats the last few verdicts in their order.
        let mut delivered = Vec::new();
        for (at, &arrival) in arrivals.iter().enumerate() {
            delivered.push(arrival);
            let again = windows[at].2.min(at);
            delivered.extend_from_slice(&arrivals[at - again..at]);
        }
        (fires, delivered)
    })
}

fn runs_of(fires: &[bool]) -> Vec<(i64, u64, u64)> {
    let mut runs: Vec<(i64, u64, u64)> = Vec::new();
    for (window, _) in (0_u64..).zip(fires).filter(|(_, fires)| **fires) {
        match runs.last_mut() {
            Some(run) if run.2 + 1 == window => run.2 = window,
            _ => runs.push((1, window, window)),
        }
    }
    runs
}

proptest! {
    /// Any order within the bound and any redelivery lead to the firings that the windows in order lead to.
    #[test]
    fn order_and_redelivery_do_not_matter((fires, delivered) in deliveries()) {
        let mut state = EvaluationRecord::default();
        prop_assert_eq!(firings(&fold(&mut state, &delivered)), runs_of(&fires));
        prop_assert!(state.waiting.is_empty());
        prop_assert_eq!(state.next_window, fires.len() as u64);
    }

    /// The process dies anywhere, again and again: before the record of a batch is stored, after it, and when only some of
    /// the batch is acknowledged. What is not acknowledged comes again.
    #[test]
    fn crashes_neither_lose_nor_invent(
        (fires, delivered) in deliveries(),
        crashes in prop::collection::vec((0..5_usize, prop::option::of(0..3_usize)), 0..20),
    ) {
        let mut stored = EvaluationRecord::default();
        let mut decisions = Vec::new();
        let mut acknowledged = 0;
        let mut crashes = crashes.into_iter();
        while acknowledged < delivered.len() {
            let crash = crashes.next();
            let mut whole_batches = crash.map_or(usize::MAX, |(batches, _)| batches);
            let mut memory = stored.clone();
            while acknowledged < delivered.len() {
                let batch = &delivered[acknowledged..delivered.len().min(acknowledged + 3)];
                let before = memory.clone();
                let made = fold(&mut memory, batch);
                let must_store = must_store(&before, &memory, &made);
                decisions.extend(made);
                let acks = match crash {
                    Some((_, None)) if whole_batches == 0 => break,
                    Some((_, Some(some))) if whole_batches == 0 => some,
                    _ => batch.len(),
                };
                if must_store {
                    stored = memory.clone();
                }
                acknowledged += acks.min(batch.len());
                if acks < batch.len() {
                    break;
                }
                whole_batches = whole_batches.saturating_sub(1);
            }
        }
        while give_up(&mut stored) {
            decisions.extend(settle(&mut stored, RULE));
        }
        prop_assert_eq!(sorted(firings(&decisions)), runs_of(&fires));
    }
}

fn sorted(mut firings: Vec<(i64, u64, u64)>) -> Vec<(i64, u64, u64)> {
    firings.sort_unstable();
    firings
}
