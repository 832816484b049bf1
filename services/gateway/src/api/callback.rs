//! Callback URLs of alerts: what could never be delivered is refused at once.
//!
//! The decision that counts falls at every delivery, on the resolved address (crates/egress).

use sightline_egress::{EgressError, Policy};
use sightline_proto::reasons::{ApiError, Reason};

use super::violations::refused;

/// Refuses what is no plain http(s) URL, what carries credentials, and literal addresses that the policy refuses.
pub(super) fn check(url: &str, policy: &Policy) -> Result<(), ApiError> {
    let Err(error) = policy.check_url(url) else {
        return Ok(());
    };
    let (reason, allowed) = match error {
        EgressError::Refused(refused) => (Reason::EgressRefused, refused.to_string()),
        error => {
            let allowed = format!("an http:// or https:// URL; {error}");
            (Reason::InvalidArgument, allowed)
        }
    };
    Err(refused(reason, "callback_url", allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_with(url: &str, expected: Option<Reason>) {
        let found = check(url, &Policy::default()).err();
        assert_eq!(found.as_ref().map(|e| e.reason), expected, "{url:.60}");
        if let Some(error) = found {
            assert_eq!(error.fields[0].0, "callback_url");
            assert!(!error.message.contains("s3cret"), "{}", error.message);
        }
    }

    #[test]
    fn addresses_are_told_from_what_is_no_usable_url() {
        check_with("https://hooks.example/a?b=c", None);
        check_with("nonsense", Some(Reason::InvalidArgument));
        check_with("ftp://hooks.example/", Some(Reason::InvalidArgument));
        check_with(
            "https://u:s3cret@hooks.example/",
            Some(Reason::InvalidArgument),
        );
        check_with(
            "http://127.0.0.1:9000/hook?s3cret",
            Some(Reason::EgressRefused),
        );
        check_with("http://2130706433/", Some(Reason::EgressRefused));
    }
}
