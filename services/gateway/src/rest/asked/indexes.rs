//! Scene indexes: what to create, and what to change.

use prost_types::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};
use sightline_proto::reasons::ApiError;
use sightline_proto::time::duration;
use sightline_proto::v1;
use sightline_proto::v1::audio_batching::Batch;

use crate::api::shown;
use crate::rest::values::{Number, some_time, whole, wrong};

/// What is asked of every window when the caller does not say.
pub(super) const PROMPT: &str = "Describe the scene";
/// The window and its frames where only the other is given.
const WINDOW: Number = Number(5.0);
const FRAMES: i64 = 2;
/// How much of a transcript makes a batch where only what is counted is given.
const BATCH: Number = Number(10.0);
/// VideoDB's names of models say how good they are, not which they are: here they stand for the server's model.
const TIERS: [&str; 4] = ["mini", "basic", "pro", "ultra"];

/// What to create.
#[derive(Deserialize)]
pub(crate) struct Create {
    pub(crate) extraction_type: Option<String>,
    extraction_config: Option<Extraction>,
    prompt: Option<String>,
    name: Option<String>,
    model_name: Option<String>,
    model_config: Option<ModelConfig>,
    pub(crate) sandbox_id: Option<Value>,
    pub(crate) ws_connection_id: Option<String>,
    pub(crate) auto_start_transcript: Option<bool>,
}

#[derive(Deserialize)]
struct Extraction {
    time: Option<Number>,
    frame_count: Option<Number>,
    segmenter: Option<String>,
    segmentation_value: Option<Number>,
}

/// What the model is told beside the prompt. Nothing else is known of it, and what would have no effect is refused.
#[derive(Deserialize)]
struct ModelConfig {
    max_new_tokens: Option<Number>,
    #[serde(flatten)]
    others: Map<String, Value>,
}

impl Create {
    /// An index of pictures.
    pub(crate) fn visual(
        self,
        rtstream_id: String,
    ) -> Result<v1::CreateVisualIndexRequest, ApiError> {
        let asked = self.extraction_config;
        let sampling = asked.map_or(Ok(None), |asked| sampling(asked.time, asked.frame_count))?;
        Ok(v1::CreateVisualIndexRequest {
            rtstream_id,
            prompt: self.prompt.unwrap_or_else(|| PROMPT.to_owned()),
            name: self.name.unwrap_or_default(),
            model: model(self.model_name),
            sampling,
            model_config: model_config(self.model_config)?,
            ..Default::default()
        })
    }

    /// An index of the transcript.
    pub(crate) fn audio(
        self,
        rtstream_id: String,
    ) -> Result<v1::CreateAudioIndexRequest, ApiError> {
        Ok(v1::CreateAudioIndexRequest {
            rtstream_id,
            prompt: self.prompt.unwrap_or_default(),
            name: self.name.unwrap_or_default(),
            model: model(self.model_name),
            batching: self.extraction_config.map_or(Ok(None), batching)?,
            model_config: model_config(self.model_config)?,
            ..Default::default()
        })
    }
}

/// What to change.
#[derive(Deserialize)]
pub(crate) struct Change {
    prompt: Option<String>,
    name: Option<String>,
    model_config: Option<ModelConfig>,
}

impl Change {
    pub(crate) fn request(self, index_id: String) -> Result<v1::UpdateIndexRequest, ApiError> {
        Ok(v1::UpdateIndexRequest {
            index_id,
            name: self.name,
            prompt: self.prompt,
            model_config: model_config(self.model_config)?,
            ..Default::default()
        })
    }
}

/// The core's name of a model.
pub(super) fn model(asked: Option<String>) -> String {
    let asked = asked.unwrap_or_default();
    if TIERS.contains(&asked.as_str()) {
        return String::new();
    }
    asked
}

fn model_config(asked: Option<ModelConfig>) -> Result<Option<v1::ModelConfig>, ApiError> {
    let Some(asked) = asked else {
        return Ok(None);
    };
    if let Some(other) = asked.others.keys().next() {
        let allowed = format!(
            "\"max_new_tokens\" is all that it may hold, got {}",
            shown(other)
        );
        return Err(wrong("model_config", allowed));
    }
    let most = i64::from(u32::MAX);
    let tokens = whole(
        "model_config.max_new_tokens",
        asked.max_new_tokens,
        0..=most,
    )?;
    Ok(tokens.map(|tokens| v1::ModelConfig {
        max_new_tokens: tokens as u32,
    }))
}

/// The sampling asked for; none if nothing is said of it.
pub(super) fn sampling(
    window: Option<Number>,
    frames: Option<Number>,
) -> Result<Option<v1::TimeSampling>, ApiError> {
    if window.is_none() && frames.is_none() {
        return Ok(None);
    }
    let Number(window) = window.unwrap_or(WINDOW);
    let most = i64::from(u32::MAX);
    let frames = whole("extraction_config.frame_count", frames, 0..=most)?;
    Ok(Some(v1::TimeSampling {
        window: Some(duration((window * 1e6).round() as i64)),
        frame_count: frames.unwrap_or(FRAMES) as u32,
    }))
}

/// The batching asked for; none if nothing is said of it.
fn batching(asked: Extraction) -> Result<Option<v1::AudioBatching>, ApiError> {
    const VALUE: &str = "extraction_config.segmentation_value";
    if asked.segmenter.is_none() && asked.segmentation_value.is_none() {
        return Ok(None);
    }
    let value = asked.segmentation_value.unwrap_or(BATCH);
    let count =
        || Ok(whole(VALUE, Some(value), 0..=i64::from(u32::MAX))?.unwrap_or_default() as u32);
    let batch = match asked.segmenter.as_deref() {
        None | Some("word") => Batch::Words(count()?),
        Some("sentence") => Batch::Sentences(count()?),
        Some("time") => Batch::Time(duration((value.0 * 1e6).round() as i64)),
        Some(_) => {
            let allowed = "\"word\", \"sentence\" or \"time\"";
            return Err(wrong("extraction_config.segmenter", allowed));
        }
    };
    Ok(Some(v1::AudioBatching { batch: Some(batch) }))
}

/// The stretch whose records are listed.
#[derive(Deserialize)]
pub(crate) struct Stretch {
    start: Option<Number>,
    end: Option<Number>,
}

impl Stretch {
    /// Where it starts, and where it ends.
    pub(crate) fn times(self) -> Result<(Option<Timestamp>, Option<Timestamp>), ApiError> {
        Ok((some_time("start", self.start)?, some_time("end", self.end)?))
    }
}
