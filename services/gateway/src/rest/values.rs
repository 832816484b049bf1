//! Values as this skin's clients write them: times in Unix seconds.

use prost_types::Timestamp;
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::time::{micros, timestamp};

/// The last second that times may name: the end of the year 9999.
const LAST_SECOND: f64 = 253_402_300_799.0;

/// A time from Unix seconds.
pub(super) fn time(field: &'static str, seconds: f64) -> Result<Timestamp, ApiError> {
    if !(0.0..=LAST_SECOND).contains(&seconds) {
        let allowed = format!("a time in Unix seconds; got {seconds}");
        return Err(
            ApiError::new(Reason::InvalidArgument, format!("{field} is no time"))
                .field(field, allowed),
        );
    }
    Ok(timestamp((seconds * 1e6).round() as i64))
}

/// Unix seconds of a time.
pub(super) fn seconds(time: Option<&Timestamp>) -> f64 {
    time.map_or(0.0, |time| micros(time) as f64 / 1e6)
}
