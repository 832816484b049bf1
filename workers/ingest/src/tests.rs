//! Recordings and their upkeep on a real nats-server and a real folder that can be broken.

mod changing;
mod health;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use sightline_bus::embedded::EmbeddedServer;
use sightline_bus::{Bus, StreamName};
use sightline_catalog::Catalog;
use sightline_catalog::seal::SealKey;
use sightline_proto::ids::{self, Kind};
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{
    NotRecordable, Observation, RecordedSegment, RtStreamRecord, RunRecord, UpkeepRecord,
};
use sightline_proto::v1::rt_stream::RecordingState;
use sightline_proto::v1::{Retention as Kept, RtStream};
use sightline_recordings::{Library, Retention, Segment, Store};
use sightline_service::Shutdown;
use sightline_service::clock::ManualClock;
use sightline_service::metrics::Metrics;
use sightline_testkit::{soon, until};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::metrics::IngestMetrics;
use crate::record::RunState;
use crate::recording::Recording;
use crate::upload::{News, Uploader};
use crate::{Config, Shared, upkeep};

const SECOND: i64 = 1_000_000;
const EPOCH_US: i64 = 1_795_514_400 * SECOND;

/// A folder of recordings that can be taken away.
struct Folder {
    dir: TempDir,
    store: Store,
}

impl Folder {
    fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let address = format!("file://{}", dir.path().join("store").display());
        let store = Store::open(&address, [])?;
        Ok(Self { dir, store })
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// A file is in its place: nothing can be written below it.
    fn break_it(&self) -> Result<()> {
        std::fs::rename(self.path(), self.dir.path().join("aside"))?;
        std::fs::write(self.path(), "in the way")?;
        Ok(())
    }

    fn mend(&self) -> Result<()> {
        std::fs::remove_file(self.path())?;
        std::fs::rename(self.dir.path().join("aside"), self.path())?;
        Ok(())
    }

    /// Where segments start that the store holds, in seconds from the epoch. Not a library that remembers.
    async fn starts(&self, id: &str) -> Result<Vec<i64>> {
        let library = Library::new(self.store.clone());
        let found = library.segments(id, 0, 2 * EPOCH_US).await?;
        let seconds = |s: Segment| (s.start_us - EPOCH_US).div_euclid(SECOND);
        Ok(found.into_iter().map(seconds).collect())
    }
}

/// A platform with one stream that is recorded.
struct Platform {
    bus: Bus,
    catalog: Catalog,
    clock: Arc<ManualClock>,
    folder: Folder,
    id: String,
    _server: EmbeddedServer,
    _dir: TempDir,
}

impl Platform {
    async fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let server = EmbeddedServer::start(Path::new("nats-server"), dir.path())?;
        let bus = Bus::connect(&server.config("ingest-test")).await?;
        let catalog = Catalog::open(&bus).await?;
        let id = ids::new_id(Kind::RtStream);
        let stream = RtStream {
            id: id.clone(),
            store: true,
            retention: Some(Kept {
                max_age_seconds: 100,
                max_bytes: 0,
            }),
            ..RtStream::default()
        };
        let record = RtStreamRecord {
            rtstream: Some(stream),
            wanted: true,
            start_count: 1,
            ..RtStreamRecord::default()
        };
        catalog.create(&id, &record).await?;
        Ok(Self {
            bus,
            catalog,
            clock: Arc::new(ManualClock::at(EPOCH_US)),
            folder: Folder::new()?,
            id,
            _server: server,
            _dir: dir,
        })
    }

    /// What the runs of a worker share, with a library that remembers nothing yet.
    fn worker(&self, name: &str) -> Result<Arc<Shared>> {
        let seal = SealKey::load_or_create(&self.folder.dir.path().join("seal.key"))?;
        Ok(Arc::new(Shared {
            config: Config {
                worker: name.to_owned(),
                capacity: 1,
                child: vec!["true".into()],
                media_root: None,
                frame_edge: 640,
                engine: "whisper".to_owned(),
                retention: Retention::default(),
                scratch: self.folder.dir.path().join("scratch"),
                upkeep_every: Duration::from_millis(40),
            },
            bus: self.bus.clone(),
            catalog: self.catalog.clone(),
            clock: self.clock.clone(),
            metrics: IngestMetrics::register(&Metrics::default()),
            seal,
            library: Library::new(self.folder.store.clone()),
            wishes: watch::Sender::default(),
        }))
    }

    /// Takes the stream, as after a worker was killed.
    async fn claim(&self, name: &str) -> Result<Run> {
        let shared = self.worker(name)?;
        let stream = self.catalog.get::<RtStreamRecord>(&self.id);
        let stream = stream.context("the stream")?.value;
        let state = RunState::claim(&shared, &self.id, &stream).await?;
        let mut state = state.context("it is not over")?;
        let recording = Recording::start(&shared, &self.id, &mut state, true).await?;
        if state.run.epoch_us == 0 {
            state.run.epoch_us = EPOCH_US;
        }
        state.store().await?;
        Ok(Run { state, recording })
    }

    /// State and detail of the recording, and how far it has come, as everybody sees it.
    fn seen(&self) -> (RecordingState, String, i64) {
        let run = self.catalog.get::<RunRecord>(&self.id).expect("it runs");
        let run = RunRecord::clone(&run.value);
        let state = RecordingState::try_from(run.recording_state).expect("a state");
        let reached = (run.recorded_us - EPOCH_US).div_euclid(SECOND);
        (state, run.recording_detail, reached)
    }

    /// The holes that were told: from, to, why.
    async fn holes(&self) -> Result<Vec<(i64, i64, String)>> {
        let filter = format!("obs.*.gap.{}", self.id);
        let told = self
            .bus
            .read::<Observation>(StreamName::Observations, &filter, 1000)
            .await?;
        let holes = told.into_iter().filter_map(|received| {
            let gap = received.message;
            let seconds = |us: i64| (us - EPOCH_US).div_euclid(SECOND);
            match gap.body {
                Some(Body::Gap(body)) if body.what == "recording" => {
                    Some((seconds(gap.start_us), seconds(gap.end_us), body.reason))
                }
                _ => None,
            }
        });
        Ok(holes.collect())
    }
}

struct Run {
    state: RunState,
    recording: Recording,
}

impl Run {
    fn hand_over(&mut self, start: i64, end: i64) {
        self.recording
            .hand_over(&self.state, recorded(start * SECOND, end * SECOND));
    }

    /// Takes news until `seen`.
    async fn hear(&mut self, what: &str, seen: impl Fn(&RunRecord) -> bool) -> Result<()> {
        let hearing = async {
            while !seen(&self.state.run) {
                let news = self.recording.next().await.context("the uploader ended")?;
                self.recording.heard(&mut self.state, news).await?;
            }
            anyhow::Ok(())
        };
        soon(what, hearing).await?
    }

    async fn reach(&mut self, end: i64) -> Result<()> {
        let reached_us = EPOCH_US + end * SECOND;
        self.hear("the recording", |run| run.recorded_us == reached_us)
            .await
    }

    async fn fail(&mut self) -> Result<()> {
        let failing = i32::from(RecordingState::Failing);
        self.hear("the failure", |run| run.recording_state == failing)
            .await
    }
}

fn recorded(start_position_us: i64, end_us: i64) -> RecordedSegment {
    RecordedSegment {
        start_position_us,
        duration_us: end_us - start_position_us,
        ts: Bytes::from_static(b"segment"),
    }
}

fn segment(start: i64, end: i64) -> Segment {
    Segment {
        start_us: EPOCH_US + start * SECOND,
        duration_us: (end - start) * SECOND,
        bytes: 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_loses_its_oldest_and_keeps_what_is_being_put() -> Result<()> {
    let folder = Folder::new()?;
    let id = ids::new_id(Kind::RtStream);
    let metrics = Metrics::default();
    let counted = IngestMetrics::register(&metrics);
    let mut uploader = Uploader::start(folder.store.clone(), &id, counted);
    let push = |uploader: &Uploader, start, size| -> Vec<i64> {
        let lost = uploader.push(segment(start, start + 4), Bytes::from(vec![0; size]));
        let starts = lost.iter().map(|lost| lost.start_us - EPOCH_US);
        starts.map(|us| us / SECOND).collect()
    };
    folder.break_it()?;
    assert!(push(&uploader, 0, 1).is_empty());
    let news = soon("the failure", uploader.next()).await?;
    let Some(News::Failing(reason)) = news else {
        anyhow::bail!("{news:?}");
    };
    assert!(reason.starts_with("the object store"), "{reason}");
    for waiting in 1..=16 {
        assert!(!uploader.is_full(), "{waiting}");
        assert!(push(&uploader, 4 * waiting, 1).is_empty(), "{waiting}");
    }
    assert!(uploader.is_full());
    // The second is the oldest that waits.
    assert_eq!(push(&uploader, 68, 1), [4]);
    assert_eq!(push(&uploader, 72, 1), [8]);
    // Bytes count as well: twice 30 MiB and 14 small ones fit, a third does not.
    assert_eq!(push(&uploader, 76, 30 << 20), [12]);
    assert_eq!(push(&uploader, 80, 30 << 20), [16]);
    let expected: Vec<i64> = (20..=76).step_by(4).collect();
    assert_eq!(push(&uploader, 84, 30 << 20), expected);
    assert_eq!(uploader.left().len(), 3);
    folder.mend()?;
    uploader.close();
    let mut stored = Vec::new();
    while let Some(news) = soon("the rest", uploader.next()).await? {
        if let News::Stored(segment) = news {
            stored.push((segment.start_us - EPOCH_US) / SECOND);
        }
    }
    assert_eq!(stored, [0, 80, 84]);
    assert_eq!(folder.starts(&id).await?, stored);
    assert!(uploader.left().is_empty());
    let counted = metrics.encode();
    assert!(
        counted.contains("sightline_ingest_segments_total 3"),
        "{counted}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_down_leaves_one_hole_and_is_told() -> Result<()> {
    let platform = Platform::start().await?;
    let mut run = platform.claim("a").await?;
    assert_eq!(platform.seen().0, RecordingState::Waiting);
    run.hand_over(0, 4);
    run.reach(4).await?;
    assert_eq!(platform.seen(), (RecordingState::Active, String::new(), 4));
    platform.folder.break_it()?;
    run.hand_over(4, 8);
    run.fail().await?;
    for number in 2..=20 {
        run.hand_over(4 * number, 4 * number + 4);
    }
    let (state, detail, reached) = platform.seen();
    assert_eq!((state, reached), (RecordingState::Failing, 4));
    assert!(detail.starts_with("the object store"), "{detail}");
    platform.folder.mend()?;
    run.reach(84).await?;
    assert_eq!(platform.seen(), (RecordingState::Active, String::new(), 84));
    // One was being put and 16 waited.
    let lost = vec![(8, 20, "store_down".to_owned())];
    assert_eq!(platform.holes().await?, lost);
    // The camera was away, then it is the end while the store is down.
    run.recording.interrupted(crate::holes::OFFLINE);
    run.hand_over(90, 94);
    run.reach(94).await?;
    platform.folder.break_it()?;
    run.hand_over(94, 98);
    run.fail().await?;
    run.recording.finish(&mut run.state, true).await?;
    run.state.end_recording();
    run.state.store().await?;
    assert_eq!(
        platform.seen(),
        (RecordingState::Stopped, String::new(), 98)
    );
    let away = (84, 90, "offline".to_owned());
    let last = (94, 98, "store_down".to_owned());
    assert_eq!(platform.holes().await?, [lost, vec![away, last]].concat());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_worker_stored_is_found_and_only_the_rest_is_missing() -> Result<()> {
    let platform = Platform::start().await?;
    let mut run = platform.claim("a").await?;
    run.hand_over(0, 4);
    run.reach(4).await?;
    // Killed between the put and the note, twice: once with a hole before it.
    drop(run);
    for (start, end) in [(4, 8), (10, 14)] {
        let ts = Bytes::from_static(b"segment");
        let put = platform
            .folder
            .store
            .put_segment(&platform.id, segment(start, end), ts);
        put.await?;
    }
    let mut run = platform.claim("b").await?;
    assert_eq!(platform.seen().2, 14);
    assert_eq!(run.recording.handed_us(), EPOCH_US + 14 * SECOND);
    run.hand_over(20, 24);
    run.reach(24).await?;
    let mut expected = vec![
        (8, 10, "offline".to_owned()),
        (14, 20, "worker_lost".to_owned()),
    ];
    assert_eq!(platform.holes().await?, expected);

    // The same while the store is down when the stream is taken: it is asked before anything is told.
    drop(run);
    let ts = Bytes::from_static(b"segment");
    let put = platform
        .folder
        .store
        .put_segment(&platform.id, segment(24, 28), ts);
    put.await?;
    platform.folder.break_it()?;
    let mut run = platform.claim("c").await?;
    run.hand_over(30, 34);
    run.fail().await?;
    platform.folder.mend()?;
    run.reach(34).await?;
    expected.push((28, 30, "worker_lost".to_owned()));
    assert_eq!(platform.holes().await?, expected);

    // Handed over, nothing is told: the next one goes on, and a file begins where this one stopped.
    run.hand_over(34, 38);
    run.recording.finish(&mut run.state, false).await?;
    assert_eq!(platform.seen().2, 38);
    let mut run = platform.claim("d").await?;
    run.hand_over(38, 42);
    run.reach(42).await?;
    assert_eq!(platform.holes().await?, expected);
    let starts = platform.folder.starts(&platform.id).await?;
    assert_eq!(starts, [0, 4, 10, 20, 24, 30, 34, 38]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_recorded_is_said() -> Result<()> {
    let platform = Platform::start().await?;
    let mut run = platform.claim("a").await?;
    let why = |sound_only| NotRecordable {
        reason: "opus in mono".to_owned(),
        sound_only,
    };
    let whole = run.recording.not_recordable(&mut run.state, why(false));
    whole.await?;
    let unsupported = (RecordingState::Unsupported, "opus in mono".to_owned());
    let (state, detail, _) = platform.seen();
    assert_eq!((state, detail), unsupported);
    // The camera changed: its pictures can be.
    let sound = run.recording.not_recordable(&mut run.state, why(true));
    sound.await?;
    run.hand_over(0, 4);
    // What makes no sense is left out.
    run.hand_over(4, 4);
    run.hand_over(4, 4000);
    run.reach(4).await?;
    run.hand_over(4, 8);
    run.reach(8).await?;
    let active = (RecordingState::Active, "opus in mono".to_owned(), 8);
    assert_eq!(platform.seen(), active);
    assert_eq!(platform.folder.starts(&platform.id).await?, [0, 4]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_all_workers_one_removes_what_is_too_old() -> Result<()> {
    let platform = Platform::start().await?;
    for start in [0, 90, 180] {
        let ts = Bytes::from_static(b"segment");
        let put = platform
            .folder
            .store
            .put_segment(&platform.id, segment(start, start + 4), ts);
        put.await?;
    }
    let workers = [platform.worker("a")?, platform.worker("b")?];
    let rounds = || -> u64 { workers.iter().map(|w| w.metrics.upkeep_rounds.get()).sum() };
    let shutdown = Shutdown::new();
    let running = workers
        .clone()
        .map(|worker| tokio::spawn(upkeep::run(worker, shutdown.clone())));
    for (round, (now, kept)) in [
        (50, vec![0, 90, 180]),
        (150, vec![90, 180]),
        (160, vec![90, 180]),
        (300, vec![]),
    ]
    .into_iter()
    .enumerate()
    {
        platform.clock.set(EPOCH_US + now * SECOND);
        until("the round", async || {
            let starts = platform.folder.starts(&platform.id).await?;
            Ok((rounds() == round as u64 + 1 && starts == kept).then_some(()))
        })
        .await?;
        let begun = platform.catalog.get::<UpkeepRecord>("recordings");
        assert_eq!(
            begun.context("a round")?.value.begun_us,
            EPOCH_US + now * SECOND
        );
    }
    shutdown.cancel();
    for worker in running {
        worker.await?;
    }
    assert_eq!(rounds(), 4);
    // At the very same moment as well.
    for round in 1..=20 {
        let now_us = EPOCH_US + (1000 + round) * SECOND;
        let every = Duration::from_secs(1);
        let take = |name| upkeep::take(&platform.catalog, name, every, now_us);
        let (a, b, c) = tokio::join!(take("a"), take("b"), take("c"));
        let taken = [a?, b?, c?].into_iter().filter(|taken| *taken).count();
        assert_eq!(taken, 1, "{round}");
    }
    Ok(())
}
