//! `sightline alert latency`: where the time goes between something happening and somebody knowing.

use anyhow::Result;
use sightline_proto::client::Client;
use sightline_proto::v1::GetLatencyRequest;
use sightline_proto::v1::get_latency_response::Stage;

use super::args::LatencyArgs;
use super::call::{answer, ask};
use super::moment::View;
use super::output::{Output, Shown, line};

/// Shows it.
///
/// # Errors
/// When the server refuses.
pub async fn run(mut client: Client, args: LatencyArgs, out: &Output) -> Result<()> {
    let request = GetLatencyRequest {
        alert_id: args.alert.unwrap_or_default(),
    };
    let latency = answer(client.events.get_latency(ask(request))).await?;
    if out.json {
        return out.line(&line(&latency)?);
    }
    if latency.deliveries == 0 {
        eprintln!("Nothing was delivered yet.");
        return Ok(());
    }
    out.list(&latency.stages)?;
    out.line(&format!("of {} deliveries", latency.deliveries))
}

impl Shown for Stage {
    const COLUMNS: &'static [&'static str] = &["STAGE", "P50", "P95", "P99"];

    fn row(&self, _view: &View) -> Vec<String> {
        let times = [self.p50_ms, self.p95_ms, self.p99_ms];
        let times = times.map(|ms| match ms {
            0.0 => "-".to_owned(),
            ms => format!("{ms:.1} ms"),
        });
        let name = self.name.replace('_', " ");
        std::iter::once(name).chain(times).collect()
    }
}
