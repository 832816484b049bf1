//! Verdicts on batches of a transcript that no model has read, because the index's model can't: an event's probability is how
//! similar in meaning its prompt and the batch's text are; the verdict says so.

use std::collections::{BTreeSet, HashMap};

use sightline_bus::{BusError, ObservationKind, Subject};
use sightline_proto::ids;
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{
    AlertRecord, AudioSceneBody, EventRecord, Observation, VerdictBody,
};
use sightline_proto::time::micros;
use sightline_proto::v1::alert::State;

use crate::Shared;
use crate::model::EmbedError;

/// Prompts whose vectors are kept; with more, they are computed again.
const MOST_PROMPTS: usize = 1000;

/// The vectors of events' prompts.
#[derive(Default)]
pub(crate) struct Prompts(HashMap<String, Vec<f32>>);

impl Prompts {
    /// The verdicts that the enabled alerts on a batch's index wait for; none without a text, nor on a batch that a model has
    /// read and judged.
    pub(crate) async fn judge(
        &mut self,
        shared: &Shared,
        observation: &Observation,
        vector: Option<&Vec<f32>>,
    ) -> Result<Vec<Observation>, EmbedError> {
        let (Some(Body::AudioScene(scene)), Some(vector)) = (&observation.body, vector) else {
            return Ok(Vec::new());
        };
        if !observation.model_revision.is_empty() {
            return Ok(Vec::new());
        }
        let mut verdicts = Vec::new();
        for event_id in watched(shared, scene, observation.end_us) {
            let Some(event) = shared.catalog.get::<EventRecord>(&event_id) else {
                continue;
            };
            let prompt = event.value.event.as_ref().map_or("", |event| &event.prompt);
            let probability = similarity(self.vector(shared, prompt).await?, vector);
            let verdict = verdict(shared, observation, scene, event_id, probability);
            verdicts.push(verdict);
        }
        Ok(verdicts)
    }

    async fn vector(&mut self, shared: &Shared, prompt: &str) -> Result<&[f32], EmbedError> {
        if !self.0.contains_key(prompt) {
            if self.0.len() >= MOST_PROMPTS {
                self.0.clear();
            }
            let vectors = shared.model.embed(&[prompt.to_owned()]).await?;
            let vector = vectors.into_iter().next().unwrap_or_default();
            self.0.insert(prompt.to_owned(), vector);
        }
        Ok(self.0.get(prompt).map_or(&[], Vec::as_slice))
    }
}

/// Publishes a verdict.
pub(crate) async fn publish(shared: &Shared, verdict: &Observation) -> Result<(), BusError> {
    let subject = Subject::Observation {
        partition: shared.catalog.partition_of(&verdict.rtstream_id),
        kind: ObservationKind::Verdict,
        rtstream: verdict.rtstream_id.clone(),
    };
    shared.bus.publish(&subject, &verdict.id, verdict).await?;
    Ok(())
}

/// The events that enabled alerts watch on a batch's index, each once. A batch from before an alert is none of its
/// business: a store that fills anew would make alerts of the past.
fn watched(shared: &Shared, scene: &AudioSceneBody, end_us: i64) -> BTreeSet<String> {
    let alerts = shared.catalog.list::<AlertRecord>().into_iter();
    alerts
        .filter_map(|(_, record)| {
            let alert = record.value.alert.as_ref()?;
            let wants = alert.index_id == scene.index_id
                && alert.state() == State::Enabled
                && alert.create_time.as_ref().map_or(0, micros) <= end_us;
            wants.then(|| alert.event_id.clone())
        })
        .collect()
}

fn verdict(
    shared: &Shared,
    batch: &Observation,
    scene: &AudioSceneBody,
    event_id: String,
    probability: f32,
) -> Observation {
    let revision = shared.model.revision();
    let judged_us = shared.clock.now_us();
    let answers = format!("{}:{event_id}", scene.index_id);
    let id = ids::observation_id(
        "verdict",
        &batch.rtstream_id,
        batch.epoch_us,
        batch.start_us,
        &answers,
        0,
        revision,
    );
    Observation {
        id,
        rtstream_id: batch.rtstream_id.clone(),
        collection_id: batch.collection_id.clone(),
        epoch_us: batch.epoch_us,
        start_us: batch.start_us,
        end_us: batch.end_us,
        model_revision: revision.to_owned(),
        body: Some(Body::Verdict(VerdictBody {
            index_id: scene.index_id.clone(),
            event_id,
            probability,
            window: scene.batch,
            // A file that is played fast is ahead of the clock.
            captured_us: batch.end_us.min(judged_us),
            judged_us,
            by_similarity: true,
            sampled_us: 0,
        })),
    }
}

/// The cosine of the angle between two vectors, 0 to 1; what points apart is not similar at all.
fn similarity(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 {
        (dot(a, b) / lengths).clamp(0.0, 1.0)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similarity_is_a_cosine_from_0_to_1() {
        for (a, b, expected) in [
            ([1.0, 0.0], [7.0, 0.0], 1.0),
            ([3.0, 4.0], [1.0, 0.0], 0.6),
            ([1.0, 0.0], [0.0, 2.0], 0.0),
            ([1.0, 0.0], [-1.0, 0.0], 0.0),
            ([0.0, 0.0], [1.0, 0.0], 0.0),
        ] {
            let found = similarity(&a, &b);
            assert!((found - expected).abs() < 1e-6, "{a:?} {b:?}: {found}");
        }
        assert_eq!(similarity(&[], &[1.0]), 0.0);
    }
}
