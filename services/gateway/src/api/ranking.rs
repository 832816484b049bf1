//! What becomes of search hits after they are found: a threshold from their own scores, and neighbours merged.

use std::cmp::Ordering;
use std::collections::HashMap;

use sightline_proto::time::micros;
use sightline_proto::v1::SearchHit;

/// Hits at most this far apart are stitched.
const APART_US: i64 = 1_000_000;

/// Keeps the hits in the upper `percentage` of the range of scores; 0 keeps all.
pub(super) fn keep_upper(hits: &mut Vec<SearchHit>, percentage: f32) {
    if percentage <= 0.0 {
        return;
    }
    let scores = || hits.iter().map(|hit| hit.score);
    let (best, worst) = (
        scores().fold(f32::MIN, f32::max),
        scores().fold(f32::MAX, f32::min),
    );
    // Reckoned from the worst, so that 100 % keeps exactly all; never above the best, whatever is rounded.
    let least = worst + (best - worst) * (1.0 - percentage / 100.0);
    let least = least.min(best);
    hits.retain(|hit| hit.score >= least);
}

/// Merges hits of one stream, index and kind that overlap, touch or lie at most 1 s apart, and puts the best first. A merged
/// hit has the id and the score of the best of them, and the texts of all in order of time.
pub(super) fn stitch(hits: Vec<SearchHit>) -> Vec<SearchHit> {
    let mut alike: HashMap<(String, String, i32), Vec<SearchHit>> = HashMap::new();
    for hit in hits {
        let of = (hit.rtstream_id.clone(), hit.index_id.clone(), hit.kind);
        alike.entry(of).or_default().push(hit);
    }
    let mut stitched: Vec<SearchHit> = alike.into_values().flat_map(in_a_row).collect();
    stitched.sort_by(|a, b| {
        let by_score = b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal);
        by_score
            .then_with(|| start_of(a).cmp(&start_of(b)))
            .then_with(|| a.id.cmp(&b.id))
    });
    stitched
}

/// One hit for each run of neighbours.
fn in_a_row(mut hits: Vec<SearchHit>) -> Vec<SearchHit> {
    hits.sort_by(|a, b| (start_of(a), &a.id).cmp(&(start_of(b), &b.id)));
    let mut runs: Vec<SearchHit> = Vec::new();
    for mut hit in hits {
        hit.stitched_ids = vec![hit.id.clone()];
        match runs.last_mut() {
            Some(run) if start_of(&hit) <= end_of(run).saturating_add(APART_US) => merge(run, hit),
            _ => runs.push(hit),
        }
    }
    runs
}

fn merge(run: &mut SearchHit, hit: SearchHit) {
    if end_of(&hit) > end_of(run) {
        run.end_time = hit.end_time;
    }
    if hit.score > run.score {
        run.score = hit.score;
        run.id.clone_from(&hit.id);
    }
    if !hit.text.is_empty() {
        if !run.text.is_empty() {
            run.text.push(' ');
        }
        run.text.push_str(&hit.text);
    }
    run.stitched_ids.extend(hit.stitched_ids);
}

fn start_of(hit: &SearchHit) -> i64 {
    hit.start_time.as_ref().map_or(0, micros)
}

fn end_of(hit: &SearchHit) -> i64 {
    hit.end_time.as_ref().map_or(0, micros)
}

#[cfg(test)]
mod tests {
    use sightline_proto::time::timestamp;

    use super::*;

    #[test]
    fn the_upper_part_of_the_scores_is_kept() {
        for (scores, percentage, expected) in [
            (&[][..], 50.0, 0),
            (&[0.9, 0.5, 0.1][..], 0.0, 3),
            (&[0.9, 0.5, 0.1][..], 100.0, 3),
            (&[0.9, 0.6, 0.1][..], 50.0, 2),
            (&[0.9, 0.49, 0.1][..], 50.0, 1),
            (&[0.9, 0.5, 0.1][..], 0.001, 1),
            (&[0.3, 0.3][..], 0.001, 2),
            (&[0.7][..], 20.0, 1),
        ] {
            let mut hits = scores
                .iter()
                .map(|&score| SearchHit {
                    score,
                    ..Default::default()
                })
                .collect();
            keep_upper(&mut hits, percentage);
            assert_eq!(hits.len(), expected, "{scores:?} {percentage}");
        }
    }

    /// A hit: id, stream, index, start and end in seconds, score.
    type Row<'a> = (&'a str, &'a str, &'a str, f64, f64, f32);

    fn hit(&(id, stream, index, start, end, score): &Row<'_>) -> SearchHit {
        SearchHit {
            id: id.to_owned(),
            rtstream_id: stream.to_owned(),
            index_id: index.to_owned(),
            start_time: Some(timestamp((start * 1e6) as i64)),
            end_time: Some(timestamp((end * 1e6) as i64)),
            text: format!("text of {id}"),
            score,
            ..Default::default()
        }
    }

    /// Stitches the rows into (id, what is in it, start, end).
    fn check(rows: &[Row<'_>], expected: &[(&str, &str, f64, f64)]) {
        let stitched = stitch(rows.iter().map(hit).collect());
        let found: Vec<_> = stitched
            .iter()
            .map(|hit| {
                let (start, end) = (start_of(hit) as f64 / 1e6, end_of(hit) as f64 / 1e6);
                let ids = hit.stitched_ids.join(" ");
                let texts = hit.text.replace("text of ", "");
                assert_eq!(texts, ids, "texts are in the order of the ids");
                (hit.id.clone(), ids, start, end)
            })
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|&(id, ids, start, end)| (id.to_owned(), ids.to_owned(), start, end))
            .collect();
        assert_eq!(found, expected, "{rows:?}");
    }

    #[test]
    fn neighbours_are_one_hit_with_the_best_of_them() {
        check(&[], &[]);
        check(&[("a", "s", "i", 0.0, 5.0, 0.4)], &[("a", "a", 0.0, 5.0)]);
        // Touching, overlapping, 1 s apart; and more than that.
        check(
            &[
                ("c", "s", "i", 10.0, 15.0, 0.9),
                ("a", "s", "i", 0.0, 5.0, 0.5),
                ("b", "s", "i", 5.0, 9.0, 0.7),
                ("d", "s", "i", 12.0, 14.0, 0.1),
                ("e", "s", "i", 16.1, 20.0, 0.95),
            ],
            &[("e", "e", 16.1, 20.0), ("c", "a b c d", 0.0, 15.0)],
        );
        // Another stream or index is another place.
        check(
            &[
                ("a", "s", "i", 0.0, 5.0, 0.5),
                ("b", "t", "i", 0.0, 5.0, 0.6),
                ("c", "s", "j", 0.0, 5.0, 0.7),
            ],
            &[
                ("c", "c", 0.0, 5.0),
                ("b", "b", 0.0, 5.0),
                ("a", "a", 0.0, 5.0),
            ],
        );
        // Of equals the first in time comes first.
        check(
            &[
                ("b", "s", "i", 50.0, 55.0, 0.5),
                ("a", "s", "i", 0.0, 5.0, 0.5),
            ],
            &[("a", "a", 0.0, 5.0), ("b", "b", 50.0, 55.0)],
        );
    }
}
