//! Frames of recorded windows, for whoever asks on the bus: those that were sampled when the window passed. Like thumbnails,
//! they are decoded by a child.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sightline_bus::Ask;
use sightline_media::{Moment, Recorded, moment, slot_start};
use sightline_proto::internal::child_command::Command;
use sightline_proto::internal::child_report::Report;
use sightline_proto::internal::{
    Frame, FramesRequest, FramesResponse, MakeThumbnail, RtStreamRecord, Sampling,
};
use sightline_recordings::{Segment, StoreError};
use sightline_service::{Shutdown, chain};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use crate::process::ChildProcess;
use crate::reading::ReadError;
use crate::{PAUSE, Shared, reading};

/// Windows decoded at the same time: streams that are live come first.
const AT_ONCE: usize = 2;
/// How long one may take.
const DEADLINE: Duration = Duration::from_secs(15);
/// How long a window may be, and how many frames it may have: as the gateway allows it.
const LONGEST_US: i64 = 600_000_000;
const MOST_FRAMES: u32 = 16;
/// All frames of a window together: the bus takes 1 MB.
const MOST_BYTES: usize = 990_000;

/// Answers until shutdown.
pub(crate) async fn run(shared: Arc<Shared>, shutdown: Shutdown) {
    while !shutdown.is_cancelled() {
        let asked = Arc::clone(&shared);
        let answer = move |question| {
            let shared = Arc::clone(&asked);
            async move { answer(&shared, &question).await }
        };
        let answering = shared.bus.answer(Ask::Frames, AT_ONCE, &shutdown, answer);
        if let Err(error) = answering.await {
            tracing::debug!(%error, "frames cannot be answered, trying again");
            sleep(PAUSE).await;
        }
    }
}

async fn answer(shared: &Shared, question: &FramesRequest) -> FramesResponse {
    let late = |_| Err(format!("not decoded within {} s", DEADLINE.as_secs()));
    let decoding = timeout(DEADLINE, decode(shared, question)).await;
    match decoding.unwrap_or_else(late) {
        Ok(frames) => FramesResponse {
            frames,
            ..FramesResponse::default()
        },
        Err(error) => FramesResponse {
            error,
            ..FramesResponse::default()
        },
    }
}

/// The frames, none where nothing is recorded; or why there are none, in words.
async fn decode(shared: &Shared, question: &FramesRequest) -> Result<Vec<Frame>, String> {
    let id = &question.rtstream_id;
    let stream = shared.catalog.get::<RtStreamRecord>(id);
    let stream = stream.and_then(|record| record.value.rtstream.clone());
    let stream = stream.ok_or("there is no such stream")?;
    let live = !stream.url.starts_with("file:");
    let window_us = question.end_us.saturating_sub(question.start_us);
    if !(1..=LONGEST_US).contains(&window_us) || question.frame_count > MOST_FRAMES {
        return Err("there is no such window".to_owned());
    }
    let sampling = Sampling {
        window_us,
        frame_count: question.frame_count,
    };
    let found = shared.library.segments(
        id,
        question.start_us.saturating_sub(LONGEST_US),
        question.end_us,
    );
    let found = found.await.map_err(|error| chain(&error))?;
    let mut child = None;
    let mut frames = Vec::new();
    for slot in 0..sampling.frame_count {
        let at_us = slot_start(question.start_us, &sampling, slot);
        let near = read(shared, id, around(&found, at_us)).await?;
        let (near, moment) = choose(near, question.start_us, sampling, slot, live).await?;
        let Some(moment) = moment else { continue };
        let Some((_, ts)) = near.get(moment.segment) else {
            continue;
        };
        // Dropped at the deadline, and killed with that.
        let child = match &mut child {
            Some(child) => child,
            none => none.insert(
                ChildProcess::spawn(&shared.config.child)
                    .map_err(|error| format!("the child cannot be started: {error}"))?,
            ),
        };
        let jpeg = picture(child, ts, moment, shared.config.frame_edge).await?;
        let time_us = moment.time_us;
        frames.push(Frame { time_us, jpeg });
    }
    fit(&mut frames, MOST_BYTES);
    Ok(frames)
}

/// Of segments in order, the one in which a time lies, or the next, with those beside it.
fn around(segments: &[Segment], at_us: i64) -> &[Segment] {
    let within = segments.partition_point(|segment| segment.end_us() <= at_us);
    &segments[within.saturating_sub(1)..(within + 2).min(segments.len())]
}

async fn read(
    shared: &Shared,
    rtstream_id: &str,
    segments: &[Segment],
) -> Result<Vec<(Segment, Bytes)>, String> {
    let mut read = Vec::with_capacity(segments.len());
    for segment in segments {
        match reading::segment(shared.library.store(), rtstream_id, *segment).await {
            Ok(ts) => read.push((*segment, ts)),
            // Retention was quicker.
            Err(ReadError::Store(StoreError::NotFound { .. })) => {}
            Err(error) => return Err(chain(&error)),
        }
    }
    Ok(read)
}

/// Which picture it is. Taking segments apart keeps a processor busy for some milliseconds.
async fn choose(
    near: Vec<(Segment, Bytes)>,
    start_us: i64,
    sampling: Sampling,
    slot: u32,
    live: bool,
) -> Result<(Vec<(Segment, Bytes)>, Option<Moment>), String> {
    let chosen = spawn_blocking(move || {
        let recorded = near.iter().map(|(segment, ts)| Recorded {
            start_us: segment.start_us,
            ts,
        });
        let recorded: Vec<_> = recorded.collect();
        let moment = moment(&recorded, start_us, &sampling, slot, live);
        drop(recorded);
        (near, moment)
    });
    chosen.await.map_err(|error| error.to_string())
}

async fn picture(
    child: &mut ChildProcess,
    ts: &Bytes,
    moment: Moment,
    edge: u32,
) -> Result<Bytes, String> {
    let wanted = MakeThumbnail {
        ts: ts.clone(),
        offset_us: moment.offset_us,
        edge,
    };
    let sent = child.send(Command::Thumbnail(wanted)).await;
    match child.next().await {
        Some(Ok(Report::Picture(picture))) => Ok(picture.jpeg),
        Some(Ok(Report::Failed(failed))) => Err(failed.reason),
        _ => Err(match sent {
            Ok(()) => "the child of these frames died".to_owned(),
            Err(error) => format!("the child of these frames died: {error}"),
        }),
    }
}

/// Leaves out every second frame until they fit, as sampling does.
fn fit(frames: &mut Vec<Frame>, largest: usize) {
    while frames.len() > 1 && frames.iter().map(|f| f.jpeg.len()).sum::<usize>() > largest {
        let mut number = 0;
        frames.retain(|_| {
            number += 1;
            number % 2 == 1
        });
    }
}
