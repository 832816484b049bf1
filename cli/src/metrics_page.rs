//! docs/metrics.md: every metric of every role, as the roles register them.

use std::fmt::Write;

use sightline_service::metrics::{Described, Metrics, Values};

/// What stands above the tables.
const INTRODUCTION: &str = "\
# Metrics

Written by `make docs` from what the roles register; a test compares it with the code, another one with what a running platform answers.

Each role serves its own at `/metrics` on `--admin-listen`, in OpenMetrics' text format; `sightline up` serves all of them. Histograms are asked
for as `<name>_bucket`, `<name>_sum` and `<name>_count`. A series with labels is there once something was counted. No label carries an id of a
stream, an index or anything else that users make: [operations](operations.md) says where to look for those.
";

/// What registers the metrics of a role.
type Register = fn(&Metrics);

/// The roles with what registers their metrics.
const ROLES: [(&str, Register); 7] = [
    ("gateway", sightline_gateway::register_metrics),
    ("embeddings", sightline_embeddings::register_metrics),
    ("alerts", sightline_alerts::register_metrics),
    ("ingest", sightline_ingest::register_metrics),
    ("caption", sightline_caption::register_metrics),
    ("transcribe", sightline_transcribe::register_metrics),
    (
        "every role that exports to a collector",
        sightline_service::telemetry::register_metrics,
    ),
];

/// The page.
pub fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for (role, register) in ROLES {
        let metrics = Metrics::default();
        register(&metrics);
        let _ = write!(page, "\n## {role}\n\n{}", table(&metrics.described()));
    }
    page
}

fn table(described: &[Described]) -> String {
    let mut rows =
        "| metric | kind | unit | labels | meaning |\n|---|---|---|---|---|\n".to_owned();
    for metric in described {
        let total = if metric.kind == "counter" {
            "_total"
        } else {
            ""
        };
        let labels: Vec<String> = metric.labels.iter().map(label).collect();
        let _ = writeln!(
            rows,
            "| `{}{total}` | {} | {} | {} | {} |",
            metric.name,
            metric.kind,
            unit(&metric.name),
            labels.join("<br>"),
            metric.help
        );
    }
    rows
}

fn label((name, values): &(&str, Values)) -> String {
    match values {
        Values::These(values) => {
            let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
            format!("`{name}`: {}", values.join(", "))
        }
        Values::Of(words) => format!("`{name}`: {words}"),
    }
}

/// The last word of a name is its unit, or what is counted.
fn unit(name: &str) -> &str {
    match name.rsplit('_').next() {
        Some(unit @ ("seconds" | "bytes")) => unit,
        _ => "count",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_page_is_that_of_the_code() {
        let committed = include_str!("../../docs/metrics.md");
        assert!(
            committed == page(),
            "docs/metrics.md is out of date: run `make docs` and commit it"
        );
    }
}
