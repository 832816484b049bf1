//! The state machine against tables.

use super::*;

const SECOND_US: i64 = 1_000_000;
const EPOCH_US: i64 = 1_000 * SECOND_US;

/// A segment whose words, separated by spaces, are spoken one a second from this second of the epoch on.
fn said(sequence: u64, second: i64, text: &str) -> Spoken {
    let start_us = EPOCH_US + second * SECOND_US;
    let words = text.split_whitespace().zip(0..).map(|(word, n)| Word {
        text: word.to_owned(),
        start_us: start_us + n * SECOND_US,
        end_us: start_us + n * SECOND_US + SECOND_US / 2,
        probability: 1.0,
    });
    Spoken {
        epoch_us: EPOCH_US,
        start_us,
        words: words.collect(),
        sequence,
    }
}

/// `number@start-end text` of each, times in seconds of the epoch.
fn shown(cuts: &[Cut]) -> Vec<String> {
    let second = |us: i64| (us - EPOCH_US) as f64 / 1e6;
    let texts = |cut: &Cut| cut.words.iter().map(|w| w.text.clone()).collect::<Vec<_>>();
    cuts.iter()
        .map(|cut| {
            let (start, end) = (second(cut.start_us), second(cut.end_us));
            format!("{}@{start}-{end} {}", cut.number, texts(cut).join(" "))
        })
        .collect()
}

/// What segments, each with its first second, are cut into as they come, and what is left when nothing more comes.
fn check(batching: Batching, segments: &[(i64, &str)], expected: &[&str], left: &[&str]) {
    let mut state = BatchingRecord::default();
    let mut cuts = Vec::new();
    for ((second, text), sequence) in segments.iter().zip(1..) {
        cuts.extend(take(&mut state, batching, &said(sequence, *second, text)));
    }
    assert_eq!(shown(&cuts), expected, "{batching:?} {segments:?}");
    let rest = drain(&mut state, batching);
    assert_eq!(shown(&rest), left, "the rest of {batching:?} {segments:?}");
    assert!(state.waiting.is_empty() && drain(&mut state, batching).is_empty());
}

#[test]
fn words_are_counted_over_segments() {
    let words = Batching::Words;
    check(words(3), &[(0, "a b")], &[], &["0@0-1.5 a b"]);
    check(
        words(3),
        &[(0, "a b"), (5, "c d e f g")],
        &["0@0-5.5 a b c", "1@6-8.5 d e f"],
        &["2@9-9.5 g"],
    );
    check(words(1), &[(0, "a b")], &["0@0-0.5 a", "1@1-1.5 b"], &[]);
    // What comes late goes before what waits; what is out is out.
    check(words(3), &[(5, "c d"), (0, "a")], &["0@0-6.5 a c d"], &[]);
    check(
        words(2),
        &[(5, "c d"), (0, "a")],
        &["0@5-6.5 c d"],
        &["1@0-0.5 a"],
    );
    // A segment that comes again.
    check(
        words(3),
        &[(0, "a"), (0, "a"), (2, "b")],
        &[],
        &["0@0-2.5 a b"],
    );
    check(words(3), &[(0, "")], &[], &[]);
}

#[test]
fn sentences_end_with_their_marks() {
    let sentences = Batching::Sentences;
    check(
        sentences(2),
        &[
            (0, "Go. Now!"),
            (5, "Why? He said \"stop.\" Mr."),
            (20, "X"),
        ],
        &["0@0-1.5 Go. Now!", "1@5-8.5 Why? He said \"stop.\""],
        &["2@9-20.5 Mr. X"],
    );
    check(
        sentences(1),
        &[(0, "急いで。 3.5 m")],
        &["0@0-0.5 急いで。"],
        &["1@1-2.5 3.5 m"],
    );
}

#[test]
fn times_lie_on_the_grid() {
    let time = Batching::Time(10 * SECOND_US);
    // A word belongs to the time in which it begins; times without words have no batch.
    check(
        time,
        &[(8, "a b c"), (12, "d"), (45, "e")],
        &["0@0-10 a b", "1@10-20 c d"],
        &["4@40-50 e"],
    );
    // What comes late to a time that is out has a scene of its own with the same number.
    check(
        time,
        &[(1, "a"), (11, "c"), (2, "b"), (3, "x")],
        &["0@0-10 a", "0@2-2.5 b", "0@3-3.5 x"],
        &["1@10-20 c"],
    );
}

#[test]
fn what_the_clock_says_completes_times_and_nothing_else() {
    for (batching, until, expected) in [
        (Batching::Time(10 * SECOND_US), 9, vec![]),
        (Batching::Time(10 * SECOND_US), 10, vec!["0@0-10 a b"]),
        (Batching::Words(3), 999, vec![]),
        (Batching::Sentences(1), 999, vec![]),
    ] {
        let mut state = BatchingRecord::default();
        assert_eq!(take(&mut state, batching, &said(1, 0, "a b")), []);
        let cuts = settle(&mut state, batching, EPOCH_US + until * SECOND_US);
        assert_eq!(shown(&cuts), expected, "{batching:?}");
    }
}

#[test]
fn a_new_epoch_ends_the_one_before() {
    let mut state = BatchingRecord::default();
    let batching = Batching::Words(2);
    take(&mut state, batching, &said(1, 0, "a b c"));
    let mut later = said(2, 0, "d");
    later.epoch_us += SECOND_US;
    let cuts = take(&mut state, batching, &later);
    assert_eq!(shown(&cuts), ["1@2-2.5 c"]);
    // The earlier epoch's are left out from now on.
    assert_eq!(take(&mut state, batching, &said(3, 9, "x y z")), []);
    let rest = drain(&mut state, batching);
    let found: Vec<_> = rest.iter().map(|cut| (cut.epoch_us, cut.number)).collect();
    assert_eq!(found, [(later.epoch_us, 0)]);
}

#[test]
fn what_is_taken_in_already_changes_nothing() {
    let mut state = BatchingRecord::default();
    let segments = [said(3, 0, "a"), said(5, 1, "b"), said(9, 2, "c")];
    for segment in &segments {
        take(&mut state, Batching::Words(4), segment);
    }
    let before = state.clone();
    for segment in &segments {
        assert_eq!(take(&mut state, Batching::Words(1), segment), []);
    }
    assert_eq!(state, before);
}

#[test]
fn batches_whose_words_start_together_start_apart() {
    let mut segment = said(1, 0, "a b c d");
    for word in &mut segment.words[..3] {
        word.start_us = EPOCH_US;
    }
    let cuts = take(&mut BatchingRecord::default(), Batching::Words(1), &segment);
    let starts: Vec<_> = cuts.iter().map(|cut| cut.start_us - EPOCH_US).collect();
    assert_eq!(starts, [0, 1, 2, 3 * SECOND_US]);
}

#[test]
fn what_waits_is_bounded() {
    for (batching, least) in [
        (Batching::Sentences(100), MOST_WAITING),
        (Batching::Time(i64::MAX / 4), MOST_WAITING),
    ] {
        let mut state = BatchingRecord::default();
        let mut cuts = Vec::new();
        for n in 0..60 {
            let segment = said(n + 1, n as i64 * 1000, &"on and ".repeat(100));
            cuts.extend(take(&mut state, batching, &segment));
            assert!(state.waiting.len() <= MOST_WAITING);
        }
        assert_eq!(cuts.len(), 1, "{batching:?}");
        assert!(cuts[0].words.len() > least);
        assert!(state.taken_us.len() <= REMEMBERED);
    }
}

#[test]
fn the_silence_before_a_time_is_a_batch_for_who_judges() {
    let time = Batching::Time(10 * SECOND_US);
    let mut state = BatchingRecord::default();
    let mut all = Vec::new();
    // The word at 8 s comes late: its time is out.
    for (sequence, second) in (1..).zip([5, 15, 45, 48, 8, 95]) {
        let before = (state.epoch_us, state.next_batch);
        let cuts = take(&mut state, time, &said(sequence, second, "word"));
        all.extend(with_silence(before, time, cuts));
    }
    let before = (state.epoch_us, state.next_batch);
    let rest = drain(&mut state, time);
    all.extend(with_silence(before, time, rest));
    let expected = [
        "0@0-10 word",
        "1@10-20 word",
        "0@8-8.5 word",
        "3@30-40 ",
        "4@40-50 word word",
        "8@80-90 ",
        "9@90-100 word",
    ];
    assert_eq!(shown(&all), expected);
    let words = Batching::Words(1);
    let cuts = take(&mut BatchingRecord::default(), words, &said(1, 0, "a b"));
    assert_eq!(with_silence((0, 0), words, cuts.clone()), cuts);
}
