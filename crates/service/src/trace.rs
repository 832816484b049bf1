//! Where in a trace something happens, and how that travels from process to process: W3C's header `traceparent`.
//!
//! Where nothing is exported (`telemetry`) there are no spans and no headers, and all of this does nothing.

mod requests;

use std::sync::OnceLock;
use std::time::{Duration, UNIX_EPOCH};

use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator};
use opentelemetry::trace::{Span as _, SpanContext, TraceContextExt, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracer;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

pub use requests::{TraceRequests, Traced};

/// The header, of messages and of HTTP requests.
pub const HEADER: &str = "traceparent";
/// The attribute that says which stream a span is about.
pub const RTSTREAM: &str = "sightline.rtstream.id";

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Turns tracing on, once a process.
pub(crate) fn turn_on(tracer: SdkTracer) {
    let _ = TRACER.set(tracer);
}

/// Whether there are traces at all.
pub fn is_on() -> bool {
    TRACER.get().is_some()
}

/// A span, of this process or another one, under which others can be put. The default is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext(SpanContext);

impl Default for TraceContext {
    fn default() -> Self {
        Self(SpanContext::NONE)
    }
}

impl TraceContext {
    /// The span in which this is called; none outside of all.
    pub fn current() -> Self {
        if !is_on() {
            return Self::default();
        }
        Self(Context::map_current(|context| {
            context.span().span_context().clone()
        }))
    }

    /// What a header says; none where it says nothing, or is not understood.
    pub fn of_header(header: Option<&str>) -> Self {
        let Some(header) = header.filter(|_| is_on()) else {
            return Self::default();
        };
        let context =
            TraceContextPropagator::new().extract_with_context(&Context::new(), &Header(header));
        Self(context.span().span_context().clone())
    }

    /// The header that says it; nothing for none.
    pub fn header(&self) -> Option<String> {
        if !self.0.is_valid() {
            return None;
        }
        let mut header = HeaderMade(None);
        let context = Context::new().with_remote_span_context(self.0.clone());
        TraceContextPropagator::new().inject_context(&context, &mut header);
        header.0
    }

    /// Puts a span, which has not been entered yet, under this one. Under none it stays where it is.
    pub fn above(&self, span: Span) -> Span {
        if self.0.is_valid() && !span.is_disabled() {
            let parent = Context::new().with_remote_span_context(self.0.clone());
            // It fails where the span was entered already.
            let _ = span.set_parent(parent);
        }
        span
    }

    /// The trace's id, in 32 hexadecimal digits.
    pub fn trace_id(&self) -> Option<String> {
        let id = || self.0.trace_id().to_string();
        self.0.is_valid().then(id)
    }

    /// The same, of a trace that is exported and not left out by sampling.
    pub fn exported_id(&self) -> Option<String> {
        self.trace_id().filter(|_| self.0.is_sampled())
    }
}

/// Begins a trace with what took place from a time, in microseconds since the Unix epoch, until now: reading a stream's pictures
/// or sound, until they came here. 0 is now.
pub fn begin(name: &'static str, from_us: i64, rtstream_id: &str) -> TraceContext {
    let Some(tracer) = TRACER.get() else {
        return TraceContext::default();
    };
    let mut builder = tracer
        .span_builder(name)
        .with_attributes([KeyValue::new(RTSTREAM, rtstream_id.to_owned())]);
    if let Ok(from_us @ 1..) = u64::try_from(from_us) {
        builder = builder.with_start_time(UNIX_EPOCH + Duration::from_micros(from_us));
    }
    let mut span = tracer.build_with_context(builder, &Context::new());
    span.end();
    TraceContext(span.span_context().clone())
}

/// Of one name and value.
struct Header<'a>(&'a str);

impl Extractor for Header<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == HEADER).then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec![HEADER]
    }
}

/// What vendors put beside it is left out.
struct HeaderMade(Option<String>);

impl Injector for HeaderMade {
    fn set(&mut self, key: &str, value: String) {
        if key == HEADER {
            self.0 = Some(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn a_header_leads_to_the_span_that_it_was_made_in() {
        let tracer = SdkTracerProvider::builder().build().tracer("test");
        turn_on(tracer.clone());
        let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        let header = format!("00-{trace}-{span}-01");
        let there = TraceContext::of_header(Some(&header));
        assert_eq!(there.header(), Some(header));
        assert_eq!(there.exported_id().as_deref(), Some(trace));
        let left_out = TraceContext::of_header(Some(&format!("00-{trace}-{span}-00")));
        assert_eq!(left_out.trace_id().as_deref(), Some(trace));
        assert_eq!(left_out.exported_id(), None);
        for wrong in ["", "00-0-0-01", &format!("ff-{trace}-{span}-01"), trace] {
            let none = TraceContext::of_header(Some(wrong));
            assert_eq!((&none, none.header()), (&TraceContext::default(), None));
        }

        let spanning = tracing_opentelemetry::layer().with_tracer(tracer);
        let subscriber = tracing_subscriber::registry().with(spanning);
        tracing::subscriber::with_default(subscriber, || {
            assert_eq!(TraceContext::current(), TraceContext::default());
            let here = there.above(tracing::info_span!("here"));
            let here = here.in_scope(TraceContext::current);
            assert_eq!(here.trace_id(), there.trace_id());
            assert_ne!(here.header(), there.header());
            let begun = begin("capture", 1, "rts-1");
            assert!(begun.exported_id().is_some_and(|id| id != trace));
        });
    }
}
