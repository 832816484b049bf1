//! What a collector gets: one trace from the capture of a window to the webhook, with the log lines and metrics around it; and
//! that nobody waits for one that does not answer. And what Prometheus makes of a running platform.

use anyhow::{Context, Result, ensure};
use sightline_proto::v1::rt_stream::Playback;
use sightline_testkit::oracle::no_surprises;
use sightline_testkit::otlp::{Collector, HEADERS, Span};
use sightline_testkit::platform::{Ground, alert, clip_url, connect, index, scenes, start};
use sightline_testkit::process::Process;
use sightline_testkit::receiver::{Receiver, Webhook};
use sightline_testkit::{repository, until};
use tokio::process::Command;

use crate::ground;
use crate::playback::get;

/// What a server says, once for each kind of telemetry, when nobody takes it.
const NOT_TAKEN: &str = "the collector does not take telemetry";

/// A platform with a collector, whose sample clip has led to a webhook.
struct Told {
    ground: Ground,
    up: Process,
    webhook: Webhook,
    rtstream_id: String,
}

async fn told(collector: &Collector, further: &[&str]) -> Result<Told> {
    let ground = ground().await?;
    let receiver = Receiver::start().await?;
    let mut arguments = vec![
        "--otlp-endpoint",
        &*collector.url,
        "--otlp-headers",
        HEADERS,
    ];
    arguments.extend(further);
    let (up, mut client) = ground.up(&arguments).await?;
    let stream = connect(&mut client, &clip_url()?, Playback::Fast).await?;
    let index = index(&mut client, &stream.id, "Describe activity").await?;
    let prompt = "Detect when someone enters restricted area";
    alert(&mut client, &index.id, prompt, &receiver.url()).await?;
    start(&mut client, &stream.id).await?;
    let webhook = receiver.webhooks(1).await?.remove(0);
    scenes(&mut client, &index.id).await?;
    Ok(Told {
        ground,
        up,
        webhook,
        rtstream_id: stream.id,
    })
}

/// The span with this id, and those above it.
fn upwards(spans: &[Span], span_id: &str) -> Vec<Span> {
    let mut found: Vec<Span> = Vec::new();
    let mut id = span_id;
    while let Some(span) = spans.iter().find(|span| span.span_id == id) {
        found.push(span.clone());
        id = &span.parent_id;
    }
    found
}

#[tokio::test]
async fn one_trace_leads_from_the_capture_to_the_webhook() -> Result<()> {
    let collector = Collector::start().await?;
    let mut told = told(&collector, &[]).await?;
    let header: Vec<&str> = told.webhook.traceparent.split('-').collect();
    let [_, trace_id, post, "01"] = header[..] else {
        anyhow::bail!("no traceparent: {:?}", told.webhook);
    };
    let way = until("the whole way of the webhook", async || {
        let way = upwards(&collector.spans(), post);
        let captured = way.last().is_some_and(|top| top.name == "capture window");
        Ok(captured.then_some(way))
    });
    let way = way.await?;
    let names: Vec<&str> = way.iter().map(|span| span.name.as_str()).collect();
    let expected = [
        "POST",
        "process DELIVERIES",
        "decide",
        "process OBSERVATIONS",
        "process FRAMES",
        "send",
        "capture window",
    ];
    assert_eq!(names, expected);
    for span in &way {
        assert_eq!(span.trace_id, trace_id, "{span:?}");
        assert_eq!(span.service, "sightline");
        let stream = span.attributes.get("sightline.rtstream.id");
        let without = ["POST", "send"].contains(&span.name.as_str());
        ensure!(without || stream == Some(&told.rtstream_id), "{span:?}");
    }
    let attribute = |at: usize, name: &str| way[at].attributes.get(name).map(String::as_str);
    assert_eq!(attribute(0, "http.response.status_code"), Some("204"));
    assert_eq!(attribute(1, "messaging.system"), Some("nats"));
    // From the capture of the last frame until the worker has the window.
    ensure!(way[6].lasted_ns > 0, "{way:?}");

    until("its log lines", async || {
        let lines = collector.lines();
        let fired = |text: &str| {
            lines
                .iter()
                .any(|line| line.text == text && line.trace_id == trace_id)
        };
        Ok((fired("alert fired") && fired("delivery was attempted")).then_some(()))
    })
    .await?;
    until("metrics, and the trace in one of them", async || {
        let series = collector.series();
        let firings = series
            .iter()
            .find(|s| s.name == "sightline_alert_firings_total");
        let lines = collector.lines();
        // Each bucket keeps the last one.
        let of_a_firing = |id: &String| {
            let mut fired = lines.iter().filter(|line| line.text == "alert fired");
            fired.any(|line| line.trace_id == *id)
        };
        let latency = series.iter().any(|series| {
            series.name == "sightline_alert_stage_seconds"
                && series.exemplars.iter().any(of_a_firing)
        });
        Ok((latency && firings.is_some_and(|s| s.value >= 1.0)).then_some(()))
    })
    .await?;
    until("calls from role to role", async || {
        let spans = collector.spans();
        let call = "sightline.internal.v1.RecordsService/ListRecords";
        let found = spans.iter().filter(|span| span.name == call);
        let asked = found.clone().any(|server| {
            let up = upwards(&spans, &server.span_id);
            let names: Vec<&str> = up.iter().map(|span| span.name.as_str()).collect();
            names == [call, call, "sightline.v1.IndexService/ListScenes"]
        });
        Ok(asked.then_some(()))
    })
    .await?;
    until("speech", async || {
        let spans = collector.spans();
        let mut heard = spans.iter().filter(|span| span.name == "process AUDIO");
        let begun = heard.any(|span| {
            let up = upwards(&spans, &span.span_id);
            let names: Vec<&str> = up.iter().map(|span| span.name.as_str()).collect();
            names == ["process AUDIO", "send", "capture utterance"]
        });
        Ok(begun.then_some(()))
    })
    .await?;
    // People who read the log find the trace too.
    let log = told.up.log();
    let mut lines = log.iter().filter(|line| line.contains("alert fired"));
    let ending = format!("trace_id={trace_id}");
    ensure!(lines.any(|line| line.ends_with(&ending)), "{log:#?}");
    ensure!(told.up.terminate().await?.success(), "it ends in order");
    no_surprises(&told.up, &[])
}

#[tokio::test]
async fn a_collector_that_does_not_answer_holds_up_nothing() -> Result<()> {
    let collector = Collector::start().await?;
    collector.fall_silent();
    let mut told = told(&collector, &["--log-format", "json"]).await?;
    told.ground.drained().await?;
    let told_of = |what: &str| {
        let log = told.up.log();
        let line = log.into_iter().find(|line| line.contains(what));
        let line: serde_json::Value =
            serde_json::from_str(&line.with_context(|| what.to_owned())?)?;
        anyhow::Ok(line)
    };
    let served = told_of("metrics and probes are served")?;
    let admin = served["fields"]["address"].as_str().context("where")?;
    until("what was dropped to be counted", async || {
        let (_, text) = get(&format!("http://{admin}/metrics")).await?;
        let text = String::from_utf8(text)?;
        let dropped = |signal: &str| {
            let line = format!("sightline_telemetry_dropped_total{{signal=\"{signal}\",");
            let counts = text.lines().filter(|found| found.starts_with(&line));
            counts.filter(|count| !count.ends_with(" 0")).count() > 0
        };
        Ok((dropped("traces") && dropped("logs") && dropped("metrics")).then_some(()))
    })
    .await?;
    let fired = told_of("alert fired")?;
    ensure!(fired["fields"]["firing"].is_string(), "{fired}");
    let trace_id = fired["trace_id"].as_str().unwrap_or_default();
    ensure!(
        trace_id.len() == 32 && told.webhook.traceparent.contains(trace_id),
        "{fired}"
    );
    ensure!(told.up.terminate().await?.success(), "it ends in order");
    let log = told.up.log();
    let complaints = log.iter().filter(|line| line.contains(NOT_TAKEN));
    assert_eq!(complaints.count(), 3, "{log:#?}");
    assert_eq!(collector.spans().len(), 0);
    Ok(())
}

/// The script's own account says which query of deploy/ found nothing, before this test would be ended. It ends what it has started.
#[tokio::test]
async fn every_query_of_the_dashboards_and_rules_has_data() -> Result<()> {
    let asked = Command::new(repository().join("scripts/check-dashboards"))
        .args(["--sightline", env!("CARGO_BIN_EXE_sightline")])
        .args(["--seconds", "200"])
        .output()
        .await?;
    let (told, faults) = (&asked.stdout, &asked.stderr);
    let account = String::from_utf8_lossy(&[&told[..], faults].concat()).into_owned();
    ensure!(asked.status.success(), "{account}");
    ensure!(account.contains("are sound"), "{account}");
    Ok(())
}
