//! Reading and writing records.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use prost::Message;
use sightline_bus::Bus;
use sightline_bus::embedded::EmbeddedServer;
use sightline_catalog::{Catalog, CatalogError};
use sightline_proto::internal::{ConfigRecord, EventRecord, IndexRecord, RunRecord};
use sightline_proto::v1::Event;
use tempfile::TempDir;

/// Longest wait for anything here.
const LONG: Duration = Duration::from_secs(120);

pub struct Platform {
    pub bus: Bus,
    pub server: EmbeddedServer,
    _dir: TempDir,
}

impl Platform {
    pub async fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let server = EmbeddedServer::start(Path::new("nats-server"), dir.path())?;
        let bus = Bus::connect(&server.config("test")).await?;
        Ok(Self {
            bus,
            server,
            _dir: dir,
        })
    }

    /// A process's catalog: its own connection and view.
    pub async fn catalog(&self, name: &str) -> Result<Catalog> {
        let bus = Bus::connect(&self.server.config(name)).await?;
        Ok(Catalog::open(&bus).await?)
    }
}

pub fn run(generation: u64) -> RunRecord {
    RunRecord {
        generation,
        ..RunRecord::default()
    }
}

fn event(label: &str) -> EventRecord {
    EventRecord {
        event: Some(Event {
            label: label.to_owned(),
            ..Event::default()
        }),
        ..EventRecord::default()
    }
}

#[tokio::test]
async fn what_is_written_is_read_by_kind_and_id() -> Result<()> {
    let platform = Platform::start().await?;
    let catalog = platform.catalog("test").await?;
    for id in ["b", "a-2", "a"] {
        catalog.create(id, &event(id)).await?;
    }
    catalog.create("a", &run(7)).await?;

    let listed = catalog.list::<EventRecord>();
    let ids: Vec<_> = listed.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(ids, ["a", "a-2", "b"]);
    assert_eq!(*listed[1].1.value, event("a-2"));
    assert_eq!(catalog.list::<RunRecord>().len(), 1);
    assert!(catalog.list::<IndexRecord>().is_empty());

    assert_eq!(
        *catalog.get::<EventRecord>("a").expect("there").value,
        event("a")
    );
    assert_eq!(*catalog.get::<RunRecord>("a").expect("there").value, run(7));
    let fetched = catalog.fetch::<RunRecord>("a").await?.expect("there");
    assert_eq!((fetched.value.generation, fetched.revision), (7, 5));
    for missing in ["c", "", "a.b", "*", ">", "a b", "ä"] {
        assert!(catalog.get::<EventRecord>(missing).is_none(), "{missing:?}");
        let fetched = catalog.fetch::<EventRecord>(missing).await?;
        assert!(fetched.is_none(), "{missing:?}");
    }
    Ok(())
}

#[tokio::test]
async fn writes_are_compared_and_set() -> Result<()> {
    let platform = Platform::start().await?;
    let ours = platform.catalog("ours").await?;
    let theirs = platform.catalog("theirs").await?;
    let first = ours.create("r", &run(1)).await?;
    for catalog in [&ours, &theirs] {
        let again = catalog.create("r", &run(2)).await;
        let Err(CatalogError::Exists { key }) = again else {
            panic!("{again:?}");
        };
        assert_eq!(key, "run.r");
    }
    let second = theirs.update("r", &run(2), first).await?;
    for (catalog, revision) in [(&ours, first), (&ours, 0), (&theirs, second + 1)] {
        let stale = catalog.update("r", &run(9), revision).await;
        assert!(
            matches!(stale, Err(CatalogError::Conflict { .. })),
            "{stale:?}"
        );
    }
    let held = ours.fetch::<RunRecord>("r").await?.expect("there");
    assert_eq!((held.value.generation, held.revision), (2, second));
    let missing = ours.update("s", &run(1), 1).await;
    assert!(
        matches!(missing, Err(CatalogError::Conflict { .. })),
        "{missing:?}"
    );
    for id in ["", "a.b", "a/b", "*", "a b"] {
        let refused = ours.create(id, &run(1)).await;
        assert!(
            matches!(refused, Err(CatalogError::Id { .. })),
            "{id:?}: {refused:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn changes_at_the_same_moment_all_count() -> Result<()> {
    let platform = Platform::start().await?;
    let catalogs = [platform.catalog("a").await?, platform.catalog("b").await?];
    catalogs[0].create("r", &run(0)).await?;
    let changing = (0..8).map(|number| {
        let catalog = catalogs[number % 2].clone();
        async move {
            let changed = catalog.modify::<RunRecord>("r", |run| {
                run.generation += 1;
                true
            });
            changed.await
        }
    });
    let results = futures::future::try_join_all(changing).await?;
    let mut seen: Vec<_> = results.iter().map(|run| run.generation).collect();
    seen.sort_unstable();
    assert_eq!(seen, [1, 2, 3, 4, 5, 6, 7, 8]);
    Ok(())
}

#[tokio::test]
async fn modifying_says_what_it_found() -> Result<()> {
    let platform = Platform::start().await?;
    let catalog = platform.catalog("test").await?;
    let revision = catalog.create("r", &run(1)).await?;
    let same = catalog.modify::<RunRecord>("r", |_| false).await?;
    assert_eq!(same, Arc::new(run(1)));
    let held = catalog.get::<RunRecord>("r").expect("there");
    assert_eq!(held.revision, revision, "nothing was written");
    let missing = catalog.modify::<RunRecord>("s", |_| true).await;
    assert!(
        matches!(missing, Err(CatalogError::Missing { .. })),
        "{missing:?}"
    );

    // Somebody who is always faster.
    let other = platform.catalog("other").await?;
    let mut tries = 0;
    let handle = tokio::runtime::Handle::current();
    let beaten = tokio::task::spawn_blocking(move || {
        handle
            .clone()
            .block_on(catalog.modify::<RunRecord>("r", |run| {
                tries += 1;
                run.generation = 100;
                let other = other.clone();
                std::thread::scope(|scope| {
                    let faster = scope.spawn(|| {
                        handle.block_on(other.modify::<RunRecord>("r", |run| {
                            run.generation += 1;
                            true
                        }))
                    });
                    faster.join().expect("no panic").expect("written");
                });
                true
            }))
    });
    let beaten = beaten.await?;
    assert!(
        matches!(beaten, Err(CatalogError::Conflict { .. })),
        "{beaten:?}"
    );
    Ok(())
}

#[tokio::test]
async fn the_number_of_partitions_is_that_of_the_first_start() -> Result<()> {
    for (written, expected) in [(None, Some(4)), (Some(7), Some(7)), (Some(0), None)] {
        let platform = Platform::start().await?;
        if let Some(partitions) = written {
            let config = ConfigRecord { partitions };
            let bucket = platform.bus.key_value("CATALOG").await?;
            bucket.put("config", config.encode_to_vec().into()).await?;
        }
        let opened = Catalog::open(&platform.bus).await;
        let Some(expected) = expected else {
            let error = opened.err().expect("0 partitions are none");
            assert!(matches!(error, CatalogError::Partitions(0)), "{error}");
            continue;
        };
        let catalog = opened?;
        assert_eq!(catalog.partitions(), expected);
        assert!(catalog.partition_of("rts-1") < expected);
        let again = Catalog::open(&platform.bus).await?;
        assert_eq!(again.partitions(), expected);
    }
    Ok(())
}

#[tokio::test]
async fn whoever_starts_at_the_same_moment_finds_one_number() -> Result<()> {
    let platform = Platform::start().await?;
    let opening = (0..8).map(|_| Catalog::open(&platform.bus));
    let opened = futures::future::try_join_all(opening).await?;
    assert!(opened.iter().all(|catalog| catalog.partitions() == 4));
    let bucket = platform.bus.key_value("CATALOG").await?;
    assert_eq!(bucket.status().await?.values(), 1);
    Ok(())
}

#[tokio::test]
async fn what_is_deleted_is_gone_everywhere_and_can_be_made_again() -> Result<()> {
    let platform = Platform::start().await?;
    let ours = platform.catalog("ours").await?;
    let theirs = platform.catalog("theirs").await?;
    let first = ours.create("r", &run(1)).await?;
    let second = ours.update("r", &run(2), first).await?;
    let stale = ours.delete::<RunRecord>("r", first).await;
    assert!(
        matches!(stale, Err(CatalogError::Conflict { .. })),
        "{stale:?}"
    );
    ours.delete::<RunRecord>("r", second).await?;
    assert!(ours.get::<RunRecord>("r").is_none());
    assert!(ours.list::<RunRecord>().is_empty());
    assert!(ours.fetch::<RunRecord>("r").await?.is_none());
    let again = ours.delete::<RunRecord>("r", second).await;
    assert!(
        matches!(again, Err(CatalogError::Conflict { .. })),
        "{again:?}"
    );
    let mut changes = theirs.changes();
    while theirs.get::<RunRecord>("r").is_some() || *changes.borrow() <= second {
        tokio::time::timeout(LONG, changes.changed()).await??;
    }
    theirs.create("r", &run(3)).await?;
    let made = ours.fetch::<RunRecord>("r").await?.expect("there");
    assert_eq!(made.value.generation, 3);
    assert_eq!(*ours.get::<RunRecord>("r").expect("there").value, run(3));
    Ok(())
}
