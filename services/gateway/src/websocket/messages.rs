//! The frames of a WebSocket: what its clients read, in the union of the forms that they know. Times are epoch milliseconds.

use axum::extract::ws::Message as Frame;
use prost_types::Timestamp;
use serde_json::{Value, json};
use sightline_proto::internal::RtStreamRecord;
use sightline_proto::time::micros;
use sightline_proto::v1::watch_response::Message;
use sightline_proto::v1::{Firing, Scene, TranscriptSegment, WatchResponse, firing};

use crate::api::Core;

/// The first frame. The cursor is where going on starts while nothing else has come.
pub(super) fn init(connection_id: &str, cursor: &str) -> Frame {
    text(&json!({"connection_id": connection_id, "cursor": cursor}))
}

/// The frame of a message; none for what WebSockets are not told of.
pub(super) fn frame(core: &Core, response: &WatchResponse) -> Option<Frame> {
    let (channel, rtstream_id, data) = match response.message.as_ref()? {
        Message::Transcript(segment) => ("transcript", &segment.rtstream_id, transcript(segment)),
        Message::Scene(one) => ("scene_index", &one.rtstream_id, scene(one)),
        Message::AudioScene(one) => ("audio_index", &one.rtstream_id, scene(one)),
        // They know none that is over.
        Message::Alert(firing) if firing.state() == firing::State::Closed => return None,
        Message::Alert(firing) => ("alert", &firing.rtstream_id, alert(firing)),
        Message::Lagged(lagged) => {
            let cursor = &response.cursor;
            let lagged = json!({"channel": "lagged", "count": lagged.count, "cursor": cursor});
            return Some(text(&lagged));
        }
        Message::StreamStatus(_) | Message::Verdict(_) | Message::Ready(_) => return None,
    };
    Some(text(&json!({
        "channel": channel,
        "rtstream_id": rtstream_id,
        "rtstream_name": name(core, rtstream_id),
        "data": data,
        "cursor": response.cursor,
    })))
}

fn transcript(segment: &TranscriptSegment) -> Value {
    json!({
        "text": segment.text,
        "is_final": !segment.interim,
        "start": milliseconds(segment.start_time.as_ref()),
        "end": milliseconds(segment.end_time.as_ref()),
        "stream_url": some(&segment.stream_url),
        "player_url": some(&segment.player_url),
    })
}

fn scene(scene: &Scene) -> Value {
    json!({
        "text": scene.text,
        "start": milliseconds(scene.start_time.as_ref()),
        "end": milliseconds(scene.end_time.as_ref()),
        "index_id": scene.index_id,
        "stream_url": some(&scene.stream_url),
        "player_url": some(&scene.player_url),
    })
}

fn alert(firing: &Firing) -> Value {
    json!({
        "event_id": firing.event_id,
        "alert_id": firing.alert_id,
        "firing_id": firing.id,
        "index_id": firing.index_id,
        "label": firing.label,
        "event_label": firing.label,
        "triggered": true,
        "confidence": firing.confidence,
        "text": firing.explanation,
        "explanation": firing.explanation,
        "timestamp": milliseconds(firing.decide_time.as_ref()),
        "start": milliseconds(firing.start_time.as_ref()),
        "end": milliseconds(firing.end_time.as_ref()),
        "stream_url": some(&firing.stream_url),
        "player_url": some(&firing.player_url),
    })
}

fn name(core: &Core, rtstream_id: &str) -> Option<String> {
    let record = core.catalog.get::<RtStreamRecord>(rtstream_id)?;
    Some(record.value.rtstream.as_ref()?.name.clone())
}

fn milliseconds(time: Option<&Timestamp>) -> i64 {
    time.map_or(0, |time| micros(time).div_euclid(1000))
}

fn some(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn text(value: &Value) -> Frame {
    Frame::Text(value.to_string().into())
}
