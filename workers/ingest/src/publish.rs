//! Putting windows and utterances onto the bus.

use std::collections::BTreeSet;
use std::time::Duration;

use prost::Message;
use sightline_bus::{BusError, Subject};
use sightline_proto::ids;
use sightline_proto::internal::{
    AudioChunk, FrameWindow, RtStreamRecord, SampledWindow, Sampling, Utterance,
};
use sightline_service::failpoint;
use sightline_service::trace::{self, TraceContext};
use tokio::time::sleep;
use tracing::Instrument;

use crate::Shared;
use crate::health::Health;
use crate::record::{RecordError, RunState, end_of};

/// Windows that may wait for each caption model: one more supersedes the first.
const OUTSTANDING: u64 = 2;
/// How often to look whether one of them is done.
const LOOK: Duration = Duration::from_millis(15);
/// How long to hold back when the bus does not take something. The lease runs out if that lasts.
const PAUSE: Duration = Duration::from_millis(500);
/// Largest window that the bus takes, with room for what is around the message.
const LARGEST: usize = 1_000_000 - 4096;

/// Publishes a window for every model that describes its sampling, then notes it. With `fast`, only when nothing is
/// superseded by it.
pub(crate) async fn window(
    shared: &Shared,
    state: &mut RunState,
    rtstream_id: &str,
    models: &BTreeSet<String>,
    sampled: SampledWindow,
    fast: bool,
) -> Result<(), RecordError> {
    let sampling = sampled.sampling.unwrap_or_default();
    let key = ids::sampling_key(&sampling);
    let number = sampled.window;
    let captured = trace::begin("capture window", sampled.captured_us, rtstream_id);
    let mut window = message(state, rtstream_id, sampling, sampled);
    let left_out = fit(&mut window, LARGEST);
    shared.metrics.frames_left_out.inc_by(left_out as u64);
    let watched = shared.health_of(rtstream_id).contains(&Health::Behind);
    for model in models {
        let subject = Subject::Frames {
            model: model.clone(),
            rtstream: rtstream_id.to_owned(),
            sampling: key.clone(),
        };
        // One stream de-duplicates the windows of all models.
        let id = format!("{}.{model}", window.id);
        if fast {
            wait_for_room(shared, &subject).await;
        } else if watched && is_crowded(shared, &subject).await {
            state.vitals.send_modify(|vitals| vitals.crowded += 1);
        }
        failpoint::hit("ingest.before_publish");
        send(shared, &captured, &subject, &id, &window).await;
        failpoint::hit("ingest.after_publish");
        shared.metrics.windows.inc();
    }
    let next = state.run.next_window.entry(key).or_default();
    *next = (*next).max(number + 1);
    state.store_now_and_then().await
}

/// Publishes an utterance, unless its transcription was stopped at once meanwhile, then notes it.
pub(crate) async fn utterance(
    shared: &Shared,
    state: &mut RunState,
    rtstream_id: &str,
    utterance: Utterance,
) -> Result<(), RecordError> {
    let chunk = chunk(state, rtstream_id, utterance);
    let stream = shared.catalog.get::<RtStreamRecord>(rtstream_id);
    let dropped = stream.map_or(0, |stream| stream.value.dropped_session);
    // Session 0 was before there were any.
    if !(1..=dropped).contains(&chunk.session) {
        let subject = Subject::Audio {
            engine: shared.config.engine.clone(),
            rtstream: rtstream_id.to_owned(),
        };
        failpoint::hit("ingest.before_utterance");
        // One that is refused because of its generation must not keep the bus from taking it again.
        let id = format!("{}.{}", chunk.id, chunk.generation);
        let captured = trace::begin("capture utterance", chunk.start_us, rtstream_id);
        send(shared, &captured, &subject, &id, &chunk).await;
        failpoint::hit("ingest.after_utterance");
        shared.metrics.utterances.inc();
    }
    state.run.audio_done_us = state.run.audio_done_us.max(end_of(&chunk));
    state.store().await
}

/// An utterance as it travels.
pub(crate) fn chunk(state: &RunState, rtstream_id: &str, utterance: Utterance) -> AudioChunk {
    let epoch_us = state.run.epoch_us;
    let start_us = epoch_us + utterance.start_position_us;
    AudioChunk {
        id: ids::chunk_id(rtstream_id, epoch_us, start_us),
        rtstream_id: rtstream_id.to_owned(),
        collection_id: state.collection_id.clone(),
        epoch_us,
        start_us,
        pcm: utterance.pcm,
        generation: state.run.generation,
        session: utterance.session,
    }
}

fn message(
    state: &RunState,
    rtstream_id: &str,
    sampling: Sampling,
    sampled: SampledWindow,
) -> FrameWindow {
    let epoch_us = state.run.epoch_us;
    let start = i64::try_from(sampled.window)
        .unwrap_or(i64::MAX)
        .saturating_mul(sampling.window_us);
    let mut frames = sampled.frames;
    for frame in &mut frames {
        frame.time_us += epoch_us;
    }
    FrameWindow {
        id: ids::window_id(rtstream_id, epoch_us, &sampling, sampled.window),
        rtstream_id: rtstream_id.to_owned(),
        collection_id: state.collection_id.clone(),
        epoch_us,
        window: sampled.window,
        start_us: epoch_us.saturating_add(start),
        end_us: epoch_us + sampled.end_position_us,
        sampling: Some(sampling),
        frames,
        generation: state.run.generation,
        captured_us: sampled.captured_us,
        sampled_us: sampled.sampled_us,
    }
}

/// Leaves out every second frame until the window fits; returns how many frames that cost.
fn fit(window: &mut FrameWindow, largest: usize) -> usize {
    let before = window.frames.len();
    while window.encoded_len() > largest && window.frames.len() > 1 {
        let mut number = 0;
        window.frames.retain(|_| {
            number += 1;
            number % 2 == 1
        });
    }
    before - window.frames.len()
}

/// Waits until one more window supersedes none.
async fn wait_for_room(shared: &Shared, subject: &Subject) {
    loop {
        match shared.bus.outstanding(subject).await {
            Ok(outstanding) if outstanding < OUTSTANDING => return,
            Ok(_) => sleep(LOOK).await,
            Err(error) => hold_back(&error).await,
        }
    }
}

/// Whether one more window supersedes one.
async fn is_crowded(shared: &Shared, subject: &Subject) -> bool {
    let outstanding = shared.bus.outstanding(subject).await;
    outstanding.is_ok_and(|outstanding| outstanding >= OUTSTANDING)
}

/// Publishes what was captured, as part of its trace.
async fn send(
    shared: &Shared,
    captured: &TraceContext,
    subject: &Subject,
    id: &str,
    message: &impl Message,
) {
    let destination = subject.to_string();
    let span = captured.above(tracing::info_span!(
        "send",
        otel.kind = "producer",
        messaging.system = "nats",
        messaging.operation.name = "send",
        "messaging.operation.type" = "send",
        messaging.destination.name = destination,
        messaging.message.id = id,
    ));
    let publishing = publish(shared, subject, id, message);
    publishing.instrument(span).await;
}

/// Publishes until the bus has it: the caller gives up when its lease is lost.
pub(crate) async fn publish(shared: &Shared, subject: &Subject, id: &str, message: &impl Message) {
    while let Err(error) = shared.bus.publish(subject, id, message).await {
        hold_back(&error).await;
    }
}

async fn hold_back(error: &BusError) {
    tracing::debug!(%error, "the bus is not there, trying again");
    sleep(PAUSE).await;
}

#[cfg(test)]
mod tests {
    use sightline_proto::internal::Frame;

    use super::*;

    #[test]
    fn a_window_that_is_too_large_loses_frames_evenly() {
        let frame = |time_us| Frame {
            time_us,
            jpeg: vec![0; 1000].into(),
        };
        for (frames, largest, kept) in [
            (4, 10_000, vec![0, 1, 2, 3]),
            (4, 3000, vec![0, 2]),
            (4, 10, vec![0]),
            (0, 10, vec![]),
        ] {
            let mut window = FrameWindow {
                frames: (0..frames).map(frame).collect(),
                ..FrameWindow::default()
            };
            let left_out = fit(&mut window, largest);
            let times: Vec<i64> = window.frames.iter().map(|f| f.time_us).collect();
            assert_eq!((times.len() + left_out, times), (frames as usize, kept));
        }
    }
}
