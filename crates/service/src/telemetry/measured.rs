//! The registry's metrics as OTLP has them: the same names, labels and numbers as at `/metrics`.

use opentelemetry_proto::tonic::Attributes;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, Gauge, Histogram, HistogramDataPoint, Metric,
    NumberDataPoint, Sum, exemplar,
};
use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model as model;

/// The label of exemplars that names the trace.
const TRACE_ID: &str = "trace_id";

/// Between which times something was counted, in nanoseconds since the Unix epoch.
#[derive(Clone, Copy)]
struct Times {
    from: u64,
    to: u64,
}

/// All metrics, counted since `started_us` in microseconds since the Unix epoch.
pub(super) fn otlp(
    families: Vec<model::MetricFamily>,
    started_us: i64,
    now_us: i64,
) -> Vec<Metric> {
    let nanos = |us: i64| u64::try_from(us).unwrap_or(0).saturating_mul(1000);
    let times = Times {
        from: nanos(started_us),
        to: nanos(now_us),
    };
    families
        .into_iter()
        .filter_map(|family| metric(family, times))
        .collect()
}

/// How many data points a metric has.
pub(super) fn points(metric: &Metric) -> usize {
    match &metric.data {
        Some(Data::Sum(sum)) => sum.data_points.len(),
        Some(Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(Data::Histogram(histogram)) => histogram.data_points.len(),
        _ => 0,
    }
}

fn metric(family: model::MetricFamily, times: Times) -> Option<Metric> {
    let cumulative = AggregationTemporality::Cumulative.into();
    let metrics = family.metric.iter();
    let data = match family.r#type() {
        model::MetricType::Counter => {
            let counted = metrics.filter_map(|m| number(m, m.counter.as_ref()?.value, times));
            Data::Sum(Sum {
                data_points: counted.collect(),
                aggregation_temporality: cumulative,
                is_monotonic: true,
            })
        }
        model::MetricType::Gauge => {
            let shown = metrics.filter_map(|m| number(m, m.gauge.as_ref()?.value, times));
            Data::Gauge(Gauge {
                data_points: shown.collect(),
            })
        }
        model::MetricType::Histogram => {
            let measured = metrics.filter_map(|m| histogram(m, m.histogram.as_ref()?, times));
            Data::Histogram(Histogram {
                data_points: measured.collect(),
                aggregation_temporality: cumulative,
            })
        }
        _ => return None,
    };
    Some(Metric {
        unit: unit(&family.name).to_owned(),
        name: family.name,
        description: family.help,
        data: Some(data),
        ..Metric::default()
    })
}

fn unit(name: &str) -> &'static str {
    match name.rsplit('_').next() {
        Some("seconds") => "s",
        Some("bytes") => "By",
        _ => "1",
    }
}

fn number(metric: &model::Metric, value: f64, times: Times) -> Option<NumberDataPoint> {
    Some(NumberDataPoint {
        attributes: attributes(&metric.label),
        start_time_unix_nano: times.from,
        time_unix_nano: times.to,
        value: Some(Number::AsDouble(value)),
        ..NumberDataPoint::default()
    })
}

/// There a bucket counts those before it too, and the last one has a bound.
fn histogram(
    metric: &model::Metric,
    values: &model::Histogram,
    times: Times,
) -> Option<HistogramDataPoint> {
    let (_, bounded) = values.bucket.split_last()?;
    let before = std::iter::once(0).chain(bounded.iter().map(|b| b.cumulative_count));
    let counts = values.bucket.iter().zip(before);
    let counts = counts.map(|(bucket, before)| bucket.cumulative_count.saturating_sub(before));
    let exemplars = values.bucket.iter().filter_map(|b| b.exemplar.as_ref());
    Some(HistogramDataPoint {
        attributes: attributes(&metric.label),
        start_time_unix_nano: times.from,
        time_unix_nano: times.to,
        count: values.sample_count,
        sum: Some(values.sample_sum),
        bucket_counts: counts.collect(),
        explicit_bounds: bounded.iter().map(|bucket| bucket.upper_bound).collect(),
        exemplars: exemplars.map(|found| exemplar(found, times)).collect(),
        ..HistogramDataPoint::default()
    })
}

fn exemplar(found: &model::Exemplar, times: Times) -> Exemplar {
    let (traces, others): (Vec<_>, Vec<_>) = found
        .label
        .iter()
        .cloned()
        .partition(|label| label.name == TRACE_ID);
    let trace = traces
        .first()
        .map(|label| u128::from_str_radix(&label.value, 16));
    Exemplar {
        filtered_attributes: attributes(&others),
        time_unix_nano: times.to,
        trace_id: match trace {
            Some(Ok(id)) => id.to_be_bytes().to_vec(),
            Some(Err(_)) | None => Vec::new(),
        },
        value: Some(exemplar::Value::AsDouble(found.value)),
        ..Exemplar::default()
    }
}

fn attributes(labels: &[model::LabelPair]) -> Vec<KeyValue> {
    let pairs = labels
        .iter()
        .map(|label| opentelemetry::KeyValue::new(label.name.clone(), label.value.clone()));
    Attributes::from(pairs).0
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::exemplar::HistogramWithExemplars;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::gauge::Gauge as Shown;

    use super::*;
    use crate::metrics::Metrics;

    #[test]
    fn both_ways_say_the_same() {
        let metrics = Metrics::default();
        let counter: Family<[(&str, &str); 1], Counter> =
            metrics.register("sightline_things", "Things.", Family::default());
        counter.get_or_create(&[("kind", "a")]).inc_by(3);
        let shown: Shown = metrics.register("sightline_open", "Open.", Shown::default());
        shown.set(-2);
        type Pairs = Vec<(&'static str, String)>;
        let latency: HistogramWithExemplars<Pairs> = metrics.register(
            "sightline_took_seconds",
            "Took.",
            HistogramWithExemplars::new([0.1, 1.0].into_iter()),
        );
        let trace = "0123456789abcdef0123456789abcdef".to_owned();
        let pairs = vec![("firing_id", "f".to_owned()), (TRACE_ID, trace)];
        latency.observe(0.5, Some(pairs), None);
        latency.observe(0.6, None, None);
        latency.observe(7.0, None, None);
        let text = metrics.encode();
        for line in [
            r#"sightline_things_total{kind="a"} 3"#,
            "sightline_open -2",
            r#"sightline_took_seconds_bucket{le="1.0"} 2"#,
            r#"sightline_took_seconds_bucket{le="+Inf"} 3"#,
            r#"trace_id="0123456789abcdef0123456789abcdef""#,
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }

        let sent = otlp(metrics.model(), 5, 7);
        let names: Vec<_> = sent
            .iter()
            .map(|m| (m.name.as_str(), m.unit.as_str()))
            .collect();
        let expected = [
            ("sightline_things_total", "1"),
            ("sightline_open", "1"),
            ("sightline_took_seconds", "s"),
        ];
        assert_eq!(names, expected);
        assert_eq!(sent.iter().map(points).sum::<usize>(), 3);
        let Some(Data::Sum(sum)) = &sent[0].data else {
            panic!("{sent:?}")
        };
        assert!(sum.is_monotonic);
        assert_eq!(sum.data_points[0].value, Some(Number::AsDouble(3.0)));
        assert_eq!(sum.data_points[0].attributes[0].key, "kind");
        let Some(Data::Gauge(gauge)) = &sent[1].data else {
            panic!("{sent:?}")
        };
        assert_eq!(gauge.data_points[0].value, Some(Number::AsDouble(-2.0)));
        let Some(Data::Histogram(histogram)) = &sent[2].data else {
            panic!("{sent:?}")
        };
        let point = &histogram.data_points[0];
        assert_eq!(
            (point.start_time_unix_nano, point.time_unix_nano),
            (5000, 7000)
        );
        assert_eq!(
            (&point.bucket_counts[..], &point.explicit_bounds[..]),
            (&[0, 2, 1][..], &[0.1, 1.0][..])
        );
        assert_eq!(point.exemplars[0].trace_id.len(), 16);
        assert_eq!(point.exemplars[0].filtered_attributes.len(), 1);
    }
}
