//! The state machine against the same verdicts in order, whatever dies when.

use proptest::prelude::*;

use super::*;

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

/// The firings of windows in order: what the policy says in words.
fn told(fires: &[bool], rule: &Rule) -> Vec<(i64, u64, u64)> {
    let mut told: Vec<(i64, u64, u64)> = Vec::new();
    for (at, _) in fires.iter().enumerate().filter(|(_, fires)| **fires) {
        let window = at as u64;
        let last = &fires[(at + 1).saturating_sub(rule.of as usize)..=at];
        let enough = last.iter().filter(|fires| **fires).count() >= rule.required;
        match told.last_mut() {
            Some(run) if window - run.2 <= rule.close_after => run.2 = window,
            Some(run) if ((window - run.2 - 1) * 5) < rule.cooldown_us as u64 => {}
            _ if enough => told.push((1, window, window)),
            _ => {}
        }
    }
    told
}

fn rules() -> impl Strategy<Value = Rule> {
    let numbers = (1..5_u64, 1..5_usize, 1..4_u64, 0..40_i64);
    numbers.prop_map(|(of, required, close_after, cooldown_us)| Rule {
        required: required.min(of as usize),
        of,
        close_after,
        cooldown_us,
        ..RULE
    })
}

proptest! {
    /// Any order within the bound and any redelivery lead to the firings that the windows in order lead to.
    #[test]
    fn order_and_redelivery_do_not_matter((fires, delivered) in deliveries(), rule in rules()) {
        let mut state = EvaluationRecord::default();
        let mut decisions = fold_by(&rule, &mut state, &delivered);
        prop_assert!(state.waiting.is_empty());
        prop_assert_eq!(state.next_window, fires.len() as u64);
        decisions.extend(silence(&mut state, &rule));
        prop_assert_eq!(firings(&decisions), told(&fires, &rule));
        prop_assert_eq!(closed(&decisions), told(&fires, &rule));
    }

    /// The process dies anywhere, again and again: before the record of a batch is stored, after it, and when only some of
    /// the batch is acknowledged. What is not acknowledged comes again.
    #[test]
    fn crashes_neither_lose_nor_invent(
        (fires, delivered) in deliveries(),
        rule in rules(),
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
                let made = fold_by(&rule, &mut memory, batch);
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
        decisions.extend(silence(&mut stored, &rule));
        prop_assert_eq!(sorted(firings(&decisions)), told(&fires, &rule));
        // What was repeated is the same each time.
        prop_assert_eq!(sorted(closed(&decisions)), told(&fires, &rule));
    }

    /// Nothing is heard for long between batches, and the process dies on the way from hearing nothing to having said that a
    /// firing is over.
    #[test]
    fn firings_that_time_ends_close_once_whatever_dies(
        steps in prop::collection::vec((prop::collection::vec(any::<bool>(), 0..6), 0..4_u8), 1..12),
        rule in rules(),
    ) {
        let (mut smooth, mut stored) = (EvaluationRecord::default(), EvaluationRecord::default());
        let (mut expected, mut decisions) = (Vec::new(), Vec::new());
        let mut next = 0..;
        for (fires, crash) in steps {
            let batch: Vec<(u64, bool)> = next.by_ref().take(fires.len()).zip(fires).collect();
            expected.extend(fold_by(&rule, &mut smooth, &batch));
            expected.extend(silence(&mut smooth, &rule));
            // As the evaluator does: what is over is closed first.
            let mut memory = stored.clone();
            let mut made = settle(&mut memory, &rule);
            made.extend(fold_by(&rule, &mut memory, &batch));
            if must_store(&stored, &memory, &made) {
                stored = memory.clone();
            }
            decisions.extend(made);
            while give_up(&mut memory) {
                decisions.extend(settle(&mut memory, &rule));
                stored = memory.clone();
            }
            if end(&mut memory) {
                stored = memory.clone();
                let closing = settle(&mut memory, &rule);
                match crash {
                    // Before it is said, and after.
                    1 => {}
                    2 => decisions.extend(closing),
                    _ => {
                        decisions.extend(closing);
                        stored = memory;
                    }
                }
            }
        }
        decisions.extend(settle(&mut stored, &rule));
        prop_assert_eq!(sorted(firings(&decisions)), firings(&expected));
        prop_assert_eq!(sorted(closed(&decisions)), closed(&expected));
    }
}

/// Nothing comes for long.
fn silence(state: &mut EvaluationRecord, rule: &Rule) -> Vec<Decision> {
    let mut decisions = Vec::new();
    while give_up(state) {
        decisions.extend(settle(state, rule));
    }
    end(state);
    decisions.extend(settle(state, rule));
    decisions
}

/// In order, each once.
fn sorted(mut firings: Vec<(i64, u64, u64)>) -> Vec<(i64, u64, u64)> {
    firings.sort_unstable();
    firings.dedup();
    firings
}
