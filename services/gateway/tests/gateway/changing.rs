//! Changing what was made: streams, transcription, indexes, events, alerts.

use sightline_proto::client::Client;
use sightline_proto::internal::{RtStreamRecord, RunRecord};
use sightline_proto::time::timestamp;
use sightline_proto::v1;
use sightline_proto::v1::audio_batching::Batch;
use sightline_proto::v1::rt_stream::State;
use sightline_proto::v1::stop_transcription_request::Mode;
use sightline_proto::v1::transcription;
use tonic::Code;

use crate::harness::{Gateway, NOW_US, reason_of};

/// A camera that does not run, with an index, an event and an alert without a webhook.
pub struct Watched {
    pub stream: v1::RtStream,
    pub index: v1::Index,
    pub event: v1::Event,
    pub alert: v1::Alert,
}

pub async fn watched(client: &mut Client, name: &str) -> Watched {
    let request = v1::ConnectRtStreamRequest {
        url: "rtsp://camera.example/1".to_owned(),
        name: name.to_owned(),
        start_stopped: true,
        ..Default::default()
    };
    let made = client.streams.connect_rt_stream(request).await;
    let stream = made.expect("made").into_inner().rtstream.expect("set");
    let request = v1::CreateVisualIndexRequest {
        rtstream_id: stream.id.clone(),
        prompt: "What is going on?".to_owned(),
        ..Default::default()
    };
    let made = client.indexes.create_visual_index(request).await;
    let index = made.expect("made").into_inner().index.expect("set");
    let request = v1::CreateEventRequest {
        prompt: "Detect a car".to_owned(),
        label: "car".to_owned(),
        ..Default::default()
    };
    let made = client.events.create_event(request).await;
    let event = made.expect("made").into_inner().event.expect("set");
    let request = v1::CreateAlertRequest {
        event_id: event.id.clone(),
        index_id: index.id.clone(),
        ..Default::default()
    };
    let made = client.events.create_alert(request).await;
    let alert = made.expect("made").into_inner().alert.expect("set");
    Watched {
        stream,
        index,
        event,
        alert,
    }
}

#[tokio::test]
async fn a_stream_is_renamed_and_kept_otherwise() {
    let gateway = Gateway::start().await;
    let mut client = gateway.operator().await;
    let stream = watched(&mut client, "Front door").await.stream;
    let mut update = async |name: Option<&str>, retention: Option<v1::Retention>| {
        let request = v1::UpdateRtStreamRequest {
            rtstream_id: stream.id.clone(),
            name: name.map(str::to_owned),
            retention,
        };
        let answer = client.streams.update_rt_stream(request).await?;
        Ok::<_, tonic::Status>(answer.into_inner().rtstream.expect("set"))
    };
    let renamed = update(Some("Back door"), None).await.expect("updated");
    assert_eq!(renamed.name, "Back door");
    let kept = v1::Retention {
        max_age_seconds: 60,
        max_bytes: 1000,
    };
    let changed = update(None, Some(kept)).await.expect("updated");
    assert_eq!(changed.name, "Back door");
    assert_eq!(changed.retention, Some(kept));
    for (name, retention, field) in [
        (Some(""), None, "name"),
        (
            None,
            Some(v1::Retention {
                max_age_seconds: -1,
                max_bytes: 0,
            }),
            "retention.max_age_seconds",
        ),
    ] {
        let refused = update(name, retention).await.expect_err("bad");
        assert_eq!(reason_of(&refused).1, field);
    }
}

#[tokio::test]
async fn every_start_of_transcription_is_a_session_and_an_immediate_stop_drops_it() {
    let gateway = Gateway::start().await;
    let mut client = gateway.operator().await;
    let id = watched(&mut client, "Front door").await.stream.id;
    let sessions = || {
        let record = gateway.catalog.get::<RtStreamRecord>(&id).expect("stored");
        let record = record.value;
        (record.transcription_session, record.dropped_session)
    };
    let start = v1::StartTranscriptionRequest {
        rtstream_id: id.clone(),
        ..Default::default()
    };
    let stop = |mode: Mode| v1::StopTranscriptionRequest {
        rtstream_id: id.clone(),
        mode: mode.into(),
    };
    let shown = |stream: Option<v1::RtStream>| {
        let stream = stream.expect("a stream");
        let transcription = stream.transcription.expect("set");
        assert_eq!(transcription.engine, "whisper");
        let running = transcription.state() == transcription::State::Running;
        assert_eq!(running, stream.transcribe);
        (running, transcription.change_time)
    };
    let (now, later) = (Some(timestamp(NOW_US)), Some(timestamp(NOW_US + 5)));
    for round in 0..2 {
        let answer = client.streams.start_transcription(start.clone()).await;
        let stream = answer.expect("starts").into_inner().rtstream;
        assert_eq!(shown(stream), (true, now), "again {round} changes nothing");
        assert_eq!(sessions(), (1, 0));
    }
    gateway.clock.set(NOW_US + 5);
    for (mode, expected) in [
        (Mode::Unspecified, (1, 0)),
        (Mode::Graceful, (1, 0)),
        (Mode::Immediate, (1, 1)),
    ] {
        let answer = client.streams.stop_transcription(stop(mode)).await;
        let stream = answer.expect("stops").into_inner().rtstream;
        assert_eq!(shown(stream), (false, later), "{mode:?}");
        assert_eq!(sessions(), expected, "{mode:?}");
    }
    let answer = client.streams.start_transcription(start.clone()).await;
    answer.expect("starts");
    assert_eq!(sessions(), (2, 1));

    let other = v1::StartTranscriptionRequest {
        engine: "another".to_owned(),
        ..start.clone()
    };
    let refused = client.streams.start_transcription(other).await;
    let (reason, field, message) = reason_of(&refused.expect_err("one engine"));
    assert_eq!(
        (reason.as_str(), field.as_str()),
        ("INVALID_ARGUMENT", "engine")
    );
    assert!(message.contains("whisper"), "{message}");
    // It knows English alone.
    for (language, translate, field) in [("de", false, "language"), ("en", true, "translate")] {
        let foreign = v1::StartTranscriptionRequest {
            language: language.to_owned(),
            translate,
            ..start.clone()
        };
        let refused = client.streams.start_transcription(foreign).await;
        let (reason, found, message) = reason_of(&refused.expect_err("English"));
        assert_eq!(
            (reason.as_str(), found.as_str()),
            ("INVALID_ARGUMENT", field)
        );
        assert!(message.contains("English alone"), "{message}");
    }
    // What is asked for while it runs takes effect without another session.
    let english = v1::StartTranscriptionRequest {
        language: "en".to_owned(),
        ..start.clone()
    };
    let answer = client.streams.start_transcription(english).await;
    let stream = answer
        .expect("starts")
        .into_inner()
        .rtstream
        .expect("a stream");
    assert_eq!(stream.transcription.expect("set").language, "en");
    assert_eq!(sessions(), (2, 1));
    // An audio index, which needs a transcript, leaves the language as it is.
    let index = v1::CreateAudioIndexRequest {
        rtstream_id: id.clone(),
        ..Default::default()
    };
    client
        .indexes
        .create_audio_index(index)
        .await
        .expect("made");
    let record = gateway.catalog.fetch::<RtStreamRecord>(&id).await;
    let record = record.expect("answers").expect("a record");
    assert_eq!((record.value.language.as_str(), sessions()), ("en", (2, 1)));
}

#[tokio::test]
async fn streams_are_listed_by_state_and_name() {
    let gateway = Gateway::start().await;
    let mut client = gateway.operator().await;
    let door = watched(&mut client, "Front Door").await.stream.id;
    let yard = watched(&mut client, "Yard").await.stream.id;
    let run = RunRecord {
        start_count: 1,
        state: State::Active.into(),
        ..Default::default()
    };
    gateway.catalog.create(&yard, &run).await.expect("runs");
    for (states, name_contains, expected) in [
        (&[][..], "", &[&yard, &door][..]),
        (&[State::Stopped], "", &[&door]),
        (&[State::Active], "", &[&yard]),
        (&[State::Active, State::Stopped], "", &[&yard, &door]),
        (&[State::Failed], "", &[]),
        (&[], "dOOr", &[&door]),
        (&[State::Active], "door", &[]),
    ] {
        let request = v1::ListRtStreamsRequest {
            states: states.iter().map(|&state| state.into()).collect(),
            name_contains: name_contains.to_owned(),
            ..Default::default()
        };
        let listed = client.streams.list_rt_streams(request).await;
        let listed = listed.expect("lists").into_inner().rtstreams;
        let ids: Vec<_> = listed.iter().map(|stream| &stream.id).collect();
        assert_eq!(ids, expected, "{states:?} {name_contains:?}");
    }
    for (states, name, field) in [
        (vec![0], String::new(), "states"),
        (vec![99], String::new(), "states"),
        (vec![], "x".repeat(201), "name_contains"),
    ] {
        let request = v1::ListRtStreamsRequest {
            states,
            name_contains: name,
            ..Default::default()
        };
        let refused = client.streams.list_rt_streams(request).await;
        assert_eq!(reason_of(&refused.expect_err("bad")).1, field);
    }
}

#[tokio::test]
async fn an_audio_index_has_its_batches_and_starts_transcription() {
    let gateway = Gateway::start().await;
    let mut client = gateway.operator().await;
    let watched = watched(&mut client, "Front door").await;
    assert_eq!(watched.index.kind(), v1::index::Kind::Visual);
    let id = &watched.stream.id;
    let request = |batch: Option<Batch>| v1::CreateAudioIndexRequest {
        rtstream_id: id.clone(),
        batching: batch.map(|batch| v1::AudioBatching { batch: Some(batch) }),
        ..Default::default()
    };
    for (asked, expected) in [
        (None, Batch::Words(10)),
        (Some(Batch::Sentences(2)), Batch::Sentences(2)),
    ] {
        let made = client.indexes.create_audio_index(request(asked)).await;
        let index = made.expect("made").into_inner().index.expect("set");
        assert_eq!(index.kind(), v1::index::Kind::Audio);
        assert_eq!(index.batching.and_then(|b| b.batch), Some(expected));
        assert_eq!((index.sampling, index.prompt_revision), (None, 1));
        let record = gateway.catalog.get::<RtStreamRecord>(id).expect("stored");
        assert_eq!(record.value.transcription_session, 1, "started once");
        assert!(record.value.rtstream.as_ref().is_some_and(|s| s.transcribe));
    }
    let refused = client
        .indexes
        .create_audio_index(request(Some(Batch::Words(0))));
    let (reason, field, _) = reason_of(&refused.await.expect_err("no words"));
    assert_eq!(
        (reason.as_str(), field.as_str()),
        ("INVALID_ARGUMENT", "batching.words")
    );
}

#[tokio::test]
async fn new_prompts_have_new_revisions_and_the_same_prompt_has_not() {
    let gateway = Gateway::start().await;
    let mut client = gateway.operator().await;
    let watched = watched(&mut client, "Front door").await;
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    for (name, prompt, expected) in [
        ("Door", "", ("Door", "What is going on?", 1)),
        ("", "What is going on?", ("Door", "What is going on?", 1)),
        ("", "Who is there?", ("Door", "Who is there?", 2)),
    ] {
        let request = v1::UpdateIndexRequest {
            index_id: watched.index.id.clone(),
            name: text(name),
            prompt: text(prompt),
            ..Default::default()
        };
        let answer = client.indexes.update_index(request).await;
        let index = answer.expect("updated").into_inner().index.expect("set");
        let found = (
            index.name.as_str(),
            index.prompt.as_str(),
            index.prompt_revision,
        );
        assert_eq!(found, expected);
    }
    for (label, prompt, expected) in [
        ("vehicle", "", ("vehicle", "Detect a car", 1)),
        ("", "Detect a car", ("vehicle", "Detect a car", 1)),
        ("", "Detect a bus", ("vehicle", "Detect a bus", 2)),
    ] {
        let request = v1::UpdateEventRequest {
            event_id: watched.event.id.clone(),
            label: text(label),
            prompt: text(prompt),
        };
        client.events.update_event(request).await.expect("updated");
        let event_id = watched.event.id.clone();
        let answer = client.events.get_event(v1::GetEventRequest { event_id });
        let event = answer
            .await
            .expect("found")
            .into_inner()
            .event
            .expect("set");
        let found = (
            event.label.as_str(),
            event.prompt.as_str(),
            event.prompt_revision,
        );
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn an_alert_is_changed_listed_and_deleted_and_then_its_event_can_be() {
    let gateway = Gateway::start().await;
    let mut client = gateway.operator().await;
    let first = watched(&mut client, "Front door").await;
    let second = watched(&mut client, "Back door").await;
    assert_eq!(first.alert.callback_url, "", "Watch alone");
    let update = |url: Option<&str>, threshold: Option<f32>| v1::UpdateAlertRequest {
        alert_id: first.alert.id.clone(),
        callback_url: url.map(str::to_owned),
        threshold,
        ..v1::UpdateAlertRequest::default()
    };
    for (request, expected) in [
        (update(None, Some(0.9)), ("", 0.9)),
        (
            update(Some("https://hooks.example/a"), None),
            ("https://hooks.example/a", 0.9),
        ),
        (update(Some(""), None), ("", 0.9)),
    ] {
        client.events.update_alert(request).await.expect("updated");
        let alert_id = first.alert.id.clone();
        let answer = client.events.get_alert(v1::GetAlertRequest { alert_id });
        let alert = answer
            .await
            .expect("found")
            .into_inner()
            .alert
            .expect("set");
        assert_eq!((alert.callback_url.as_str(), alert.threshold), expected);
    }
    for (request, expected) in [
        (update(None, Some(1.5)), ("INVALID_ARGUMENT", "threshold")),
        (
            update(Some("http://127.0.0.1/"), None),
            ("EGRESS_REFUSED", "callback_url"),
        ),
    ] {
        let refused = client.events.update_alert(request).await;
        let (reason, field, _) = reason_of(&refused.expect_err("bad"));
        assert_eq!((reason.as_str(), field.as_str()), expected);
    }
    let of = |rtstream: &str, event: &str| v1::ListAlertsRequest {
        rtstream_id: rtstream.to_owned(),
        event_id: event.to_owned(),
        ..Default::default()
    };
    for (request, expected) in [
        (of("", ""), 2),
        (of(&first.stream.id, ""), 1),
        (of("", &second.event.id), 1),
        (of(&first.stream.id, &second.event.id), 0),
    ] {
        let listed = client.events.list_alerts(request).await.expect("lists");
        assert_eq!(listed.into_inner().alerts.len(), expected);
    }

    let event = v1::DeleteEventRequest {
        event_id: first.event.id.clone(),
    };
    let refused = client.events.delete_event(event.clone()).await;
    let (reason, field, message) = reason_of(&refused.expect_err("it is used"));
    assert_eq!(
        (reason.as_str(), field.as_str()),
        ("FAILED_PRECONDITION", "event_id")
    );
    assert!(message.contains("alerts"), "{message}");
    let alert = v1::DeleteAlertRequest {
        alert_id: first.alert.id.clone(),
    };
    client
        .events
        .delete_alert(alert.clone())
        .await
        .expect("deleted");
    let again = client.events.delete_alert(alert).await;
    assert_eq!(again.expect_err("it is gone").code(), Code::NotFound);
    client.events.delete_event(event).await.expect("deleted");
}
