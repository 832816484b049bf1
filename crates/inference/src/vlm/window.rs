//! One window of frames: encoded and prefilled once, asked many times.

use crate::vlm::Vlm;
use crate::vlm::cache::Cache;
use crate::vlm::family::{Layout, Part, View};
use crate::vlm::graph::Tokens;
use crate::{InferenceError, Prompt, RgbImage};

/// How an event is asked about.
const QUESTION: &str = "Is this happening in the video: {}? Answer yes or no.";
const QUESTION_ON_TEXT: &str =
    "Does this happen in the transcript, or is it said: {}? Answer yes or no.";

/// What a model needs to know of a window, or of a text, before it computes anything.
pub(super) struct Prepared {
    pub(super) layout: Layout,
    /// The tokens that every prompt on it begins with, images included.
    pub(super) prefix: Vec<u32>,
    /// How an event is asked about, with {} in its place.
    question: &'static str,
}

impl Prepared {
    /// The words in which `event` is asked about.
    pub(super) fn question(&self, event: &str) -> String {
        self.question.replace("{}", event)
    }
}

/// The part of a prompt that follows the prefix, computed: the answer's first logits, and what it goes on from.
pub(super) struct Begun {
    pub(super) logits: Vec<f32>,
    pub(super) cache: Cache,
    /// Position of the next token.
    pub(super) next: i64,
}

impl Vlm {
    /// Scales and cuts the frames and lays out the prompt; computes nothing with the model yet.
    pub(super) fn prepare(
        &self,
        frames: &[RgbImage],
        seconds: f64,
        view: View,
    ) -> Result<Prepared, InferenceError> {
        if frames.is_empty() {
            return Err(InferenceError::InvalidInput(
                "a window without frames".to_owned(),
            ));
        }
        let layout = self.family.lay_out(frames, seconds, view)?;
        let prefix = self.chat.prefix(&layout)?;
        self.check_length(prefix.len())?;
        Ok(Prepared {
            layout,
            prefix,
            question: QUESTION,
        })
    }

    /// Lays out `text` for all that is asked about it: they share the tokens with which every one of them begins.
    pub(super) fn prepare_text(
        &self,
        text: &str,
        events: &[String],
        prompts: &[Prompt],
    ) -> Result<Prepared, InferenceError> {
        let text = self.chat.without_reserved(text);
        let mut prepared = Prepared {
            layout: Layout {
                pictures: Vec::new(),
                before: vec![Part::Text(format!("Transcript: \"{text}\"\n\n"))],
                images: Vec::new(),
                lead: String::new(),
            },
            prefix: Vec::new(),
            question: QUESTION_ON_TEXT,
        };
        let questions = events.iter().map(|event| prepared.question(event));
        let asked = questions.chain(prompts.iter().map(|prompt| prompt.text.clone()));
        let ids: Result<Vec<_>, _> = asked
            .map(|words| self.chat.ids(&words, &prepared.layout))
            .collect();
        prepared.prefix = common_prefix(&ids?);
        self.check_length(prepared.prefix.len())?;
        Ok(prepared)
    }

    /// The decoder's state after the prefix, with `features` in the places of its images, and the next position.
    pub(super) fn prefill(
        &self,
        prepared: &Prepared,
        features: &[f32],
    ) -> Result<(Cache, i64), InferenceError> {
        let mut embeds = self.graph.embed(&prepared.prefix)?;
        self.place(features, &mut embeds, &prepared.prefix)?;
        let images: Vec<bool> = prepared
            .prefix
            .iter()
            .map(|&id| self.chat.is_image(id))
            .collect();
        let positions = self.family.positions(&images, &prepared.layout.pictures);
        let tokens = Tokens {
            embeds: &embeds,
            positions: &positions.axes,
        };
        let empty = Cache::empty(self.graph.cache_layout())?;
        let (_, cache) = self.graph.decode(&tokens, &empty)?;
        Ok((cache, positions.next))
    }

    /// The tokens of `prompt` behind the prefix of `prepared`.
    pub(super) fn suffix(
        &self,
        prepared: &Prepared,
        prompt: &str,
    ) -> Result<Vec<u32>, InferenceError> {
        let ids = self.chat.ids(prompt, &prepared.layout)?;
        self.check_length(ids.len())?;
        ids.strip_prefix(prepared.prefix.as_slice())
            .map(<[u32]>::to_vec)
            .ok_or_else(|| {
                InferenceError::InvalidInput(
                    "the chat template puts the prompt before the images".to_owned(),
                )
            })
    }

    /// Runs `suffix` behind a prefix whose state is `cache`.
    pub(super) fn begin(
        &self,
        suffix: &[u32],
        cache: &Cache,
        next: i64,
    ) -> Result<Begun, InferenceError> {
        let end = next + suffix.len() as i64;
        let embeds = self.graph.embed(suffix)?;
        let positions = [(next..end).collect()];
        let tokens = Tokens {
            embeds: &embeds,
            positions: &positions,
        };
        let (mut logits, cache) = self.graph.decode(&tokens, cache)?;
        Ok(Begun {
            logits: logits.pop().unwrap_or_default(),
            cache,
            next: end,
        })
    }

    /// Runs one token in each row of `cache`; gives the logits that follow.
    pub(super) fn step(
        &self,
        ids: &[u32],
        positions: &[i64],
        cache: &Cache,
    ) -> Result<(Vec<Vec<f32>>, Cache), InferenceError> {
        let embeds = self.graph.embed(ids)?;
        let positions = [positions.to_vec()];
        let tokens = Tokens {
            embeds: &embeds,
            positions: &positions,
        };
        self.graph.decode(&tokens, cache)
    }

    /// Puts the rows of `features` where `ids` have image tokens.
    fn place(
        &self,
        features: &[f32],
        embeds: &mut [f32],
        ids: &[u32],
    ) -> Result<(), InferenceError> {
        let width = self.graph.hidden();
        let rows = embeds.chunks_exact_mut(width).zip(ids);
        let images = rows.filter(|&(_, &id)| self.chat.is_image(id));
        let images: Vec<&mut [f32]> = images.map(|(row, _)| row).collect();
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

    fn check_length(&self, tokens: usize) -> Result<(), InferenceError> {
        let max = self.max_positions;
        if tokens < max {
            return Ok(());
        }
        Err(InferenceError::InvalidInput(format!(
            "the prompt and the frames take {tokens} tokens, but the model has room for {max} with \
             the answer: use fewer frames or a shorter prompt"
        )))
    }
}

/// The frames of a window inside a model's memory: each call continues from the same state, so neither their order nor
/// their number changes any answer.
pub struct Window<'a> {
    model: &'a Vlm,
    prepared: Prepared,
    cache: Cache,
    next: i64,
}

impl<'a> Window<'a> {
    pub(super) fn open(
        model: &'a Vlm,
        frames: &[RgbImage],
        seconds: f64,
        view: View,
    ) -> Result<Self, InferenceError> {
        let prepared = model.prepare(frames, seconds, view)?;
        let mut features = Vec::new();
        for picture in &prepared.layout.pictures {
            features.extend(model.features(picture)?);
        }
        let (cache, next) = model.prefill(&prepared, &features)?;
        Ok(Self {
            model,
            prepared,
            cache,
            next,
        })
    }

    /// All token ids of `prompt` on this window, the shared ones included.
    pub fn prompt_ids(&self, prompt: &str) -> Result<Vec<u32>, InferenceError> {
        self.model.chat.ids(prompt, &self.prepared.layout)
    }

    /// The images that the vision encoder was given, before normalisation.
    pub fn pictures(&self) -> impl Iterator<Item = &RgbImage> {
        self.prepared.layout.pictures.iter().map(|p| &p.pixels)
    }

    /// The logits of the answer's first token.
    pub fn first_logits(&self, prompt: &str) -> Result<Vec<f32>, InferenceError> {
        Ok(self.begin(prompt)?.logits)
    }

    /// [`Self::describe`] as token ids; the token that ends an answer is the last one,
    /// unless `max_new_tokens` ended it.
    pub fn describe_ids(
        &self,
        prompt: &str,
        max_new_tokens: usize,
    ) -> Result<Vec<u32>, InferenceError> {
        let mut begun = self.begin(prompt)?;
        let room = self.model.max_positions - begun.cache.width();
        let mut answer = Vec::new();
        while answer.len() < max_new_tokens.min(room) {
            let next = most_likely(&begun.logits);
            answer.push(next);
            if self.model.chat.is_stop(next) {
                break;
            }
            let (mut logits, cache) = self.model.step(&[next], &[begun.next], &begun.cache)?;
            begun = Begun {
                logits: logits.pop().unwrap_or_default(),
                cache,
                next: begun.next + 1,
            };
        }
        Ok(answer)
    }

    /// Probability (0 to 1) that `event_prompt` is happening in the window, from the first token's logits for "Yes" and "No".
    pub fn judge(&self, event_prompt: &str) -> Result<f32, InferenceError> {
        let begun = self.begin(&self.prepared.question(event_prompt))?;
        Ok(self.model.chat.probability_of_yes(&begun.logits))
    }

    /// Answers `prompt` greedily, in at most `max_new_tokens` tokens.
    pub fn describe(&self, prompt: &str, max_new_tokens: usize) -> Result<String, InferenceError> {
        let ids = self.describe_ids(prompt, max_new_tokens)?;
        self.model.chat.text(&ids)
    }

    fn begin(&self, prompt: &str) -> Result<Begun, InferenceError> {
        let suffix = self.model.suffix(&self.prepared, prompt)?;
        self.model.begin(&suffix, &self.cache, self.next)
    }
}

/// What all begin with, short of the last token of each: that one is left to be run.
fn common_prefix(all: &[Vec<u32>]) -> Vec<u32> {
    let Some((first, others)) = all.split_first() else {
        return Vec::new();
    };
    let same = |other: &Vec<u32>| first.iter().zip(other).take_while(|(a, b)| a == b).count();
    let shared = others
        .iter()
        .map(same)
        .chain(all.iter().map(|ids| ids.len().saturating_sub(1)));
    first[..shared.min().unwrap_or(0)].to_vec()
}

/// The token with the greatest logit, the first of several.
pub(super) fn most_likely(logits: &[f32]) -> u32 {
    let best = logits
        .iter()
        .enumerate()
        .reduce(|a, b| if b.1 > a.1 { b } else { a });
    best.map_or(0, |(id, _)| id as u32)
}

#[cfg(test)]
mod tests {
    use super::common_prefix;

    #[test]
    fn what_is_shared_leaves_every_one_a_token() {
        let check = |all: &[&[u32]], expected: &[u32]| {
            let all: Vec<Vec<u32>> = all.iter().map(|ids| ids.to_vec()).collect();
            assert_eq!(common_prefix(&all), expected, "{all:?}");
        };
        check(&[], &[]);
        check(&[&[1, 2, 3]], &[1, 2]);
        check(&[&[1, 2, 3], &[1, 2, 4, 5]], &[1, 2]);
        check(&[&[1, 2, 3], &[1, 2]], &[1]);
        check(&[&[1, 2], &[3, 4]], &[]);
    }
}
