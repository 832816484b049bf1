//! The alerts service is killed with `kill -9` between any two of its side effects: every firing is delivered at least once,
//! whatever comes twice has one id, and none is invented.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use sightline_bus::{ObservationKind, Subject};
use sightline_catalog::Catalog;
use sightline_proto::ids;
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{
    AlertRecord, EventRecord, Observation, RtStreamRecord, SceneBody, VerdictBody,
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

/// Where the service dies: between a firing's observation, its delivery, the state, the post, and the acknowledgements.
struct Place {
    failpoint: String,
    /// How many times a run passes it at least: verdicts are evaluated in batches, and all of these may be one.
    passes: usize,
    mode: DeliveryMode,
}

/// Firings are delivered at once, or held back for their explanation, which follows here.
fn places(partition: u32, endpoint: &str) -> Vec<Place> {
    let (first, complete) = (DeliveryMode::First, DeliveryMode::Complete);
    let deliver = format!("deliver-{endpoint}");
    let places = [
        ("alerts.before_firing", 3, first),
        ("alerts.after_firing", 3, first),
        ("alerts.after_delivery", 3, first),
        ("alerts.after_state", 1, first),
        (&*format!("alerts-{partition}.after_ack"), 1, first),
        ("alerts.before_post", 3, first),
        ("alerts.after_post", 3, first),
        (&*format!("{deliver}.before_output"), 3, first),
        (&*format!("{deliver}.before_ack"), 3, first),
        (&*format!("{deliver}.after_ack"), 3, first),
        ("alerts.after_explaining", 3, complete),
        ("alerts.after_delivery", 3, complete),
        ("enrich-hold.before_output", 3, complete),
        ("enrich-hold.before_ack", 3, complete),
        ("enrich-hold.after_ack", 3, complete),
        ("enrich-follow.before_output", 3, complete),
        ("enrich-follow.before_ack", 3, complete),
        ("enrich-follow.after_ack", 3, complete),
    ];
    let place = |(failpoint, passes, mode): (&str, usize, DeliveryMode)| Place {
        failpoint: failpoint.to_owned(),
        passes,
        mode,
    };
    places.into_iter().map(place).collect()
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
        let endpoint = ids::endpoint_id("", &self.receiver.url());
        let places = places(self.catalog.partition_of(&stream), &endpoint);
        let Place {
            failpoint,
            passes,
            mode,
        } = &places[place];
        self.alert(&stream, number, *mode).await?;
        let armed = format!("{failpoint}={}", 1 + number % passes);
        let (mut killed, _) = self.ground.role("alerts", &["--failpoint", &armed]).await?;
        self.judge(&stream, number).await?;
        let fired: BTreeSet<String> = FIRST
            .iter()
            .map(|&first| {
                let start_us = EPOCH_US + first as i64 * WINDOW_US;
                ids::firing_id(&format!("alr-{number}"), EPOCH_US, start_us)
            })
            .collect();
        let follows = failpoint.starts_with("enrich-follow");
        if follows {
            self.come(number, &fired, &armed).await?;
            self.caption(&stream, number).await?;
        }
        let status = killed.ended().await.with_context(|| armed.clone())?;
        ensure!(!status.success(), "it ended by itself at {armed}");

        let (mut alerts, _) = self.ground.role("alerts", &[]).await?;
        self.come(number, &fired, &armed).await?;
        let mut expected = fired.clone();
        if *mode == DeliveryMode::Complete {
            if !follows {
                self.caption(&stream, number).await?;
            }
            expected.extend(fired.iter().map(|id| format!("{id}_enriched")));
            self.come(number, &expected, &armed).await?;
        }
        self.ground.drained().await?;
        ensure!(alerts.terminate().await?.success(), "{:#?}", alerts.log());
        // Nothing else was told, and nothing else is recorded.
        assert_eq!(self.told(number).await?, expected, "{armed}");
        let ledger = Ledger::read(&self.ground.bus, &stream).await?;
        let recorded: BTreeSet<String> = ledger.firings().into_iter().collect();
        assert_eq!(recorded, fired, "{armed}");
        Ok(())
    }

    /// Waits until all of these have come.
    async fn come(&self, number: usize, expected: &BTreeSet<String>, armed: &str) -> Result<()> {
        until(&format!("all messages, killed at {armed}"), async || {
            let told = self.told(number).await?;
            Ok(told.is_superset(expected).then_some(()))
        })
        .await
    }

    /// The ids of webhooks of an alert that have come.
    async fn told(&self, number: usize) -> Result<BTreeSet<String>> {
        let alert = format!("alr-{number}");
        let webhooks = self.receiver.webhooks(0).await?.into_iter();
        let own = webhooks.filter(|webhook| webhook.body["alert_id"] == alert.as_str());
        Ok(own.map(|webhook| webhook.id).collect())
    }

    async fn alert(&self, stream: &str, number: usize, mode: DeliveryMode) -> Result<()> {
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
            delivery: mode.into(),
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
        for (window, counts) in COUNTS.into_iter().enumerate() {
            let body = VerdictBody {
                index_id: format!("idx-{number}"),
                event_id: event_id.clone(),
                probability: if counts { 0.9 } else { 0.1 },
                window: window as u64,
                ..VerdictBody::default()
            };
            let (kind, body) = (ObservationKind::Verdict, Body::Verdict(body));
            self.observe(stream, window, kind, &event_id, body).await?;
        }
        Ok(())
    }

    /// What the index says of each firing's first window.
    async fn caption(&self, stream: &str, number: usize) -> Result<()> {
        let index_id = format!("idx-{number}");
        for window in FIRST {
            let body = SceneBody {
                index_id: index_id.clone(),
                text: "Smoke rises behind a parked van.".to_owned(),
                window: window as u64,
                ..SceneBody::default()
            };
            let (kind, body) = (ObservationKind::Scene, Body::Scene(body));
            self.observe(stream, window, kind, &index_id, body).await?;
        }
        Ok(())
    }

    async fn observe(
        &self,
        stream: &str,
        window: usize,
        kind: ObservationKind,
        answers: &str,
        body: Body,
    ) -> Result<()> {
        let start_us = EPOCH_US + window as i64 * WINDOW_US;
        let id = ids::observation_id(kind.as_str(), stream, EPOCH_US, start_us, answers, 0, "m");
        let observation = Observation {
            id,
            rtstream_id: stream.to_owned(),
            epoch_us: EPOCH_US,
            start_us,
            end_us: start_us + WINDOW_US,
            body: Some(body),
            ..Observation::default()
        };
        let subject = Subject::Observation {
            partition: self.catalog.partition_of(stream),
            kind,
            rtstream: stream.to_owned(),
        };
        let bus = &self.ground.bus;
        bus.publish(&subject, &observation.id, &observation).await?;
        Ok(())
    }
}

/// Places that are tried side by side: what was held by a killed process is only delivered again after some seconds.
const SIDE_BY_SIDE: usize = 9;

/// Kills at each place so many times.
async fn check(rounds: usize) -> Result<()> {
    let killing = async {
        let mut killing = JoinSet::new();
        for place in 0..places(0, "").len() {
            if killing.len() == SIDE_BY_SIDE
                && let Some(killed) = killing.join_next().await
            {
                killed??;
            }
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
    check(12).await
}
