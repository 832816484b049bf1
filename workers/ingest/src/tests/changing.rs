//! Streams that are changed, stopped and deleted while they run.

use std::path::PathBuf;

use sightline_bus::Subject;
use sightline_catalog::Entry;
use sightline_proto::internal::{AudioChunk, ExportRecord, IndexRecord, PlayerPage, Utterance};
use sightline_proto::time::timestamp;
use sightline_proto::v1::rt_stream::State;
use sightline_proto::v1::{Export, Index, TimeSampling, export, index};

use super::*;
use crate::supervise::{Source, Supervisor};
use crate::wanted::Wanted;
use crate::{publish, run};

impl Platform {
    async fn change(&self, change: impl Fn(&mut RtStreamRecord)) -> Result<()> {
        let changed = self.catalog.modify::<RtStreamRecord>(&self.id, |record| {
            change(record);
            true
        });
        changed.await?;
        Ok(())
    }

    async fn delete(&self, id: &str) -> Result<()> {
        let found = self.catalog.fetch::<RtStreamRecord>(id).await?;
        let revision = found.context("the stream")?.revision;
        self.catalog.delete::<RtStreamRecord>(id, revision).await?;
        Ok(())
    }

    /// Another stream, stopped.
    async fn another(&self) -> Result<String> {
        let id = ids::new_id(Kind::RtStream);
        let record = RtStreamRecord {
            rtstream: Some(RtStream {
                id: id.clone(),
                ..RtStream::default()
            }),
            ..RtStreamRecord::default()
        };
        self.catalog.create(&id, &record).await?;
        Ok(id)
    }

    /// Something of a stream wherever something may be; its player page and its export are called after it.
    async fn fill(&self, id: &str) -> Result<()> {
        let ts = Bytes::from_static(b"segment");
        self.folder.store.put_segment(id, segment(0, 4), ts).await?;
        let page = PlayerPage {
            rtstream_id: id.to_owned(),
            ..PlayerPage::default()
        };
        self.folder.store.create_page(id, &page).await?;
        self.export(id, EPOCH_US).await?;
        self.catalog.create(id, &RunRecord::default()).await?;
        Ok(())
    }

    async fn export(&self, id: &str, made_us: i64) -> Result<()> {
        let file = self.folder.dir.path().join("export.mp4");
        std::fs::write(&file, "mp4")?;
        let export = export_of(id);
        self.folder.store.put_export(&export, &file).await?;
        let record = ExportRecord {
            export: Some(Export {
                id: export.clone(),
                rtstream_id: id.to_owned(),
                state: export::State::Done.into(),
                create_time: Some(timestamp(made_us)),
                ..Export::default()
            }),
            ..ExportRecord::default()
        };
        self.catalog.create(&export, &record).await?;
        Ok(())
    }

    /// What is left of a stream: recording, page, file of its export, record of it, record of its run.
    async fn left(&self, id: &str) -> Result<[bool; 5]> {
        let store = &self.folder.store;
        Ok([
            store.streams().await?.contains(&id.to_owned()),
            store.page(id).await.is_ok(),
            store.export(&export_of(id), None).await.is_ok(),
            self.catalog
                .fetch::<ExportRecord>(&export_of(id))
                .await?
                .is_some(),
            self.catalog.fetch::<RunRecord>(id).await?.is_some(),
        ])
    }

    /// State and detail of everything that was told of the stream.
    async fn told(&self) -> Result<Vec<(State, String)>> {
        let filter = format!("obs.*.status.{}", self.id);
        let told = self
            .bus
            .read::<Observation>(StreamName::Observations, &filter, 1000)
            .await?;
        let states = told
            .into_iter()
            .filter_map(|received| match received.message.body {
                Some(Body::Status(body)) => Some((State::try_from(body.state).ok()?, body.detail)),
                _ => None,
            });
        Ok(states.collect())
    }
}

fn export_of(id: &str) -> String {
    ids::export_id(id, 0, 1, "")
}

const ALL: [bool; 5] = [true; 5];
const NOTHING: [bool; 5] = [false; 5];

#[tokio::test(flavor = "multi_thread")]
async fn of_a_deleted_stream_nothing_is_left() -> Result<()> {
    let platform = Platform::start().await?;
    let other = platform.another().await?;
    for id in [&platform.id, &other] {
        platform.fill(id).await?;
    }
    let worker = platform.worker("a")?;
    upkeep::round(&worker, EPOCH_US + SECOND, true).await;
    for id in [&platform.id, &other] {
        assert_eq!(platform.left(id).await?, ALL);
    }
    platform.delete(&other).await?;
    // Pages are not due, but a recording has gone.
    upkeep::round(&worker, EPOCH_US + SECOND, false).await;
    assert_eq!(platform.left(&platform.id).await?, ALL);
    assert_eq!(platform.left(&other).await?, NOTHING);
    // Somebody still had a page of it to make.
    let page = PlayerPage {
        rtstream_id: other.clone(),
        ..PlayerPage::default()
    };
    platform.folder.store.create_page("late", &page).await?;
    upkeep::round(&worker, EPOCH_US + SECOND, true).await;
    assert!(platform.folder.store.page("late").await.is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_may_exist_lose_nothing() -> Result<()> {
    let platform = Platform::start().await?;
    let worker = platform.worker("a")?;
    let check = async |platform: &Platform, id: &str, why: &str| -> Result<()> {
        for file in 0..2 {
            upkeep::round(&worker, EPOCH_US + SECOND, true).await;
            let store = &platform.folder.store;
            assert!(
                store.streams().await?.contains(&id.to_owned()),
                "{why} {file}"
            );
            assert!(store.page(id).await.is_ok(), "{why} {file}");
            assert!(
                store.export(&export_of(id), None).await.is_ok(),
                "{why} {file}"
            );
        }
        Ok(())
    };
    // The catalog is new, or another platform's: it never heard of this one.
    let stranger = ids::new_id(Kind::RtStream);
    platform.fill(&stranger).await?;
    check(&platform, &stranger, "unknown").await?;

    // It is there, and the view lacks it: this release can't read it.
    let unreadable = platform.another().await?;
    platform.fill(&unreadable).await?;
    let bucket = platform.bus.key_value("CATALOG").await?;
    let key = format!("{}.{unreadable}", RtStreamRecord::KIND);
    bucket.put(key, Bytes::from_static(&[0xff; 7])).await?;
    until("the view", async || {
        let known = platform.catalog.get::<RtStreamRecord>(&unreadable);
        Ok(known.is_none().then_some(()))
    })
    .await?;
    check(&platform, &unreadable, "unreadable").await
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nobody_can_say_what_is_deleted_nothing_is_removed() -> Result<()> {
    let platform = Platform::start().await?;
    let worker = platform.worker("a")?;
    let id = platform.id.clone();
    platform.fill(&id).await?;
    platform.delete(&id).await?;
    let Platform {
        _server: server,
        folder,
        ..
    } = platform;
    drop(server);
    upkeep::round(&worker, EPOCH_US + SECOND, true).await;
    assert!(folder.store.streams().await?.contains(&id));
    assert!(folder.store.page(&id).await.is_ok());
    assert!(folder.store.export(&export_of(&id), None).await.is_ok());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn exports_are_kept_as_long_as_recordings() -> Result<()> {
    let platform = Platform::start().await?;
    let worker = platform.worker("a")?;
    // 100 s are kept of this stream, and the default is without limit.
    let other = platform.another().await?;
    for id in [&platform.id, &other] {
        platform.export(id, EPOCH_US).await?;
    }
    let kept = [false, false, true, true, false];
    for (now, left) in [(100, kept), (101, NOTHING)] {
        upkeep::round(&worker, EPOCH_US + now * SECOND, false).await;
        assert_eq!(platform.left(&platform.id).await?, left, "{now}");
        assert_eq!(platform.left(&other).await?, kept, "{now}");
    }
    Ok(())
}

/// A worker whose children write down their process, and read what they are told without doing any of it.
fn with_idle_children(platform: &Platform) -> Result<(Arc<Shared>, PathBuf)> {
    let pid = platform.folder.dir.path().join("pid");
    let script = format!(
        "echo $$ > {0}.new; mv {0}.new {0}; exec 3>&1; exec cat > /dev/null",
        pid.display()
    );
    let mut worker = platform.worker("a")?;
    let shared = Arc::get_mut(&mut worker).context("not shared yet")?;
    shared.config.child = vec!["sh".into(), "-c".into(), script.into()];
    Ok((worker, pid))
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_runs_a_deleted_stream_stops_it_and_says_nothing() -> Result<()> {
    let platform = Platform::start().await?;
    let (worker, pid) = with_idle_children(&platform)?;
    let sealed = Bytes::from(worker.seal.seal("rtsp://127.0.0.1:9/never"));
    platform
        .change(|record| record.sealed_url = sealed.clone())
        .await?;
    platform.bus.request_run(&platform.id).await?;
    let leases = sightline_bus::LeaseConfig {
        ack_wait: crate::ACK_WAIT,
    };
    let mut leases = platform.bus.leases(leases).await?;
    let lease = soon("the lease", leases.next()).await??;
    let running = tokio::spawn(run::run(Arc::clone(&worker), lease, Shutdown::new()));
    let pid = until("the child", async || Ok(std::fs::read_to_string(&pid).ok())).await?;
    let process = PathBuf::from(format!("/proc/{}", pid.trim()));
    assert!(process.exists());
    platform.delete(&platform.id).await?;
    soon("the end of the run", running).await??;
    until("the end of the child", async || {
        Ok((!process.exists()).then_some(()))
    })
    .await?;
    let subject = Subject::Run {
        rtstream: platform.id.clone(),
    };
    assert_eq!(platform.bus.outstanding(&subject).await?, 0);
    let run = platform.catalog.fetch::<RunRecord>(&platform.id).await?;
    assert!(run.is_none(), "{run:?}");
    let connecting = (State::Connecting, String::new());
    assert_eq!(platform.told().await?, [connecting]);

    // Asked to run it again, with a record that somebody left.
    platform
        .catalog
        .create(&platform.id, &RunRecord::default())
        .await?;
    platform.bus.request_run(&platform.id).await?;
    let lease = soon("the lease", leases.next()).await??;
    let running = tokio::spawn(run::run(worker, lease, Shutdown::new()));
    soon("the end of the run", running).await??;
    assert_eq!(platform.bus.outstanding(&subject).await?, 0);
    let run = platform.catalog.fetch::<RunRecord>(&platform.id).await?;
    assert!(run.is_none(), "{run:?}");
    assert_eq!(platform.told().await?.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn how_a_run_ended_is_told_although_its_worker_died_of_it() -> Result<()> {
    let platform = Platform::start().await?;
    let mut run = platform.claim("a").await?;
    // Killed after the state was stored, and before it was told.
    run.state.run.state = State::Failed.into();
    "no such camera".clone_into(&mut run.state.run.detail);
    run.state.store().await?;
    drop(run);
    let worker = platform.worker("b")?;
    let stream = platform.catalog.get::<RtStreamRecord>(&platform.id);
    let stream = stream.context("the stream")?.value;
    let failed = [(State::Failed, "no such camera".to_owned())];
    // Again and again, it is told once.
    for _ in 0..3 {
        let claimed = RunState::claim(&worker, &platform.id, &stream).await?;
        assert!(claimed.is_none());
        assert_eq!(platform.told().await?, failed);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stopped_at_once_is_not_published_and_what_is_finished_is() -> Result<()> {
    let platform = Platform::start().await?;
    let worker = platform.worker("a")?;
    let mut run = platform.claim("a").await?;
    let subject = Subject::Audio {
        engine: "whisper".to_owned(),
        rtstream: platform.id.clone(),
    };
    for (start, session, dropped, published) in [
        // Before there were sessions.
        (0, 0, 0, true),
        (1, 1, 0, true),
        // Stopped gracefully: the utterance under way comes after the stop.
        (2, 1, 0, true),
        (3, 2, 2, false),
        (4, 1, 2, false),
        (5, 0, 2, true),
        (6, 3, 2, true),
    ] {
        platform
            .change(|record| record.dropped_session = dropped)
            .await?;
        let utterance = Utterance {
            start_position_us: start * SECOND,
            pcm: vec![0; 16_000].into(),
            session,
        };
        let before = platform.bus.outstanding(&subject).await?;
        publish::utterance(&worker, &mut run.state, &platform.id, utterance).await?;
        let after = platform.bus.outstanding(&subject).await?;
        assert_eq!(after - before, u64::from(published), "{start}");
        if published {
            let newest = platform.bus.newest::<AudioChunk>(&subject).await?;
            let newest = newest.context("the utterance")?;
            let at = EPOCH_US + start * SECOND;
            assert_eq!((newest.start_us, newest.session), (at, session));
        }
        // Either way it is done with.
        let done_us = run.state.run.audio_done_us - EPOCH_US;
        assert_eq!(done_us, start * SECOND + SECOND / 2);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn speech_of_a_new_session_is_taken_from_then_on() -> Result<()> {
    let platform = Platform::start().await?;
    let worker = platform.worker("a")?;
    let mut run = platform.claim("a").await?;
    // Speech was heard up to 3 s, then a recording went on to 20 s.
    run.state.run.audio_session = 1;
    run.state.run.audio_done_us = EPOCH_US + 3 * SECOND;
    run.state.run.recorded_us = EPOCH_US + 20 * SECOND;
    for (transcribe, session, from) in [
        (true, 1, 3),
        (false, 1, 3),
        // On and off while nobody ran it.
        (true, 3, 20),
        (true, 3, 20),
    ] {
        platform
            .change(|record| {
                record.rtstream.get_or_insert_default().transcribe = transcribe;
                record.transcription_session = session;
            })
            .await?;
        let source = Source {
            url: String::new(),
            is_file: true,
            fast: false,
        };
        let mut supervisor = Supervisor::new(&worker, &platform.id, source, &mut run.state).await?;
        let take = supervisor.take_now();
        let expected = (transcribe, session, from * SECOND);
        let taken = (take.audio, take.audio_session, take.audio_from_us);
        assert_eq!(taken, expected);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn for_audio_indexes_nothing_is_sampled() -> Result<()> {
    let platform = Platform::start().await?;
    for (id, kind, state) in [
        ("idx-a", index::Kind::Audio, index::State::Running),
        ("idx-b", index::Kind::Visual, index::State::Stopped),
        ("idx-c", index::Kind::Visual, index::State::Running),
    ] {
        let index = Index {
            id: id.to_owned(),
            rtstream_id: platform.id.clone(),
            kind: kind.into(),
            state: state.into(),
            model: id.to_owned(),
            sampling: Some(TimeSampling::default()),
            ..Index::default()
        };
        let record = IndexRecord {
            index: Some(index),
            ..IndexRecord::default()
        };
        platform.catalog.create(id, &record).await?;
    }
    let wanted = Wanted::of(&platform.catalog, &platform.id);
    let models: Vec<_> = wanted
        .samplings
        .values()
        .flat_map(|(_, models)| models)
        .collect();
    assert_eq!(models, ["idx-c"]);
    Ok(())
}
