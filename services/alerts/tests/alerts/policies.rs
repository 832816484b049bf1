//! When firings open and close, and whether anybody is told: schedules, silence, closings.

use anyhow::{Context, Result};
use sightline_bus::StreamName;
use sightline_proto::internal::{
    AlertRecord, EvaluationRecord, FiringBody, IndexRecord, Observation, observation::Body,
};
use sightline_proto::time::timestamp;
use sightline_proto::v1::{Alert, Index, Policy, Severity, alert, firing, index, policy::Awake};
use sightline_service::clock::{Clock, SystemClock};
use sightline_testkit::until;
use tokio::time::timeout;

use crate::harness::{LONG, Platform, Receiver};

impl Platform {
    async fn change_alert(&self, suffix: &str, change: impl Fn(&mut Alert)) -> Result<()> {
        self.change::<AlertRecord>(&format!("alr-{suffix}"), |record| {
            change(record.alert.get_or_insert_default());
        })
        .await
    }

    /// Verdicts on windows from `first` on: `+` counts.
    async fn verdicts(&self, suffix: &str, first: i64, windows: &str) -> Result<()> {
        for (window, mark) in (first..).zip(windows.chars()) {
            let probability = if mark == '+' { 0.9 } else { 0.1 };
            self.verdict(suffix, window, probability).await?;
        }
        Ok(())
    }

    /// Every observation of firings, in the order of the bus.
    async fn bodies(&self) -> Result<Vec<FiringBody>> {
        let all: Vec<Observation> = self
            .read(StreamName::Observations, "obs.*.firing.*")
            .await?;
        let bodies = all.into_iter().filter_map(|observation| {
            let Some(Body::Firing(body)) = observation.body else {
                return None;
            };
            Some(body)
        });
        Ok(bodies.collect())
    }

    /// Waits until what is stored of an alert fits.
    async fn stored(&self, alert: &str, fits: impl Fn(&EvaluationRecord) -> bool) -> Result<()> {
        until("the record", async || {
            let found = self.catalog.fetch::<EvaluationRecord>(alert).await?;
            Ok(found.filter(|found| fits(&found.value)).map(drop))
        })
        .await
    }
}

fn spans(firings: &[(String, i64, i64)]) -> Vec<(i64, i64)> {
    let mut spans: Vec<_> = firings.iter().map(|f| (f.1, f.2)).collect();
    spans.sort_unstable();
    spans
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alert_fires_while_it_is_awake() -> Result<()> {
    let mut platform = Platform::start().await?;
    platform.window_us = 60_000_000;
    platform.alert("a", "").await?;
    // The windows begin at 11:00 in Berlin, on a Tuesday.
    let schedule = vec![Awake {
        days: vec![2],
        from_minute: 11 * 60 + 2,
        to_minute: 11 * 60 + 4,
    }];
    platform
        .change_alert("a", |alert| {
            alert.policy = Some(Policy {
                schedule: schedule.clone(),
                time_zone: "Europe/Berlin".to_owned(),
                ..Policy::default()
            });
        })
        .await?;
    platform.verdicts("a", 0, "++++++").await?;
    assert_eq!(spans(&platform.closings(1).await?), [(2, 3)]);
    assert_eq!(spans(&platform.firings(2).await?), [(2, 3)]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_muted_alert_records_its_firings_and_tells_nobody() -> Result<()> {
    let platform = Platform::start().await?;
    let mut receiver = Receiver::start([]).await?;
    platform.alert("a", &receiver.url).await?;
    let now_us = SystemClock.now_us();
    for (window, mute_us) in [(0, now_us + 3_600_000_000), (2, now_us - 1)] {
        platform
            .change_alert("a", |alert| {
                alert.mute_time = Some(timestamp(mute_us));
                alert.set_severity(Severity::Critical);
            })
            .await?;
        platform.verdicts("a", window, "+-").await?;
        platform.closings(window as usize / 2 + 1).await?;
    }
    let (_, body) = receiver.next().await?;
    assert_eq!(body["start_time"], "2026-11-24T10:00:10.000000+00:00");
    assert_eq!(spans(&platform.firings(2).await?), [(0, 0), (2, 2)]);
    for body in platform.bodies().await? {
        assert_eq!(body.severity(), Severity::Critical);
    }
    assert!(receiver.seen.try_recv().is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn closings_are_observations_of_the_same_firing() -> Result<()> {
    let platform = Platform::start().await?;
    platform.alert("a", "").await?;
    platform
        .change_alert("a", |alert| {
            alert.policy = Some(Policy {
                close_after: 2,
                ..Policy::default()
            });
        })
        .await?;
    platform.verdicts("a", 0, "-+-+--").await?;
    let closed = platform.closings(1).await?;
    let opened = platform.firings(2).await?;
    assert_eq!(closed, opened, "with the end of its last window");
    let bodies = platform.bodies().await?;
    let (closing, first) = (bodies.last().context("set")?, &bodies[0]);
    let same = FiringBody {
        state: firing::State::Closed.into(),
        ..first.clone()
    };
    assert_eq!(*closing, same, "all else stays as it was when it opened");
    assert_eq!(closing.severity(), Severity::Warning);
    assert_eq!(closing.basis(), firing::Basis::Frames);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_firing_on_what_was_said_says_so() -> Result<()> {
    let platform = Platform::start().await?;
    platform.alert("a", "").await?;
    let index = Index {
        id: "idx-a".to_owned(),
        kind: index::Kind::Audio.into(),
        ..Index::default()
    };
    let record = IndexRecord {
        index: Some(index),
        ..IndexRecord::default()
    };
    platform.catalog.create("idx-a", &record).await?;
    platform.verdicts("a", 0, "+").await?;
    platform.firings(1).await?;
    assert_eq!(platform.bodies().await?[0].basis(), firing::Basis::Text);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_firing_closes_when_its_stream_ends_or_its_alert_does() -> Result<()> {
    let mut platform = Platform::start().await?;
    platform.window_us = 200_000;
    for suffix in ["ends", "disabled", "deleted", "waits"] {
        platform.alert(suffix, "").await?;
    }
    platform.verdicts("disabled", 0, "++").await?;
    platform.verdicts("deleted", 0, "++").await?;
    platform.firings(4).await?;
    platform
        .change_alert("disabled", |alert| {
            alert.set_state(alert::State::Disabled);
        })
        .await?;
    platform.delete::<AlertRecord>("alr-deleted").await?;
    assert_eq!(spans(&platform.closings(2).await?), [(0, 1), (0, 1)]);
    platform
        .stored("alr-disabled", |r| r.open.is_none())
        .await?;

    // Nothing comes any more: window 2 is given up, and what is open is over.
    platform.verdicts("ends", 0, "+").await?;
    platform.verdict("waits", 0, 0.1).await?;
    platform.verdict("waits", 2, 0.9).await?;
    platform.firings(6).await?;
    let closed = spans(&platform.closings(4).await?);
    assert_eq!(closed, [(0, 0), (0, 1), (0, 1), (2, 2)]);
    // The next window is another firing.
    platform.stored("alr-ends", |r| r.open.is_none()).await?;
    platform.verdict("ends", 1, 0.9).await?;
    assert_eq!(platform.firings(7).await?.len(), 5);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_firing_is_closed_by_whoever_is_there() -> Result<()> {
    let mut platform = Platform::start().await?;
    platform.window_us = 200_000;
    for suffix in ["a", "b"] {
        platform.alert(suffix, "").await?;
        platform.verdicts(suffix, 0, "++").await?;
        let alert = format!("alr-{suffix}");
        let both = |record: &EvaluationRecord| record.next_window == 2;
        platform.stored(&alert, both).await?;
    }
    platform.stop().await?;
    // Somebody had just decided that it is over, and died.
    platform
        .change::<EvaluationRecord>("alr-b", |record| {
            record.open.as_mut().expect("it is open").quiet = u64::MAX;
        })
        .await?;
    platform.begin();
    let closed = platform.closings(1).await?;
    assert_eq!(spans(&closed), [(0, 1)]);
    let began = SystemClock.now_us();
    assert_eq!(spans(&platform.closings(2).await?), [(0, 1), (0, 1)]);
    assert!(SystemClock.now_us() - began > 3_000_000, "not at once");
    platform.stored("alr-a", |r| r.open.is_none()).await?;
    // It stays so.
    platform.restart().await?;
    platform.verdicts("a", 2, "-+").await?;
    platform.firings(5).await?;
    assert_eq!(platform.closings(2).await?.len(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_at_a_time_neither_lose_nor_double_a_firing() -> Result<()> {
    let mut platform = Platform::start().await?;
    let mut receiver = Receiver::start([]).await?;
    platform.alert("a", &receiver.url).await?;
    platform
        .change_alert("a", |alert| {
            alert.policy = Some(Policy {
                required: 2,
                of: 3,
                close_after: 2,
                ..Policy::default()
            });
        })
        .await?;
    let mut others = Vec::new();
    let mut windows = 0;
    // A rolling update again and again, in the middle of firings.
    for round in ["-++--", "-+", "+++", "--+", "+--", "++--"] {
        others.push(platform.beside());
        platform.verdicts("a", windows, round).await?;
        windows += round.len() as i64;
        if others.len() > 1 {
            let (stop, ended) = others.remove(0);
            stop.cancel();
            timeout(LONG, ended).await???;
        }
    }
    platform.stop().await?;
    // -++-- -++++--++--++--
    let expected = [(2, 2), (7, 9), (13, 13), (17, 17)];
    let closed = platform.closings(expected.len()).await?;
    assert_eq!(spans(&closed), expected);
    let mut told = Vec::new();
    for _ in expected {
        let (_, body) = receiver.next().await?;
        told.push(body["firing_id"].as_str().context("an id")?.to_owned());
    }
    let mut ids: Vec<_> = closed.iter().map(|firing| firing.0.clone()).collect();
    ids.sort_unstable();
    told.sort_unstable();
    assert_eq!(told, ids);
    let ended = others.remove(0);
    ended.0.cancel();
    timeout(LONG, ended.1).await???;
    assert!(receiver.seen.try_recv().is_err());
    let opened = platform.bodies().await?;
    assert!(opened.iter().all(|body| body.decided_us > 0));
    Ok(())
}
