//! Observations of the bus as messages of the public API; `Linker` adds their links.

use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{FiringBody, Observation, VerdictBody};
use sightline_proto::time::timestamp;
use sightline_proto::v1;

/// The scene in an observation, if it is one: of a visual or of an audio index.
pub(crate) fn scene(observation: &Observation) -> Option<v1::Scene> {
    let about = v1::Scene {
        id: observation.id.clone(),
        rtstream_id: observation.rtstream_id.clone(),
        start_time: Some(timestamp(observation.start_us)),
        end_time: Some(timestamp(observation.end_us)),
        model_revision: observation.model_revision.clone(),
        ..Default::default()
    };
    match observation.body.as_ref()? {
        Body::Scene(body) => Some(v1::Scene {
            index_id: body.index_id.clone(),
            text: body.text.clone(),
            frame_times: body
                .frame_times_us
                .iter()
                .map(|&us| timestamp(us))
                .collect(),
            prompt_revision: body.prompt_revision,
            window: body.window,
            prompt_applied: true,
            ..about
        }),
        Body::AudioScene(body) => Some(v1::Scene {
            index_id: body.index_id.clone(),
            text: body.text.clone(),
            prompt_revision: body.prompt_revision,
            window: body.batch,
            prompt_applied: body.prompt_applied,
            transcript: body.transcript.clone(),
            ..about
        }),
        _ => None,
    }
}

/// The transcript segment in an observation, if it is one.
pub(crate) fn transcript(observation: &Observation) -> Option<v1::TranscriptSegment> {
    let Some(Body::Transcript(body)) = &observation.body else {
        return None;
    };
    let words = body.words.iter().map(|word| v1::transcript_segment::Word {
        text: word.text.clone(),
        start_time: Some(timestamp(word.start_us)),
        end_time: Some(timestamp(word.end_us)),
        probability: word.probability,
    });
    Some(v1::TranscriptSegment {
        id: observation.id.clone(),
        rtstream_id: observation.rtstream_id.clone(),
        start_time: Some(timestamp(observation.start_us)),
        end_time: Some(timestamp(observation.end_us)),
        text: body.text.clone(),
        words: words.collect(),
        interim: body.interim,
        language: body.language.clone(),
        ..Default::default()
    })
}

/// A verdict, as watchers see it; the hub knows which are by words.
pub(crate) fn verdict(observation: &Observation, body: &VerdictBody) -> v1::Verdict {
    let basis = if body.by_similarity {
        v1::firing::Basis::Similarity
    } else if body.index_id.is_empty() {
        v1::firing::Basis::Health
    } else {
        v1::firing::Basis::Frames
    };
    v1::Verdict {
        rtstream_id: observation.rtstream_id.clone(),
        index_id: body.index_id.clone(),
        event_id: body.event_id.clone(),
        probability: body.probability,
        start_time: Some(timestamp(observation.start_us)),
        end_time: Some(timestamp(observation.end_us)),
        basis: basis.into(),
    }
}

/// A firing as of one observation of it.
pub(crate) fn firing(observation: &Observation, body: &FiringBody) -> v1::Firing {
    v1::Firing {
        id: body.firing_id.clone(),
        alert_id: body.alert_id.clone(),
        event_id: body.event_id.clone(),
        label: body.label.clone(),
        index_id: body.index_id.clone(),
        rtstream_id: observation.rtstream_id.clone(),
        confidence: body.confidence,
        explanation: body.explanation.clone(),
        start_time: Some(timestamp(observation.start_us)),
        end_time: Some(timestamp(observation.end_us)),
        decide_time: Some(timestamp(body.decided_us)),
        state: body.state,
        severity: body.severity,
        basis: body.basis,
        ..Default::default()
    }
}
