//! Log lines: for people or as JSON, with the trace in which they were written.

use std::fmt;
use std::io::IsTerminal;

use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::{EnvFilter, FilterExt, LevelFilter, filter_fn};
use tracing_subscriber::fmt::format::{DefaultFields, Writer};
use tracing_subscriber::fmt::{self as lines, FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

use super::Part;
use crate::trace::TraceContext;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for programs.
    Json,
}

/// What writes the lines. It sees no spans, so that without a collector there are none.
pub(super) fn part(filter: EnvFilter, format: LogFormat) -> Part {
    // Without a hint of its own it would hide that of the other, and every level would count as wanted.
    let no_spans = filter_fn(|metadata| !metadata.is_span());
    let filter = filter.and(no_spans.with_max_level_hint(LevelFilter::TRACE));
    let lines = lines::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.fmt_fields(Text).with_filter(filter).boxed(),
        LogFormat::Json => lines
            .json()
            .map_event_format(Json)
            .with_filter(filter)
            .boxed(),
    }
}

/// A line's fields for people, the trace's id last.
struct Text;

impl<'writer> FormatFields<'writer> for Text {
    fn format_fields<R: RecordFields>(
        &self,
        mut writer: Writer<'writer>,
        fields: R,
    ) -> fmt::Result {
        DefaultFields::new().format_fields(writer.by_ref(), fields)?;
        match TraceContext::current().trace_id() {
            Some(id) => write!(writer, " trace_id={id}"),
            None => Ok(()),
        }
    }
}

/// A line as JSON, the trace's id first.
struct Json<F>(F);

impl<S, N, F> FormatEvent<S, N> for Json<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(id) = TraceContext::current().trace_id() else {
            return self.0.format_event(context, writer, event);
        };
        let mut line = String::new();
        let inside = Writer::new(&mut line);
        self.0.format_event(context, inside, event)?;
        match line.strip_prefix('{') {
            Some(rest) => write!(writer, r#"{{"trace_id":"{id}",{rest}"#),
            None => writer.write_str(&line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn a_line_in_no_span_is_as_it_was() {
        // What a line in a span looks like is told by tests/end_to_end/observed.rs: there is one tracer a process.
        let filter = EnvFilter::new("info");
        let subscriber = tracing_subscriber::registry().with(vec![part(filter, LogFormat::Json)]);
        tracing::subscriber::with_default(subscriber, || {
            assert!(tracing::info_span!("unseen").is_disabled());
            assert!(tracing::enabled!(tracing::Level::INFO));
            assert!(LevelFilter::current() <= LevelFilter::INFO);
        });
    }
}
