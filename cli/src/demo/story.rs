//! What the demo asks of the platform, as any client could: a stream, two indexes, two events with alerts, and a watch.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use sightline_proto::client::Client;
use sightline_proto::time::micros;
use sightline_proto::v1::rt_stream::Playback;
use sightline_proto::v1::{
    self, Delivery, Firing, Scene, SearchHit, TranscriptSegment, WatchResponse,
};
use tonic::{Status, Streaming};
use tonic_types::StatusExt;

/// The indexes: name and prompt. They share one sampling of 2 frames per 5 s, the default.
const INDEXES: [(&str, &str); 2] = [
    ("activity", "Describe activity and detect unusual behavior"),
    ("congestion", "Describe the scene and highlight congestion"),
];
/// The events: label and prompt.
const EVENTS: [(&str, &str); 2] = [
    (
        "restricted area",
        "Detect when someone enters restricted area",
    ),
    (
        "pedestrians crossing",
        "Detect pedestrians crossing the zebra",
    ),
];
/// What is searched for at the end.
pub const QUERIES: [&str; 3] = [
    "white car moving fast",
    "people crossing the street",
    "someone in the restricted area",
];
/// Results of each search.
const RESULTS: i32 = 5;
/// Page size of lists.
const PAGE: i32 = 1000;

/// The demo's stream and what was asked of it.
pub struct Story {
    client: Client,
    rtstream_id: String,
    /// The indexes: id and name.
    indexes: Vec<(String, &'static str)>,
    alert_ids: Vec<String>,
    watch: Streaming<WatchResponse>,
    epoch_us: Option<i64>,
}

impl Story {
    /// Sets everything up, and starts the stream last, so that nothing of it is missed.
    ///
    /// # Errors
    /// When a call is refused.
    pub async fn begin(
        mut client: Client,
        clip: &Path,
        fast: bool,
        webhook_url: String,
    ) -> Result<Self> {
        let rtstream_id = connect(&mut client, clip, fast).await?;
        let mut indexes = Vec::new();
        for (name, prompt) in INDEXES {
            let request = v1::CreateVisualIndexRequest {
                rtstream_id: rtstream_id.clone(),
                name: name.to_owned(),
                prompt: prompt.to_owned(),
                ..Default::default()
            };
            let answer = client
                .indexes
                .create_visual_index(request)
                .await
                .map_err(refused)?;
            indexes.push((answer.into_inner().index.context("no index")?.id, name));
        }
        let mut alert_ids = Vec::new();
        for (label, prompt) in EVENTS {
            alert_ids.push(alert(&mut client, label, prompt, &indexes[0].0, &webhook_url).await?);
        }
        let request = v1::WatchRequest {
            rtstream_ids: vec![rtstream_id.clone()],
            ..Default::default()
        };
        let watch = client
            .watch
            .watch(request)
            .await
            .map_err(refused)?
            .into_inner();
        let request = v1::StartRtStreamRequest {
            rtstream_id: rtstream_id.clone(),
        };
        client
            .streams
            .start_rt_stream(request)
            .await
            .map_err(refused)?;
        Ok(Self {
            client,
            rtstream_id,
            indexes,
            alert_ids,
            watch,
            epoch_us: None,
        })
    }

    /// The next message of the watch.
    ///
    /// # Errors
    /// When the watch ended.
    pub async fn next(&mut self) -> Result<v1::watch_response::Message> {
        loop {
            let message = self.watch.message().await.map_err(refused)?;
            let message = message.context("the watch ended")?;
            if let Some(message) = message.message {
                return Ok(message);
            }
        }
    }

    /// A time of the stream as seconds from the start of the clip.
    ///
    /// # Errors
    /// When the stream's epoch can't be read.
    pub async fn seconds(&mut self, time: Option<&prost_types::Timestamp>) -> Result<f64> {
        let epoch_us = match self.epoch_us {
            Some(epoch_us) => epoch_us,
            None => {
                let request = v1::GetRtStreamRequest {
                    rtstream_id: self.rtstream_id.clone(),
                };
                let answer = self
                    .client
                    .streams
                    .get_rt_stream(request)
                    .await
                    .map_err(refused)?;
                let stream = answer.into_inner().rtstream.context("no stream")?;
                micros(&stream.epoch.context("the stream has no epoch yet")?)
            }
        };
        self.epoch_us = Some(epoch_us);
        let time_us = micros(time.context("a message without a time")?);
        Ok((time_us - epoch_us) as f64 / 1e6)
    }

    /// An index's name.
    pub fn index_name(&self, id: &str) -> &'static str {
        self.indexes
            .iter()
            .find(|(index, _)| index == id)
            .map_or("", |(_, name)| name)
    }

    /// Every stored scene, in the order of time.
    ///
    /// # Errors
    /// When a call is refused.
    pub async fn scenes(&mut self) -> Result<Vec<Scene>> {
        let mut scenes = Vec::new();
        for (index_id, _) in self.indexes.clone() {
            let mut page_token = String::new();
            loop {
                let request = v1::ListScenesRequest {
                    index_id: index_id.clone(),
                    page_size: PAGE,
                    page_token,
                    ..Default::default()
                };
                let page = self
                    .client
                    .indexes
                    .list_scenes(request)
                    .await
                    .map_err(refused)?
                    .into_inner();
                scenes.extend(page.scenes);
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
        }
        scenes.sort_by_key(|scene| scene.window);
        Ok(scenes)
    }

    /// Every stored transcript segment, in the order of time.
    ///
    /// # Errors
    /// When a call is refused.
    pub async fn transcript(&mut self) -> Result<Vec<TranscriptSegment>> {
        let mut segments = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListTranscriptRequest {
                rtstream_id: self.rtstream_id.clone(),
                page_size: PAGE,
                page_token,
                ..Default::default()
            };
            let page = self
                .client
                .streams
                .list_transcript(request)
                .await
                .map_err(refused)?
                .into_inner();
            segments.extend(page.segments);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(segments);
            }
        }
    }

    /// Every firing with the attempt that delivered it, in the order of time.
    ///
    /// # Errors
    /// When a call is refused.
    pub async fn firings(&mut self) -> Result<Vec<(Firing, Option<Delivery>)>> {
        let mut found = Vec::new();
        for alert_id in self.alert_ids.clone() {
            let request = v1::ListFiringsRequest {
                alert_id: alert_id.clone(),
                page_size: PAGE,
                ..Default::default()
            };
            let firings = self
                .client
                .events
                .list_firings(request)
                .await
                .map_err(refused)?
                .into_inner()
                .firings;
            let request = v1::ListDeliveriesRequest {
                alert_id,
                page_size: PAGE,
                ..Default::default()
            };
            let answer = self
                .client
                .events
                .list_deliveries(request)
                .await
                .map_err(refused)?;
            let delivered: Vec<Delivery> = answer
                .into_inner()
                .deliveries
                .into_iter()
                .filter(|d| d.error.is_empty())
                .collect();
            found.extend(firings.into_iter().map(|firing| {
                let delivery = delivered.iter().find(|d| d.firing_id == firing.id).cloned();
                (firing, delivery)
            }));
        }
        found.sort_by_key(|(firing, _)| firing.start_time.as_ref().map_or(0, micros));
        Ok(found)
    }

    /// Searches the stream.
    ///
    /// # Errors
    /// When the call is refused.
    pub async fn search(&mut self, query: &str) -> Result<Vec<SearchHit>> {
        let request = v1::SearchRequest {
            query: query.to_owned(),
            rtstream_id: self.rtstream_id.clone(),
            limit: RESULTS,
            ..Default::default()
        };
        Ok(self
            .client
            .indexes
            .search(request)
            .await
            .map_err(refused)?
            .into_inner()
            .hits)
    }
}

async fn connect(client: &mut Client, clip: &Path, fast: bool) -> Result<String> {
    let url = url::Url::from_file_path(clip)
        .map_err(|()| anyhow!("{} is not an absolute path", clip.display()))?;
    let playback = if fast {
        Playback::Fast
    } else {
        Playback::RealTime
    };
    let request = v1::ConnectRtStreamRequest {
        url: url.to_string(),
        name: "demo".to_owned(),
        transcribe: true,
        playback: playback.into(),
        start_stopped: true,
        store: true,
        ..Default::default()
    };
    let answer = client
        .streams
        .connect_rt_stream(request)
        .await
        .map_err(refused)?;
    Ok(answer.into_inner().rtstream.context("no stream")?.id)
}

async fn alert(
    client: &mut Client,
    label: &str,
    prompt: &str,
    index_id: &str,
    callback_url: &str,
) -> Result<String> {
    let request = v1::CreateEventRequest {
        prompt: prompt.to_owned(),
        label: label.to_owned(),
        ..Default::default()
    };
    let event = client
        .events
        .create_event(request)
        .await
        .map_err(refused)?
        .into_inner()
        .event;
    let request = v1::CreateAlertRequest {
        event_id: event.context("no event")?.id,
        index_id: index_id.to_owned(),
        callback_url: callback_url.to_owned(),
        // What is shown is how soon alerts come, and one message of each.
        delivery: v1::DeliveryMode::First.into(),
        ..Default::default()
    };
    let answer = client.events.create_alert(request).await.map_err(refused)?;
    Ok(answer.into_inner().alert.context("no alert")?.id)
}

/// What the server says, for people.
fn refused(status: Status) -> anyhow::Error {
    let details = status.get_error_details();
    let fields = details.bad_request().map(|bad| {
        let fields = bad
            .field_violations
            .iter()
            .map(|f| format!(" ({}: {})", f.field, f.description));
        fields.collect::<String>()
    });
    anyhow!("{}{}", status.message(), fields.unwrap_or_default())
}
