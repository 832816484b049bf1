//! What is cut out of what is heard.

use std::process::Command;

use sightline_testkit::sounds;

use super::*;

/// Speech without silence around it, at 16 kHz.
fn spoken(text: &str) -> Vec<i16> {
    let said = Command::new("espeak-ng")
        .args(["--stdout", "-s", "150", text])
        .output()
        .expect("espeak-ng runs");
    // A WAV of 22 050 Hz with a header of 44 bytes.
    let wav: Vec<i16> = said.stdout[44..]
        .chunks_exact(2)
        .map(|b| i16::from_le_bytes([b[0], b[1]]))
        .collect();
    let loud = |s: &i16| s.unsigned_abs() > 500;
    let start = wav.iter().position(loud).expect("it speaks");
    let end = wav.iter().rposition(loud).expect("it speaks");
    let voice = &wav[start..=end];
    let resampled = |i: usize| voice[i * 22_050 / RATE];
    (0..voice.len() * RATE / 22_050).map(resampled).collect()
}

fn silence(milliseconds: usize) -> Vec<i16> {
    vec![0; milliseconds * RATE / 1000]
}

/// Cuts the parts, put together. Times of what is found are in microseconds from their start.
fn cut(parts: &[Vec<i16>]) -> Vec<(i64, i64)> {
    const START_US: i64 = 10_000_000;
    let mut cutter = Cutter::starting_at(START_US, 0);
    let mut found = Vec::new();
    // Uneven pieces, as decoders deliver them.
    for piece in parts.concat().chunks(1111) {
        found.extend(cutter.push(piece));
    }
    found.extend(cutter.finish());
    let times = |s: &Speech| (s.start_us - START_US, s.end_us() - START_US);
    found.iter().map(times).collect()
}

#[test]
fn speech_is_cut_at_pauses_with_a_margin() {
    let first = spoken("control room to all units");
    let second = spoken("a white car is moving fast on the main road");
    let starts = [1_000_000, 2_000_000 + duration_us(first.len())];
    let ends = [
        starts[0] + duration_us(first.len()),
        starts[1] + duration_us(second.len()),
    ];
    let found = cut(&[silence(1000), first, silence(1000), second, silence(1000)]);
    assert_eq!(found.len(), 2, "{found:?}");
    for ((start, end), (speech_start, speech_end)) in found.iter().zip(starts.iter().zip(ends)) {
        let (before, after) = (speech_start - start, end - speech_end);
        assert!((200_000..=370_000).contains(&before), "{before} before");
        assert!((200_000..=370_000).contains(&after), "{after} after");
    }
}

#[test]
fn silence_and_clicks_are_no_speech() {
    let click: Vec<i16> = (0..200)
        .map(|i| if i % 8 < 4 { 9000 } else { -9000 })
        .collect();
    let found = cut(&[silence(3000), click.clone(), silence(2000), click]);
    assert_eq!(found, []);
}

#[test]
fn noise_and_music_are_no_speech_and_speech_above_them_is() {
    for (name, sound) in sounds::all(12 * RATE) {
        let found = cut(&[silence(500), sound.clone(), silence(1000)]);
        assert_eq!(found, [], "{name}");
        // A quarter of it, and a voice with it.
        let voice = spoken("the ambulance left at noon and the gate is closed");
        let both = voice.iter().zip(&sound);
        let both: Vec<i16> = both.map(|(v, s)| v.saturating_add(*s / 4)).collect();
        let found = cut(&[silence(500), both, silence(1000)]);
        assert_eq!(found.len(), 1, "a voice and {name}: {found:?}");
    }
}

#[test]
fn speech_is_kept_beside_a_chime_and_after_music() {
    let melody = |milliseconds: usize| {
        let sounds = sounds::all(milliseconds * RATE / 1000);
        let melody = sounds.into_iter().find(|(name, _)| *name == "melody");
        melody.expect("it is one of them").1
    };
    let sentence = spoken("the ambulance left at noon and the gate is closed");
    // No pause is long enough to part them.
    for (name, before, after) in [
        ("after a chime", melody(3000), vec![]),
        ("before a chime", vec![], melody(3000)),
        ("after music", melody(20_000), vec![]),
    ] {
        let found = cut(&[
            silence(500),
            before.clone(),
            silence(200),
            sentence.clone(),
            silence(200),
            after,
            silence(1000),
        ]);
        let said = 700_000 + duration_us(before.len());
        let (from, to) = (said + 100_000, said + duration_us(sentence.len()));
        let kept = found
            .iter()
            .any(|(start, end)| *start <= from && to <= *end);
        assert!(kept, "{name}: {found:?}");
    }
}

#[test]
fn what_is_heard_is_told_before_it_is_over() {
    let sentence = spoken("a white car is moving fast on the main road");
    let mut cutter = Cutter::starting_at(0, 0);
    assert_eq!(cutter.push(&silence(500)), []);
    assert_eq!(cutter.so_far(), None);
    let (first, rest) = sentence.split_at(sentence.len() / 2);
    assert_eq!(cutter.push(first), []);
    let told = cutter.so_far().expect("somebody speaks");
    assert_eq!(cutter.push(rest), []);
    let more = cutter.so_far().expect("somebody speaks");
    let done = cutter.push(&silence(1000)).pop().expect("it is over");
    assert_eq!(
        (told.start_us, more.start_us),
        (done.start_us, done.start_us)
    );
    assert!(done.samples.starts_with(&told.samples));
    assert!(more.samples.starts_with(&told.samples));
    assert_eq!(cutter.so_far(), None);
    for _ in 0..8 {
        cutter.push(&sentence);
    }
    let told = cutter.so_far().expect("somebody speaks");
    assert_eq!(told.samples.len(), TOLD * FRAME);
    assert_eq!(
        told.end_us(),
        cutter.end_us() - duration_us(cutter.pending.len())
    );
}

#[test]
fn speech_without_a_pause_is_cut_before_it_overflows_and_nothing_is_lost() {
    let sentence = spoken("traffic is heavy near gate two");
    let talk: Vec<_> = std::iter::repeat_n(sentence, 45).collect();
    let length = duration_us(talk.concat().len());
    let found = cut(&[vec![silence(500)], talk, vec![silence(1000)]].concat());
    assert!(
        length > 60_000_000 && found.len() >= 3,
        "{length} {found:?}"
    );
    for pair in found.windows(2) {
        assert_eq!(pair[0].1, pair[1].0, "{found:?}");
    }
    assert!(found.iter().all(|(start, end)| end - start <= 28_000_000));
    let (start, end) = (found[0].0, found[found.len() - 1].1);
    assert!(start < 500_000 && end > 500_000 + length, "{start} {end}");
}
