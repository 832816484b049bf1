//! What is wanted from a stream, as the catalog says at that moment.

use std::collections::{BTreeMap, BTreeSet};

use sightline_catalog::Catalog;
use sightline_proto::ids;
use sightline_proto::internal::{
    IndexRecord, RtStreamRecord, RunRecord, Sampling, TakeFrom, WantedSampling,
};
use sightline_proto::time::duration_micros;
use sightline_proto::v1::index;

/// The samplings that running indexes share, and whether speech is transcribed.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Wanted {
    /// By sampling key: the sampling and the models that describe it.
    pub(crate) samplings: BTreeMap<String, (Sampling, BTreeSet<String>)>,
    pub(crate) audio: bool,
}

impl Wanted {
    /// What a stream's running indexes and its user want.
    pub(crate) fn of(catalog: &Catalog, rtstream_id: &str) -> Self {
        let mut wanted = Self::default();
        for (_, record) in catalog.list::<IndexRecord>() {
            let Some(index) = &record.value.index else {
                continue;
            };
            if index.rtstream_id != rtstream_id || index.state() != index::State::Running {
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
        let stream = catalog.get::<RtStreamRecord>(rtstream_id);
        let stream = stream
            .as_ref()
            .and_then(|stream| stream.value.rtstream.as_ref());
        wanted.audio = stream.is_some_and(|stream| stream.transcribe);
        wanted
    }

    /// The same for the child: what was published already is left out.
    pub(crate) fn take_from(&self, run: &RunRecord) -> TakeFrom {
        let wanted = |(key, (sampling, _)): (&String, &(Sampling, _))| WantedSampling {
            sampling: Some(*sampling),
            first_window: run.next_window.get(key).copied().unwrap_or(0),
        };
        TakeFrom {
            samplings: self.samplings.iter().map(wanted).collect(),
            audio: self.audio,
            audio_from_us: (run.audio_done_us - run.epoch_us).max(0),
        }
    }

    /// Where a file is to be read from: nothing wanted lies before.
    pub(crate) fn start_position_us(&self, run: &RunRecord) -> i64 {
        let take = self.take_from(run);
        let windows = take.samplings.iter().map(|wanted| {
            let window_us = wanted.sampling.as_ref().map_or(0, |s| s.window_us);
            i64::try_from(wanted.first_window)
                .unwrap_or(i64::MAX)
                .saturating_mul(window_us)
        });
        let audio = take.audio.then_some(take.audio_from_us);
        windows.chain(audio).min().unwrap_or(0)
    }
}
