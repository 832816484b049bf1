//! The API of recordings: links, what is recorded, and links in what was seen, heard and reported.

use bytes::Bytes;
use futures::StreamExt;
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{FiringBody, Observation, RtStreamRecord, RunRecord};
use sightline_proto::time::timestamp;
use sightline_proto::v1;
use sightline_proto::v1::rt_stream::{RecordingState, State};
use sightline_proto::v1::watch_response::Message;
use sightline_recordings::Segment;

use crate::harness::{Gateway, LIFETIME_US, LONG, NOW_US, reason_of, scene, transcript};

/// Four seconds.
pub const SEGMENT_US: i64 = 4_000_000;

/// The start of a segment of four seconds.
pub fn at(number: i64) -> i64 {
    NOW_US + number * SEGMENT_US
}

impl Gateway {
    /// Stores segments of four seconds that begin this many segments after `NOW_US`.
    pub async fn record(&self, rtstream: &str, numbers: &[i64]) {
        for number in numbers {
            let segment = Segment {
                start_us: at(*number),
                duration_us: SEGMENT_US,
                bytes: 0,
            };
            let ts = Bytes::from(vec![b'0' + (number % 10) as u8; 188]);
            let stored = self.store.put_segment(rtstream, segment, ts).await;
            stored.expect("stored");
        }
    }

    /// Writes what a worker would of the stream's run.
    pub async fn run(&self, rtstream: &str, state: State, recorded_us: i64) {
        let record = RunRecord {
            start_count: 1,
            state: state.into(),
            recorded_us,
            recording_state: RecordingState::Active.into(),
            ..Default::default()
        };
        match self.catalog.get::<RunRecord>(rtstream) {
            None => self.catalog.create(rtstream, &record).await,
            Some(known) => self.catalog.update(rtstream, &record, known.revision).await,
        }
        .expect("written");
    }
}

pub fn wanted(rtstream: &str, start_us: i64, end_us: Option<i64>) -> v1::GenerateStreamRequest {
    v1::GenerateStreamRequest {
        rtstream_id: rtstream.to_owned(),
        start_time: Some(timestamp(start_us)),
        end_time: end_us.map(timestamp),
        player_config: None,
    }
}

#[tokio::test]
async fn connect_keeps_what_to_record_and_for_how_long() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let connect = |store, age, bytes| v1::ConnectRtStreamRequest {
        url: "rtsp://camera.example/1".to_owned(),
        store,
        retention: Some(v1::Retention {
            max_age_seconds: age,
            max_bytes: bytes,
        }),
        ..Default::default()
    };
    for (age, bytes, field) in [
        (-1, 0, "retention.max_age_seconds"),
        (400_000_000, 0, "retention.max_age_seconds"),
        (0, -1, "retention.max_bytes"),
    ] {
        let answer = client.streams.connect_rt_stream(connect(true, age, bytes));
        let refused = answer.await.expect_err("out of range");
        assert_eq!(reason_of(&refused).1, field);
    }
    let week = 7 * 24 * 3600;
    for (store, age, expected_age, expected) in [
        (true, 60, 60, RecordingState::Waiting),
        (true, 0, week, RecordingState::Waiting),
        (false, 60, 60, RecordingState::Unspecified),
    ] {
        let answer = client.streams.connect_rt_stream(connect(store, age, 1000));
        let stream = answer.await.expect("connected").into_inner().rtstream;
        let stream = stream.expect("a stream");
        let kept = stream.retention.expect("told");
        assert_eq!((kept.max_age_seconds, kept.max_bytes), (expected_age, 1000));
        assert_eq!((stream.store, stream.recording_state()), (store, expected));
        let record = gateway.catalog.get::<RtStreamRecord>(&stream.id);
        let given = record.and_then(|r| r.value.rtstream.as_ref()?.retention);
        assert_eq!(given.expect("kept").max_age_seconds, age, "as given");
    }
}

#[tokio::test]
async fn links_are_made_for_good_stretches_alone() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stream = client.recorded().await.id;
    let unrecorded = client.camera().await.id;
    let day = 24 * 3_600_000_000;
    let good = wanted(&stream, NOW_US, Some(NOW_US + SEGMENT_US));
    let looking = |look: v1::PlayerConfig| v1::GenerateStreamRequest {
        player_config: Some(look),
        ..good.clone()
    };
    let titled = |length: usize| v1::PlayerConfig {
        title: "x".repeat(length),
        ..Default::default()
    };
    let described = |length: usize| v1::PlayerConfig {
        description: "x".repeat(length),
        ..Default::default()
    };
    let slugged = |length: usize| v1::PlayerConfig {
        slug: "x".repeat(length),
        ..Default::default()
    };
    let endless = v1::GenerateStreamRequest {
        start_time: None,
        ..good.clone()
    };
    for (request, expected) in [
        (good.clone(), ""),
        (wanted(&stream, NOW_US, None), ""),
        (wanted(&stream, NOW_US, Some(NOW_US + 31 * day)), ""),
        (
            wanted(&stream, NOW_US, Some(NOW_US + 31 * day + 1)),
            "end_time",
        ),
        (wanted(&stream, NOW_US, Some(NOW_US)), "end_time"),
        (wanted(&stream, -1, None), "start_time"),
        (wanted(&stream, i64::MAX / 2, None), "start_time"),
        (endless, "start_time"),
        (wanted(&unrecorded, NOW_US, None), "rtstream_id"),
        (wanted("rts-../x", NOW_US, None), "rtstream_id"),
        (looking(titled(200)), ""),
        (looking(titled(201)), "player_config.title"),
        (looking(described(2000)), ""),
        (looking(described(2001)), "player_config.description"),
        (looking(slugged(64)), ""),
        (looking(slugged(65)), "player_config.slug"),
    ] {
        let answer = client.recordings.generate_stream(request.clone()).await;
        let field = answer.as_ref().err().map(|status| reason_of(status).1);
        assert_eq!(field.unwrap_or_default(), expected, "{request:?}");
        if let Ok(links) = answer {
            let links = links.into_inner();
            assert_eq!(links.expire_time, Some(timestamp(NOW_US + LIFETIME_US)));
            assert_eq!(gateway.get(&links.player_url).await.status, 200);
        }
    }
    let request = wanted(&unrecorded, NOW_US, None);
    let refused = client.recordings.generate_stream(request).await;
    let (reason, _, message) = reason_of(&refused.expect_err("not recorded"));
    assert_eq!(reason, "FAILED_PRECONDITION");
    assert!(message.contains("`store`"), "{message}");
}

#[tokio::test]
async fn slugs_are_honoured_and_never_collide_or_escape() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stream = client.recorded().await.id;
    let mut pages = Vec::new();
    for (slug, beginning) in [
        ("front-door", "front-door-"),
        ("front-door", "front-door-"),
        ("../../x", "x-"),
        ("a/b?c=d&v=e#f", "a-b-c-d-v-e-f-"),
        ("<script>", "script-"),
    ] {
        let mut request = wanted(&stream, NOW_US, None);
        request.player_config = Some(v1::PlayerConfig {
            slug: slug.to_owned(),
            ..Default::default()
        });
        let answer = client.recordings.generate_stream(request).await;
        let page = answer.expect("links").into_inner().player_url;
        let found = page.rsplit_once("/watch?v=").map_or("", |(_, slug)| slug);
        assert!(found.starts_with(beginning), "{slug}: {page}");
        assert_eq!(gateway.get(&page).await.status, 200, "{page}");
        pages.push(page);
    }
    pages.dedup();
    assert_eq!(pages.len(), 5, "each has a page of its own");
}

#[tokio::test]
async fn what_is_recorded_is_told_in_stretches() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    let stream = client.recorded().await.id;
    let ask = |start: Option<i64>, end: Option<i64>| v1::GetRecordingRequest {
        rtstream_id: stream.clone(),
        start_time: start.map(timestamp),
        end_time: end.map(timestamp),
    };
    let nothing = v1::GetRecordingRequest {
        rtstream_id: client.recorded().await.id,
        ..Default::default()
    };
    let answer = client.recordings.get_recording(nothing).await;
    assert_eq!(
        answer.expect("told").into_inner(),
        v1::GetRecordingResponse::default()
    );
    gateway.record(&stream, &[0, 1, 2, 5, 6]).await;
    for (start, end, expected, segments) in [
        (None, None, vec![(0, 3), (5, 7)], 5),
        (Some(1), None, vec![(0, 3), (5, 7)], 5),
        (Some(at(1)), Some(at(2)), vec![(1, 2)], 1),
        (Some(at(2)), Some(at(6)), vec![(2, 3), (5, 6)], 2),
        (Some(at(3)), Some(at(5)), vec![], 0),
        (Some(at(9)), None, vec![], 0),
    ] {
        let request = ask(start, end);
        let answer = client.recordings.get_recording(request.clone()).await;
        let told = answer.expect("told").into_inner();
        let stretches: Vec<_> = told.stretches.into_iter().collect();
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(from, to)| v1::Stretch {
                start_time: Some(timestamp(at(from))),
                end_time: Some(timestamp(at(to))),
            })
            .collect();
        assert_eq!(stretches, expected, "{request:?}");
        assert_eq!((told.segments, told.bytes), (segments, segments * 188));
    }
    let backwards = ask(Some(at(2)), Some(at(1)));
    let refused = client.recordings.get_recording(backwards).await;
    assert_eq!(reason_of(&refused.expect_err("backwards")).1, "end_time");
}

/// A firing of an alert of the stream.
fn fired(rtstream: &str, alert: &str) -> Observation {
    Observation {
        id: format!("{rtstream}-firing"),
        rtstream_id: rtstream.to_owned(),
        start_us: NOW_US,
        end_us: NOW_US + 5_000_000,
        body: Some(Body::Firing(FiringBody {
            firing_id: "f1".to_owned(),
            alert_id: alert.to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    }
}

#[tokio::test]
async fn what_happens_has_links_when_its_stream_is_recorded() {
    let gateway = Gateway::start().await;
    let mut client = gateway.client().await;
    for (stream, recorded) in [
        (client.recorded().await.id, true),
        (client.camera().await.id, false),
    ] {
        let index = client.index(&stream).await;
        let event = client.event().await;
        let alert = client.alert(&event.id, &index.id).await.id;
        let request = v1::WatchRequest {
            rtstream_ids: vec![stream.clone()],
            ..Default::default()
        };
        let mut watch = client
            .watch
            .watch(request)
            .await
            .expect("watches")
            .into_inner();
        gateway
            .observe(&scene(&stream, &index.id, 0, "a street"))
            .await;
        gateway.observe(&transcript(&stream, 0)).await;
        gateway.observe(&fired(&stream, &alert)).await;
        let mut links = Vec::new();
        while links.len() < 3 {
            let next = tokio::time::timeout(LONG, watch.next())
                .await
                .expect("in time");
            match next.expect("a message").expect("no error").message {
                Some(Message::Scene(s)) => links.push((s.stream_url, s.player_url)),
                Some(Message::Transcript(t)) => links.push((t.stream_url, t.player_url)),
                Some(Message::Alert(f)) => links.push((f.stream_url, f.player_url)),
                _ => {}
            }
        }
        let request = v1::ListFiringsRequest {
            alert_id: alert,
            ..Default::default()
        };
        let listed = client.events.list_firings(request).await.expect("lists");
        let listed = listed.into_inner().firings.remove(0);
        links.push((listed.stream_url, listed.player_url));
        // The transcript of the harness has no times.
        let around = |start, end| gateway.links.around(&stream, start, end, NOW_US);
        let seen = around(NOW_US, NOW_US + 5_000_000);
        for (link, expected) in links.iter().zip([&seen, &around(0, 0), &seen, &seen]) {
            let expected = (expected.stream_url.clone(), expected.player_url.clone());
            let expected = if recorded {
                expected
            } else {
                Default::default()
            };
            assert_eq!(*link, expected);
        }
    }
}
