//! Several processes on one place, as they are on one server, while the model changes; and a store in use that lags while another
//! takes its place.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex};

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use sightline_inference::{Embedder, InferenceError};
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{IndexRecord, RecordFilter};
use sightline_proto::v1::alert;
use sightline_testkit::until;
use sightline_vectors::{
    EdgeStores, EmbeddingModel, ListQuery, Named, Progress, Rebuild, State, Stores, VectorError,
    VectorStore,
};

use crate::support::{Platform, Service, all, assert_records, batch, scene, serve_at};
use crate::switching::{Turned, is_turned, loader, serve_turned};

/// A folder that several services have at the same time.
struct Together {
    stores: EdgeStores,
    open: tokio::sync::Mutex<HashMap<String, Arc<dyn VectorStore>>>,
    beats: Mutex<HashMap<String, u64>>,
}

impl Together {
    fn new(platform: &Platform) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            stores: EdgeStores::lock(&platform.store_dir())?,
            open: tokio::sync::Mutex::default(),
            beats: Mutex::default(),
        }))
    }
}

#[async_trait]
impl Stores for Together {
    async fn state(&self) -> Result<State, VectorError> {
        self.stores.state().await
    }

    async fn begin(&self, model: &EmbeddingModel) -> Result<(), VectorError> {
        self.stores.begin(model).await
    }

    async fn open(&self, named: &Named) -> Result<Arc<dyn VectorStore>, VectorError> {
        let mut open = self.open.lock().await;
        if let Some(open) = open.get(&named.name) {
            return Ok(Arc::clone(open));
        }
        let store = self.stores.open(named).await?;
        open.insert(named.name.clone(), Arc::clone(&store));
        Ok(store)
    }

    async fn switch(&self, next: &str) -> Result<(), VectorError> {
        self.stores.switch(next).await
    }

    async fn give_up(&self) -> Result<(), VectorError> {
        self.stores.give_up().await
    }

    async fn tidy(&self) -> Result<usize, VectorError> {
        let state = self.stores.state().await?;
        let kept = [state.current, state.next].map(|named| named.map(|named| named.name));
        let is_kept = |name: &String| kept.contains(&Some(name.clone()));
        self.open.lock().await.retain(|name, _| is_kept(name));
        self.stores.tidy().await
    }

    async fn beat(&self, name: &str) -> Result<(), VectorError> {
        *self
            .beats
            .lock()
            .unwrap()
            .entry(name.to_owned())
            .or_default() += 1;
        Ok(())
    }

    async fn pulse(&self, name: &str) -> Result<Option<String>, VectorError> {
        let beats = self.beats.lock().unwrap();
        Ok(Some(
            beats.get(name).copied().unwrap_or_default().to_string(),
        ))
    }

    async fn ask(&self, rebuild: Rebuild) -> Result<(), VectorError> {
        self.stores.ask(rebuild).await
    }

    async fn note(&self, progress: Progress) -> Result<(), VectorError> {
        self.stores.note(progress).await
    }

    async fn progress(&self) -> Result<Option<Progress>, VectorError> {
        self.stores.progress().await
    }
}

/// The other model, which a test has stop at texts about bicycles.
struct Gated {
    model: Turned,
    open: Mutex<bool>,
    moved: Condvar,
}

impl Gated {
    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.moved.notify_all();
    }
}

impl Embedder for Gated {
    fn revision(&self) -> &str {
        self.model.revision()
    }

    fn dimension(&self) -> usize {
        self.model.dimension()
    }

    fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, InferenceError> {
        if texts.iter().any(|text| text.contains("bicycle")) {
            let open = self.open.lock().unwrap();
            drop(self.moved.wait_while(open, |open| !*open).unwrap());
        }
        self.model.embed(texts)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_with_the_old_model_undoes_nothing_and_deletes_in_both_stores() -> Result<()> {
    let platform = Platform::start().await?;
    let place = Together::new(&platform)?;
    let start_old = || {
        let usual = Arc::clone(&platform.embedder);
        serve_at(
            platform.bus.clone(),
            usual,
            place.clone(),
            Arc::new(|_| None),
        )
    };
    let old = start_old().await?;
    let cars = (0..100).map(|window| scene("rts-1", "idx-1", window, &format!("{window} cars")));
    let bicycles = (100..200).map(|n| scene("rts-2", "idx-2", n, &format!("{n} bicycles")));
    let (cars, bicycles): (Vec<_>, Vec<_>) = (cars.collect(), bicycles.collect());
    platform.publish(&cars).await?;
    platform.publish(&bicycles).await?;
    old.holds(all(), 200).await?;

    let gated = Arc::new(Gated {
        model: Turned(Arc::clone(&platform.embedder)),
        open: Mutex::new(false),
        moved: Condvar::new(),
    });
    let (bus, load) = (platform.bus.clone(), loader(&platform));
    let new = serve_at(bus, gated.clone(), place.clone(), load).await?;
    let next = until("a next store", async || Ok(place.state().await?.next)).await?;
    let filled = place.open(&next).await?;
    until("some cars", async || {
        Ok((cars_in(&filled).await? >= 64).then_some(()))
    })
    .await?;

    // The old one starts again, as it does in a rollout.
    old.stop().await?;
    let old = start_old().await?;
    old.holds(all(), 200).await?;
    ensure!(place.state().await?.next == Some(next), "it was given up");

    platform.delete::<IndexRecord>("idx-1").await?;
    old.delete("", "idx-1").await?;
    ensure!(
        cars_in(&filled).await? == 0,
        "they come back with the new store"
    );

    gated.open();
    until("the new store", async || {
        Ok(is_turned(&platform).await?.then_some(()))
    })
    .await?;
    // What it had in hand goes when the gateway repeats it.
    old.delete("", "idx-1").await?;
    old.stop().await?;
    let old = start_old().await?;
    // It can't search what the other model made.
    old.misses(&["model"]).await?;
    new.misses(&[]).await?;
    for service in [&old, &new] {
        assert_records(&service.holds(all(), 100).await?, &bicycles)?;
    }
    let state = place.state().await?;
    ensure!(state.next.is_none(), "the old model comes back");
    ensure!(state.current.context("a store")?.replaces == [platform.embedder.revision()]);
    let found = new.search("142 bicycles", all()).await?;
    ensure!(found[0].0 == "142 bicycles", "{found:?}");
    stop([old, new]).await
}

async fn cars_in(store: &Arc<dyn VectorStore>) -> Result<usize> {
    let query = ListQuery {
        filter: RecordFilter {
            index_id: "idx-1".to_owned(),
            ..all()
        },
        limit: 1000,
        ..ListQuery::default()
    };
    Ok(store.list(&query).await?.len())
}

async fn stop(services: [Service; 2]) -> Result<()> {
    for service in services {
        service.stop().await?;
    }
    Ok(())
}

/// A model that can't be had any more.
struct Away(String, usize);

impl Embedder for Away {
    fn revision(&self) -> &str {
        &self.0
    }

    fn dimension(&self) -> usize {
        self.1
    }

    fn embed(&self, _texts: &[String]) -> Result<Vec<Vec<f32>>, InferenceError> {
        Err(InferenceError::Run {
            what: "asking the remote model",
            source: "nobody listens there".into(),
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_old_store_has_not_got_to_is_judged_when_the_new_one_takes_its_place() -> Result<()>
{
    let platform = Platform::start().await?;
    let service = platform.serve().await?;
    let first = scene("rts-1", "idx-1", 0, "a red car");
    platform.publish(std::slice::from_ref(&first)).await?;
    service.holds(all(), 1).await?;
    service.stop().await?;

    let alerts = [("alr-1", "idx-1", "evt-1", alert::State::Enabled, 0)];
    platform
        .watch("evt-1", "somebody calls for help", &alerts)
        .await?;
    let batches: Vec<_> = (1..6)
        .map(|n| batch("rts-1", "idx-1", n, &format!("help {n}")))
        .collect();
    platform.publish(&batches).await?;
    let usual = Arc::clone(&platform.embedder);
    let away = move |_: &EmbeddingModel| {
        let away = Away(usual.revision().to_owned(), usual.dimension());
        Some(Arc::new(away) as Arc<dyn Embedder>)
    };
    let service = serve_turned(&platform, Arc::new(away)).await?;
    let verdicts = platform.verdicts(batches.len()).await?;
    let judged = verdicts.iter().map(|verdict| match &verdict.body {
        Some(Body::Verdict(body)) => (body.window, verdict.model_revision.as_str()),
        _ => (0, ""),
    });
    let expected: Vec<_> = (1..6).map(|n| (n, "turned")).collect();
    assert_eq!(judged.collect::<Vec<_>>(), expected);
    until("the new store", async || {
        Ok(is_turned(&platform).await?.then_some(()))
    })
    .await?;
    assert_records(
        &service.holds(all(), 6).await?,
        &[vec![first], batches].concat(),
    )?;
    service.stop().await
}
