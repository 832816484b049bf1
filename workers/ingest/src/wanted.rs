//! What is wanted from a stream, as the catalog says at that moment.

use std::collections::{BTreeMap, BTreeSet};

use sightline_catalog::Catalog;
use sightline_proto::ids;
use sightline_proto::internal::{
    IndexRecord, RtStreamRecord, RunRecord, Sampling, TakeFrom, WantedSampling,
};
use sightline_proto::time::duration_micros;
use sightline_proto::v1::index;
use tokio::sync::watch;

use crate::Shared;
use crate::health::{self, Health, Wishes};

/// The samplings that running indexes share, and whether speech is transcribed.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Wanted {
    /// By sampling key: the sampling and the models that describe it.
    pub(crate) samplings: BTreeMap<String, (Sampling, BTreeSet<String>)>,
    pub(crate) audio: bool,
    /// The transcription session.
    pub(crate) session: u32,
    /// Whether the stream is recorded; it is played for that alone too.
    pub(crate) record: bool,
    /// Whether pictures and sound are measured for alerts on the stream's health.
    pub(crate) measure_pictures: bool,
    pub(crate) measure_sound: bool,
}

impl Wanted {
    /// What a stream's running indexes and its user want.
    pub(crate) fn of(catalog: &Catalog, rtstream_id: &str) -> Self {
        let mut wanted = Self::default();
        for (_, record) in catalog.list::<IndexRecord>() {
            let Some(index) = &record.value.index else {
                continue;
            };
            let sampled = index.kind() != index::Kind::Audio
                && index.state() == index::State::Running
                && index.rtstream_id == rtstream_id;
            if !sampled {
                continue;
            }
            let Some(asked) = &index.sampling else {
                continue;
            };
            let sampling = Sampling {
                window_us: asked.window.as_ref().map_or(0, duration_micros),
                frame_count: asked.frame_count,
            };
            let entry = wanted.samplings.entry(ids::sampling_key(&sampling));
            let (_, models) = entry.or_insert_with(|| (sampling, BTreeSet::new()));
            models.insert(index.model.clone());
        }
        let record = catalog.get::<RtStreamRecord>(rtstream_id);
        let record = record.as_ref().map(|record| &record.value);
        wanted.session = record.map_or(0, |record| record.transcription_session);
        let stream = record.and_then(|record| record.rtstream.as_ref());
        wanted.audio = stream.is_some_and(|stream| stream.transcribe);
        wanted.record = stream.is_some_and(|stream| stream.store);
        wanted
    }

    /// The same, with what alerts on its health want.
    pub(crate) fn with_health(mut self, wanted: &BTreeSet<Health>) -> Self {
        self.measure_pictures = [Health::Frozen, Health::Black]
            .iter()
            .any(|health| wanted.contains(health));
        self.measure_sound = wanted.contains(&Health::Silent);
        self
    }

    /// What goes by windows: how a run's record calls it, and how long they are.
    pub(crate) fn windows(&self) -> impl Iterator<Item = (&str, i64)> {
        let samplings = self.samplings.iter();
        let sampled = samplings.map(|(key, (sampling, _))| (key.as_str(), sampling.window_us));
        let measured = [
            (self.measure_pictures, health::PICTURES),
            (self.measure_sound, health::SOUND),
        ];
        let measured = measured.into_iter().filter(|(wanted, _)| *wanted);
        sampled.chain(measured.map(|(_, key)| (key, health::WINDOW_US)))
    }

    /// The same for the child: what was published already is left out, and of the recording what lies before `recorded_us`.
    pub(crate) fn take_from(&self, run: &RunRecord, recorded_us: i64) -> TakeFrom {
        let next = |key: &str| run.next_window.get(key).copied().unwrap_or(0);
        let wanted = |(key, (sampling, _)): (&String, &(Sampling, _))| WantedSampling {
            sampling: Some(*sampling),
            first_window: next(key),
        };
        TakeFrom {
            samplings: self.samplings.iter().map(wanted).collect(),
            audio: self.audio,
            audio_from_us: (run.audio_done_us - run.epoch_us).max(0),
            audio_session: self.session,
            record: self.record,
            record_from_us: (recorded_us - run.epoch_us).max(0),
            measure_pictures: self.measure_pictures,
            pictures_from_window: next(health::PICTURES),
            measure_sound: self.measure_sound,
            sound_from_window: next(health::SOUND),
        }
    }

    /// Where a file is to be read from: nothing wanted lies before.
    pub(crate) fn start_position_us(&self, run: &RunRecord, recorded_us: i64) -> i64 {
        let take = self.take_from(run, recorded_us);
        let windows = self.windows().map(|(key, window_us)| {
            let next = run.next_window.get(key).copied().unwrap_or(0);
            i64::try_from(next)
                .unwrap_or(i64::MAX)
                .saturating_mul(window_us)
        });
        let audio = take.audio.then_some(take.audio_from_us);
        let record = take.record.then_some(take.record_from_us);
        windows.chain(audio).chain(record).min().unwrap_or(0)
    }
}

/// Tells when something else may be wanted.
pub(crate) struct Changes {
    catalog: watch::Receiver<u64>,
    health: watch::Receiver<Wishes>,
}

impl Changes {
    /// Changes from now on.
    pub(crate) fn new(shared: &Shared) -> Self {
        let mut catalog = shared.catalog.changes();
        catalog.mark_unchanged();
        Self {
            catalog,
            health: shared.wishes.subscribe(),
        }
    }

    /// Waits for one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            Ok(()) = self.catalog.changed() => {}
            Ok(()) = self.health.changed() => {}
            // The process ends.
            else => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_from_where_anything_is_wanted() {
        const EPOCH_US: i64 = 1_795_514_400_000_000;
        let sampling = Sampling {
            window_us: 5_000_000,
            frame_count: 2,
        };
        let key = ids::sampling_key(&sampling);
        let run = RunRecord {
            epoch_us: EPOCH_US,
            next_window: [(key.clone(), 3)].into(),
            audio_done_us: EPOCH_US + 12_000_000,
            ..RunRecord::default()
        };
        let check = |samplings, audio, recorded_us: Option<i64>, expected| {
            let entry = || (key.clone(), (sampling, BTreeSet::new()));
            let wanted = Wanted {
                samplings: (0..samplings).map(|_| entry()).collect(),
                audio,
                session: 7,
                record: recorded_us.is_some(),
                ..Wanted::default()
            };
            let recorded_us = recorded_us.unwrap_or(0);
            assert_eq!(wanted.start_position_us(&run, recorded_us), expected);
            let take = wanted.take_from(&run, recorded_us);
            assert_eq!(take.samplings.len(), samplings);
            assert_eq!((take.record, take.audio_session), (wanted.record, 7));
        };
        let seconds = |s: i64| Some(EPOCH_US + s * 1_000_000);
        check(0, false, None, 0);
        check(1, false, None, 15_000_000);
        check(1, true, None, 12_000_000);
        check(1, true, seconds(8), 8_000_000);
        check(1, true, seconds(20), 12_000_000);
        check(0, false, seconds(20), 20_000_000);
        // Nothing is recorded yet.
        check(0, false, Some(0), 0);
        check(1, false, Some(0), 0);
    }
}
