//! Transcription: whether and how it is done.

use serde::Deserialize;
use sightline_proto::reasons::ApiError;
use sightline_proto::v1;
use sightline_proto::v1::stop_transcription_request::Mode;

use crate::rest::request::Switch;
use crate::rest::values::{Number, some_time, wrong};

/// What to do.
#[derive(Deserialize)]
pub(crate) struct Transcription {
    action: Option<String>,
    status: Option<String>,
    /// Callers name engines of VideoDB's; there is one here, and it is what answers name.
    #[expect(dead_code, reason = "read so that it is checked to be a text")]
    engine: Option<String>,
    mode: Option<String>,
    pub(crate) ws_connection_id: Option<String>,
    pub(crate) model_config: Option<ModelConfig>,
}

/// What the engine is told of the speech.
#[derive(Deserialize)]
pub(crate) struct ModelConfig {
    /// ISO 639-1.
    language: Option<String>,
    /// "transcribe" or "translate", as Whisper calls them.
    task: Option<String>,
}

impl Transcription {
    /// Whether it is to start.
    pub(crate) fn starts(&self) -> Result<bool, ApiError> {
        let switch = Switch {
            action: self.action.clone(),
            status: self.status.clone(),
        };
        switch.is_on(["start", "running"], ["stop", "stopped"])
    }

    /// How it is to stop. The clients' words for it differ.
    pub(crate) fn mode(&self) -> Result<Mode, ApiError> {
        match self.mode.as_deref() {
            None | Some("graceful") => Ok(Mode::Graceful),
            Some("immediate" | "force") => Ok(Mode::Immediate),
            Some(_) => Err(wrong("mode", "\"graceful\" or \"immediate\"")),
        }
    }
}

impl ModelConfig {
    pub(crate) fn request(
        self,
        rtstream_id: String,
    ) -> Result<v1::StartTranscriptionRequest, ApiError> {
        Ok(v1::StartTranscriptionRequest {
            rtstream_id,
            translate: self.translates()?,
            language: self.language.unwrap_or_default(),
            ..Default::default()
        })
    }

    fn translates(&self) -> Result<bool, ApiError> {
        match self.task.as_deref() {
            None | Some("transcribe") => Ok(false),
            Some("translate") => Ok(true),
            Some(_) => Err(wrong(
                "model_config.task",
                "\"transcribe\" or \"translate\"",
            )),
        }
    }
}

/// The stretch whose words are listed, and what of it is new to the caller.
#[derive(Deserialize)]
pub(crate) struct Stretch {
    start: Option<Number>,
    end: Option<Number>,
    since: Option<Number>,
}

impl Stretch {
    pub(crate) fn request(
        self,
        rtstream_id: String,
    ) -> Result<v1::ListTranscriptRequest, ApiError> {
        Ok(v1::ListTranscriptRequest {
            rtstream_id,
            start_time: some_time("start", self.start)?,
            end_time: some_time("end", self.end)?,
            since: some_time("since", self.since)?,
            ..Default::default()
        })
    }
}
