//! What people see of each message.

use sightline_proto::time::micros;
use sightline_proto::v1::audio_batching::Batch;
use sightline_proto::v1::watch_response::Message;
use sightline_proto::v1::{
    Alert, Collection, Delivery, Endpoint, Event, Firing, Index, Key, RtStream, Scene, SearchHit,
    TranscriptSegment, WatchResponse, firing, index,
};

use super::moment::View;
use super::output::Shown;
use super::policy;

/// `STATE_ACTIVE` as `active`.
fn word(value: &str, prefix: &str) -> String {
    let word = value.strip_prefix(prefix).unwrap_or(value).to_lowercase();
    if word == "unspecified" {
        String::new()
    } else {
        word.replace('_', " ")
    }
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "" }.to_owned()
}

fn percent(share: f32) -> String {
    format!("{:.0} %", share * 100.0)
}

impl Shown for RtStream {
    const COLUMNS: &'static [&'static str] = &[
        "ID",
        "NAME",
        "STATE",
        "SPEECH",
        "RECORDING",
        "CONNECTED",
        "URL",
    ];

    fn row(&self, view: &View) -> Vec<String> {
        let asked = self.transcription.clone().unwrap_or_default();
        let speech = match (self.transcribe, asked.language.as_str(), asked.translate) {
            (false, ..) => "off".to_owned(),
            (true, "", false) => "on".to_owned(),
            (true, "", true) => "to en".to_owned(),
            (true, language, false) => language.to_owned(),
            (true, language, true) => format!("{language} to en"),
        };
        let recording = word(self.recording_state().as_str_name(), "RECORDING_STATE_");
        vec![
            self.id.clone(),
            self.name.clone(),
            word(self.state().as_str_name(), "STATE_"),
            speech,
            if self.store {
                recording
            } else {
                "off".to_owned()
            },
            view.age(self.create_time.as_ref()),
            self.url.clone(),
        ]
    }

    fn further(&self, view: &View) -> Vec<(&'static str, String)> {
        let attempt = if self.attempt > 0 {
            self.attempt.to_string()
        } else {
            String::new()
        };
        vec![
            ("collection", self.collection_id.clone()),
            ("why", self.state_detail.clone()),
            ("attempt", attempt),
            ("started", view.time(self.epoch.as_ref())),
            ("recording", self.recording_detail.clone()),
        ]
    }
}

impl Shown for Index {
    const COLUMNS: &'static [&'static str] = &[
        "ID", "NAME", "KIND", "STATE", "EVERY", "SCENES", "MISSING", "PROMPT",
    ];

    fn row(&self, _view: &View) -> Vec<String> {
        let stats = self.stats.unwrap_or_default();
        let kind = if self.kind() == index::Kind::Audio {
            "audio"
        } else {
            "visual"
        };
        vec![
            self.id.clone(),
            self.name.clone(),
            kind.to_owned(),
            word(self.state().as_str_name(), "STATE_"),
            every(self),
            stats.described.to_string(),
            stats.missing.to_string(),
            if unapplied(self) {
                format!("(not applied) {}", self.prompt)
            } else {
                self.prompt.clone()
            },
        ]
    }

    fn further(&self, view: &View) -> Vec<(&'static str, String)> {
        let mut further = vec![
            ("stream", self.rtstream_id.clone()),
            ("model", self.model.clone()),
            ("revision", self.prompt_revision.to_string()),
            ("created", view.age(self.create_time.as_ref())),
        ];
        if unapplied(self) {
            let why = "the model cannot read text: the prompt is not applied, and scenes are what was said";
            further.push(("note", why.to_owned()));
        }
        let tokens = self.model_config.map_or(0, |config| config.max_new_tokens);
        if tokens > 0 {
            further.push(("tokens", format!("{tokens} at most")));
        }
        if self.reuse_below > 0.0 {
            further.push(("reuse", format!("below {}", self.reuse_below)));
        }
        further
    }
}

/// Whether an index has a prompt that its model cannot answer.
fn unapplied(index: &Index) -> bool {
    index.kind() == index::Kind::Audio && !index.prompt_applied && !index.prompt.is_empty()
}

/// What makes one scene of an index.
fn every(index: &Index) -> String {
    let seconds = |time: &prost_types::Duration| {
        let us = sightline_proto::time::duration_micros(time);
        format!("{} s", us as f64 / 1e6)
    };
    if let Some(sampling) = &index.sampling {
        let window = sampling.window.as_ref().map(seconds).unwrap_or_default();
        return format!("{window}, {} frames", sampling.frame_count);
    }
    match index
        .batching
        .as_ref()
        .and_then(|batching| batching.batch.as_ref())
    {
        Some(Batch::Words(words)) => format!("{words} words"),
        Some(Batch::Sentences(sentences)) => format!("{sentences} sentences"),
        Some(Batch::Time(time)) => seconds(time),
        None => String::new(),
    }
}

impl Shown for Scene {
    const COLUMNS: &'static [&'static str] = &["TIME", "LENGTH", "TEXT"];

    fn row(&self, view: &View) -> Vec<String> {
        let [time, length] = view.stretch(self.start_time.as_ref(), self.end_time.as_ref());
        vec![time, length, self.text.clone()]
    }
}

impl Shown for TranscriptSegment {
    const COLUMNS: &'static [&'static str] = &["TIME", "LENGTH", "TEXT"];

    fn row(&self, view: &View) -> Vec<String> {
        let [time, length] = view.stretch(self.start_time.as_ref(), self.end_time.as_ref());
        vec![time, length, self.text.clone()]
    }
}

impl Shown for SearchHit {
    const COLUMNS: &'static [&'static str] =
        &["SCORE", "TIME", "LENGTH", "STREAM", "INDEX", "TEXT"];

    fn row(&self, view: &View) -> Vec<String> {
        let [time, length] = view.stretch(self.start_time.as_ref(), self.end_time.as_ref());
        let index = if self.index_id.is_empty() {
            "(speech)"
        } else {
            &self.index_name
        };
        vec![
            format!("{:.3}", self.score),
            time,
            length,
            self.rtstream_name.clone(),
            index.to_owned(),
            self.text.clone(),
        ]
    }
}

impl Shown for Event {
    const COLUMNS: &'static [&'static str] = &["ID", "LABEL", "CREATED", "PROMPT"];

    fn row(&self, view: &View) -> Vec<String> {
        let created = view.age(self.create_time.as_ref());
        vec![
            self.id.clone(),
            self.label.clone(),
            created,
            self.prompt.clone(),
        ]
    }
}

impl Shown for Alert {
    const COLUMNS: &'static [&'static str] = &[
        "ID", "STATE", "SEVERITY", "FROM", "POLICY", "CREATED", "EVENT", "INDEX", "POSTS TO",
    ];

    fn row(&self, view: &View) -> Vec<String> {
        vec![
            self.id.clone(),
            word(self.state().as_str_name(), "STATE_"),
            word(self.severity().as_str_name(), "SEVERITY_"),
            percent(self.threshold),
            self.policy.as_ref().map(policy::words).unwrap_or_default(),
            view.age(self.create_time.as_ref()),
            self.event_id.clone(),
            self.index_id.clone(),
            self.callback_url.clone(),
        ]
    }

    fn further(&self, view: &View) -> Vec<(&'static str, String)> {
        let muted = self
            .mute_time
            .as_ref()
            .filter(|time| micros(time) > view.now_us);
        vec![
            ("stream", self.rtstream_id.clone()),
            (
                "delivers",
                word(self.delivery().as_str_name(), "DELIVERY_MODE_"),
            ),
            (
                "muted until",
                muted.map_or_else(String::new, |time| view.time(Some(time))),
            ),
            ("sinks", self.sinks.join(", ")),
            ("template", self.template.clone()),
        ]
    }
}

impl Shown for Firing {
    const COLUMNS: &'static [&'static str] = &[
        "TIME", "LENGTH", "STATE", "SEVERITY", "LABEL", "SURE", "WHY",
    ];

    fn row(&self, view: &View) -> Vec<String> {
        let [time, length] = view.stretch(self.start_time.as_ref(), self.end_time.as_ref());
        let sure = percent(self.confidence);
        vec![
            time,
            length,
            word(self.state().as_str_name(), "STATE_"),
            word(self.severity().as_str_name(), "SEVERITY_"),
            self.label.clone(),
            sure,
            self.explanation.clone(),
        ]
    }
}

impl Shown for Delivery {
    const COLUMNS: &'static [&'static str] = &[
        "TIME", "FIRING", "ATTEMPT", "STATUS", "AFTER", "NEXT", "ERROR",
    ];

    fn row(&self, view: &View) -> Vec<String> {
        let answered = self.status_code != 0;
        let delivered = self.error.is_empty();
        vec![
            view.time(self.end_time.as_ref()),
            self.firing_id.clone(),
            self.attempt.to_string(),
            if answered {
                self.status_code.to_string()
            } else {
                "none".to_owned()
            },
            if delivered && !self.redelivery {
                format!("{:.0} ms", self.decision_to_2xx_ms)
            } else {
                String::new()
            },
            next(self, view),
            self.error.clone(),
        ]
    }
}

impl Shown for Endpoint {
    const COLUMNS: &'static [&'static str] = &["ID", "STATE", "CREATED", "POSTS TO", "WHY"];

    fn row(&self, view: &View) -> Vec<String> {
        vec![
            self.id.clone(),
            word(self.state().as_str_name(), "STATE_"),
            view.age(self.create_time.as_ref()),
            self.url.clone(),
            self.detail.clone(),
        ]
    }

    fn further(&self, view: &View) -> Vec<(&'static str, String)> {
        let until = self.old_expire_time.as_ref();
        let until = until.map_or_else(String::new, |time| view.time(Some(time)));
        vec![("old secret until", until)]
    }
}

impl Shown for Collection {
    const COLUMNS: &'static [&'static str] = &["ID", "NAME", "CREATED", "DESCRIPTION"];

    fn row(&self, view: &View) -> Vec<String> {
        let created = view.age(self.create_time.as_ref());
        vec![
            self.id.clone(),
            self.name.clone(),
            created,
            self.description.clone(),
        ]
    }
}

impl Shown for Key {
    const COLUMNS: &'static [&'static str] = &["ID", "NAME", "TENANT", "OPERATOR", "CREATED"];

    fn row(&self, view: &View) -> Vec<String> {
        vec![
            self.id.clone(),
            self.name.clone(),
            self.tenant.clone(),
            yes(self.operator),
            view.age(self.create_time.as_ref()),
        ]
    }
}

/// What becomes of a delivery; servers of before endpoints do not say.
fn next(delivery: &Delivery, view: &View) -> String {
    match &delivery.retry_time {
        Some(time) => format!("again at {}", view.time(Some(time))),
        None if delivery.outcome == 0 => String::new(),
        None => word(delivery.outcome().as_str_name(), "OUTCOME_"),
    }
}

/// The stream that a message of Watch is about.
pub fn stream_of(message: &WatchResponse) -> Option<&str> {
    Some(match message.message.as_ref()? {
        Message::Transcript(segment) => &segment.rtstream_id,
        Message::Scene(scene) | Message::AudioScene(scene) => &scene.rtstream_id,
        Message::Alert(firing) => &firing.rtstream_id,
        Message::StreamStatus(status) => &status.rtstream_id,
        Message::Verdict(verdict) => &verdict.rtstream_id,
        Message::Lagged(_) | Message::Ready(_) => return None,
    })
}

/// One line of `watch` for people; none for what they need not know.
pub fn happened(message: &WatchResponse, stream: &str, view: &View) -> Option<String> {
    let (time, kind, text) = match message.message.as_ref()? {
        Message::Transcript(segment) => {
            let what = if segment.interim {
                "speaking"
            } else {
                "speech"
            };
            (&segment.start_time, what, segment.text.clone())
        }
        Message::Scene(scene) => (&scene.start_time, "scene", scene.text.clone()),
        Message::AudioScene(scene) => (&scene.start_time, "batch", scene.text.clone()),
        Message::Alert(firing) if firing.state() == firing::State::Closed => {
            (&firing.end_time, "over", firing.label.clone())
        }
        Message::Alert(firing) => {
            let (label, sure) = (&firing.label, percent(firing.confidence));
            let text = format!("{label} ({sure}): {}", firing.explanation);
            (&firing.start_time, "ALERT", text)
        }
        Message::Verdict(verdict) => {
            let (event, sure) = (&verdict.event_id, percent(verdict.probability));
            (&verdict.start_time, "verdict", format!("{event} {sure}"))
        }
        Message::StreamStatus(status) => {
            let state = word(status.state().as_str_name(), "STATE_");
            (&None, "status", format!("{state} {}", status.detail))
        }
        Message::Lagged(lagged) => {
            let text = format!("{} messages were left out: going back", lagged.count);
            (&None, "lagged", text)
        }
        Message::Ready(_) => return None,
    };
    let now = sightline_proto::time::timestamp(view.now_us);
    let time = view.time(Some(time.as_ref().unwrap_or(&now)));
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = format!("{time}  {kind:6}  {stream}  {text}");
    Some(line.trim_end().to_owned())
}
