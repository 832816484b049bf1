//! Pauses between tries to connect: 1 s doubling to 60 s, spread by a fifth.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// The pause after `failures` failures in a row, 1 for the first.
pub(crate) fn pause(failures: u32) -> Duration {
    let doubled = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(6));
    let bounded = doubled.min(LONGEST);
    // A hasher with random keys is the standard library's source of randomness; that much is enough here.
    let random = RandomState::new().hash_one(failures) as f64 / u64::MAX as f64;
    bounded.mul_f64(0.8 + 0.4 * random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute() {
        for (failures, seconds) in [
            (0, 1.0),
            (1, 1.0),
            (2, 2.0),
            (4, 8.0),
            (7, 60.0),
            (u32::MAX, 60.0),
        ] {
            let pause = pause(failures).as_secs_f64();
            assert!(
                (0.8 * seconds..=1.2 * seconds).contains(&pause),
                "{failures}: {pause}"
            );
        }
    }
}
