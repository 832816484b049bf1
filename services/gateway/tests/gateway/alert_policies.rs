//! What an alert is told: policy, severity, delivery, silence, sinks, template; and alerts on a stream's health.

use serde_json::Value;
use sightline_proto::time::{duration, timestamp};
use sightline_proto::v1;
use sightline_proto::v1::policy::Awake;
use tonic::{Code, Status};

use crate::changing::watched;
use crate::harness::{Gateway, NOW_US, reason_of};

fn policy() -> v1::Policy {
    v1::Policy {
        required: 2,
        of: 3,
        cooldown: Some(duration(300_000_000)),
        close_after: 4,
        schedule: vec![Awake {
            days: vec![1, 7],
            from_minute: 1320,
            to_minute: 360,
        }],
        time_zone: "Europe/Berlin".to_owned(),
    }
}

#[tokio::test]
async fn an_alert_keeps_what_it_is_told() {
    let gateway = Gateway::start().await;
    let mut client = gateway.operator().await;
    let watched = watched(&mut client, "Front door").await;
    let usual = &watched.alert;
    assert_eq!(usual.policy, None);
    assert_eq!(usual.severity(), v1::Severity::Warning);
    assert_eq!(usual.delivery(), v1::DeliveryMode::Complete);
    let request = v1::CreateAlertRequest {
        event_id: watched.event.id.clone(),
        index_id: watched.index.id.clone(),
        rtstream_id: watched.stream.id.clone(),
        policy: Some(policy()),
        severity: v1::Severity::Critical.into(),
        delivery: v1::DeliveryMode::All.into(),
        mute_time: Some(timestamp(NOW_US + 5)),
        sinks: vec!["duty".to_owned()],
        template: "{{ label }}".to_owned(),
        ..Default::default()
    };
    let made = client.events.create_alert(request).await;
    let made = made.expect("made").into_inner().alert.expect("set");
    assert_eq!(made.policy, Some(policy()));
    assert_eq!(made.severity(), v1::Severity::Critical);
    assert_eq!(made.delivery(), v1::DeliveryMode::All);
    assert_eq!(made.mute_time, Some(timestamp(NOW_US + 5)));
    assert_eq!(
        (&*made.sinks, &*made.template),
        (&["duty".to_owned()][..], "{{ label }}")
    );

    // What is not given stays.
    let request = v1::UpdateAlertRequest {
        alert_id: made.id.clone(),
        ..Default::default()
    };
    let answer = client.events.update_alert(request.clone()).await;
    let same = answer.expect("updated").into_inner().alert;
    assert_eq!(same.as_ref(), Some(&made));
    let request = v1::UpdateAlertRequest {
        policy: Some(v1::Policy::default()),
        severity: Some(v1::Severity::Info.into()),
        delivery: Some(v1::DeliveryMode::First.into()),
        mute_time: Some(timestamp(0)),
        set_sinks: true,
        template: Some(String::new()),
        ..request
    };
    let answer = client.events.update_alert(request).await;
    let changed = answer.expect("updated").into_inner().alert;
    let mut expected = v1::Alert {
        policy: Some(v1::Policy::default()),
        mute_time: Some(timestamp(0)),
        sinks: Vec::new(),
        template: String::new(),
        ..made
    };
    expected.set_severity(v1::Severity::Info);
    expected.set_delivery(v1::DeliveryMode::First);
    assert_eq!(changed, Some(expected));
}

type Spoil = fn(&mut v1::CreateAlertRequest);

/// Each is refused in a new alert and in a changed one.
const REFUSED: &[(&str, Spoil)] = &[
    ("threshold", |r| {
        r.threshold = Some(0.0);
    }),
    ("policy.of", |r| {
        told(r).of = 21;
    }),
    ("policy.required", |r| {
        told(r).required = 4;
    }),
    ("policy.close_after", |r| {
        told(r).close_after = 21;
    }),
    ("policy.cooldown", |r| {
        told(r).cooldown = Some(duration(86_400_000_001));
    }),
    ("policy.cooldown", |r| {
        told(r).cooldown = Some(duration(-1));
    }),
    ("policy.schedule", |r| {
        told(r).schedule = vec![Awake::default(); 51];
    }),
    ("policy.schedule.days", |r| {
        told(r).schedule[0].days = vec![0];
    }),
    ("policy.schedule.days", |r| {
        told(r).schedule[0].days = vec![8];
    }),
    ("policy.schedule.from_minute", |r| {
        told(r).schedule[0].from_minute = 1440;
    }),
    ("policy.schedule.to_minute", |r| {
        told(r).schedule[0].to_minute = 1441;
    }),
    ("policy.time_zone", |r| {
        told(r).time_zone = "Mars/Olympus".to_owned();
    }),
    ("severity", |r| {
        r.severity = 99;
    }),
    ("delivery", |r| {
        r.delivery = -1;
    }),
    ("mute_time", |r| {
        r.mute_time = Some(timestamp(-1));
    }),
    ("sinks", |r| {
        r.sinks = vec!["nobody".to_owned()];
    }),
    ("sinks", |r| {
        r.sinks = vec!["duty".to_owned(); 2];
    }),
    ("sinks", |r| {
        r.sinks = (0..11).map(|n| n.to_string()).collect();
    }),
    ("template", |r| {
        r.template = "{{ label".to_owned();
    }),
    ("template", |r| {
        r.template = "{% for x in 'a' %}{% endfor %}".to_owned();
    }),
    ("template", |r| {
        r.template = "{{ nothing_of_this_name }}".to_owned();
    }),
];

fn told(request: &mut v1::CreateAlertRequest) -> &mut v1::Policy {
    request.policy.get_or_insert_with(policy)
}

#[tokio::test]
async fn what_an_alert_cannot_be_told_is_named() {
    let gateway = Gateway::start().await;
    let mut client = gateway.operator().await;
    let watched = watched(&mut client, "Front door").await;
    let check = |refused: Status, field: &str| {
        let (reason, found, message) = reason_of(&refused);
        assert_eq!(
            (reason.as_str(), found.as_str()),
            ("INVALID_ARGUMENT", field),
            "{message}"
        );
        message
    };
    for (field, spoil) in REFUSED {
        let mut request = v1::CreateAlertRequest {
            event_id: watched.event.id.clone(),
            index_id: watched.index.id.clone(),
            ..Default::default()
        };
        spoil(&mut request);
        let update = v1::UpdateAlertRequest {
            alert_id: watched.alert.id.clone(),
            threshold: request.threshold,
            policy: request.policy.clone(),
            severity: Some(request.severity),
            delivery: Some(request.delivery),
            mute_time: request.mute_time,
            sinks: request.sinks.clone(),
            set_sinks: true,
            template: Some(request.template.clone()),
            ..Default::default()
        };
        let refused = client.events.create_alert(request).await;
        let message = check(refused.expect_err(field), field);
        let refused = client.events.update_alert(update).await;
        assert_eq!(check(refused.expect_err(field), field), message);
    }
    // What is meant to replace the sinks says so.
    let update = v1::UpdateAlertRequest {
        alert_id: watched.alert.id.clone(),
        sinks: vec!["duty".to_owned()],
        ..Default::default()
    };
    let refused = client.events.update_alert(update).await;
    check(refused.expect_err("set_sinks is not set"), "sinks");
    let alert_id = watched.alert.id.clone();
    let answer = client.events.get_alert(v1::GetAlertRequest { alert_id });
    let now = answer.await.expect("found").into_inner().alert;
    assert_eq!(now, Some(watched.alert));
}

#[tokio::test]
async fn events_of_health_are_built_in_and_watched_on_a_stream() {
    let gateway = Gateway::start().await;
    let mut client = gateway.of_tenant("northwind").await;
    let watched = watched(&mut client, "Front door").await;
    let ids = [
        "behind",
        "black",
        "frozen",
        "offline",
        "recovered",
        "silent",
    ];
    let ids = ids.map(|name| format!("evt-{name}"));
    // Page by page, behind those that somebody made; VideoDB's clients do not see them.
    let mut seen = Vec::new();
    let mut request = v1::ListEventsRequest {
        page_size: 2,
        ..Default::default()
    };
    loop {
        let page = client.events.list_events(request.clone()).await;
        let page = page.expect("lists").into_inner();
        seen.extend(page.events.into_iter().map(|event| event.id));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert_eq!(seen[0], watched.event.id);
    assert_eq!(seen[1..], ids);
    let listed = gateway.ask("GET", "/rtstream/event", Value::Null).await;
    assert_eq!(listed["events"], serde_json::json!([]));

    for event_id in ids {
        let asked = v1::GetEventRequest {
            event_id: event_id.clone(),
        };
        let event = client.events.get_event(asked).await.expect("found");
        let event = event.into_inner().event.expect("set");
        assert!(
            !event.label.is_empty() && !event.prompt.is_empty(),
            "{event:?}"
        );
        let update = v1::UpdateEventRequest {
            event_id: event_id.clone(),
            label: Some("mine".to_owned()),
            ..Default::default()
        };
        let refused = client.events.update_event(update).await;
        assert_eq!(
            refused.expect_err("built in").code(),
            Code::FailedPrecondition
        );
        let delete = v1::DeleteEventRequest {
            event_id: event_id.clone(),
        };
        let refused = client.events.delete_event(delete).await;
        assert_eq!(
            refused.expect_err("built in").code(),
            Code::FailedPrecondition
        );
        let request = v1::CreateAlertRequest {
            event_id,
            rtstream_id: watched.stream.id.clone(),
            ..Default::default()
        };
        let made = client.events.create_alert(request).await.expect("made");
        let alert = made.into_inner().alert.expect("set");
        assert_eq!(
            (&*alert.index_id, &alert.rtstream_id),
            ("", &watched.stream.id)
        );
    }
    let mut others = gateway.operator().await;
    let foreign = crate::changing::watched(&mut others, "Back door").await;
    for (event, index, stream, code, field) in [
        ("evt-frozen", "", "", Code::InvalidArgument, "rtstream_id"),
        (
            "evt-frozen",
            &*watched.index.id,
            &*watched.stream.id,
            Code::InvalidArgument,
            "index_id",
        ),
        (
            "evt-frozen",
            "",
            &*foreign.stream.id,
            Code::NotFound,
            "rtstream_id",
        ),
        (
            &*watched.event.id,
            "",
            &*watched.stream.id,
            Code::InvalidArgument,
            "index_id",
        ),
        (
            &*watched.event.id,
            &*watched.index.id,
            "rts-1",
            Code::InvalidArgument,
            "rtstream_id",
        ),
    ] {
        let request = v1::CreateAlertRequest {
            event_id: event.to_owned(),
            index_id: index.to_owned(),
            rtstream_id: stream.to_owned(),
            ..Default::default()
        };
        let refused = client
            .events
            .create_alert(request)
            .await
            .expect_err("refused");
        assert_eq!(
            (refused.code(), reason_of(&refused).1.as_str()),
            (code, field)
        );
    }
    // They go with their stream.
    let request = v1::ListAlertsRequest {
        rtstream_id: watched.stream.id.clone(),
        ..Default::default()
    };
    let listed = client.events.list_alerts(request).await.expect("lists");
    assert_eq!(listed.into_inner().alerts.len(), 7);
}
