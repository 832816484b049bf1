//! What was seen, as observations with their deterministic ids.

use sightline_proto::ids;
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{FrameWindow, Observation, SceneBody, VerdictBody};

use crate::plan::{Described, Watched};

/// The answer to an event's question.
pub(crate) fn verdict(
    window: &FrameWindow,
    model_revision: &str,
    watched: &Watched,
    probability: f32,
    judged_us: i64,
) -> Observation {
    let answers = format!("{}:{}", watched.index_id, watched.event_id);
    let body = VerdictBody {
        index_id: watched.index_id.clone(),
        event_id: watched.event_id.clone(),
        probability,
        window: window.window,
        captured_us: window.captured_us,
        judged_us,
        by_similarity: false,
        sampled_us: window.sampled_us,
    };
    let id = id(
        window,
        model_revision,
        "verdict",
        &answers,
        watched.prompt_revision,
    );
    observation(window, model_revision, id, Body::Verdict(body))
}

/// A description.
pub(crate) struct Text {
    pub(crate) text: String,
    /// Whether it is that of an earlier window.
    pub(crate) reused: bool,
}

/// The description for an index.
pub(crate) fn scene(
    window: &FrameWindow,
    model_revision: &str,
    described: &Described,
    text: &Text,
) -> Observation {
    let body = SceneBody {
        index_id: described.index_id.clone(),
        prompt_revision: described.prompt_revision,
        text: text.text.clone(),
        frame_times_us: window.frames.iter().map(|frame| frame.time_us).collect(),
        window: window.window,
        reused: text.reused,
    };
    let id = id(
        window,
        model_revision,
        "scene",
        &described.index_id,
        described.prompt_revision,
    );
    observation(window, model_revision, id, Body::Scene(body))
}

fn id(
    window: &FrameWindow,
    model_revision: &str,
    kind: &str,
    answers: &str,
    prompt_revision: u32,
) -> String {
    ids::observation_id(
        kind,
        &window.rtstream_id,
        window.epoch_us,
        window.start_us,
        answers,
        prompt_revision,
        model_revision,
    )
}

fn observation(window: &FrameWindow, model_revision: &str, id: String, body: Body) -> Observation {
    Observation {
        id,
        rtstream_id: window.rtstream_id.clone(),
        collection_id: window.collection_id.clone(),
        epoch_us: window.epoch_us,
        start_us: window.start_us,
        end_us: window.end_us,
        model_revision: model_revision.to_owned(),
        body: Some(body),
    }
}
