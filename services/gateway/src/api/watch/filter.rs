//! What a watcher may be told, and which of it he asked for.

use sightline_proto::internal::Observation;
use sightline_proto::internal::observation::Body;
use sightline_proto::v1;
use sightline_proto::v1::watch_request::Kind;
use sightline_proto::v1::watch_response::Message;

use crate::api::convert;

/// Something that happened, as watchers see it.
pub(crate) struct Happening {
    /// Its place in OBSERVATIONS.
    pub(crate) sequence: u64,
    pub(crate) message: Message,
    kind: Kind,
    rtstream_id: String,
    /// Empty for what belongs to no index.
    index_id: String,
}

impl Happening {
    /// What watchers see of an observation; `None` for verdicts, gaps and kinds that this release does not know.
    pub(crate) fn of(sequence: u64, observation: &Observation) -> Option<Self> {
        let (kind, index_id, message) = match observation.body.as_ref()? {
            Body::Scene(body) => (
                Kind::SceneIndex,
                body.index_id.clone(),
                Message::Scene(convert::scene(observation)?),
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
            Body::Verdict(_) | Body::Gap(_) => return None,
        };
        Some(Self {
            sequence,
            message,
            kind,
            rtstream_id: observation.rtstream_id.clone(),
            index_id,
        })
    }
}

/// Which happenings a watcher asked for; empty lists mean everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub(crate) rtstream_ids: Vec<String>,
    pub(crate) index_ids: Vec<String>,
    pub(crate) kinds: Vec<Kind>,
}

impl Filter {
    pub(crate) fn passes(&self, happening: &Happening) -> bool {
        let any = |ids: &[String], id: &String| ids.is_empty() || ids.contains(id);
        let of_index = happening.index_id.is_empty() || any(&self.index_ids, &happening.index_id);
        let of_kind = self.kinds.is_empty() || self.kinds.contains(&happening.kind);
        of_kind && of_index && any(&self.rtstream_ids, &happening.rtstream_id)
    }
}

#[cfg(test)]
mod tests {
    use sightline_proto::internal::{
        FiringBody, GapBody, SceneBody, StatusBody, TranscriptBody, VerdictBody,
    };

    use super::*;

    fn happening(body: Body) -> Option<Happening> {
        let observation = Observation {
            rtstream_id: "rts-1".to_owned(),
            body: Some(body),
            ..Default::default()
        };
        Happening::of(1, &observation)
    }

    fn scene() -> Body {
        Body::Scene(SceneBody {
            index_id: "idx-1".to_owned(),
            ..Default::default()
        })
    }

    fn firing() -> Body {
        Body::Firing(FiringBody {
            index_id: "idx-1".to_owned(),
            ..Default::default()
        })
    }

    #[test]
    fn verdicts_gaps_and_unknown_bodies_are_not_for_watchers() {
        assert!(happening(Body::Verdict(VerdictBody::default())).is_none());
        assert!(happening(Body::Gap(GapBody::default())).is_none());
        assert!(Happening::of(1, &Observation::default()).is_none());
    }

    /// Whether scene, firing, transcript and status of stream rts-1 (index idx-1) pass.
    fn check(streams: &[&str], indexes: &[&str], kinds: &[Kind], expected: [bool; 4]) {
        let owned = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect();
        let filter = Filter {
            rtstream_ids: owned(streams),
            index_ids: owned(indexes),
            kinds: kinds.to_vec(),
        };
        let bodies = [
            scene(),
            firing(),
            Body::Transcript(TranscriptBody::default()),
            Body::Status(StatusBody::default()),
        ];
        let passed = bodies.map(|body| happening(body).is_some_and(|h| filter.passes(&h)));
        assert_eq!(passed, expected, "{filter:?}");
    }

    #[test]
    fn filters_are_met_all_together() {
        check(&[], &[], &[], [true; 4]);
        check(&["rts-1"], &[], &[], [true; 4]);
        check(&["rts-2"], &[], &[], [false; 4]);
        check(&["rts-2", "rts-1"], &["idx-1"], &[], [true; 4]);
        check(&[], &["idx-2"], &[], [false, false, true, true]);
        check(&[], &[], &[Kind::Alert], [false, true, false, false]);
        check(
            &[],
            &["idx-2"],
            &[Kind::SceneIndex, Kind::Transcript],
            [false, false, true, false],
        );
    }
}
