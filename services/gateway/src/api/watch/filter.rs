//! What a watcher may be told, and which of it he asked for.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use sightline_proto::internal::observation::Body;
use sightline_proto::internal::subscribed::To;
use sightline_proto::internal::{Observation, SubscriptionRecord};
use sightline_proto::v1;
use sightline_proto::v1::watch_request::Kind;
use sightline_proto::v1::watch_response::Message;

use crate::api::convert;

/// Something that happened, as watchers see it.
pub(crate) struct Happening {
    /// Its place in OBSERVATIONS; of an interim line that of what came before it.
    pub(crate) sequence: u64,
    pub(crate) message: Message,
    /// Whether it is a line that is not over.
    pub(crate) interim: bool,
    /// Whose stream it happened on.
    tenant: String,
    kind: Kind,
    rtstream_id: String,
    /// Empty for what belongs to no index.
    index_id: String,
}

impl Happening {
    /// What watchers of this tenant see of an observation; `None` for gaps and kinds that this release does not know.
    pub(crate) fn of(sequence: u64, observation: &Observation, tenant: String) -> Option<Self> {
        let (kind, index_id, message) = match observation.body.as_ref()? {
            Body::Scene(body) => (
                Kind::SceneIndex,
                body.index_id.clone(),
                Message::Scene(convert::scene(observation)?),
            ),
            Body::AudioScene(body) => (
                Kind::AudioIndex,
                body.index_id.clone(),
                Message::AudioScene(convert::scene(observation)?),
            ),
            Body::Transcript(_) => (
                Kind::Transcript,
                String::new(),
                Message::Transcript(convert::transcript(observation)?),
            ),
            Body::Firing(body) => (
                Kind::Alert,
                body.index_id.clone(),
                Message::Alert(convert::firing(observation, body)),
            ),
            Body::Status(body) => (
                Kind::StreamStatus,
                String::new(),
                Message::StreamStatus(v1::RtStreamStatus {
                    rtstream_id: observation.rtstream_id.clone(),
                    state: body.state,
                    detail: body.detail.clone(),
                    attempt: body.attempt,
                }),
            ),
            Body::Verdict(body) => (
                Kind::Verdict,
                body.index_id.clone(),
                Message::Verdict(convert::verdict(observation, body)),
            ),
            Body::Gap(_) => return None,
        };
        Some(Self {
            sequence,
            interim: matches!(&message, Message::Transcript(segment) if segment.interim),
            message,
            tenant,
            kind,
            rtstream_id: observation.rtstream_id.clone(),
            index_id,
        })
    }
}

/// Which happenings a watcher is told of: of his own tenant, what he wants.
#[derive(Clone)]
pub(crate) struct Filter {
    pub(crate) tenant: Arc<str>,
    pub(crate) wanted: Wanted,
}

impl Filter {
    pub(crate) fn passes(&self, happening: &Happening) -> bool {
        if happening.tenant != *self.tenant {
            return false;
        }
        match &self.wanted {
            Wanted::Asked(asked) => asked.passes(happening),
            Wanted::Subscribed(subscribed) => subscribed.passes(happening),
        }
    }
}

impl Filter {
    /// Whether interim lines are wanted at this moment.
    pub(crate) fn wants_interim(&self) -> bool {
        match &self.wanted {
            Wanted::Asked(asked) => asked.interim,
            Wanted::Subscribed(subscribed) => subscribed.hears(),
        }
    }
}

/// What a watcher wants.
#[derive(Clone)]
pub(crate) enum Wanted {
    /// What the request of a Watch names.
    Asked(Arc<Asked>),
    /// What a WebSocket is subscribed to.
    Subscribed(Subscribed),
}

/// What the request of a Watch names; empty lists mean everything.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) rtstream_ids: Vec<String>,
    pub(crate) index_ids: Vec<String>,
    pub(crate) kinds: Vec<Kind>,
    /// Whether lines that are not over are told too.
    pub(crate) interim: bool,
}

impl Asked {
    fn passes(&self, happening: &Happening) -> bool {
        let any = |ids: &[String], id: &String| ids.is_empty() || ids.contains(id);
        let of_index = happening.index_id.is_empty() || any(&self.index_ids, &happening.index_id);
        let of_kind = match happening.kind {
            // Many more than all others together, so only for those who name them.
            Kind::Verdict if self.kinds.is_empty() => false,
            kind => self.kinds.is_empty() || self.kinds.contains(&kind),
        };
        let wanted = self.interim || !happening.interim;
        wanted && of_kind && of_index && any(&self.rtstream_ids, &happening.rtstream_id)
    }
}

/// What a WebSocket is subscribed to. Clones share it, so that it can change while a watch is open.
#[derive(Clone, Default)]
pub(crate) struct Subscribed(Arc<RwLock<Subscriptions>>);

#[derive(Default)]
struct Subscriptions {
    transcripts: HashSet<String>,
    indexes: HashSet<String>,
    alerts: HashSet<String>,
}

impl Subscribed {
    /// Tells of what the record names, from now on, and of nothing else.
    pub(crate) fn set(&self, record: &SubscriptionRecord) {
        let mut now = Subscriptions::default();
        for to in record.subscribed.iter().filter_map(|one| one.to.as_ref()) {
            match to {
                To::TranscriptOfRtstreamId(id) => now.transcripts.insert(id.clone()),
                To::IndexId(id) => now.indexes.insert(id.clone()),
                To::AlertId(id) => now.alerts.insert(id.clone()),
            };
        }
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = now;
    }

    /// Whether it is told of any transcript.
    fn hears(&self) -> bool {
        let to = self.0.read().unwrap_or_else(PoisonError::into_inner);
        !to.transcripts.is_empty()
    }

    fn passes(&self, happening: &Happening) -> bool {
        let to = self.0.read().unwrap_or_else(PoisonError::into_inner);
        match &happening.message {
            Message::Transcript(segment) => to.transcripts.contains(&segment.rtstream_id),
            Message::Scene(scene) | Message::AudioScene(scene) => {
                to.indexes.contains(&scene.index_id)
            }
            Message::Alert(firing) => to.alerts.contains(&firing.alert_id),
            Message::StreamStatus(_)
            | Message::Verdict(_)
            | Message::Lagged(_)
            | Message::Ready(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use sightline_proto::internal::{
        AudioSceneBody, FiringBody, GapBody, SceneBody, StatusBody, Subscribed as SubscribedTo,
        TranscriptBody, VerdictBody,
    };

    use super::*;

    fn happening(body: Body) -> Option<Happening> {
        let observation = Observation {
            rtstream_id: "rts-1".to_owned(),
            body: Some(body),
            ..Default::default()
        };
        Happening::of(1, &observation, "a".to_owned())
    }

    /// A scene of index idx-1, a firing of alert alr-1 on it, a batch of index idx-2, a transcript and a status, all of rts-1.
    fn bodies() -> [Body; 5] {
        let index_id = "idx-1".to_owned();
        [
            Body::Scene(SceneBody {
                index_id: index_id.clone(),
                ..Default::default()
            }),
            Body::Firing(FiringBody {
                index_id,
                alert_id: "alr-1".to_owned(),
                ..Default::default()
            }),
            Body::AudioScene(AudioSceneBody {
                index_id: "idx-2".to_owned(),
                ..Default::default()
            }),
            Body::Transcript(TranscriptBody::default()),
            Body::Status(StatusBody::default()),
        ]
    }

    /// Which of the bodies pass.
    fn passed(tenant: &str, wanted: Wanted) -> [bool; 5] {
        let tenant = tenant.into();
        let filter = Filter { tenant, wanted };
        bodies().map(|body| happening(body).is_some_and(|h| filter.passes(&h)))
    }

    #[test]
    fn verdicts_are_for_those_who_name_them() {
        let verdict = happening(Body::Verdict(VerdictBody::default())).expect("a verdict");
        for (kinds, told) in [
            (vec![], false),
            (vec![Kind::Alert], false),
            (vec![Kind::Verdict], true),
        ] {
            let asked = Asked {
                kinds,
                ..Asked::default()
            };
            assert_eq!(asked.passes(&verdict), told, "{asked:?}");
        }
    }

    #[test]
    fn gaps_and_unknown_bodies_are_not_for_watchers() {
        assert!(happening(Body::Gap(GapBody::default())).is_none());
        assert!(Happening::of(1, &Observation::default(), String::new()).is_none());
    }

    /// Streams, indexes and kinds asked for, and which of the bodies pass.
    type Row<'a> = (&'a [&'a str], &'a [&'a str], &'a [Kind], &'a str);

    #[test]
    fn filters_are_met_all_together() {
        let (s, f, b, t) = (
            Kind::SceneIndex,
            Kind::Alert,
            Kind::AudioIndex,
            Kind::Transcript,
        );
        let rows: [Row<'_>; 9] = [
            (&[], &[], &[], "sfbt."),
            (&["rts-1"], &[], &[], "sfbt."),
            (&["rts-2"], &[], &[], ""),
            (&["rts-2", "rts-1"], &["idx-1"], &[], "sft."),
            (&[], &["idx-2"], &[], "bt."),
            (&[], &[], &[f], "f"),
            (&[], &[], &[b], "b"),
            (&[], &["idx-2"], &[s, t], "t"),
            (&[], &["idx-1"], &[s, t], "st"),
        ];
        for (streams, indexes, kinds, expected) in rows {
            let owned = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect();
            let asked = Asked {
                rtstream_ids: owned(streams),
                index_ids: owned(indexes),
                kinds: kinds.to_vec(),
                interim: false,
            };
            let told = format!("{asked:?}");
            let found = passed("a", Wanted::Asked(Arc::new(asked)));
            let expected = ['s', 'f', 'b', 't', '.'].map(|one| expected.contains(one));
            assert_eq!(found, expected, "{told}");
        }
    }

    #[test]
    fn nothing_of_another_tenant_passes() {
        let asked = Wanted::Asked(Arc::default());
        assert_eq!(passed("b", asked), [false; 5]);
    }

    #[test]
    fn subscriptions_may_change_while_they_are_used() {
        let subscribed = Subscribed::default();
        let check = |to: &[To], expected: [bool; 5]| {
            subscribed.set(&SubscriptionRecord {
                subscribed: to
                    .iter()
                    .map(|to| SubscribedTo {
                        to: Some(to.clone()),
                    })
                    .collect(),
                ..Default::default()
            });
            let found = passed("a", Wanted::Subscribed(subscribed.clone()));
            assert_eq!(found, expected, "{to:?}");
        };
        let index = |id: &str| To::IndexId(id.to_owned());
        let alert = To::AlertId("alr-1".to_owned());
        let transcript = To::TranscriptOfRtstreamId("rts-1".to_owned());
        check(&[], [false; 5]);
        check(&[index("idx-1"), alert], [true, true, false, false, false]);
        check(
            &[transcript, index("idx-2")],
            [false, false, true, true, false],
        );
    }
}
