//! What an answer, or its absence, means for a delivery.

use std::time::Duration;

use sightline_catalog::seal::SealError;
use sightline_egress::{EgressError, Response};
use sightline_service::chain;

use crate::sinks::SendError;

/// How one attempt ended and what follows from it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// For the metrics: one of a handful of words.
    pub(crate) label: &'static str,
    /// The receiver's HTTP status, 0 without an answer.
    pub(crate) status: u16,
    /// Why there was no 2xx, for people; empty on success, unless there is something to mention.
    pub(crate) error: String,
    /// What follows.
    pub(crate) then: Then,
}

/// What follows from an attempt.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// Delivered.
    Done,
    /// Try again, not sooner than the receiver asked for.
    Retry { asked: Option<Duration> },
    /// Trying again cannot help.
    GiveUp,
    /// Nobody waits for it any more.
    Drop,
}

impl Outcome {
    /// 2xx is success, 410 the end, everything else is tried again: redirects are not followed, so they are failures too.
    pub(crate) fn of(result: &Result<Response, EgressError>) -> Self {
        match result {
            Ok(response) => Self::answered(response),
            Err(error) => Self::unanswered(error),
        }
    }

    /// What it was to tell of was deleted.
    pub(crate) fn deleted() -> Self {
        Self {
            label: "deleted",
            status: 0,
            error: "given up: the alert was deleted".to_owned(),
            then: Then::Drop,
        }
    }

    /// It is not sent: the receiver wanted nothing more.
    pub(crate) fn disabled(why: &str) -> Self {
        Self {
            label: "disabled",
            status: 0,
            error: format!("not sent, the endpoint is disabled: {why}"),
            then: Then::GiveUp,
        }
    }

    /// The same of another sink than a webhook; whatever it says, it is tried again.
    pub(crate) fn of_sink(result: Result<(), SendError>) -> Self {
        let failed = |label, error: &SendError| Self {
            label,
            status: 0,
            error: chain(error),
            then: Then::Retry { asked: None },
        };
        match result {
            Ok(()) => Self {
                label: "delivered",
                status: 0,
                error: String::new(),
                then: Then::Done,
            },
            Err(error @ SendError::Deadline) => failed("deadline", &error),
            Err(error @ SendError::Failed(_)) => failed("sink_failed", &error),
        }
    }

    /// Another replica may know the sink, or this one when it is started again.
    pub(crate) fn unknown_sink(name: &str) -> Self {
        Self {
            label: "unknown_sink",
            status: 0,
            error: format!(
                "not sent: this server has no sink {name:?}; start it with --sink {name}=URL"
            ),
            then: Then::Retry { asked: None },
        }
    }

    /// Says something beside how it ended.
    pub(crate) fn mention(&mut self, what: &str) {
        if !self.error.is_empty() {
            self.error.push_str("; ");
        }
        self.error.push_str(what);
    }

    /// It can't be signed.
    pub(crate) fn unsigned(error: &SealError) -> Self {
        Self {
            label: "unsigned",
            status: 0,
            error: format!("not sent, it cannot be signed: {}", chain(error)),
            then: Then::Retry { asked: None },
        }
    }

    /// Whether the receiver wants nothing more, ever.
    pub(crate) fn is_gone(&self) -> bool {
        self.status == 410
    }

    fn answered(response: &Response) -> Self {
        let status = response.status;
        let failed = |label, error: String, then| Self {
            label,
            status,
            error,
            then,
        };
        let again = |asked| Then::Retry { asked };
        match status {
            200..=299 => failed("delivered", String::new(), Then::Done),
            300..=399 => {
                let error = format!("HTTP status {status}: redirects are not followed");
                failed("redirect", error, again(None))
            }
            410 => {
                let error = "HTTP status 410: the receiver wants nothing more".to_owned();
                failed("gone", error, Then::GiveUp)
            }
            429 | 503 => failed("busy", http_status(status), again(response.retry_after)),
            _ => failed("http_error", http_status(status), again(None)),
        }
    }

    fn unanswered(error: &EgressError) -> Self {
        let again = Then::Retry { asked: None };
        let (label, then) = match error {
            EgressError::Url { .. } | EgressError::Refused(_) => ("refused", Then::GiveUp),
            EgressError::Connect { .. } => ("unreachable", again),
            EgressError::Broken { .. } => ("broken", again),
            EgressError::Deadline(_) => ("deadline", again),
        };
        Self {
            label,
            status: 0,
            error: chain(error),
            then,
        }
    }
}

fn http_status(status: u16) -> String {
    format!("HTTP status {status}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_lead_to_delivery_retry_or_the_end() {
        let asked = Some(Duration::from_secs(9));
        let check = |status, label, then| {
            let response = Response {
                status,
                retry_after: asked,
            };
            let outcome = Outcome::of(&Ok(response));
            assert_eq!((outcome.label, outcome.then), (label, then), "{status}");
            assert_eq!(outcome.error.is_empty(), status / 100 == 2, "{status}");
        };
        let again = || Then::Retry { asked: None };
        for status in [200, 201, 202, 204, 299] {
            check(status, "delivered", Then::Done);
        }
        for status in [301, 302, 304, 307, 308] {
            check(status, "redirect", again());
        }
        for status in [400, 401, 404, 500, 502, 504, 999] {
            check(status, "http_error", again());
        }
        check(410, "gone", Then::GiveUp);
        check(429, "busy", Then::Retry { asked });
        check(503, "busy", Then::Retry { asked });
    }

    #[test]
    fn silence_is_tried_again_and_refusals_are_not() {
        let check = |error, label, then| {
            let outcome = Outcome::of(&Err(error));
            assert_eq!(
                (outcome.label, outcome.then, outcome.status),
                (label, then, 0)
            );
            assert!(!outcome.error.is_empty());
        };
        let again = || Then::Retry { asked: None };
        let broken = || Box::new(std::io::Error::other("pipe"));
        check(
            EgressError::Connect { source: broken() },
            "unreachable",
            again(),
        );
        check(EgressError::Broken { source: broken() }, "broken", again());
        check(
            EgressError::Deadline(Duration::from_secs(10)),
            "deadline",
            again(),
        );
        let reason = String::from("no host");
        check(EgressError::Url { reason }, "refused", Then::GiveUp);
        let refused = sightline_egress::Policy::default()
            .check_addr([127, 0, 0, 1].into())
            .expect_err("loopback");
        check(refused.into(), "refused", Then::GiveUp);
    }
}
