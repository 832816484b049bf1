//! An error with all its causes on one line: for logs, and for what people are shown.

use std::error::Error;

/// The error's text and, after colons, that of each cause behind it. Our errors' `Display` never repeats its source.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::telemetry::TelemetryError;

    #[test]
    fn causes_follow_their_effects() {
        assert_eq!(chain(&io::Error::other("disk full")), "disk full");
        let source = "="
            .parse::<tracing_subscriber::EnvFilter>()
            .expect_err("no filter");
        let cause = source.to_string();
        let error = TelemetryError::Filter {
            filter: "=".to_owned(),
            source,
        };
        assert_eq!(chain(&error), format!("{error}: {cause}"));
    }
}
