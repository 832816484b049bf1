//! Observations into a store: what is deleted is left out, and each text gets its vector.

use std::sync::Arc;

use sightline_proto::internal::Observation;
use sightline_service::{chain, failpoint};
use sightline_vectors::{Point, VectorError};
use tokio::time::Instant;

use crate::known::Known;
use crate::point::point;
use crate::{BUS, MODEL, STORE, Shared};

/// Why observations were not stored.
#[derive(Debug)]
pub(crate) enum Fault {
    /// They never will be.
    Lasting(String),
    /// They may be later, when this part is there again.
    Passing(&'static str, String),
}

/// Stores observations.
pub(crate) struct Storing {
    shared: Arc<Shared>,
    known: Known,
}

impl Storing {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            known: Known::new(shared.catalog.clone()),
            shared,
        }
    }

    /// What is to be stored of observations, with its vectors, beside the observations that are not deleted. Whoever stores
    /// it holds `Shared::storing` meanwhile.
    pub(crate) async fn points<'a>(
        &mut self,
        observations: impl Iterator<Item = &'a Observation>,
    ) -> Result<(Vec<&'a Observation>, Vec<Point>), Fault> {
        let mut kept = Vec::new();
        for observation in observations {
            let known = self.known.has(observation).await;
            if known.map_err(|error| Fault::Passing(BUS, chain(&error)))? {
                kept.push(observation);
            }
        }
        let points = kept.iter().map(|observation| point(observation));
        let mut points = points
            .collect::<Result<Vec<_>, _>>()
            .map_err(Fault::Lasting)?;
        self.embed(&mut points).await?;
        Ok((kept, points))
    }

    /// Stores points. When it returns they survive a killed process.
    pub(crate) async fn upsert(&self, points: Vec<Point>) -> Result<(), Fault> {
        failpoint::hit("embeddings.before_upsert");
        let started = Instant::now();
        match self.shared.store.upsert(points).await {
            Ok(()) => {
                self.shared.metrics.stored(started.elapsed());
                Ok(())
            }
            Err(VectorError::Invalid(reason)) => Err(Fault::Lasting(reason)),
            Err(error) => Err(Fault::Passing(STORE, chain(&error))),
        }
    }

    /// Gives each point with a text its vector. One without has none: it is listed, and a search never finds it.
    async fn embed(&self, points: &mut [Point]) -> Result<(), Fault> {
        let mut with_text: Vec<&mut Point> = points
            .iter_mut()
            .filter(|point| !point.record.text.trim().is_empty())
            .collect();
        let texts: Vec<String> = with_text
            .iter()
            .map(|point| point.record.text.clone())
            .collect();
        if texts.is_empty() {
            return Ok(());
        }
        let started = Instant::now();
        let model = &self.shared.model;
        match model.embed(&texts).await {
            Ok(vectors) => {
                self.shared.metrics.embedded("batch", started.elapsed());
                for (point, vector) in with_text.iter_mut().zip(vectors) {
                    point.vector = Some(vector);
                }
                Ok(())
            }
            // Either this text is at fault or the model: a harmless text tells.
            Err(error) if model.works().await => Err(Fault::Lasting(chain(&error))),
            Err(error) => Err(Fault::Passing(MODEL, chain(&error))),
        }
    }
}
