//! Speech written down by a remote model.

use std::sync::atomic::{AtomicU8, Ordering};

use tokio::runtime::Handle;

use super::client::Client;
use super::error::RemoteError;
use super::{heard, upload};
use crate::whisper::{MAX_SECONDS, SAMPLE_RATE};
use crate::{InferenceError, Speech, Transcriber, Transcript};

/// What is asked for, richest first: segments with words, segments, text alone.
const FORMS: [&[(&str, &str)]; 3] = [
    &[
        ("response_format", "verbose_json"),
        ("timestamp_granularities[]", "word"),
        ("timestamp_granularities[]", "segment"),
    ],
    &[("response_format", "verbose_json")],
    &[("response_format", "json")],
];

/// A speech model behind `/audio/transcriptions`, and `/audio/translations` where English is asked for.
///
/// Servers that give no times of segments or words have them shared out evenly over what they belong to.
pub struct RemoteTranscriber {
    client: Client,
    revision: String,
    handle: Handle,
    /// Which of [`FORMS`] the server takes, as far as is known.
    form: AtomicU8,
}

impl RemoteTranscriber {
    /// [`Transcriber::transcribe`] waits for requests on `handle`.
    pub fn new(client: Client, handle: Handle) -> Self {
        Self {
            revision: client.revision("transcribe 1"),
            client,
            handle,
            form: AtomicU8::new(0),
        }
    }

    async fn ask(&self, pcm: &[f32], speech: &Speech) -> Result<Transcript, RemoteError> {
        let mut form = self.form.load(Ordering::Relaxed);
        loop {
            match self.ask_as(pcm, speech, FORMS[usize::from(form)]).await {
                // A poorer form is remembered only once it was taken: the audio may be what is refused.
                Err(RemoteError::Refused { .. }) if usize::from(form) + 1 < FORMS.len() => {
                    form += 1;
                }
                Ok(transcript) => {
                    self.form.store(form, Ordering::Relaxed);
                    return Ok(transcript);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn ask_as(
        &self,
        pcm: &[f32],
        speech: &Speech,
        form: &[(&str, &str)],
    ) -> Result<Transcript, RemoteError> {
        let path = match speech.translate {
            true => "/audio/translations",
            false => "/audio/transcriptions",
        };
        let mut fields = vec![("model", self.client.model()), ("temperature", "0")];
        fields.extend_from_slice(form);
        // A translation is told the language of its result only, which is English.
        if let (false, Some(language)) = (speech.translate, &speech.language) {
            fields.push(("language", language));
        }
        let post = upload::form(path, pcm, &fields);
        let slot = self.client.slot().await;
        let answer = self.client.post(&post, &slot).await?;
        let seconds = pcm.len() as f64 / SAMPLE_RATE as f64;
        let mut transcript = heard::transcript(&answer, seconds)
            .map_err(|problem| RemoteError::answer(&self.client.url(path), problem))?;
        if let Some(language) = &speech.language
            && (transcript.language.is_empty() || speech.translate)
        {
            transcript.language.clone_from(language);
        }
        Ok(transcript)
    }
}

impl Transcriber for RemoteTranscriber {
    fn revision(&self) -> &str {
        &self.revision
    }

    fn transcribe(&self, pcm: &[f32], speech: &Speech) -> Result<Transcript, InferenceError> {
        if pcm.len() > MAX_SECONDS * SAMPLE_RATE {
            return Err(InferenceError::InvalidInput(format!(
                "at most {MAX_SECONDS} s of speech can be transcribed at once"
            )));
        }
        if pcm.is_empty() {
            return Ok(Transcript::default());
        }
        Ok(self.handle.block_on(self.ask(pcm, speech))?)
    }
}
