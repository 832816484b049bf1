//! Verdicts onto the bus, of windows and of batches.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::try_join_all;
use sightline_bus::{Bus, Subject};
use sightline_proto::internal::Observation;
use sightline_service::chain;

use crate::asking::Unanswered;
use crate::plan::Watched;

/// Publishes the verdict of every event that asks a question, and waits until the bus has them. Returns how many there are.
/// `probabilities` are in the order of the questions; none where the model can't take the question.
pub(crate) async fn publish(
    bus: &Bus,
    subject: &Subject,
    questions: &BTreeMap<String, BTreeSet<Watched>>,
    probabilities: Vec<Option<f32>>,
    verdict: impl Fn(&Watched, f32) -> Observation,
) -> Result<u64, Unanswered> {
    let answered = questions.values().zip(probabilities);
    let verdicts: Vec<Observation> = answered
        .filter_map(|(watched, probability)| Some((watched, probability?)))
        .flat_map(|(watched, probability)| watched.iter().map(move |w| (w, probability)))
        .map(|(watched, probability)| verdict(watched, probability))
        .collect();
    let publishing = verdicts
        .iter()
        .map(|verdict| bus.publish(subject, &verdict.id, verdict));
    let published = try_join_all(publishing).await;
    published.map_err(|error| Unanswered::Stopped(chain(&error)))?;
    Ok(verdicts.len() as u64)
}
