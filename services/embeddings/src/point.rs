//! What is stored of an observation.

use prost::Message;
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{Observation, Record, RecordKind};
use sightline_vectors::Point;

/// The point of a scene of either kind or of a transcript, still without its vector. The error says why there is none.
pub(crate) fn point(observation: &Observation) -> Result<Point, String> {
    let (kind, index_id, text, window) = match &observation.body {
        Some(Body::Scene(scene)) => (
            RecordKind::Scene,
            scene.index_id.clone(),
            &scene.text,
            Some(scene.window),
        ),
        Some(Body::Transcript(transcript)) => (
            RecordKind::Transcript,
            String::new(),
            &transcript.text,
            None,
        ),
        Some(Body::AudioScene(scene)) => (
            RecordKind::AudioScene,
            scene.index_id.clone(),
            &scene.text,
            Some(scene.batch),
        ),
        _ => return Err("it is neither a scene nor a transcript".to_owned()),
    };
    Ok(Point {
        record: Record {
            id: observation.id.clone(),
            kind: kind.into(),
            rtstream_id: observation.rtstream_id.clone(),
            collection_id: observation.collection_id.clone(),
            index_id,
            start_us: observation.start_us,
            end_us: observation.end_us,
            text: text.clone(),
            observation: observation.encode_to_vec().into(),
        },
        epoch_us: observation.epoch_us,
        window,
        vector: None,
    })
}
