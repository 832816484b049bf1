//! The usual body of a webhook.

use bytes::Bytes;
use serde::Serialize;
use serde::de::IgnoredAny;

/// The values of [`Body::phase`].
pub const PHASES: [&str; 3] = ["fired", "enriched", "closed"];

/// The fields of the VideoDB wire format, and those that theirs lacks. All are always there; times are ISO 8601 with an offset.
#[derive(Debug, Clone, Serialize)]
pub struct Body<'a> {
    /// The event.
    pub event_id: &'a str,
    /// Its label.
    pub label: &'a str,
    /// The verdict's probability, 0 to 1.
    pub confidence: f32,
    /// Why, in words.
    pub explanation: &'a str,
    /// When it was decided.
    pub timestamp: &'a str,
    /// Where the firing starts.
    pub start_time: &'a str,
    /// Where its first window ends; of a closed one, its last.
    pub end_time: &'a str,
    /// A playlist of it; null where nothing is recorded.
    pub stream_url: Option<&'a str>,
    /// A page that plays it; null where nothing is recorded.
    pub player_url: Option<&'a str>,
    /// A picture of it; null where nothing is recorded.
    pub thumbnail_url: Option<&'a str>,
    /// The alert.
    pub alert_id: &'a str,
    /// The stream.
    pub rtstream_id: &'a str,
    /// The index; empty for a stream's health.
    pub index_id: &'a str,
    /// The firing.
    pub firing_id: &'a str,
    /// Which of its messages this is: one of [`PHASES`].
    pub phase: &'a str,
    /// "open" or "closed".
    pub state: &'a str,
    /// "info", "warning" or "critical".
    pub severity: &'a str,
    /// What the verdict was made by: "frames", "text", "similarity" or "health".
    pub basis: &'a str,
    /// What the index says of the firing's first window; null while it is not known.
    pub caption: Option<&'a str>,
}

impl Body<'_> {
    /// What a template is tried out on; sparse: with all that may be null.
    pub fn sample(sparse: bool) -> Body<'static> {
        let known = |value| (!sparse).then_some(value);
        Body {
            event_id: "evt-00000000-0000-7000-8000-000000000000",
            label: "smoke",
            confidence: 0.97,
            explanation: "\"Detect smoke\" judged 97 % likely",
            timestamp: "2026-01-07T12:20:02.716407+00:00",
            start_time: "2026-01-07T12:19:55.000000+00:00",
            end_time: "2026-01-07T12:20:00.000000+00:00",
            stream_url: known("https://video.example/manifests/sample/stream.m3u8"),
            player_url: known("https://video.example/watch?v=sample"),
            thumbnail_url: known("https://video.example/manifests/sample/0.jpg"),
            alert_id: "alr-00000000-0000-7000-8000-000000000000",
            rtstream_id: "rts-00000000-0000-7000-8000-000000000000",
            index_id: if sparse {
                ""
            } else {
                "idx-00000000-0000-7000-8000-000000000000"
            },
            firing_id: "00000000-0000-5000-8000-000000000000",
            phase: PHASES[0],
            state: "open",
            severity: "warning",
            basis: "frames",
            caption: known("Smoke rises behind a \"parked\" van."),
        }
    }

    /// As it is sent.
    pub fn json(&self) -> Bytes {
        let json = serde_json::to_vec(self);
        Bytes::from(json.expect("strings and numbers are JSON"))
    }
}

/// What a body by a template is sent as.
pub fn content_type(body: &[u8]) -> &'static str {
    match serde_json::from_slice::<IgnoredAny>(body) {
        Ok(_) => "application/json",
        Err(_) => "text/plain; charset=utf-8",
    }
}
