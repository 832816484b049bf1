//! The headers of a webhook: Standard Webhooks 1.0, with a signature by each of the endpoint's secrets that is valid, and the trace
//! that it ends.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use ring::hmac;
use sightline_catalog::endpoints;
use sightline_catalog::seal::{SealError, SealKey};
use sightline_proto::internal::EndpointRecord;
use sightline_service::trace::{HEADER, TraceContext};
use tracing::Span;
use tracing::field::Empty;
use url::Url;

use crate::attempt::{Outcome, Then};

const AGENT: &str = concat!("sightline/", env!("CARGO_PKG_VERSION"));

/// The headers that `body` is posted with under this id. The signatures are of this very moment: receivers refuse old ones.
///
/// # Errors
/// When the endpoint's secrets were sealed with another key.
pub(crate) fn headers(
    id: &str,
    body: &[u8],
    endpoint: &EndpointRecord,
    seal: &SealKey,
    now_us: i64,
) -> Result<HeaderMap, SealError> {
    let seconds = now_us.div_euclid(1_000_000);
    let keys = endpoints::signing_keys(endpoint, seal, now_us)?;
    let signatures: Vec<String> = keys
        .iter()
        .map(|key| sign(key, id, seconds, body))
        .collect();
    let mut headers = HeaderMap::new();
    let kind = sightline_message::content_type(body);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    let timestamp = HeaderName::from_static("webhook-timestamp");
    headers.insert(timestamp, HeaderValue::from(seconds));
    for (name, value) in [
        ("webhook-id", id),
        ("webhook-signature", &signatures.join(" ")),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    Ok(headers)
}

/// With the span in which this is called.
pub(crate) fn traced(mut headers: HeaderMap) -> HeaderMap {
    let header = TraceContext::current().header();
    if let Some(Ok(header)) = header.map(HeaderValue::try_from) {
        headers.insert(HeaderName::from_static(HEADER), header);
    }
    headers
}

/// The span of an attempt. Of the URL it has the host alone: the rest may be a secret.
pub(crate) fn span(url: &str) -> Span {
    let url = Url::parse(url).ok();
    let host = url.as_ref().and_then(Url::host_str);
    tracing::info_span!(
        "POST",
        otel.kind = "client",
        otel.status_code = Empty,
        otel.status_description = Empty,
        http.request.method = "POST",
        http.response.status_code = Empty,
        server.address = host,
        server.port = url.as_ref().and_then(Url::port_or_known_default),
    )
}

/// Notes on its span how an attempt ended.
pub(crate) fn note(span: &Span, outcome: &Outcome) {
    if outcome.status != 0 {
        span.record("http.response.status_code", outcome.status);
    }
    if outcome.then != Then::Done {
        span.record("otel.status_code", "error");
        span.record("otel.status_description", outcome.label);
    }
}

fn sign(key: &[u8], id: &str, seconds: i64, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let mut signing = hmac::Context::with_key(&key);
    signing.update(format!("{id}.{seconds}.").as_bytes());
    signing.update(body);
    format!("v1,{}", STANDARD.encode(signing.sign()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's libraries.
    #[test]
    fn signatures_are_those_of_the_specification() {
        let key = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let body = br#"{"test": 2432232314}"#;
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let signature = sign(&key.expect("base64"), id, 1_614_265_330, body);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
