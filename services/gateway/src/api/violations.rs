//! Checks of request fields: every fault of a request is found and named at once, each with what is allowed.

use sightline_proto::reasons::{ApiError, Reason};
use uuid::Uuid;

/// Longest part of a caller's text that is repeated in an error: error details travel in headers.
const SHOWN: usize = 80;
/// Results a page when the caller does not say.
const DEFAULT_PAGE: i32 = 100;
/// Results a page at most.
const MAX_PAGE: i32 = 1000;

/// The faults of one request.
#[derive(Debug, Default)]
pub(crate) struct Violations(Vec<(&'static str, String)>);

impl Violations {
    /// Notes a fault: `allowed` says what the field must be and what it was.
    pub(crate) fn add(&mut self, field: &'static str, allowed: impl Into<String>) {
        self.0.push((field, allowed.into()));
    }

    /// A text of `min` to `max` characters that says something.
    pub(crate) fn text(&mut self, field: &'static str, value: &str, min: usize, max: usize) {
        let length = value.chars().count();
        if length < min || length > max {
            self.add(field, format!("{min} to {max} characters, got {length}"));
        } else if length > 0 && value.trim().is_empty() {
            self.add(field, "must hold more than white space");
        }
    }

    /// A number from 0 to 1.
    pub(crate) fn fraction(&mut self, field: &'static str, value: f32) {
        if !(0.0..=1.0).contains(&value) {
            self.add(field, format!("0 to 1, got {value}"));
        }
    }

    /// The page size asked for, or the default.
    pub(crate) fn page_size(&mut self, value: i32) -> usize {
        match value {
            0 => DEFAULT_PAGE as usize,
            1..=MAX_PAGE => value as usize,
            _ => {
                let allowed = format!("1 to {MAX_PAGE}, or 0 for {DEFAULT_PAGE}; got {value}");
                self.add("page_size", allowed);
                0
            }
        }
    }

    /// The request id as a UUID; `None` without one.
    pub(crate) fn request_id(&mut self, value: &str) -> Option<Uuid> {
        if value.is_empty() {
            return None;
        }
        let parsed = Uuid::try_parse(value).ok();
        if parsed.is_none() {
            let allowed = format!("a UUID that you choose, or empty; got {}", shown(value));
            self.add("request_id", allowed);
        }
        parsed
    }

    /// Times in microseconds that bound a list: 0 means any.
    pub(crate) fn period(
        &mut self,
        start: Option<&prost_types::Timestamp>,
        end: Option<&prost_types::Timestamp>,
    ) -> (i64, i64) {
        let start_us = start.map_or(0, |time| sightline_proto::time::micros(time).max(1));
        let end_us = end.map_or(0, |time| sightline_proto::time::micros(time).max(1));
        if start.is_some() && end.is_some() && end_us <= start_us {
            self.add("end_time", "must be after start_time");
        }
        (start_us, end_us)
    }

    /// The error that names all faults, if there are any.
    pub(crate) fn into_result(self) -> Result<(), ApiError> {
        if self.0.is_empty() {
            return Ok(());
        }
        let faults: Vec<String> = self
            .0
            .iter()
            .map(|(field, allowed)| format!("{field}: {allowed}"))
            .collect();
        let error = ApiError::new(Reason::InvalidArgument, faults.join("; "));
        Err(self
            .0
            .into_iter()
            .fold(error, |error, (field, allowed)| error.field(field, allowed)))
    }
}

/// One fault as an error.
pub(crate) fn refused(reason: Reason, field: &'static str, allowed: impl Into<String>) -> ApiError {
    let allowed = allowed.into();
    ApiError::new(reason, format!("{field}: {allowed}")).field(field, allowed)
}

/// A caller's text, quoted and cut to what an error may repeat.
pub(crate) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(check: impl FnOnce(&mut Violations)) -> Vec<String> {
        let mut violations = Violations::default();
        check(&mut violations);
        let fields = violations
            .into_result()
            .err()
            .map_or(Vec::new(), |e| e.fields);
        fields
            .into_iter()
            .map(|(field, allowed)| format!("{field}: {allowed}"))
            .collect()
    }

    #[test]
    fn texts_are_counted_in_characters() {
        for (value, expected) in [
            ("ä", None),
            ("äöü", None),
            ("", Some("prompt: 1 to 3 characters, got 0")),
            ("äöüß", Some("prompt: 1 to 3 characters, got 4")),
            (" \n", Some("prompt: must hold more than white space")),
        ] {
            let found = faults(|v| v.text("prompt", value, 1, 3));
            assert_eq!(found.first().map(String::as_str), expected, "{value:?}");
        }
    }

    #[test]
    fn page_sizes_have_a_default_and_a_limit() {
        for (value, expected) in [(0, Some(100)), (1, Some(1)), (1000, Some(1000))] {
            let mut violations = Violations::default();
            assert_eq!(Some(violations.page_size(value)), expected);
            assert!(violations.into_result().is_ok());
        }
        for value in [-1, 1001, i32::MIN, i32::MAX] {
            let found = faults(|v| {
                v.page_size(value);
            });
            assert_eq!(
                found,
                [format!("page_size: 1 to 1000, or 0 for 100; got {value}")]
            );
        }
    }

    #[test]
    fn fractions_are_from_0_to_1() {
        for good in [0.0, 0.5, 1.0] {
            assert!(faults(|v| v.fraction("min_score", good)).is_empty());
        }
        for bad in [-0.1, 1.1, f32::NAN, f32::INFINITY] {
            assert_eq!(faults(|v| v.fraction("min_score", bad)).len(), 1, "{bad}");
        }
    }

    #[test]
    fn all_faults_are_named_at_once() {
        let found = faults(|v| {
            v.text("prompt", "", 1, 10);
            v.request_id("not a uuid");
        });
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn what_is_repeated_of_a_caller_is_short() {
        assert_eq!(shown("abc"), "\"abc\"");
        assert!(shown(&"ä".repeat(100_000)).len() < 200);
    }
}
