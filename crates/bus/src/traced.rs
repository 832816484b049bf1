//! Spans of messages, by OpenTelemetry's conventions for messaging, and their contexts in messages' headers.

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::Message as Raw;
use sightline_service::trace::{self, RTSTREAM, TraceContext};
use tracing::Span;
use tracing::field::Empty;

use crate::work::Work;

/// What ids of streams begin with, as parts of subjects.
const STREAM_ID: &str = "rts-";

/// The span in which a message was published.
pub(crate) fn publisher(headers: Option<&HeaderMap>) -> TraceContext {
    let header = headers.and_then(|headers| headers.get(trace::HEADER));
    TraceContext::of_header(header.map(|value| value.as_str()))
}

/// The span of handling a message, under that in which it was published.
pub(crate) fn processing(work: &Work, raw: &Raw) -> Span {
    if !trace::is_on() {
        return Span::none();
    }
    let (stream, subject) = (work.stream.as_str(), raw.subject.as_str());
    let id = raw.headers.as_ref().and_then(|h| h.get(NATS_MESSAGE_ID));
    let span = tracing::info_span!(
        "process",
        otel.name = format!("process {stream}"),
        otel.kind = "consumer",
        otel.status_code = Empty,
        otel.status_description = Empty,
        messaging.system = "nats",
        messaging.operation.name = "process",
        "messaging.operation.type" = "process",
        messaging.destination.name = subject,
        messaging.destination.template = stream,
        messaging.consumer.group.name = work.durable,
        messaging.message.id = id.map(|id| id.as_str()),
        messaging.message.body.size = raw.payload.len(),
        sightline.rtstream.id = Empty,
    );
    if let Some(rtstream) = subject.split('.').find(|part| part.starts_with(STREAM_ID)) {
        span.record(RTSTREAM, rtstream);
    }
    publisher(raw.headers.as_ref()).above(span)
}

/// The span of asking.
pub(crate) fn asking(subject: &str) -> Span {
    if !trace::is_on() {
        return Span::none();
    }
    tracing::info_span!(
        "ask",
        otel.name = format!("ask {subject}"),
        otel.kind = "client",
        messaging.system = "nats",
        messaging.operation.name = "request",
        "messaging.operation.type" = "send",
        messaging.destination.name = subject,
    )
}

/// The span of answering, under that of asking.
pub(crate) fn answering(subject: &str, headers: Option<&HeaderMap>) -> Span {
    if !trace::is_on() {
        return Span::none();
    }
    publisher(headers).above(tracing::info_span!(
        "answer",
        otel.name = format!("answer {subject}"),
        otel.kind = "server",
        messaging.system = "nats",
        messaging.operation.name = "process",
        "messaging.operation.type" = "process",
        messaging.destination.name = subject,
    ))
}

/// Handling the message of the current span failed: the reason is told by logs and dead letters, whose readers are chosen.
pub(crate) fn failed(how: &'static str) {
    let span = Span::current();
    span.record("otel.status_code", "error");
    span.record("otel.status_description", how);
}
