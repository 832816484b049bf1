//! Which of a firing's messages are delivered when, and what each of them tells.

use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use serde_json::Value;
use sightline_bus::{Ask, ObservationKind, StreamName, Subject};
use sightline_proto::ids;
use sightline_proto::internal::{
    AlertRecord, Attempt, Delivery, Observation, RedeliveryRequest, RedeliveryResponse, RunRecord,
    SceneBody, observation,
};
use sightline_proto::v1::{Alert, DeliveryMode, Severity};
use sightline_testkit::until;

use crate::harness::{EPOCH_US, Platform, Receiver, STREAM};

const CAPTION: &str = "Smoke rises behind a parked van.";
/// Of the first window.
const FIRED: &str =
    "\"Detect smoke\" judged 90 % likely between 2026-11-24T10:00:00Z and 2026-11-24T10:00:05Z";

impl Platform {
    async fn change_the_alert(&self, change: impl Fn(&mut Alert)) -> Result<()> {
        self.change::<AlertRecord>("alr-a", |record| {
            change(record.alert.get_or_insert_default());
        })
        .await
    }

    /// The index says something of a window.
    async fn caption(&self, window: i64, text: &str) -> Result<()> {
        self.caption_of("idx-a", window, text).await
    }

    async fn caption_of(&self, index: &str, window: i64, text: &str) -> Result<()> {
        let start_us = EPOCH_US + window * self.window_us;
        let id = ids::observation_id("scene", STREAM, EPOCH_US, start_us, index, 0, "m1");
        let scene = Observation {
            id,
            rtstream_id: STREAM.into(),
            epoch_us: EPOCH_US,
            start_us,
            end_us: start_us + self.window_us,
            body: Some(observation::Body::Scene(SceneBody {
                index_id: index.into(),
                text: text.into(),
                ..SceneBody::default()
            })),
            ..Observation::default()
        };
        let subject = Subject::Observation {
            partition: self.catalog.partition_of(STREAM),
            kind: ObservationKind::Scene,
            rtstream: STREAM.into(),
        };
        self.bus.publish(&subject, &scene.id, &scene).await?;
        Ok(())
    }

    /// Waits until the service has read every caption so far: a firing waits for one for 700 ms, which a slow start may take.
    /// They are read in order, so that another alert, made with this suffix, tells when.
    async fn captions_are_read(&self, suffix: &str) -> Result<()> {
        let mut receiver = Receiver::start([]).await?;
        self.alert(suffix, &receiver.url).await?;
        self.change::<AlertRecord>(&format!("alr-{suffix}"), |record| {
            let alert = record.alert.get_or_insert_default();
            alert.set_delivery(DeliveryMode::Complete);
        })
        .await?;
        self.caption_of(&format!("idx-{suffix}"), 0, CAPTION)
            .await?;
        self.verdict(suffix, 0, 0.9).await?;
        while receiver.next().await?.1["caption"].is_null() {}
        Ok(())
    }

    /// Nothing is waited for or on its way any more.
    pub async fn quiet(&self) -> Result<()> {
        until("everything to be told", async || {
            let mut left = self.bus.backlog(StreamName::Observations).await?;
            left += self.bus.backlog(StreamName::Enrichments).await?;
            left += self.bus.backlog(StreamName::Deliveries).await?;
            Ok((left == 0).then_some(()))
        })
        .await
    }
}

/// A platform with one alert, and where that posts.
async fn watching(mode: DeliveryMode) -> Result<(Platform, Receiver)> {
    let platform = Platform::start().await?;
    let receiver = Receiver::start([]).await?;
    platform.alert("a", &receiver.url).await?;
    platform
        .change_the_alert(|alert| alert.set_delivery(mode))
        .await?;
    Ok((platform, receiver))
}

/// The next message: its phase, its caption and its state, once its other fields are checked.
async fn told(receiver: &mut Receiver) -> Result<(String, Value, String)> {
    let (headers, body) = receiver.next().await?;
    let word = |field: &str| Some(body[field].as_str()?.to_owned());
    let phase = word("phase").context("a phase")?;
    let firing = ids::firing_id("alr-a", EPOCH_US, EPOCH_US);
    assert_eq!(body["firing_id"], firing);
    let id = match &*phase {
        "fired" => firing,
        later => format!("{firing}_{later}"),
    };
    assert_eq!(headers["webhook-id"], id);
    let explanation = match body["caption"].as_str() {
        Some(caption) => format!("{FIRED} The caption: \"{caption}\""),
        None => FIRED.to_owned(),
    };
    assert_eq!(body["explanation"], explanation);
    let state = word("state").context("a state")?;
    Ok((phase, body["caption"].clone(), state))
}

fn message(phase: &str, caption: Option<&str>, state: &str) -> (String, Value, String) {
    (phase.into(), caption.into(), state.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mode_has_its_messages() -> Result<()> {
    let fired = message("fired", None, "open");
    let explained = message("fired", Some(CAPTION), "open");
    let enriched = message("enriched", Some(CAPTION), "open");
    let closed = message("closed", None, "closed");
    let (first, complete, all) = (
        DeliveryMode::First,
        DeliveryMode::Complete,
        DeliveryMode::All,
    );
    // The caption is there before the verdict, or comes after the first message.
    for (mode, early, expected) in [
        (first, true, vec![&fired]),
        (first, false, vec![&fired]),
        (complete, true, vec![&explained]),
        (complete, false, vec![&fired, &enriched]),
        (DeliveryMode::Unspecified, true, vec![&explained]),
        (all, false, vec![&fired, &enriched, &closed]),
    ] {
        let (platform, mut receiver) = watching(mode).await?;
        platform.caption(1, "Another window.").await?;
        if early {
            platform.caption(0, CAPTION).await?;
            platform.captions_are_read("read").await?;
        }
        platform.verdict("a", 0, 0.9).await?;
        let (expected, mut messages) = (expected.into_iter(), Vec::new());
        messages.push(told(&mut receiver).await?);
        platform.caption(0, CAPTION).await?;
        for _ in 1..expected.len().min(2) {
            messages.push(told(&mut receiver).await?);
        }
        platform.verdict("a", 1, 0.1).await?;
        if expected.len() > 2 {
            messages.push(told(&mut receiver).await?);
        }
        platform.quiet().await?;
        let expected: Vec<_> = expected.cloned().collect();
        assert_eq!(messages, expected, "{mode:?}");
        assert!(receiver.seen.try_recv().is_err(), "{mode:?}: no more");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_recorded_is_told_when_it_can_be_played() -> Result<()> {
    let (platform, mut receiver) = watching(DeliveryMode::Complete).await?;
    platform.caption(0, CAPTION).await?;
    platform.caption(2, "More smoke.").await?;
    platform.captions_are_read("read").await?;
    platform.record().await?;
    let recorded = |end_us| RunRecord {
        recorded_us: end_us,
        ..RunRecord::default()
    };
    let end_us = EPOCH_US + platform.window_us;
    platform
        .catalog
        .create(STREAM, &recorded(end_us - 1))
        .await?;
    platform.verdict("a", 0, 0.9).await?;
    let (_, fired) = receiver.next().await?;
    assert_eq!(
        (&fired["phase"], &fired["caption"]),
        (&"fired".into(), &CAPTION.into())
    );
    platform
        .change::<RunRecord>(STREAM, |record| record.recorded_us = end_us)
        .await?;
    let (_, enriched) = receiver.next().await?;
    assert_eq!(enriched["phase"], "enriched");
    for field in ["stream_url", "player_url", "thumbnail_url"] {
        let url = enriched[field].as_str().context(field)?;
        assert!(url.starts_with("https://video.example/"), "{url}");
        assert_eq!(fired[field], enriched[field]);
    }
    // From now on it is complete at once.
    platform
        .change::<RunRecord>(STREAM, |record| record.recorded_us = i64::MAX)
        .await?;
    platform.verdict("a", 1, 0.1).await?;
    platform.verdict("a", 2, 0.9).await?;
    let (_, fired) = receiver.next().await?;
    assert_eq!(
        (&fired["phase"], &fired["caption"]),
        (&"fired".into(), &"More smoke.".into())
    );
    platform.quiet().await?;
    assert!(receiver.seen.try_recv().is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_waited_for_survives_a_restart() -> Result<()> {
    let (mut platform, mut receiver) = watching(DeliveryMode::Complete).await?;
    platform.verdict("a", 0, 0.9).await?;
    assert_eq!(told(&mut receiver).await?, message("fired", None, "open"));
    platform.stop().await?;
    platform.caption(0, CAPTION).await?;
    platform.begin();
    let enriched = message("enriched", Some(CAPTION), "open");
    assert_eq!(told(&mut receiver).await?, enriched);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_explanation_is_given_up_after_a_minute() -> Result<()> {
    let (mut platform, mut receiver) = watching(DeliveryMode::Complete).await?;
    platform.verdict("a", 0, 0.9).await?;
    assert_eq!(told(&mut receiver).await?, message("fired", None, "open"));
    platform.stop().await?;
    platform.clock.0.store(60_000_000, Ordering::Relaxed);
    platform.begin();
    // It is not waited for any more, and what comes then is told to nobody.
    platform.quiet().await?;
    platform.caption(0, CAPTION).await?;
    platform.verdict("a", 1, 0.1).await?;
    platform.closings(1).await?;
    platform.quiet().await?;
    assert!(receiver.seen.try_recv().is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_explanation_follows_where_a_crash_may_have_told_less() -> Result<()> {
    let (mut platform, mut receiver) = watching(DeliveryMode::Complete).await?;
    platform.stop().await?;
    // Delivered, and not acknowledged before the crash.
    let endpoint = ids::endpoint_id("", &receiver.url);
    let firing_id = ids::firing_id("alr-a", EPOCH_US, EPOCH_US);
    let body = serde_json::json!({
        "firing_id": firing_id, "phase": "fired", "state": "open", "explanation": FIRED,
    });
    let delivery = Delivery {
        firing_id: firing_id.clone(),
        alert_id: "alr-a".into(),
        endpoint_id: endpoint.clone(),
        url: receiver.url.clone(),
        body: body.to_string().into(),
        ..Delivery::default()
    };
    let id = format!("{firing_id}-fired-{endpoint}");
    let subject = Subject::Deliver { endpoint };
    platform.bus.publish(&subject, &id, &delivery).await?;
    platform.caption(0, CAPTION).await?;
    platform.verdict("a", 0, 0.9).await?;
    platform.begin();
    assert_eq!(told(&mut receiver).await?, message("fired", None, "open"));
    let enriched = message("enriched", Some(CAPTION), "open");
    assert_eq!(told(&mut receiver).await?, enriched);
    platform.quiet().await?;
    assert!(receiver.seen.try_recv().is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_delivered_again_tells_what_is_known_by_now() -> Result<()> {
    let (platform, mut receiver) = watching(DeliveryMode::First).await?;
    platform
        .change_the_alert(|alert| alert.set_severity(Severity::Critical))
        .await?;
    platform.verdict("a", 0, 0.9).await?;
    assert_eq!(told(&mut receiver).await?, message("fired", None, "open"));
    platform.caption(0, CAPTION).await?;
    platform.verdict("a", 1, 0.9).await?;
    platform.verdict("a", 2, 0.1).await?;
    platform.closings(1).await?;
    let asked = RedeliveryRequest {
        alert_id: "alr-a".into(),
        start_us: EPOCH_US,
        end_us: EPOCH_US + 1,
        ..RedeliveryRequest::default()
    };
    let answer: RedeliveryResponse = platform.ask(Ask::Redelivery, &asked).await?;
    assert_eq!((answer.count, &*answer.error), (1, ""));
    let (headers, body) = receiver.next().await?;
    assert_eq!(
        headers["webhook-id"],
        ids::firing_id("alr-a", EPOCH_US, EPOCH_US)
    );
    for (field, expected) in [
        ("phase", "fired"),
        ("state", "closed"),
        ("caption", CAPTION),
        ("severity", "critical"),
        ("end_time", "2026-11-24T10:00:10.000000+00:00"),
    ] {
        assert_eq!(body[field], expected, "{field}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_makes_the_body_and_the_usual_one_goes_where_it_fails() -> Result<()> {
    let (platform, mut receiver) = watching(DeliveryMode::First).await?;
    let template =
        |text: &'static str| platform.change_the_alert(|alert| alert.template = text.into());
    template(r#"{"text": {{ ("*" ~ label ~ "* " ~ phase) | tojson }}}"#).await?;
    platform.verdict("a", 0, 0.9).await?;
    let (headers, body) = receiver.next().await?;
    assert_eq!(body, serde_json::json!({"text": "*smoke* fired"}));
    assert_eq!(headers["content-type"], "application/json");
    template("{{ label }}!").await?;
    platform.verdict("a", 1, 0.1).await?;
    platform.verdict("a", 2, 0.9).await?;
    let (headers, body) = receiver.next().await?;
    assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
    assert!(body.is_null(), "no JSON");
    // The gateway would not have taken it.
    template("{{ nothing.like.it }}").await?;
    platform.verdict("a", 3, 0.1).await?;
    platform.verdict("a", 4, 0.9).await?;
    let (headers, body) = receiver.next().await?;
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(body["label"], "smoke");
    let mut attempts: Vec<Attempt> = platform.held(StreamName::Attempts, "attempt.*", 3).await?;
    attempts.sort_by_key(|attempt| attempt.ended_us);
    let errors: Vec<_> = attempts.iter().map(|attempt| &*attempt.error).collect();
    let failed = "the usual body, since the template failed: line 1: undefined value";
    assert_eq!(errors, ["", "", failed]);
    Ok(())
}
