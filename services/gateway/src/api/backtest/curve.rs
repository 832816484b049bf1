//! How well thresholds tell windows in which it truly happened from others.

use sightline_proto::v1::backtest_response::Point;

use super::plan::Window;

/// Thresholds that are shown.
const POINTS: usize = 50;

/// What was judged, with the truth.
#[derive(Default)]
pub(super) struct Curve<'a> {
    labels: &'a [(i64, i64)],
    /// Probabilities, and whether it truly happened.
    judged: Vec<(f32, bool)>,
}

impl<'a> Curve<'a> {
    /// With the stretches in which it truly happened.
    pub(super) fn new(labels: &'a [(i64, i64)]) -> Self {
        Self {
            labels,
            judged: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, window: &Window, probability: f32) {
        if self.labels.is_empty() {
            return;
        }
        let within =
            |(from_us, to_us): &(i64, i64)| *from_us < window.end_us && *to_us > window.start_us;
        let happened = self.labels.iter().any(within);
        self.judged.push((probability, happened));
    }

    /// Precision and recall at thresholds, lowest first, and the best one by its F1 score, of equals the higher; nothing and 0
    /// without labels, and where none of the windows is within one.
    pub(super) fn finish(mut self) -> (Vec<Point>, f32) {
        let happened = self.judged.iter().filter(|(_, happened)| *happened).count();
        if happened == 0 {
            return (Vec::new(), 0.0);
        }
        self.judged.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let (mut points, mut best) = (Vec::new(), (0, 0.0));
        let (mut counting, mut right) = (0_u32, 0_u32);
        for (place, &(threshold, is_right)) in self.judged.iter().enumerate() {
            counting += 1;
            right += u32::from(is_right);
            let next = self.judged.get(place + 1);
            if next.is_some_and(|(next, _)| *next == threshold) {
                continue;
            }
            let precision = right as f32 / counting as f32;
            let recall = right as f32 / happened as f32;
            let f1 = 2.0 * right as f32 / (counting as f32 + happened as f32);
            if f1 > best.1 {
                best = (points.len(), f1);
            }
            points.push(Point {
                threshold,
                precision,
                recall,
            });
        }
        let suggested = points[best.0].threshold;
        let mut shown = evenly(&points, best.0);
        shown.reverse();
        (shown, suggested)
    }
}

/// At most [`POINTS`] of them, with the first, the last and the best.
fn evenly(points: &[Point], best: usize) -> Vec<Point> {
    if points.len() <= POINTS {
        return points.to_vec();
    }
    // One place less, for the best.
    let last = POINTS - 2;
    let mut places: Vec<_> = (0..=last).map(|n| n * (points.len() - 1) / last).collect();
    if let Err(place) = places.binary_search(&best) {
        places.insert(place, best);
    }
    places.into_iter().map(|place| points[place]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(second: i64) -> Window {
        Window {
            epoch_us: 1,
            number: 0,
            start_us: second * 5,
            end_us: (second + 1) * 5,
            recorded: false,
            scene_id: String::new(),
            text: String::new(),
            transcript: String::new(),
        }
    }

    fn check(
        probabilities: &[f32],
        labels: &[(i64, i64)],
        expected: &[(f32, f32, f32)],
        best: f32,
    ) {
        let mut curve = Curve::new(labels);
        for (number, probability) in probabilities.iter().enumerate() {
            curve.add(&window(number as i64), *probability);
        }
        let (points, suggested) = curve.finish();
        let found: Vec<_> = points
            .iter()
            .map(|p| (p.threshold, p.precision, p.recall))
            .collect();
        assert_eq!((found.as_slice(), suggested), (expected, best));
    }

    #[test]
    fn the_best_threshold_parts_what_happened_from_what_did_not() {
        check(&[0.1, 0.9, 0.8, 0.2], &[], &[], 0.0);
        check(&[0.1, 0.9], &[(100, 200)], &[], 0.0);
        check(
            &[0.1, 0.9, 0.8, 0.25],
            &[(6, 12)],
            &[
                (0.1, 0.5, 1.0),
                (0.25, 2.0 / 3.0, 1.0),
                (0.8, 1.0, 1.0),
                (0.9, 1.0, 0.5),
            ],
            0.8,
        );
        // Equal ones are one threshold, and of two that are as good the higher is taken.
        check(
            &[0.5, 0.5, 0.75],
            &[(0, 1), (11, 12)],
            &[(0.5, 2.0 / 3.0, 1.0), (0.75, 1.0, 0.5)],
            0.5,
        );
        check(
            &[0.5, 0.75],
            &[(0, 1)],
            &[(0.5, 0.5, 1.0), (0.75, 0.0, 0.0)],
            0.5,
        );
        check(
            &[0.25, 0.5, 0.75, 1.0],
            &[(0, 5), (15, 20)],
            &[
                (0.25, 0.5, 1.0),
                (0.5, 1.0 / 3.0, 0.5),
                (0.75, 0.5, 0.5),
                (1.0, 1.0, 0.5),
            ],
            1.0,
        );
    }

    #[test]
    fn many_thresholds_are_shown_as_fifty() {
        let labels = [(2000, 5000)];
        let mut curve = Curve::new(&labels);
        for number in 0..1000 {
            curve.add(&window(number), number as f32 / 1000.0);
        }
        let (points, suggested) = curve.finish();
        assert_eq!((points.len(), suggested), (50, 0.4));
        assert!(points.is_sorted_by(|a, b| a.threshold < b.threshold));
        assert!(points.iter().any(|point| point.threshold == suggested));
    }
}
