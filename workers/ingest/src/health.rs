//! A stream's health, as verdicts on windows of 5 s: what is wrong with a stream fires, closes and is delivered like any event.
//!
//! Nothing is measured or told unless an enabled alert waits for it. Windows lie on the grid from the epoch, and each is told
//! in order whether it counts or not. What a child measures is judged here; what the clock tells is in `presence`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use sightline_bus::{ObservationKind, Subject};
use sightline_catalog::Catalog;
use sightline_proto::ids;
use sightline_proto::internal::measured_window::What;
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{
    AlertRecord, MeasuredPictures, MeasuredSound, MeasuredWindow, Observation, VerdictBody,
};
use sightline_proto::v1::alert;
use sightline_service::Shutdown;
use tokio::time::sleep;

use crate::record::{RecordError, RunState};
use crate::{Shared, publish};

/// Length of a window.
pub(crate) const WINDOW_US: i64 = 5_000_000;
/// Where a run's record keeps the next windows of pictures and of sound.
pub(crate) const PICTURES: &str = "5000000x.pictures";
pub(crate) const SOUND: &str = "5000000x.sound";
/// Alerts are looked through once in this time at most: there may be many.
const LOOK: Duration = Duration::from_secs(1);
/// The picture stands still if a pixel changes by less than this on average, of 255. What was coded anew from one picture
/// changed by 0.05 at most; the same scene with the faintest noise, coded small, by 0.14.
const STILL: f32 = 0.1;
/// It is black if it is on average hardly brighter than video's black, 16 of 255, and no part of it stands out.
const BLACK: f32 = 16.0 + 8.0;
const EVEN: f32 = 8.0;
/// -60 dB of the loudest: below the hiss of a microphone that works.
const SILENT: f32 = 0.001;
/// A window of which less was heard is not judged.
const HEARD_US: i64 = WINDOW_US * 4 / 5;

/// What can be wrong with a stream, or right again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Health {
    Offline,
    Recovered,
    Frozen,
    Black,
    Silent,
    Behind,
}

impl Health {
    const ALL: [Self; 6] = [
        Self::Offline,
        Self::Recovered,
        Self::Frozen,
        Self::Black,
        Self::Silent,
        Self::Behind,
    ];

    /// The built-in event.
    pub(crate) fn event_id(self) -> &'static str {
        match self {
            Self::Offline => "evt-offline",
            Self::Recovered => "evt-recovered",
            Self::Frozen => "evt-frozen",
            Self::Black => "evt-black",
            Self::Silent => "evt-silent",
            Self::Behind => "evt-behind",
        }
    }
}

/// What enabled alerts wait for, by stream.
pub(crate) type Wishes = HashMap<String, BTreeSet<Health>>;

/// What the catalog's alerts wait for.
pub(crate) fn wishes(catalog: &Catalog) -> Wishes {
    let mut wishes = Wishes::new();
    for (_, record) in catalog.list::<AlertRecord>() {
        let Some(alert) = &record.value.alert else {
            continue;
        };
        if alert.state() != alert::State::Enabled || !alert.index_id.is_empty() {
            continue;
        }
        let health = Health::ALL.iter().find(|h| h.event_id() == alert.event_id);
        if let Some(health) = health {
            let of_stream = wishes.entry(alert.rtstream_id.clone()).or_default();
            of_stream.insert(*health);
        }
    }
    wishes
}

/// Keeps the worker's wishes as the catalog has them, until shutdown.
pub(crate) async fn follow(shared: Arc<Shared>, shutdown: Shutdown) {
    let mut changes = shared.catalog.changes_of::<AlertRecord>();
    loop {
        changes.mark_unchanged();
        shared.look_up_wishes();
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = sleep(LOOK) => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = changes.changed() => if changed.is_err() {
                return;
            }
        }
    }
}

impl Shared {
    /// Takes the wishes from the catalog now.
    pub(crate) fn look_up_wishes(&self) {
        let now = wishes(&self.catalog);
        self.wishes.send_if_modified(|known| {
            let differ = *known != now;
            *known = now;
            differ
        });
    }

    /// What alerts of a stream wait for.
    pub(crate) fn health_of(&self, rtstream_id: &str) -> BTreeSet<Health> {
        let wishes = self.wishes.borrow();
        wishes.get(rtstream_id).cloned().unwrap_or_default()
    }
}

/// Judges and tells what a child measured, then notes that.
pub(crate) async fn measured(
    shared: &Shared,
    state: &mut RunState,
    rtstream_id: &str,
    measured: MeasuredWindow,
) -> Result<(), RecordError> {
    let key = match measured.what {
        Some(What::Pictures(_)) => PICTURES,
        Some(What::Sound(_)) => SOUND,
        None => return Ok(()),
    };
    let wanted = shared.health_of(rtstream_id);
    let of = Of {
        rtstream_id,
        collection_id: &state.collection_id,
        epoch_us: state.run.epoch_us,
    };
    for (health, counts) in judge(&measured) {
        if wanted.contains(&health) {
            let verdict = Verdict {
                health,
                counts,
                window: measured.window,
                captured_us: measured.captured_us,
                sampled_us: measured.sampled_us,
            };
            verdict.tell(shared, of).await;
        }
    }
    if let Some(next) = state.run.next_window.get_mut(key) {
        *next = (*next).max(measured.window.saturating_add(1));
    }
    state.store_now_and_then().await
}

/// What is known by a window; what is not is left out.
fn judge(measured: &MeasuredWindow) -> Vec<(Health, bool)> {
    match measured.what {
        Some(What::Pictures(pictures)) => {
            let MeasuredPictures {
                count,
                change,
                brightness,
                deviation,
            } = pictures;
            let black = (Health::Black, brightness < BLACK && deviation < EVEN);
            let frozen = (Health::Frozen, change < STILL);
            match count {
                0 => vec![],
                1 => vec![black],
                _ => vec![black, frozen],
            }
        }
        Some(What::Sound(MeasuredSound { heard_us, level })) if heard_us >= HEARD_US => {
            vec![(Health::Silent, level < SILENT)]
        }
        _ => vec![],
    }
}

/// Whose health it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Of<'a> {
    pub(crate) rtstream_id: &'a str,
    pub(crate) collection_id: &'a str,
    pub(crate) epoch_us: i64,
}

/// Whether something was the case in a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) health: Health,
    pub(crate) counts: bool,
    pub(crate) window: u64,
    pub(crate) captured_us: i64,
    pub(crate) sampled_us: i64,
}

impl Verdict {
    /// Tells it, until the bus has it. Told again, it is the same observation.
    pub(crate) async fn tell(self, shared: &Shared, of: Of<'_>) {
        let observation = self.observation(of, shared.clock.now_us());
        let subject = Subject::Observation {
            partition: shared.catalog.partition_of(of.rtstream_id),
            kind: ObservationKind::Verdict,
            rtstream: of.rtstream_id.to_owned(),
        };
        publish::publish(shared, &subject, &observation.id, &observation).await;
    }

    fn observation(self, of: Of<'_>, judged_us: i64) -> Observation {
        let event_id = self.health.event_id();
        let window = i64::try_from(self.window).unwrap_or(i64::MAX);
        let start_us = window.saturating_mul(WINDOW_US).saturating_add(of.epoch_us);
        Observation {
            id: ids::observation_id(
                ObservationKind::Verdict.as_str(),
                of.rtstream_id,
                of.epoch_us,
                start_us,
                &format!(":{event_id}"),
                0,
                "",
            ),
            rtstream_id: of.rtstream_id.to_owned(),
            collection_id: of.collection_id.to_owned(),
            epoch_us: of.epoch_us,
            start_us,
            end_us: start_us.saturating_add(WINDOW_US),
            model_revision: String::new(),
            body: Some(Body::Verdict(VerdictBody {
                event_id: event_id.to_owned(),
                probability: f32::from(u8::from(self.counts)),
                window: self.window,
                captured_us: self.captured_us,
                sampled_us: self.sampled_us,
                judged_us,
                ..VerdictBody::default()
            })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(what: What, expected: &[(Health, bool)]) {
        let measured = MeasuredWindow {
            what: Some(what),
            ..MeasuredWindow::default()
        };
        assert_eq!(judge(&measured), expected, "{what:?}");
    }

    #[test]
    fn pictures_are_judged_by_what_was_measured_of_them() {
        use Health::{Black, Frozen};
        for (count, change, brightness, deviation, expected) in [
            (2, 1.5, 120.0, 40.0, &[(Black, false), (Frozen, false)][..]),
            (2, 0.14, 120.0, 40.0, &[(Black, false), (Frozen, false)]),
            (2, 0.05, 120.0, 40.0, &[(Black, false), (Frozen, true)]),
            (2, 0.0, 16.0, 0.0, &[(Black, true), (Frozen, true)]),
            // A dark one with noise, one with a lamp in it, a full-range one.
            (2, 1.2, 20.0, 3.0, &[(Black, true), (Frozen, false)]),
            (2, 1.2, 18.0, 18.0, &[(Black, false), (Frozen, false)]),
            (2, 1.2, 0.5, 1.0, &[(Black, true), (Frozen, false)]),
            (1, 0.0, 120.0, 40.0, &[(Black, false)]),
            (0, 0.0, 0.0, 0.0, &[]),
        ] {
            let pictures = MeasuredPictures {
                count,
                change,
                brightness,
                deviation,
            };
            check(What::Pictures(pictures), expected);
        }
    }

    #[test]
    fn sound_is_judged_where_enough_of_it_was_heard() {
        for (heard_us, level, expected) in [
            (WINDOW_US, 0.0, &[(Health::Silent, true)][..]),
            (WINDOW_US, 0.0009, &[(Health::Silent, true)]),
            (HEARD_US, 0.002, &[(Health::Silent, false)]),
            (HEARD_US - 1, 0.0, &[]),
        ] {
            check(What::Sound(MeasuredSound { heard_us, level }), expected);
        }
    }
}
