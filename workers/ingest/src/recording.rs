//! The recording of one stream: how far it has come, and what is missing.
//!
//! Segments are stored one after the other by the [`Uploader`]. Only when one is stored is it known what is missing before it:
//! then the hole is told, and after that it is noted how far the recording has come. A crash in between tells the same hole
//! with the same id once more.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use sightline_proto::internal::{NotRecordable, RecordedSegment};
use sightline_proto::v1::rt_stream::RecordingState;
use sightline_recordings::{LONGEST_US, Library, Segment};
use sightline_service::chain;
use tokio::time::{sleep, timeout};

use crate::Shared;
use crate::holes::{Hole, Holes, STORE_DOWN, WORKER_LOST};
use crate::record::{RecordError, RunState};
use crate::upload::{News, Uploader};

/// How long the store may be asked what it holds before media is read all the same.
const CATCH_UP: Duration = Duration::from_secs(3);
/// How far to look at once for what is stored and not noted.
const STRIDE_US: i64 = 3_600_000_000;
/// How long storing what was taken in may take at the end, and when the store does not take it at the moment.
const FINISH: Duration = Duration::from_secs(10);
const FINISH_FAILING: Duration = Duration::from_secs(3);

/// The recording of one stream under one lease.
pub(crate) struct Recording {
    shared: Arc<Shared>,
    rtstream_id: String,
    uploader: Uploader,
    holes: Holes,
    /// Stream time up to which segments were taken from children.
    handed_us: i64,
    /// Whether it is known what the store holds beyond what is noted. One that is down may look empty: it is asked once more
    /// when it has taken a segment.
    caught_up: bool,
    /// Why the recording has no sound.
    soundless: String,
    /// Stored, and not yet noted.
    unsettled: VecDeque<Segment>,
    /// Noted, and not yet told.
    untold: VecDeque<Hole>,
}

impl Recording {
    /// Goes on with a stream's recording, or begins it.
    pub(crate) async fn start(
        shared: &Arc<Shared>,
        rtstream_id: &str,
        state: &mut RunState,
        wanted: bool,
    ) -> Result<Self, RecordError> {
        let failing = state.recording_state() == RecordingState::Failing;
        let run = &mut state.run;
        if !wanted {
            run.recording_state = RecordingState::Unspecified.into();
            run.recording_detail.clear();
        } else if run.recorded_us == 0 && !failing {
            run.recording_state = RecordingState::Waiting.into();
            run.recording_detail.clear();
        }
        let library = &shared.library;
        let mut recording = Self {
            shared: Arc::clone(shared),
            rtstream_id: rtstream_id.to_owned(),
            uploader: Uploader::start(library.store().clone(), rtstream_id, shared.metrics.clone()),
            holes: Holes::default(),
            handed_us: 0,
            // A stream that had no media yet has no recording either.
            caught_up: !wanted || run.epoch_us == 0,
            soundless: String::new(),
            unsettled: VecDeque::new(),
            untold: VecDeque::new(),
        };
        let reason = if failing { STORE_DOWN } else { WORKER_LOST };
        recording.holes.interrupt(run.recorded_us, reason);
        if !recording.caught_up {
            recording.catch_up(state, i64::MAX).await;
        }
        recording.handed_us = state.run.recorded_us;
        recording.tell(state).await?;
        Ok(recording)
    }

    /// Stream time up to which the recording is on its way: a file need not be read again before it.
    pub(crate) fn handed_us(&self) -> i64 {
        self.handed_us
    }

    /// The child is gone; what comes next may come after a hole.
    pub(crate) fn interrupted(&mut self, reason: &'static str) {
        self.holes.interrupt(self.handed_us, reason);
    }

    /// Takes a segment from the child. Where waiting is possible, nothing is lost while the store works.
    pub(crate) async fn segment(
        &mut self,
        state: &mut RunState,
        recorded: RecordedSegment,
        may_wait: bool,
    ) -> Result<(), RecordError> {
        while may_wait
            && self.uploader.is_full()
            && state.recording_state() != RecordingState::Failing
        {
            let Some(news) = self.uploader.next().await else {
                break;
            };
            self.heard(state, news).await?;
        }
        self.hand_over(state, recorded);
        Ok(())
    }

    /// The same without waiting.
    pub(crate) fn hand_over(&mut self, state: &RunState, recorded: RecordedSegment) {
        let segment = Segment {
            start_us: state
                .run
                .epoch_us
                .saturating_add(recorded.start_position_us),
            duration_us: recorded.duration_us,
            bytes: recorded.ts.len() as u64,
        };
        // Children read what strangers send.
        let sound = (1..=LONGEST_US).contains(&segment.duration_us) && segment.start_us > 0;
        if !sound || recorded.ts.is_empty() {
            tracing::warn!(
                rtstream = self.rtstream_id,
                ?segment,
                "a child's segment makes no sense"
            );
            return;
        }
        self.handed_us = self.handed_us.max(segment.end_us());
        for lost in self.uploader.push(segment, recorded.ts) {
            self.lose(lost, "queue_full");
        }
    }

    /// The stream cannot be recorded, or only its pictures.
    pub(crate) async fn not_recordable(
        &mut self,
        state: &mut RunState,
        why: NotRecordable,
    ) -> Result<(), RecordError> {
        if !why.sound_only {
            return state
                .set_recording(RecordingState::Unsupported, &why.reason)
                .await;
        }
        self.soundless = why.reason;
        if state.recording_state() == RecordingState::Active {
            state
                .set_recording(RecordingState::Active, &self.soundless)
                .await?;
        }
        Ok(())
    }

    /// Waits for news of the uploader, to be passed to [`Self::heard`]. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Option<News> {
        self.uploader.next().await
    }

    /// Takes news of the uploader. Cut off anywhere, it is completed by the next.
    pub(crate) async fn heard(
        &mut self,
        state: &mut RunState,
        news: News,
    ) -> Result<(), RecordError> {
        match news {
            News::Stored(segment) => {
                self.unsettled.push_back(segment);
                self.settle(state).await
            }
            News::Refused(segment, reason) => {
                tracing::warn!(rtstream = self.rtstream_id, reason, "a segment is refused");
                self.lose(segment, "refused");
                Ok(())
            }
            News::Failing(reason) => state.set_recording(RecordingState::Failing, &reason).await,
        }
    }

    /// Stores what was taken in, for a while. If the stream is `over`, what is not stored then is lost.
    pub(crate) async fn finish(
        &mut self,
        state: &mut RunState,
        over: bool,
    ) -> Result<(), RecordError> {
        self.settle(state).await?;
        self.uploader.close();
        let most = if state.recording_state() == RecordingState::Failing {
            FINISH_FAILING
        } else {
            FINISH
        };
        let deadline = sleep(most);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                biased;
                news = self.uploader.next() => match news {
                    Some(news) => self.heard(state, news).await?,
                    None => break,
                },
                () = &mut deadline => break,
            }
        }
        if over {
            let recorded_us = state.run.recorded_us;
            let left = self.uploader.left().into_iter();
            for segment in left.filter(|segment| segment.end_us() > recorded_us) {
                self.lose(segment, "stopped");
            }
            if let Some(hole) = self.holes.at_the_end(recorded_us) {
                state.run.recorded_us = hole.to_us;
                self.untold.push_back(hole);
            }
            self.tell(state).await?;
        }
        Ok(())
    }

    fn lose(&mut self, segment: Segment, reason: &'static str) {
        tracing::warn!(
            rtstream = self.rtstream_id,
            start_us = segment.start_us,
            duration_us = segment.duration_us,
            reason,
            "a segment of the recording is lost"
        );
        self.shared.metrics.lost(reason);
        self.holes.lose(segment);
    }

    /// Notes what is stored.
    async fn settle(&mut self, state: &mut RunState) -> Result<(), RecordError> {
        let Some(first) = self.unsettled.front() else {
            return self.tell(state).await;
        };
        if !self.caught_up {
            let before_us = first.start_us;
            self.catch_up(state, before_us).await;
            self.caught_up = true;
        }
        while let Some(segment) = self.unsettled.pop_front() {
            self.note(state, segment);
        }
        self.tell(state).await?;
        if state.recording_state() != RecordingState::Active
            || state.run.recording_detail != self.soundless
        {
            return state
                .set_recording(RecordingState::Active, &self.soundless)
                .await;
        }
        state.store().await
    }

    /// Notes what was stored before `before_us` and not noted: a crash may have come between the two. An interruption came after
    /// all of that.
    async fn catch_up(&mut self, state: &mut RunState, before_us: i64) {
        let interrupted = self.holes.take_interruption();
        self.look_up(state, before_us).await;
        if let Some((at_us, reason)) = interrupted {
            self.holes.interrupt(at_us, reason);
        }
    }

    async fn look_up(&mut self, state: &mut RunState, before_us: i64) {
        loop {
            let from_us = state.run.recorded_us.max(state.run.epoch_us);
            let library: &Library = &self.shared.library;
            let to_us = from_us.saturating_add(STRIDE_US);
            let asked = library.segments(&self.rtstream_id, from_us, to_us);
            let found = match timeout(CATCH_UP, asked).await {
                Ok(Ok(found)) => found,
                Ok(Err(error)) => return self.not_caught_up(&chain(&error)),
                Err(late) => return self.not_caught_up(&late.to_string()),
            };
            let new =
                |segment: &Segment| segment.end_us() > from_us && segment.start_us < before_us;
            let found: Vec<_> = found.into_iter().filter(new).collect();
            if found.is_empty() {
                return;
            }
            for segment in found {
                self.note(state, segment);
            }
        }
    }

    fn not_caught_up(&self, reason: &str) {
        tracing::warn!(
            rtstream = self.rtstream_id,
            reason,
            "what is stored of the recording is looked up later"
        );
    }

    fn note(&mut self, state: &mut RunState, segment: Segment) {
        let run = &mut state.run;
        self.untold
            .extend(self.holes.before(run.recorded_us, segment));
        run.recorded_us = run.recorded_us.max(segment.end_us());
    }

    /// Tells holes, before anything of them is noted in the catalog.
    async fn tell(&mut self, state: &mut RunState) -> Result<(), RecordError> {
        while let Some(hole) = self.untold.front() {
            state
                .gap("recording", hole.reason, hole.from_us, hole.to_us)
                .await?;
            self.untold.pop_front();
        }
        Ok(())
    }
}
