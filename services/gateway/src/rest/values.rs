//! Values as this skin's clients write them: times in Unix seconds, and numbers that may be texts.

use std::fmt;
use std::ops::RangeInclusive;

use prost_types::Timestamp;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::time::{micros, timestamp};

/// The last second that times may name: the end of the year 9999.
const LAST_SECOND: f64 = 253_402_300_799.0;

/// A number, or a text that holds one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Number(pub(super) f64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Number, E> {
                Ok(Number(value))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<Number, E> {
                Ok(Number(value as f64))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<Number, E> {
                Ok(Number(value as f64))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Number, E> {
                let number = text.trim().parse().ok().filter(|n: &f64| n.is_finite());
                let wrong = || E::invalid_value(serde::de::Unexpected::Str(text), &self);
                number.map(Number).ok_or_else(wrong)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// A whole number in a range, if there is one.
pub(super) fn whole(
    field: &'static str,
    number: Option<Number>,
    range: RangeInclusive<i64>,
) -> Result<Option<i64>, ApiError> {
    let Some(Number(number)) = number else {
        return Ok(None);
    };
    let bounds = *range.start() as f64..=*range.end() as f64;
    if number.fract() == 0.0 && bounds.contains(&number) {
        return Ok(Some(number as i64));
    }
    let (least, most) = (range.start(), range.end());
    let allowed = format!("a whole number from {least} to {most}, got {number}");
    Err(wrong(field, allowed))
}

/// Whole numbers without a fraction, as people write them.
pub(super) fn written(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() < 1e15 {
        Value::from(number as i64)
    } else {
        Value::from(number)
    }
}

/// A time from Unix seconds.
pub(super) fn time(field: &'static str, seconds: f64) -> Result<Timestamp, ApiError> {
    if !(0.0..=LAST_SECOND).contains(&seconds) {
        let allowed = format!("a time in Unix seconds, got {seconds}");
        return Err(wrong(field, allowed));
    }
    Ok(timestamp((seconds * 1e6).round() as i64))
}

/// The same, if there is one.
pub(super) fn some_time(
    field: &'static str,
    seconds: Option<Number>,
) -> Result<Option<Timestamp>, ApiError> {
    let seconds = seconds.map(|Number(seconds)| time(field, seconds));
    seconds.transpose()
}

/// Unix seconds of a time.
pub(super) fn seconds(time: Option<&Timestamp>) -> f64 {
    time.map_or(0.0, |time| micros(time) as f64 / 1e6)
}

/// A time in words, RFC 3339.
pub(super) fn in_words(time: Option<&Timestamp>) -> Option<String> {
    time.map(ToString::to_string)
}

/// A text, unless it is empty.
pub(super) fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// A wrong field of a request: `allowed` says what it must be and what it was.
pub(super) fn wrong(field: &'static str, allowed: impl Into<String>) -> ApiError {
    let allowed = allowed.into();
    let message = format!("{field}: {allowed}");
    ApiError::new(Reason::InvalidArgument, message).field(field, allowed)
}
