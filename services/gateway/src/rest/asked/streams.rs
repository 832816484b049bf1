//! RtStreams: what to connect, to change, to list and to play.

use serde::Deserialize;
use sightline_proto::reasons::ApiError;
use sightline_proto::v1;
use sightline_proto::v1::rt_stream::State as Doing;

use crate::rest::values::{Number, some_time, time, whole, wrong};

/// Streams of a list when the caller does not say, and at most.
const DEFAULT: i64 = 100;
const MOST: i64 = 1000;
/// What streams are asked for, which no stream is: each index says what it samples.
const MOST_RATE: i64 = 1_000_000;
/// The states that this skin calls connected, and those that it calls stopped.
pub(crate) const CONNECTED: [Doing; 3] = [Doing::Connecting, Doing::Active, Doing::Reconnecting];
const STOPPED: [Doing; 3] = [Doing::Stopped, Doing::Failed, Doing::Ended];

/// What to connect.
#[derive(Deserialize)]
pub(crate) struct Connect {
    url: String,
    name: Option<String>,
    collection_id: Option<String>,
    media_types: Option<Vec<String>>,
    sample_rate: Option<Number>,
    store: Option<bool>,
    enable_transcript: Option<bool>,
    pub(crate) ws_connection_id: Option<String>,
}

impl Connect {
    /// The stream to connect, and what of the body is only repeated: its rate and its types.
    pub(crate) fn request(
        self,
    ) -> Result<(v1::ConnectRtStreamRequest, Option<i64>, Vec<String>), ApiError> {
        let rate = rate(self.sample_rate)?;
        let types = self.media_types.unwrap_or_else(|| vec!["video".to_owned()]);
        let known = |kind: &String| ["video", "audio"].contains(&kind.as_str());
        if types.is_empty() || !types.iter().all(known) {
            return Err(wrong("media_types", "\"video\", \"audio\" or both"));
        }
        let request = v1::ConnectRtStreamRequest {
            url: self.url,
            name: self.name.unwrap_or_default(),
            collection_id: self.collection_id.unwrap_or_default(),
            transcribe: self.enable_transcript.unwrap_or_default(),
            store: self.store.unwrap_or_default(),
            ..Default::default()
        };
        Ok((request, rate, types))
    }
}

/// What to change.
#[derive(Deserialize)]
pub(crate) struct Rename {
    name: Option<String>,
    sample_rate: Option<Number>,
}

impl Rename {
    /// The change, and the rate, which is only repeated.
    pub(crate) fn request(
        self,
        rtstream_id: String,
    ) -> Result<(v1::UpdateRtStreamRequest, Option<i64>), ApiError> {
        let rate = rate(self.sample_rate)?;
        let request = v1::UpdateRtStreamRequest {
            rtstream_id,
            name: self.name,
            ..Default::default()
        };
        Ok((request, rate))
    }
}

fn rate(asked: Option<Number>) -> Result<Option<i64>, ApiError> {
    whole("sample_rate", asked, 1..=MOST_RATE)
}

/// Which streams to list.
#[derive(Deserialize)]
pub(crate) struct ListQuery {
    collection_id: Option<String>,
    limit: Option<Number>,
    offset: Option<Number>,
    status: Option<String>,
    /// Part of it, in any case.
    name: Option<String>,
    pub(crate) ordering: Option<String>,
}

impl ListQuery {
    /// Which streams, and how many of them after how many.
    pub(crate) fn request(&self) -> Result<(v1::ListRtStreamsRequest, i64, i64), ApiError> {
        let limit = whole("limit", self.limit, 1..=MOST)?.unwrap_or(DEFAULT);
        let offset = whole("offset", self.offset, 0..=i64::from(i32::MAX))?.unwrap_or(0);
        let states = states(self.status.as_deref())?;
        let request = v1::ListRtStreamsRequest {
            collection_id: self.collection_id.clone().unwrap_or_default(),
            states: states.iter().map(|&state| state.into()).collect(),
            name_contains: self.name.clone().unwrap_or_default(),
            ..Default::default()
        };
        Ok((request, limit, offset))
    }
}

/// What a status stands for; none for any.
fn states(status: Option<&str>) -> Result<&'static [Doing], ApiError> {
    match status {
        None => Ok(&[]),
        Some("connected") => Ok(&CONNECTED),
        Some("stopped") => Ok(&STOPPED),
        Some(_) => Err(wrong("status", "\"connected\" or \"stopped\"")),
    }
}

/// The address of another page of the same list.
pub(crate) fn address(raw: &str, limit: i64, offset: i64) -> String {
    let place = |pair: &str| pair.starts_with("limit=") || pair.starts_with("offset=");
    let kept = raw
        .split('&')
        .filter(|pair| !pair.is_empty() && !place(pair));
    let place = [format!("limit={limit}"), format!("offset={offset}")];
    let pairs: Vec<_> = kept.map(ToOwned::to_owned).chain(place).collect();
    format!("/rtstream?{}", pairs.join("&"))
}

/// The stretch to play, and how its page looks.
#[derive(Deserialize)]
pub(crate) struct StreamQuery {
    start: Number,
    end: Option<Number>,
    #[serde(default)]
    player_title: String,
    #[serde(default)]
    player_description: String,
    #[serde(default)]
    player_slug_prefix: String,
}

impl StreamQuery {
    pub(crate) fn request(
        self,
        rtstream_id: String,
    ) -> Result<v1::GenerateStreamRequest, ApiError> {
        let Number(start) = self.start;
        // Clients cut the times of a short shot to whole seconds.
        let end = self.end.map(|Number(end)| Number(end.max(start + 1.0)));
        Ok(v1::GenerateStreamRequest {
            rtstream_id,
            start_time: Some(time("start", start)?),
            end_time: some_time("end", end)?,
            player_config: Some(v1::PlayerConfig {
                title: self.player_title,
                description: self.player_description,
                slug: self.player_slug_prefix,
            }),
        })
    }
}
