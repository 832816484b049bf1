//! A stream's health: told to those who wait for it, and to nobody else.

use std::collections::BTreeSet;

use sightline_proto::internal::measured_window::What;
use sightline_proto::internal::{
    AlertRecord, Frame, MeasuredPictures, MeasuredWindow, SampledWindow, Sampling,
};
use sightline_proto::v1::rt_stream::State;
use sightline_proto::v1::{Alert, alert};

use super::*;
use crate::health::{self, Health};
use crate::presence::{self, Camera};
use crate::publish;
use crate::supervise::{Source, Supervisor};

impl Platform {
    /// Makes or changes an alert on a built-in event of the stream.
    async fn wait_for(&self, event_id: &str, state: alert::State, index_id: &str) -> Result<()> {
        let id = format!("alr-{event_id}");
        let record = AlertRecord {
            alert: Some(Alert {
                id: id.clone(),
                event_id: event_id.to_owned(),
                rtstream_id: self.id.clone(),
                index_id: index_id.to_owned(),
                state: state.into(),
                ..Alert::default()
            }),
            ..AlertRecord::default()
        };
        match self.catalog.fetch::<AlertRecord>(&id).await? {
            Some(found) => self.catalog.update(&id, &record, found.revision).await?,
            None => self.catalog.create(&id, &record).await?,
        };
        Ok(())
    }

    /// A worker that knows of these alerts, and the run of the stream that it holds.
    async fn waited_for(&self, events: &[&str]) -> Result<(Arc<Shared>, RunState)> {
        for event in events {
            self.wait_for(event, alert::State::Enabled, "").await?;
        }
        let shared = self.worker("a")?;
        shared.look_up_wishes();
        let stream = self.catalog.get::<RtStreamRecord>(&self.id);
        let stream = stream.context("the stream")?.value;
        let state = RunState::claim(&shared, &self.id, &stream).await?;
        let mut state = state.context("it is not over")?;
        state.run.epoch_us = EPOCH_US;
        Ok((shared, state))
    }

    /// Events, windows and verdicts, as told; each where and as sure as it has to be.
    async fn verdicts(&self) -> Result<Vec<(String, u64, bool)>> {
        let filter = format!("obs.*.verdict.{}", self.id);
        let told = self
            .bus
            .read::<Observation>(StreamName::Observations, &filter, 1000)
            .await?;
        let verdicts = told.into_iter().filter_map(|received| {
            let told = received.message;
            let Some(Body::Verdict(body)) = told.body else {
                return None;
            };
            let start_us = EPOCH_US + i64::try_from(body.window).ok()? * 5 * SECOND;
            assert_eq!(
                (told.start_us, told.end_us),
                (start_us, start_us + 5 * SECOND)
            );
            assert!([0.0, 1.0].contains(&body.probability) && body.index_id.is_empty());
            Some((body.event_id, body.window, body.probability == 1.0))
        });
        Ok(verdicts.collect())
    }

    /// Lets a camera be watched until so many verdicts are told.
    async fn watched(&self, camera: &mut Watching<'_>, count: usize) -> Result<()> {
        let told = until("the verdicts", async || {
            Ok((self.verdicts().await?.len() >= count).then_some(()))
        });
        tokio::select! {
            biased;
            _ = camera => anyhow::bail!("it never ends"),
            told = told => told,
        }
    }
}

type Watching<'a> = std::pin::Pin<Box<dyn Future<Output = std::convert::Infallible> + Send + 'a>>;

fn marks(verdicts: &[(String, u64, bool)], event: &str) -> String {
    let of_event = verdicts.iter().filter(|verdict| verdict.0 == event);
    let marks: Vec<_> = of_event.collect();
    assert!(
        marks
            .iter()
            .map(|verdict| verdict.1)
            .eq(0..marks.len() as u64),
        "{marks:?}"
    );
    marks
        .iter()
        .map(|verdict| if verdict.2 { '1' } else { '0' })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_was_away_and_was_not_kept_up_with_is_told_window_by_window() -> Result<()> {
    let platform = Platform::start().await?;
    let events = ["evt-offline", "evt-recovered", "evt-behind"];
    let (shared, mut state) = platform.waited_for(&events).await?;
    let at = |second: i64| platform.clock.set(EPOCH_US + second * SECOND);
    state.set(State::Active, "", 0).await?;
    let camera = Camera::of(&shared, &platform.id, &state);
    let mut watching: Watching<'_> = Box::pin(presence::watch(Some(&camera)));
    platform.watched(&mut watching, 0).await?;
    at(6);
    state.set(State::Reconnecting, "gone", 1).await?;
    platform.watched(&mut watching, 3).await?;
    // Nobody describes anything: the third window costs the first.
    let models: BTreeSet<String> = ["model".to_owned()].into();
    for window in 0..3 {
        let sampled = SampledWindow {
            sampling: Some(Sampling {
                window_us: SECOND,
                frame_count: 1,
            }),
            window,
            frames: vec![Frame::default()],
            ..SampledWindow::default()
        };
        publish::window(&shared, &mut state, &platform.id, &models, sampled, false).await?;
    }
    at(16);
    state.set(State::Active, "", 0).await?;
    platform.watched(&mut watching, 9).await?;
    at(25);
    state.set(State::Active, "", 0).await?;
    platform.watched(&mut watching, 15).await?;
    drop(watching);
    let verdicts = platform.verdicts().await?;
    let expected = ["01100", "00010", "01000"];
    assert_eq!(events.map(|event| marks(&verdicts, event)), expected);

    // It is given up for good in the sixth.
    state.set(State::Failed, "refused", 0).await?;
    camera.given_up().await;
    let verdicts = platform.verdicts().await?;
    assert_eq!(marks(&verdicts, "evt-offline"), "011001");
    assert_eq!(verdicts.len(), 16);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_measured_is_told_to_those_who_wait_for_it_once() -> Result<()> {
    let platform = Platform::start().await?;
    let (shared, mut state) = platform.waited_for(&["evt-frozen"]).await?;
    let source = Source {
        url: String::new(),
        is_file: true,
        fast: false,
    };
    let mut supervisor = Supervisor::new(&shared, &platform.id, source, &mut state).await?;
    let take = supervisor.take_now();
    assert_eq!((take.measure_pictures, take.measure_sound), (true, false));
    drop(supervisor);
    for (window, change) in [(0, 1.0), (1, 0.0), (1, 0.0), (2, 0.0)] {
        let measured = MeasuredWindow {
            window,
            what: Some(What::Pictures(MeasuredPictures {
                count: 2,
                change,
                ..MeasuredPictures::default()
            })),
            ..MeasuredWindow::default()
        };
        health::measured(&shared, &mut state, &platform.id, measured).await?;
    }
    assert_eq!(state.run.next_window[health::PICTURES], 3);
    let verdicts = platform.verdicts().await?;
    assert_eq!(marks(&verdicts, "evt-frozen"), "011");
    assert_eq!(verdicts.len(), 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn alerts_are_followed_while_they_are_enabled_and_on_the_stream_itself() -> Result<()> {
    let platform = Platform::start().await?;
    let shared = platform.worker("a")?;
    let shutdown = Shutdown::new();
    let following = tokio::spawn(health::follow(Arc::clone(&shared), shutdown.clone()));
    let (enabled, disabled) = (alert::State::Enabled, alert::State::Disabled);
    for (event, state, index, expected) in [
        ("evt-silent", enabled, "", &[Health::Silent][..]),
        ("evt-black", disabled, "", &[Health::Silent]),
        ("evt-other", enabled, "", &[Health::Silent]),
        ("evt-frozen", enabled, "idx-1", &[Health::Silent]),
        ("evt-black", enabled, "", &[Health::Black, Health::Silent]),
        ("evt-silent", disabled, "", &[Health::Black]),
        ("evt-black", disabled, "", &[]),
    ] {
        platform.wait_for(event, state, index).await?;
        let expected: BTreeSet<Health> = expected.iter().copied().collect();
        until(event, async || {
            Ok((shared.health_of(&platform.id) == expected).then_some(()))
        })
        .await?;
    }
    shutdown.cancel();
    soon("its end", following).await??;
    Ok(())
}
