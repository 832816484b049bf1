//! What a decision becomes: the observation of a firing, and what its receivers are told.

use sightline_proto::ids;
use sightline_proto::internal::{Delivery, FiringBody, JudgedWindow, Observation, observation};
use sightline_proto::v1::{Alert, Event, Phase, Severity, firing};
use sightline_recordings::links::Links;

use crate::enricher::Explaining;
use crate::health;
use crate::policy::Decision;
use crate::told::{Told, time};

/// A decision with what it is about.
pub(crate) struct Firing<'a> {
    pub(crate) decision: &'a Decision,
    pub(crate) alert: &'a Alert,
    /// Whether the alert watches a transcript.
    pub(crate) is_audio: bool,
    pub(crate) event: &'a Event,
    pub(crate) collection_id: &'a str,
    pub(crate) tenant: &'a str,
    /// None where nothing is recorded.
    pub(crate) links: Option<&'a Links>,
}

impl Firing<'_> {
    /// The firing's id: that of its first window, whichever window this is.
    pub(crate) fn id(&self) -> String {
        let epoch_us = self.decision.epoch_us;
        ids::firing_id(&self.alert.id, epoch_us, self.first().start_us)
    }

    /// The firing up to this window, or closed. Each window's has an id of its own, as has the closing, and the same firing id;
    /// all but the end and the state stays as it was when the firing opened.
    pub(crate) fn observation(&self) -> Observation {
        let Decision {
            epoch_us,
            firing,
            window,
            closes,
        } = self.decision;
        Observation {
            id: ids::observation_id(
                "firing",
                &self.alert.rtstream_id,
                *epoch_us,
                window.start_us,
                &self.alert.id,
                0,
                if *closes { "closed" } else { "" },
            ),
            rtstream_id: self.alert.rtstream_id.clone(),
            collection_id: self.collection_id.to_owned(),
            epoch_us: *epoch_us,
            start_us: self.first().start_us,
            end_us: firing.end_us,
            model_revision: String::new(),
            body: Some(observation::Body::Firing(self.body())),
        }
    }

    /// What its receivers are told of it at once: that it opened, or closed.
    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        let (phase, end_us) = if self.decision.closes {
            (Phase::Closed, self.decision.firing.end_us)
        } else {
            (Phase::Fired, self.first().end_us)
        };
        let told = Told {
            firing: &self.body(),
            start_us: self.first().start_us,
            end_us,
            alert: self.alert,
            tenant: self.tenant,
            links: self.links,
            phase,
            caption: None,
        };
        told.deliveries()
    }

    /// The same for the enricher, of a firing that opens.
    pub(crate) fn explaining(&self) -> Explaining {
        Explaining {
            firing: Some(self.observation()),
            alert: Some(self.alert.clone()),
            tenant: self.tenant.to_owned(),
            stored: self.links.is_some(),
            known: None,
        }
    }

    fn body(&self) -> FiringBody {
        let first = self.first();
        FiringBody {
            firing_id: self.id(),
            alert_id: self.alert.id.clone(),
            event_id: self.alert.event_id.clone(),
            label: self.event.label.clone(),
            index_id: self.alert.index_id.clone(),
            confidence: first.probability,
            explanation: health::explanation(&self.alert.event_id, &first)
                .unwrap_or_else(|| explanation(&self.event.prompt, &first)),
            decided_us: self.decision.firing.decided_us,
            captured_us: first.captured_us,
            state: self.state().into(),
            severity: severity(self.alert).into(),
            basis: self.basis(&first).into(),
            sampled_us: first.sampled_us,
            judged_us: first.judged_us,
        }
    }

    fn state(&self) -> firing::State {
        if self.decision.closes {
            firing::State::Closed
        } else {
            firing::State::Open
        }
    }

    /// What the verdict on a window was made by.
    fn basis(&self, judged: &JudgedWindow) -> firing::Basis {
        if judged.by_similarity {
            firing::Basis::Similarity
        } else if self.alert.index_id.is_empty() {
            firing::Basis::Health
        } else if self.is_audio {
            firing::Basis::Text
        } else {
            firing::Basis::Frames
        }
    }

    /// The window that opened the firing.
    fn first(&self) -> JudgedWindow {
        // Only a record that another program wrote lacks it.
        self.decision.firing.first.unwrap_or(self.decision.window)
    }
}

/// How bad the alert's firings are.
fn severity(alert: &Alert) -> Severity {
    match alert.severity() {
        Severity::Unspecified => Severity::Warning,
        severity => severity,
    }
}

fn explanation(prompt: &str, first: &JudgedWindow) -> String {
    let percent = (first.probability * 100.0).round();
    let found = if first.by_similarity {
        format!("is {percent} % similar in meaning (not judged by a model) to what was said")
    } else {
        format!("judged {percent} % likely")
    };
    let time = |us| time(us, "%Y-%m-%dT%H:%M:%S%.fZ");
    format!(
        "\"{prompt}\" {found} between {} and {}",
        time(first.start_us),
        time(first.end_us)
    )
}

#[cfg(test)]
mod tests {
    use sightline_proto::internal::OpenFiring;

    use super::*;

    const STREAM: &str = "rts-019ac3d0-0000-7000-8000-000000000001";

    #[test]
    fn the_explanation_says_what_the_number_is() {
        let mut first = JudgedWindow {
            start_us: 1_795_514_405_000_000,
            end_us: 1_795_514_410_500_000,
            probability: 0.614,
            ..JudgedWindow::default()
        };
        let times = "between 2026-11-24T10:00:05Z and 2026-11-24T10:00:10.5Z";
        let judged = format!("\"A fall\" judged 61 % likely {times}");
        assert_eq!(explanation("A fall", &first), judged);
        first.by_similarity = true;
        let similar = format!(
            "\"A fall\" is 61 % similar in meaning (not judged by a model) to what was said {times}"
        );
        assert_eq!(explanation("A fall", &first), similar);
    }

    #[test]
    fn the_body_is_what_receivers_expect() {
        let first = JudgedWindow {
            window: 3,
            start_us: 1_795_514_405_000_000,
            end_us: 1_795_514_410_500_000,
            probability: 0.97,
            captured_us: 1_795_514_409_000_000,
            ..JudgedWindow::default()
        };
        let firing = OpenFiring {
            first: Some(first),
            last_window: 3,
            end_us: first.end_us,
            decided_us: 1_795_514_410_716_407,
            quiet: 0,
        };
        let decision = Decision {
            epoch_us: 1,
            firing,
            window: first,
            closes: false,
        };
        let alert = Alert {
            id: "alr-1".into(),
            event_id: "evt-1".into(),
            index_id: "idx-1".into(),
            rtstream_id: STREAM.into(),
            callback_url: "http://127.0.0.1/hook".into(),
            ..Alert::default()
        };
        let event = Event {
            prompt: "Detect \"smoke\"".into(),
            label: "smoke".into(),
            ..Event::default()
        };
        let mut firing = Firing {
            decision: &decision,
            alert: &alert,
            is_audio: false,
            event: &event,
            collection_id: "c-1",
            tenant: "t",
            links: None,
        };
        let [delivery] = &firing.deliveries()[..] else {
            panic!("one receiver");
        };
        let body: serde_json::Value = serde_json::from_slice(&delivery.body).expect("JSON");
        let mut expected = serde_json::json!({
            "event_id": "evt-1",
            "label": "smoke",
            "confidence": 0.97,
            "explanation": "\"Detect \"smoke\"\" judged 97 % likely between 2026-11-24T10:00:05Z and 2026-11-24T10:00:10.5Z",
            "timestamp": "2026-11-24T10:00:10.716407+00:00",
            "start_time": "2026-11-24T10:00:05.000000+00:00",
            "end_time": "2026-11-24T10:00:10.500000+00:00",
            "stream_url": null,
            "player_url": null,
            "thumbnail_url": null,
            "alert_id": "alr-1",
            "rtstream_id": STREAM,
            "index_id": "idx-1",
            "firing_id": firing.id(),
            "phase": "fired",
            "state": "open",
            "severity": "warning",
            "basis": "frames",
            "caption": null,
        });
        assert_eq!(body, expected);
        assert_eq!(
            delivery.endpoint_id,
            ids::endpoint_id("t", "http://127.0.0.1/hook")
        );
        assert_eq!(firing.observation().end_us, first.end_us);

        let public = "https://video.example/".parse().expect("a URL");
        let links = Links::new(&public, &[7; 32], Some(1_000_000));
        let around = links.around(STREAM, first.start_us, first.end_us, 1_795_514_410_716_407);
        firing.links = Some(&links);
        assert!(around.stream_url.starts_with(public.as_str()));
        expected["stream_url"] = around.stream_url.into();
        expected["player_url"] = around.player_url.into();
        expected["thumbnail_url"] = around.thumbnail_url.into();
        firing.is_audio = true;
        expected["basis"] = "text".into();
        let [delivery] = &firing.deliveries()[..] else {
            panic!("one receiver");
        };
        let body: serde_json::Value = serde_json::from_slice(&delivery.body).expect("JSON");
        assert_eq!(body, expected);
    }
}
