//! Another model, or somebody's wish: a new store is filled beside the one in use, and search has no gap. The test of kills runs
//! itself again as the process that is killed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use prost::Message;
use sightline_bus::StreamName;
use sightline_embeddings::Loader;
use sightline_inference::{Embedder, InferenceError};
use sightline_proto::internal::{Observation, Record, RecordKind};
use sightline_service::failpoint;
use sightline_testkit::until;
use sightline_vectors::{EdgeStores, EmbeddingModel, Point, Rebuild, Stores};
use tokio::time::{sleep, timeout};

use crate::killed::{Child, FAILPOINT, inherited};
use crate::support::{
    EPOCH_US, LONG, Platform, SECOND_US, Service, all, assert_records, embedder, scene, serve_with,
    text, variable,
};

const KILLED: &str = "switching::a_switch_survives_kills";

/// The real model with its vectors turned: they compare with each other as before, and with those of the model itself not at all.
pub struct Turned(pub Arc<dyn Embedder>);

impl Embedder for Turned {
    fn revision(&self) -> &str {
        "turned"
    }

    fn dimension(&self) -> usize {
        self.0.dimension()
    }

    fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, InferenceError> {
        let mut vectors = self.0.embed(texts)?;
        vectors.iter_mut().for_each(|vector| vector.rotate_left(7));
        Ok(vectors)
    }
}

/// Old records that the store alone has, new ones that the bus has as well.
struct Stored {
    old: Vec<Observation>,
    new: Vec<Observation>,
}

impl Stored {
    fn all(&self) -> Vec<Observation> {
        [self.old.as_slice(), &self.new].concat()
    }
}

/// A store that holds scenes with vectors of the usual model; only some are on the bus.
async fn stored(platform: &Platform, old: u64, new: u64) -> Result<Stored> {
    let scenes = |windows: std::ops::Range<u64>| -> Vec<_> {
        windows
            .map(|window| scene("rts-1", "idx-1", window, &format!("{window} red cars")))
            .collect()
    };
    let stored = Stored {
        old: scenes(0..old),
        new: scenes(old..old + new),
    };
    let stores = EdgeStores::lock(&platform.store_dir())?;
    stores.begin(&model_of(platform.embedder.as_ref())).await?;
    let current = stores.state().await?.current.context("a store")?;
    let store = stores.open(&current).await?;
    for some in stored.old.chunks(50) {
        let texts: Vec<String> = some.iter().map(|o| text(o).to_owned()).collect();
        let vectors = platform.embedder.embed(&texts)?;
        let points = some.iter().zip(vectors).map(|(o, v)| point(o, v));
        store.upsert(points.collect()).await?;
    }
    drop((store, stores));
    platform.publish(&stored.new).await?;
    let service = platform.serve().await?;
    service.holds(all(), stored.all().len()).await?;
    service.stop().await?;
    Ok(stored)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_has_no_gap_while_the_model_changes() -> Result<()> {
    let platform = Platform::start().await?;
    let mut stored = stored(&platform, 150, 150).await?;
    let service = serve_turned(&platform, loader(&platform)).await?;
    let (mut searches, mut before) = (0_u64, 0_u64);
    let switched = async {
        for round in 300_u64.. {
            let late = scene("rts-1", "idx-1", round, &format!("{round} red cars"));
            platform.publish(std::slice::from_ref(&late)).await?;
            service.holds(all(), stored.all().len() + 1).await?;
            stored.new.push(late);
            for wanted in [round, 7, 149, 150, 299] {
                let wanted = format!("{wanted} red cars");
                let found = service.search(&wanted, all()).await?;
                let (best, score) = found.first().context("nothing is found")?;
                assert!(*best == wanted && *score > 0.999, "{wanted}: {found:?}");
                searches += 1;
            }
            assert!(service.readiness.missing().is_empty());
            if !is_turned(&platform).await? {
                before = searches;
            } else if searches > before + 50 {
                return anyhow::Ok(());
            }
        }
        Ok(())
    };
    timeout(LONG, switched).await??;
    assert!(before > 0, "it was switched before anything was searched");
    let everything = service.holds(all(), stored.all().len()).await?;
    assert_records(&everything, &stored.all())?;
    let metrics = service.metrics.encode();
    let gauge = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
    };
    let done = gauge("sightline_embeddings_reindex_done").context("a gauge")?;
    assert!(done >= 300, "{done}");
    assert_eq!(gauge("sightline_embeddings_reindex_total"), Some(done));
    is_alone(&platform).await?;
    service.stop().await?;
    // The new model is the one now, without the old.
    let service = serve_turned(&platform, Arc::new(|_| None)).await?;
    let found = service.search("7 red cars", all()).await?;
    assert_eq!(found[0].0, "7 red cars");
    service.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_model_is_gone_is_listed_until_the_new_one_is_full() -> Result<()> {
    let platform = Platform::start().await?;
    let stored = stored(&platform, 100, 60).await?;
    let service = serve_turned(&platform, Arc::new(|_| None)).await?;
    // Nothing is missing from the very first answer on.
    let first = service.holds(all(), 1).await?;
    assert_records(&first, &stored.all())?;
    let found = async {
        let is_other = |hit: &(String, f32)| hit.0 != "42 red cars";
        while service
            .search("42 red cars", all())
            .await?
            .first()
            .is_none_or(is_other)
        {
            sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(())
    };
    timeout(LONG, found).await??;
    is_alone(&platform).await?;
    assert_records(&service.holds(all(), 160).await?, &stored.all())?;
    service.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_is_built_anew_when_somebody_wishes() -> Result<()> {
    let platform = Platform::start().await?;
    let stored = stored(&platform, 60, 40).await?;
    let service = platform.serve().await?;
    let look = EdgeStores::look(&platform.store_dir());
    let before = look.state().await?.current;
    look.ask(Rebuild { from_us: None }).await?;
    rebuilt(&look, &before).await?;
    assert_records(&service.holds(all(), 100).await?, &stored.all())?;
    assert_eq!(
        service.search("42 red cars", all()).await?[0].0,
        "42 red cars"
    );

    // What the bus does not have is left out from a time on. The wish waits for who runs the store.
    service.stop().await?;
    let before = look.state().await?.current;
    let from_us = Some(EPOCH_US + 50 * 5 * SECOND_US);
    look.ask(Rebuild { from_us }).await?;
    let service = platform.serve().await?;
    rebuilt(&look, &before).await?;
    let left = [&stored.old[..50], &stored.new].concat();
    // It is written a moment before the new store answers.
    let records = until("what is left", async || {
        let records = service.holds(all(), left.len()).await?;
        Ok((records.len() == left.len()).then_some(records))
    })
    .await?;
    assert_records(&records, &left)?;
    service.stop().await?;

    // A store that can't be read any more does not keep the service from starting.
    let current = look.state().await?.current.context("a store")?;
    std::fs::write(
        platform.store_dir().join(&current.name).join("store.json"),
        "{",
    )?;
    let service = platform.serve().await?;
    rebuilt(&look, &Some(current)).await?;
    assert_records(&service.holds(all(), 40).await?, &stored.new)?;
    service.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_survives_kills() -> Result<()> {
    if let Some(armed) = variable(FAILPOINT) {
        return serve_until_killed(&armed).await;
    }
    for place in [
        "embeddings.after_create=1",
        "embeddings.before_upsert=2",
        "embeddings.after_caught_up=1",
        "embeddings.before_switch=1",
        "embeddings.after_switch=1",
        "embeddings.after_remove=1",
    ] {
        let platform = Platform::start().await?;
        let stored = stored(&platform, 90, 30).await?;
        Child::start(&platform, KILLED, place)?
            .dies_at(place)
            .await?;
        let service = serve_turned(&platform, loader(&platform)).await?;
        assert_records(&service.holds(all(), 1).await?, &stored.all())?;
        let found = service.search("42 red cars", all()).await?;
        assert_eq!(found[0].0, "42 red cars", "after {place}");
        is_alone(&platform).await?;
        assert_records(&service.holds(all(), 1).await?, &stored.all())?;
        let found = service.search("42 red cars", all()).await?;
        assert_eq!(found[0].0, "42 red cars", "in the end of {place}");
        service.stop().await?;
    }
    Ok(())
}

/// The child: changes the model with a place at which it is killed.
async fn serve_until_killed(armed: &str) -> Result<()> {
    failpoint::arm(armed)?;
    let (bus, store) = inherited().await?;
    let usual: Arc<dyn Embedder> = Arc::new(embedder()?);
    let turned = Arc::new(Turned(Arc::clone(&usual)));
    let loader: Loader = Arc::new(move |_| Some(Arc::clone(&usual)));
    let service = serve_with(bus, turned, &store, loader).await?;
    service.holds(all(), 1000).await?;
    bail!("it was not killed")
}

pub async fn serve_turned(platform: &Platform, loader: Loader) -> Result<Service> {
    let turned = Arc::new(Turned(Arc::clone(&platform.embedder)));
    serve_with(platform.bus.clone(), turned, &platform.store_dir(), loader).await
}

/// Loads the usual model again.
pub fn loader(platform: &Platform) -> Loader {
    let usual = Arc::clone(&platform.embedder);
    Arc::new(move |model: &EmbeddingModel| {
        (model.revision == usual.revision()).then(|| Arc::clone(&usual))
    })
}

pub async fn is_turned(platform: &Platform) -> Result<bool> {
    let state = EdgeStores::look(&platform.store_dir()).state().await?;
    Ok(state.current.context("a store")?.model.revision == "turned")
}

/// Waits until another store is in use.
async fn rebuilt(stores: &EdgeStores, before: &Option<sightline_vectors::Named>) -> Result<()> {
    let waiting = async {
        loop {
            let state = stores.state().await?;
            if state.current != *before && state.rebuild.is_none() {
                return anyhow::Ok(());
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, waiting)
        .await
        .context("it is not built anew")?
}

/// Waits until one store is left, and no consumer of another.
async fn is_alone(platform: &Platform) -> Result<()> {
    let waiting = async {
        loop {
            let folders = std::fs::read_dir(platform.store_dir())?.flatten();
            let folders = folders.filter(|entry| entry.path().is_dir()).count();
            let consumers = platform.bus.places(StreamName::Observations).await?;
            if is_turned(platform).await? && folders == 1 && consumers.len() == 3 {
                return anyhow::Ok(());
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LONG, waiting)
        .await
        .context("the old store is left")?
}

fn model_of(embedder: &dyn Embedder) -> EmbeddingModel {
    EmbeddingModel {
        revision: embedder.revision().to_owned(),
        dimension: embedder.dimension(),
        source: String::new(),
    }
}

fn point(observation: &Observation, vector: Vec<f32>) -> Point {
    Point {
        record: Record {
            id: observation.id.clone(),
            kind: RecordKind::Scene.into(),
            rtstream_id: observation.rtstream_id.clone(),
            collection_id: observation.collection_id.clone(),
            index_id: "idx-1".to_owned(),
            start_us: observation.start_us,
            end_us: observation.end_us,
            text: text(observation).to_owned(),
            observation: observation.encode_to_vec().into(),
        },
        epoch_us: observation.epoch_us,
        window: Some(0),
        vector: Some(vector),
    }
}
