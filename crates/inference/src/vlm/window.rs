//! One window of frames: encoded and prefilled once, asked many times.

use crate::vlm::SmolVlm;
use crate::vlm::graph::KvCache;
use crate::{InferenceError, RgbImage, WindowSession};

/// The frames of a window inside a model's memory. See [`WindowSession`].
pub struct Window<'a> {
    model: &'a SmolVlm,
    frames: usize,
    seconds: f64,
    /// The tokens that every prompt on this window begins with, images included.
    prefix: Vec<u32>,
    cache: KvCache,
}

impl<'a> Window<'a> {
    pub(super) fn open(
        model: &'a SmolVlm,
        frames: &[RgbImage],
        seconds: f64,
    ) -> Result<Self, InferenceError> {
        if frames.is_empty() {
            return Err(InferenceError::InvalidInput(
                "a window without frames".to_owned(),
            ));
        }
        let mut prefix = model.prompts.ids("", frames.len(), seconds)?;
        prefix.truncate(model.prompts.shared_prefix(&prefix));
        check_length(prefix.len(), model.max_positions)?;
        let mut features = Vec::new();
        for frame in frames {
            features.extend(model.image_features(frame)?);
        }
        let mut embeds = model.graph.embed(&prefix)?;
        place(&features, &mut embeds, model, &prefix)?;
        let (_, cache) = model.graph.decode(&embeds, &model.graph.empty_cache()?)?;
        Ok(Self {
            model,
            frames: frames.len(),
            seconds,
            prefix,
            cache,
        })
    }

    /// All token ids of `prompt` on this window, the shared ones included.
    pub fn prompt_ids(&self, prompt: &str) -> Result<Vec<u32>, InferenceError> {
        self.model.prompts.ids(prompt, self.frames, self.seconds)
    }

    /// [`WindowSession::describe`] as token ids; the token that ends an answer is the last one,
    /// unless `max_new_tokens` ended it.
    pub fn describe_ids(
        &self,
        prompt: &str,
        max_new_tokens: usize,
    ) -> Result<Vec<u32>, InferenceError> {
        let (mut logits, mut cache) = self.begin(prompt)?;
        let room = self.model.max_positions - cache.tokens();
        let mut answer = Vec::new();
        while answer.len() < max_new_tokens.min(room) {
            let next = most_likely(&logits);
            answer.push(next);
            if self.model.prompts.is_stop(next) {
                break;
            }
            let embed = self.model.graph.embed(&[next])?;
            (logits, cache) = self.model.graph.decode(&embed, &cache)?;
        }
        Ok(answer)
    }

    /// Runs the part of `prompt` that follows the shared prefix; gives the logits of the answer's
    /// first token.
    fn begin(&self, prompt: &str) -> Result<(Vec<f32>, KvCache), InferenceError> {
        let ids = self.prompt_ids(prompt)?;
        check_length(ids.len(), self.model.max_positions)?;
        let Some(rest) = ids.strip_prefix(self.prefix.as_slice()) else {
            return Err(InferenceError::InvalidInput(
                "the chat template puts the prompt before the images".to_owned(),
            ));
        };
        self.model
            .graph
            .decode(&self.model.graph.embed(rest)?, &self.cache)
    }
}

impl WindowSession for Window<'_> {
    fn judge(&mut self, event_prompt: &str) -> Result<f32, InferenceError> {
        let question = format!("Is this happening in the video: {event_prompt}? Answer yes or no.");
        let (logits, _) = self.begin(&question)?;
        Ok(self.model.prompts.probability_of_yes(&logits))
    }

    fn describe(&mut self, prompt: &str, max_new_tokens: usize) -> Result<String, InferenceError> {
        let ids = self.describe_ids(prompt, max_new_tokens)?;
        self.model.prompts.text(&ids)
    }
}

/// Puts the rows of `features` where `ids` have image tokens.
fn place(
    features: &[f32],
    embeds: &mut [f32],
    model: &SmolVlm,
    ids: &[u32],
) -> Result<(), InferenceError> {
    let width = model.graph.hidden();
    let rows = embeds.chunks_exact_mut(width).zip(ids);
    let images = rows
        .filter(|&(_, &id)| model.prompts.is_image(id))
        .map(|(row, _)| row);
    let images: Vec<&mut [f32]> = images.collect();
    if images.len() * width != features.len() {
        return Err(InferenceError::InvalidInput(format!(
            "the prompt has {} image tokens, but the vision encoder made {}: image_seq_len in \
             processor_config.json does not fit the model",
            images.len(),
            features.len() / width
        )));
    }
    for (row, feature) in images.into_iter().zip(features.chunks_exact(width)) {
        row.copy_from_slice(feature);
    }
    Ok(())
}

fn check_length(tokens: usize, max: usize) -> Result<(), InferenceError> {
    if tokens < max {
        return Ok(());
    }
    Err(InferenceError::InvalidInput(format!(
        "the prompt and the frames take {tokens} tokens, but the model has room for {max} with \
         the answer: use fewer frames or a shorter prompt"
    )))
}

fn most_likely(logits: &[f32]) -> u32 {
    let best = logits
        .iter()
        .enumerate()
        .reduce(|a, b| if b.1 > a.1 { b } else { a });
    best.map_or(0, |(id, _)| id as u32)
}
