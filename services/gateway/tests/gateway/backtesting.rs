//! Backtests and latencies: what is made of what workers and the embeddings service say, and what is refused.

use futures::StreamExt;
use sightline_bus::{Ask, Subject};
use sightline_proto::ids;
use sightline_proto::internal::{
    Attempt, Frame, FramesRequest, FramesResponse, JudgeRequest, JudgeResponse, Observation,
    Record, search_records_response,
};
use sightline_proto::time::{duration, micros, timestamp};
use sightline_proto::v1::backtest_response::{Message, Summary};
use sightline_proto::v1::firing::Basis;
use sightline_proto::v1::{
    self, BacktestRequest, BacktestResponse, Policy, backtest_request::Label, delivery, firing,
};
use sightline_testkit::until;
use tonic::{Code, Status, Streaming};

use crate::harness::{Client, Gateway, NOW_US, reason_of, scene};
use crate::records::Records;

const SECOND: i64 = 1_000_000;
/// How likely it is in the first windows of 5 s.
const LIKELY: [f32; 4] = [0.2, 0.9, 0.5, 0.7];

fn at(second: i64) -> Option<prost_types::Timestamp> {
    Some(timestamp(NOW_US + second * SECOND))
}

fn second_of(time: Option<&prost_types::Timestamp>) -> i64 {
    (time.map_or(0, micros) - NOW_US) / SECOND
}

/// A worker that has frames of every window, and one that knows how likely it is in it.
async fn work(gateway: &Gateway) {
    let (bus, shutdown) = (gateway.bus.clone(), gateway.shutdown.clone());
    let frames = async |asked: FramesRequest| FramesResponse {
        frames: vec![Frame {
            time_us: asked.start_us,
            jpeg: "a picture".into(),
        }],
        ..FramesResponse::default()
    };
    let judge = async |asked: JudgeRequest| {
        let place = (asked.frames[0].time_us - NOW_US) / asked.window_us;
        assert_eq!(asked.questions, ["Detect a car"]);
        JudgeResponse {
            probabilities: vec![LIKELY[place as usize]],
            ..JudgeResponse::default()
        }
    };
    tokio::spawn(async move {
        tokio::join!(
            bus.answer(Ask::Frames, 1, &shutdown, frames),
            bus.answer(Ask::Judge("demo-vlm"), 1, &shutdown, judge)
        )
    });
}

/// 20 s recorded, 5 s of which nothing is stored, and a window of which a description is stored.
async fn watched() -> (Gateway, Client, v1::Index) {
    let records = Records::start().await;
    let gateway = Gateway::start_with(records.endpoint(), Default::default()).await;
    let mut client = gateway.client().await;
    let stream = client.recorded().await;
    let index = client.index(&stream.id).await;
    gateway.record(&stream.id, &[0, 1, 2, 3, 4]).await;
    let described = Observation {
        epoch_us: NOW_US,
        ..scene(&stream.id, &index.id, 5, "a car waits")
    };
    let record = Record {
        id: described.id.clone(),
        start_us: described.start_us,
        observation: prost::Message::encode_to_vec(&described).into(),
        ..Record::default()
    };
    let hit = search_records_response::Hit {
        record: Some(record.clone()),
        score: 0.8,
    };
    records.hold(vec![record], vec![hit]);
    (gateway, client, index)
}

fn backtest(index: &v1::Index) -> BacktestRequest {
    BacktestRequest {
        prompt: "Detect a car".to_owned(),
        index_id: index.id.clone(),
        start_time: at(0),
        end_time: at(30),
        ..BacktestRequest::default()
    }
}

/// Windows told of, firings and the summary.
type Told = (Vec<String>, Vec<String>, Summary);

async fn run(client: &mut Client, request: BacktestRequest) -> Result<Told, Status> {
    let mut responses = client.events.backtest(request).await?.into_inner();
    let (mut judged, mut firings, mut progress) = (Vec::new(), Vec::new(), None);
    while let Some(response) = responses.message().await? {
        match response.message.expect("set") {
            Message::Progress(now) => progress = Some((now.judged, now.windows)),
            Message::Judged(window) => judged.push(words_of_window(&window)),
            Message::Firing(firing) => firings.push(words_of_firing(&firing)),
            Message::Summary(summary) => {
                assert_eq!(progress, Some((5, 5)));
                assert!(responses.message().await?.is_none(), "it is the end");
                return Ok((judged, firings, summary));
            }
        }
    }
    panic!("there is no summary")
}

fn words_of_window(window: &v1::backtest_response::Judged) -> String {
    let start = second_of(window.start_time.as_ref());
    let played = !window.player_url.is_empty();
    assert_eq!(played, window.basis() == Basis::Frames, "{window:?}");
    let counts = if window.counts { "+" } else { "-" };
    format!("{start}{counts} {}", window.reason)
}

fn words_of_firing(firing: &v1::Firing) -> String {
    assert_eq!((firing.id.as_str(), firing.alert_id.as_str()), ("", ""));
    let (start, end) = (firing.start_time.as_ref(), firing.end_time.as_ref());
    let state = match firing.state() {
        firing::State::Open => "open",
        _ => "closed",
    };
    format!("{}-{} {state}", second_of(start), second_of(end))
}

#[tokio::test]
async fn a_backtest_says_when_it_would_have_fired_and_why_not() {
    let (gateway, mut client, index) = Box::pin(watched()).await;
    work(&gateway).await;
    let below = "below the threshold of 0.60";
    let policy = |required, of, cooldown| Policy {
        required,
        of,
        cooldown: Some(duration(cooldown * SECOND)),
        ..Policy::default()
    };
    let few = "1 of the last 2 windows count, 2 have to";
    let rest = format!("in cooldown until {}", timestamp(NOW_US + 110 * SECOND));
    for (policy, judged, firings) in [
        (
            None,
            vec![
                "5+ ".to_owned(),
                format!("10- {below}"),
                "15+ ".into(),
                "25+ ".into(),
            ],
            vec!["5-10 closed", "15-30 open"],
        ),
        (
            Some(policy(2, 2, 0)),
            vec![
                format!("5+ {few}"),
                format!("10- {below}"),
                format!("15+ {few}"),
                format!("25+ {few}"),
            ],
            vec![],
        ),
        (
            Some(policy(1, 1, 100)),
            vec![
                "5+ ".into(),
                format!("10- {below}"),
                format!("15+ {rest}"),
                format!("25+ {rest}"),
            ],
            vec!["5-10 closed"],
        ),
    ] {
        let request = BacktestRequest {
            policy,
            ..backtest(&index)
        };
        let told = run(&mut client, request).await.expect("done");
        assert_eq!(
            (told.0, told.1),
            (judged, firings.iter().map(|f| (*f).to_owned()).collect())
        );
        let summary = told.2;
        let counts = (summary.from_frames, summary.from_scenes, summary.missing);
        assert_eq!((counts, summary.firings), ((4, 1, 1), firings.len() as u64));
        assert!(summary.curve.is_empty() && summary.suggested_threshold == 0.0);
    }
}

#[tokio::test]
async fn with_labels_a_backtest_says_which_threshold_is_best() {
    let (gateway, mut client, index) = Box::pin(watched()).await;
    work(&gateway).await;
    let event = v1::CreateEventRequest {
        prompt: "Detect a car".to_owned(),
        label: "car".to_owned(),
        ..Default::default()
    };
    let made = client.events.create_event(event).await.expect("made");
    let label = |from, to| Label {
        start_time: at(from),
        end_time: at(to),
    };
    let request = BacktestRequest {
        prompt: String::new(),
        event_id: made.into_inner().event.expect("set").id,
        labels: vec![label(6, 7), label(16, 29)],
        ..backtest(&index)
    };
    let (_, _, summary) = run(&mut client, request).await.expect("done");
    assert_eq!(summary.suggested_threshold, 0.7);
    let curve: Vec<_> = summary
        .curve
        .iter()
        .map(|point| (point.threshold, point.precision, point.recall))
        .collect();
    assert_eq!(
        curve,
        [
            (0.2, 0.6, 1.0),
            (0.5, 0.75, 1.0),
            (0.7, 1.0, 1.0),
            (0.8, 1.0, 2.0 / 3.0),
            (0.9, 1.0, 1.0 / 3.0)
        ]
    );
}

#[tokio::test]
async fn a_backtest_that_cannot_be_is_refused() {
    let (_gateway, mut client, index) = Box::pin(watched()).await;
    let good = backtest(&index);
    let label = Label {
        start_time: at(2),
        end_time: at(1),
    };
    for (request, field) in [
        (
            BacktestRequest {
                prompt: String::new(),
                ..good.clone()
            },
            "prompt",
        ),
        (
            BacktestRequest {
                event_id: "evt-1".to_owned(),
                ..good.clone()
            },
            "prompt",
        ),
        (
            BacktestRequest {
                prompt: "x".repeat(1001),
                ..good.clone()
            },
            "prompt",
        ),
        (
            BacktestRequest {
                index_id: String::new(),
                ..good.clone()
            },
            "index_id",
        ),
        (
            BacktestRequest {
                start_time: None,
                ..good.clone()
            },
            "start_time",
        ),
        (
            BacktestRequest {
                end_time: None,
                ..good.clone()
            },
            "end_time",
        ),
        (
            BacktestRequest {
                end_time: at(0),
                ..good.clone()
            },
            "end_time",
        ),
        (
            BacktestRequest {
                end_time: at(86_401),
                ..good.clone()
            },
            "end_time",
        ),
        (
            BacktestRequest {
                threshold: Some(0.0),
                ..good.clone()
            },
            "threshold",
        ),
        (
            BacktestRequest {
                labels: vec![label],
                ..good.clone()
            },
            "labels",
        ),
        (
            BacktestRequest {
                labels: vec![Label::default(); 1001],
                ..good.clone()
            },
            "labels",
        ),
    ] {
        let refused = client.events.backtest(request).await.expect_err(field);
        let (reason, at_fault, message) = reason_of(&refused);
        assert_eq!(
            (reason.as_str(), at_fault.as_str()),
            ("INVALID_ARGUMENT", field),
            "{message}"
        );
    }
}

#[tokio::test]
async fn so_many_go_on_at_once_and_those_whose_caller_has_gone_are_given_up() {
    let (gateway, mut client, index) = Box::pin(watched()).await;
    let (bus, shutdown) = (gateway.bus.clone(), gateway.shutdown.clone());
    tokio::spawn(async move {
        let never = async |_: FramesRequest| std::future::pending::<FramesResponse>().await;
        bus.answer(Ask::Frames, 100, &shutdown, never).await
    });
    let mut open: Vec<Streaming<BacktestResponse>> = Vec::new();
    let refused = loop {
        match client.events.backtest(backtest(&index)).await {
            Ok(answer) => open.push(answer.into_inner()),
            Err(refused) => break refused,
        }
    };
    assert_eq!((open.len(), refused.code()), (4, Code::Unavailable));
    // It says that it lives while nothing is judged.
    let told = open[0].next().await.expect("a response").expect("no error");
    assert!(
        matches!(told.message, Some(Message::Progress(_))),
        "{told:?}"
    );
    open.pop();
    until("a place to be free", async || {
        Ok(client.events.backtest(backtest(&index)).await.ok())
    })
    .await
    .expect("it is");
}

#[tokio::test]
async fn latencies_are_of_what_was_delivered_first_of_the_tenants_own() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stream = client.camera().await;
    let index = client.index(&stream.id).await;
    let event = client.event().await;
    let alert = client.alert(&event.id, &index.id).await;
    let subject = Subject::Attempt {
        endpoint: ids::endpoint_id("default", &alert.callback_url),
    };
    let delivered = |ms: i64| Attempt {
        alert_id: alert.id.clone(),
        outcome: delivery::Outcome::Delivered.into(),
        sampled_to_verdict_us: 2000 * ms,
        decision_to_2xx_us: 1000 * ms,
        last_frame_to_2xx_us: 10_000 * ms,
        ..Attempt::default()
    };
    let failed = delivery::Outcome::Retrying.into();
    let enriched = v1::Phase::Enriched.into();
    let mut attempts: Vec<Attempt> = (1..=100).map(delivered).collect();
    attempts.extend([
        Attempt {
            outcome: failed,
            ..delivered(1000)
        },
        Attempt {
            redelivery: "again".to_owned(),
            ..delivered(1000)
        },
        Attempt {
            phase: enriched,
            ..delivered(1000)
        },
        Attempt {
            alert_id: "other".to_owned(),
            ..delivered(1000)
        },
    ]);
    for (number, attempt) in attempts.iter().enumerate() {
        let id = number.to_string();
        let published = gateway.bus.publish(&subject, &id, attempt);
        published.await.expect("taken");
    }
    let request = v1::GetLatencyRequest {
        alert_id: alert.id.clone(),
    };
    let answer = client
        .events
        .get_latency(request)
        .await
        .expect("measured")
        .into_inner();
    let stages: Vec<_> = answer
        .stages
        .iter()
        .map(|s| (s.name.as_str(), s.p50_ms, s.p95_ms, s.p99_ms))
        .collect();
    assert_eq!(
        stages,
        [
            ("capture_to_sampled", 0.0, 0.0, 0.0),
            ("sampled_to_verdict", 100.0, 190.0, 198.0),
            ("verdict_to_decision", 0.0, 0.0, 0.0),
            ("decision_to_2xx", 50.0, 95.0, 99.0),
            ("capture_to_2xx", 500.0, 950.0, 990.0),
        ]
    );
    assert_eq!(answer.deliveries, 100);
    let all = v1::GetLatencyRequest::default();
    let answer = client
        .events
        .get_latency(all.clone())
        .await
        .expect("measured");
    assert_eq!(answer.into_inner().deliveries, 101);
    let mut other = gateway.of_tenant("other").await;
    let answer = other.events.get_latency(all).await.expect("measured");
    assert_eq!(answer.into_inner().deliveries, 0);
}
