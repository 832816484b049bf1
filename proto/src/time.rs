//! Times between the API's timestamps and the microseconds since the Unix epoch used everywhere else.

use prost_types::{Duration, Timestamp};

const MICROS: i64 = 1_000_000;

/// Microseconds since the Unix epoch as a timestamp.
pub fn timestamp(us: i64) -> Timestamp {
    Timestamp {
        seconds: us.div_euclid(MICROS),
        nanos: (us.rem_euclid(MICROS) * 1000) as i32,
    }
}

/// A timestamp as microseconds since the Unix epoch; times beyond what fits become the nearest that does.
pub fn micros(timestamp: &Timestamp) -> i64 {
    timestamp
        .seconds
        .saturating_mul(MICROS)
        .saturating_add(i64::from(timestamp.nanos) / 1000)
}

/// Microseconds as a duration.
pub fn duration(us: i64) -> Duration {
    Duration {
        seconds: us / MICROS,
        nanos: (us % MICROS * 1000) as i32,
    }
}

/// A duration as microseconds, saturating.
pub fn duration_micros(duration: &Duration) -> i64 {
    duration
        .seconds
        .saturating_mul(MICROS)
        .saturating_add(i64::from(duration.nanos) / 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_the_round_trip() {
        for us in [0, 1, -1, 1_764_000_000_123_456, -1_500_000] {
            assert_eq!(micros(&timestamp(us)), us);
            assert_eq!(duration_micros(&duration(us)), us);
        }
        assert_eq!(
            micros(&Timestamp {
                seconds: i64::MAX,
                nanos: 0
            }),
            i64::MAX
        );
    }
}
