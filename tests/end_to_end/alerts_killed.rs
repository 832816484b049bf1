//! The alerts service is killed with `kill -9` between any two of its side effects: every firing is delivered at least once,
//! whatever comes twice has one id, and none is invented.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use sightline_bus::{ObservationKind, Subject};
use sightline_catalog::Catalog;
use sightline_proto::ids;
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{
    AlertRecord, EventRecord, Observation, RtStreamRecord, VerdictBody,
};
use sightline_proto::v1::{Alert, DeliveryMode, Event, RtStream, alert};
use sightline_testkit::oracle::Ledger;
use sightline_testkit::platform::Ground;
use sightline_testkit::receiver::Receiver;
use sightline_testkit::until;
use tokio::task::{JoinSet, LocalSet};

use crate::ground;

const EPOCH_US: i64 = 1_795_514_400_000_000;
const WINDOW_US: i64 = 5_000_000;
/// Which windows count: three firings, of one, two and three windows.
const COUNTS: [bool; 12] = [
    false, true, false, false, true, true, false, true, true, true, false, false,
];
/// First windows of the firings.
const FIRST: [usize; 3] = [1, 4, 7];

/// Between a firing's observation, its delivery, the state, the post, and the acknowledgements; with how many times each is
/// passed at least: verdicts are evaluated in batches, and all of these may be one.
fn places(partition: u32, endpoint: &str) -> [(String, usize); 10] {
    [
        ("alerts.before_firing".to_owned(), 3),
        ("alerts.after_firing".to_owned(), 3),
        ("alerts.after_delivery".to_owned(), 3),
        ("alerts.after_state".to_owned(), 1),
        (format!("alerts-{partition}.after_ack"), 1),
        ("alerts.before_post".to_owned(), 3),
        ("alerts.after_post".to_owned(), 3),
        (format!("deliver-{endpoint}.before_output"), 3),
        (format!("deliver-{endpoint}.before_ack"), 3),
        (format!("deliver-{endpoint}.after_ack"), 3),
    ]
}

/// A platform that is nothing but a bus, with receivers.
struct Scene {
    ground: Ground,
    catalog: Catalog,
    receiver: Receiver,
}

impl Scene {
    async fn prepare() -> Result<Self> {
        let ground = ground().await?;
        Ok(Self {
            catalog: Catalog::open(&ground.bus).await?,
            receiver: Receiver::start().await?,
            ground,
        })
    }

    /// Kills the service at a place, at another pass with each number, and starts it again.
    async fn run(&self, number: usize, place: usize) -> Result<()> {
        let stream = format!("rts-019ac3d0-0000-7000-8000-{number:012}");
        self.alert(&stream, number).await?;
        let url = self.receiver.url();
        let places = places(
            self.catalog.partition_of(&stream),
            &ids::endpoint_id("", &url),
        );
        let (place, passes) = &places[place];
        let armed = format!("{place}={}", 1 + number % passes);
        let (mut killed, _) = self.ground.role("alerts", &["--failpoint", &armed]).await?;
        self.judge(&stream, number).await?;
        let status = killed.ended().await.with_context(|| armed.clone())?;
        ensure!(!status.success(), "it ended by itself at {armed}");

        let (mut alerts, _) = self.ground.role("alerts", &[]).await?;
        let expected: BTreeSet<String> = FIRST
            .iter()
            .map(|&first| {
                let start_us = EPOCH_US + first as i64 * WINDOW_US;
                ids::firing_id(&format!("alr-{number}"), EPOCH_US, start_us)
            })
            .collect();
        until(&format!("all firings after {armed}"), async || {
            let told = self.told(number).await?;
            Ok(told.is_superset(&expected).then_some(()))
        })
        .await?;
        self.ground.drained().await?;
        ensure!(alerts.terminate().await?.success(), "{:#?}", alerts.log());
        // Nothing else was told, and nothing else is recorded.
        assert_eq!(self.told(number).await?, expected, "{armed}");
        let ledger = Ledger::read(&self.ground.bus, &stream).await?;
        let recorded: BTreeSet<String> = ledger.firings().into_iter().collect();
        assert_eq!(recorded, expected, "{armed}");
        Ok(())
    }

    /// The ids of webhooks of an alert that have come.
    async fn told(&self, number: usize) -> Result<BTreeSet<String>> {
        let alert = format!("alr-{number}");
        let webhooks = self.receiver.webhooks(0).await?.into_iter();
        let own = webhooks.filter(|webhook| webhook.body["alert_id"] == alert.as_str());
        Ok(own.map(|webhook| webhook.id).collect())
    }

    async fn alert(&self, stream: &str, number: usize) -> Result<()> {
        let event = Event {
            id: format!("evt-{number}"),
            prompt: "Detect smoke".to_owned(),
            label: "smoke".to_owned(),
            ..Event::default()
        };
        let alert = Alert {
            id: format!("alr-{number}"),
            event_id: event.id.clone(),
            index_id: format!("idx-{number}"),
            rtstream_id: stream.to_owned(),
            callback_url: self.receiver.url(),
            state: alert::State::Enabled.into(),
            threshold: 0.5,
            delivery: DeliveryMode::First.into(),
            ..Alert::default()
        };
        let rtstream = RtStream {
            id: stream.to_owned(),
            ..RtStream::default()
        };
        let record = RtStreamRecord {
            rtstream: Some(rtstream),
            ..RtStreamRecord::default()
        };
        self.catalog.create(stream, &record).await?;
        let (event_id, alert_id) = (event.id.clone(), alert.id.clone());
        let record = EventRecord {
            event: Some(event),
            ..EventRecord::default()
        };
        self.catalog.create(&event_id, &record).await?;
        let record = AlertRecord {
            alert: Some(alert),
            ..AlertRecord::default()
        };
        self.catalog.create(&alert_id, &record).await?;
        Ok(())
    }

    async fn judge(&self, stream: &str, number: usize) -> Result<()> {
        let event_id = format!("evt-{number}");
        let subject = Subject::Observation {
            partition: self.catalog.partition_of(stream),
            kind: ObservationKind::Verdict,
            rtstream: stream.to_owned(),
        };
        for (window, counts) in COUNTS.into_iter().enumerate() {
            let start_us = EPOCH_US + window as i64 * WINDOW_US;
            let verdict = Observation {
                id: ids::observation_id("verdict", stream, EPOCH_US, start_us, &event_id, 0, "m"),
                rtstream_id: stream.to_owned(),
                epoch_us: EPOCH_US,
                start_us,
                end_us: start_us + WINDOW_US,
                body: Some(Body::Verdict(VerdictBody {
                    index_id: format!("idx-{number}"),
                    event_id: event_id.clone(),
                    probability: if counts { 0.9 } else { 0.1 },
                    window: window as u64,
                    ..VerdictBody::default()
                })),
                ..Observation::default()
            };
            self.ground
                .bus
                .publish(&subject, &verdict.id, &verdict)
                .await?;
        }
        Ok(())
    }
}

/// Kills at each place so many times, the places side by side: what was held by a killed process is only delivered again after
/// some seconds.
async fn check(rounds: usize) -> Result<()> {
    let killing = async {
        let mut killing = JoinSet::new();
        for place in 0..places(0, "").len() {
            killing.spawn_local(kill_at(place, rounds));
        }
        while let Some(killed) = killing.join_next().await {
            killed??;
        }
        Ok(())
    };
    LocalSet::new().run_until(killing).await
}

async fn kill_at(place: usize, rounds: usize) -> Result<()> {
    let scene = Scene::prepare().await?;
    for round in 0..rounds {
        scene.run(round, place).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_kill_anywhere_loses_and_invents_no_firing() -> Result<()> {
    check(1).await
}

/// Too long for every run of the tests: `make endurance`.
#[tokio::test]
async fn two_hundred_kills_lose_and_invent_no_firing() -> Result<()> {
    check(20).await
}
