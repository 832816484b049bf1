//! When a delivery is tried again.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// No receiver delays a delivery by more than this, whatever it asks for.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Delays are spread by this part of themselves, so that what failed together does not come back together.
const JITTER: f64 = 0.2;

/// The delays between attempts, with their jitter.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// The delay after each failed attempt; after one more failure the delivery is given up.
    pub delays: Vec<Duration>,
    /// Varies the jitter between installations. The jitter of one attempt is always the same.
    pub seed: u64,
}

impl Default for Schedule {
    /// About three days: 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h.
    fn default() -> Self {
        let minutes = [5, 30, 120, 300, 600, 840, 1200, 1440];
        let delays = minutes.map(|minutes| Duration::from_secs(minutes * 60));
        Self {
            delays: [&[Duration::from_secs(5)], &delays[..]].concat(),
            seed: 0,
        }
    }
}

impl Schedule {
    /// The delay after failed attempt number `attempt` (1 for the first), at least what the receiver asked for; `None` when
    /// the delivery is given up.
    pub fn after(
        &self,
        attempt: u64,
        firing_id: &str,
        asked: Option<Duration>,
    ) -> Option<Duration> {
        let nth = usize::try_from(attempt).unwrap_or(usize::MAX);
        let delay = *self.delays.get(nth.saturating_sub(1))?;
        let spread = 1.0 - JITTER + 2.0 * JITTER * self.chance(attempt, firing_id);
        let delay = delay.mul_f64(spread);
        Some(asked.map_or(delay, |asked| delay.max(asked.min(LONGEST))))
    }

    /// Evenly spread from 0 to 1.
    fn chance(&self, attempt: u64, firing_id: &str) -> f64 {
        let mut hasher = DefaultHasher::new();
        (self.seed, attempt, firing_id).hash(&mut hasher);
        f64::from(u32::try_from(hasher.finish() >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delay(attempt: u64, firing: &str, asked: Option<u64>) -> Option<f64> {
        let asked = asked.map(Duration::from_secs);
        let delay = Schedule::default().after(attempt, firing, asked);
        delay.map(|delay| delay.as_secs_f64())
    }

    #[test]
    fn each_delay_is_its_own_give_or_take_a_fifth() {
        let seconds = [
            5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0,
        ];
        for (attempt, nominal) in (1..).zip(seconds) {
            let mut seen = Vec::new();
            for firing in 0..1000 {
                let delay = delay(attempt, &firing.to_string(), None).expect("not given up");
                assert!(
                    delay >= 0.8 * nominal - 1e-6 && delay <= 1.2 * nominal + 1e-6,
                    "{delay}"
                );
                seen.push(delay / nominal);
            }
            let mean = seen.iter().sum::<f64>() / 1000.0;
            assert!((mean - 1.0).abs() < 0.02, "attempt {attempt}: mean {mean}");
        }
        assert_eq!(delay(10, "f", None), None);
    }

    #[test]
    fn the_receiver_is_left_alone_for_as_long_as_it_asks_within_bounds() {
        assert_eq!(delay(1, "f", Some(600)), Some(600.0));
        assert_eq!(delay(1, "f", Some(u64::MAX)), Some(86_400.0));
        // Asking for less than the schedule does not hurry it.
        assert_eq!(delay(2, "f", Some(1)), delay(2, "f", None));
        assert_eq!(delay(10, "f", Some(600)), None);
    }

    #[test]
    fn jitter_is_chosen_by_seed_firing_and_attempt() {
        let seeded = |seed| Schedule {
            seed,
            ..Schedule::default()
        };
        assert_eq!(delay(1, "f", None), delay(1, "f", None));
        assert_ne!(delay(1, "f", None), delay(1, "g", None));
        assert_ne!(seeded(1).after(1, "f", None), seeded(2).after(1, "f", None));
    }
}
