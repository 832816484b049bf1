//! From a prompt in words to token ids, through the model's own chat template and tokenizer.

use minijinja::{Environment, context};
use tokenizers::Tokenizer;

use crate::InferenceError;
use crate::vlm::files::{ModelFiles, OneOrMany, SMOLVLM};

const TEMPLATE: &str = "chat";
const IMAGE: &str = "<image>";
const AROUND_IMAGE: &str = "<fake_token_around_image>";
const WHOLE_IMAGE: &str = "<global-img>";

pub(super) struct PromptFormat {
    template: Environment<'static>,
    tokenizer: Tokenizer,
    /// Texts of the special tokens, which a user's words must not contain.
    reserved: Vec<String>,
    image_tokens: usize,
    image_id: u32,
    around_image_id: u32,
    stop_ids: Vec<u32>,
    /// First tokens of an answer that begins with "Yes", and with "No".
    yes_ids: Vec<u32>,
    no_ids: Vec<u32>,
    video_prompt: bool,
}

impl PromptFormat {
    pub(super) fn new(files: &ModelFiles) -> Result<Self, InferenceError> {
        let mut tokenizer = files.tokenizer.clone();
        tokenizer
            .with_padding(None)
            .with_truncation(None)
            .map_err(|e| files.unsupported("tokenizer.json", e.to_string()))?;
        let id = |token: &str| {
            tokenizer.token_to_id(token).ok_or_else(|| {
                files.unsupported("tokenizer.json", format!("there is no token {token}"))
            })
        };
        let (image_id, around_image_id, _) = (id(IMAGE)?, id(AROUND_IMAGE)?, id(WHOLE_IMAGE)?);
        let answers = |word: &str| {
            let ids = answer_ids(&tokenizer, word);
            if ids.is_empty() {
                let problem = format!("no token stands for an answer that begins with {word}");
                return Err(files.unsupported("tokenizer.json", problem));
            }
            Ok(ids)
        };
        let (yes_ids, no_ids) = (answers("Yes")?, answers("No")?);
        let stop_ids = match &files.generation.eos_token_id {
            OneOrMany::One(id) => vec![*id],
            OneOrMany::Many(ids) => ids.clone(),
        };
        let special = tokenizer
            .get_added_tokens_decoder()
            .into_values()
            .filter(|t| t.special);
        let reserved = special.map(|t| t.content).collect();
        Ok(Self {
            template: template(files)?,
            reserved,
            image_tokens: files.processor.image_seq_len,
            image_id,
            around_image_id,
            stop_ids,
            yes_ids,
            no_ids,
            video_prompt: files.config.model_type == SMOLVLM,
            tokenizer,
        })
    }

    /// Token ids of `prompt` about `frames` images from a window of `seconds`.
    pub(super) fn ids(
        &self,
        prompt: &str,
        frames: usize,
        seconds: f64,
    ) -> Result<Vec<u32>, InferenceError> {
        let prompt = self.without_reserved(prompt);
        let content = if self.video_prompt {
            video_content(&prompt, frames, seconds)
        } else {
            let images = std::iter::repeat_n(image(), frames);
            images.chain([text(prompt)]).collect()
        };
        let message = context! { role => "user", content => content };
        let chat = self
            .template
            .get_template(TEMPLATE)
            .and_then(|t| {
                t.render(context! { messages => vec![message], add_generation_prompt => true })
            })
            .map_err(|e| InferenceError::run("rendering the chat template", e))?;
        let whole = IMAGE.repeat(self.image_tokens);
        let expanded = format!("{AROUND_IMAGE}{WHOLE_IMAGE}{whole}{AROUND_IMAGE}");
        let encoding = self
            .tokenizer
            .encode(chat.replace(IMAGE, &expanded), false)
            .map_err(|e| InferenceError::run("tokenising the prompt", e))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// How many of `ids` come before a prompt's own words: up to and with the last image.
    pub(super) fn shared_prefix(&self, ids: &[u32]) -> usize {
        ids.iter()
            .rposition(|&id| id == self.around_image_id)
            .map_or(0, |last| last + 1)
    }

    pub(super) fn is_image(&self, id: u32) -> bool {
        id == self.image_id
    }

    pub(super) fn is_stop(&self, id: u32) -> bool {
        self.stop_ids.contains(&id)
    }

    /// The text of an answer, without special tokens.
    pub(super) fn text(&self, ids: &[u32]) -> Result<String, InferenceError> {
        let text = self.tokenizer.decode(ids, true);
        let text = text.map_err(|e| InferenceError::run("decoding the answer", e))?;
        Ok(text.trim().to_owned())
    }

    /// Probability of yes against no, from the logits of an answer's first token.
    pub(super) fn probability_of_yes(&self, logits: &[f32]) -> f32 {
        let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mass = |ids: &[u32]| -> f32 {
            ids.iter()
                .filter_map(|&id| logits.get(id as usize))
                .map(|l| (l - top).exp())
                .sum()
        };
        let (yes, no) = (mass(&self.yes_ids), mass(&self.no_ids));
        // Both vanish only beside a logit that is greater by 100: then nothing was said.
        if yes + no > 0.0 {
            yes / (yes + no)
        } else {
            0.0
        }
    }

    /// Words of a user that spell a special token would be read as one.
    fn without_reserved(&self, prompt: &str) -> String {
        let mut prompt = prompt.to_owned();
        while let Some(token) = self.reserved.iter().find(|t| prompt.contains(t.as_str())) {
            prompt = prompt.replace(token.as_str(), "");
        }
        prompt
    }
}

fn template(files: &ModelFiles) -> Result<Environment<'static>, InferenceError> {
    let mut environment = Environment::new();
    // As transformers compiles it.
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment
        .add_template_owned(TEMPLATE, files.chat_template.clone())
        .map_err(|e| files.unsupported("chat_template.json", e.to_string()))?;
    Ok(environment)
}

/// First tokens that are `word` as a whole, with or without a space before it.
fn answer_ids(tokenizer: &Tokenizer, word: &str) -> Vec<u32> {
    let mut ids: Vec<u32> = [format!("{word}."), format!(" {word}.")]
        .into_iter()
        .filter_map(|answer| {
            tokenizer
                .encode(answer, false)
                .ok()?
                .get_ids()
                .first()
                .copied()
        })
        .filter(|&id| {
            tokenizer
                .decode(&[id], false)
                .is_ok_and(|text| text.trim() == word)
        })
        .collect();
    ids.dedup();
    ids
}

fn image() -> minijinja::Value {
    context! { type => "image" }
}

fn text(text: String) -> minijinja::Value {
    context! { type => "text", text => text }
}

/// SmolVLM2's prompt for videos (`processing_smolvlm.py` of transformers), with the frames spread
/// evenly over the window.
fn video_content(prompt: &str, frames: usize, seconds: f64) -> Vec<minijinja::Value> {
    let whole = seconds.max(0.0) as u64;
    let (hours, minutes) = (whole / 3600, whole / 60 % 60);
    let duration = format!("{hours}:{minutes:02}:{:02}", whole % 60);
    let count = in_words(frames);
    let intro = format!(
        "You are provided the following series of {count} frames from a {duration} [H:MM:SS] \
         video.\n"
    );
    let mut content = vec![text(intro)];
    for frame in 0..frames {
        let at = (seconds.max(0.0) * frame as f64 / frames as f64) as u64;
        content.push(text(format!("\nFrame from {:02}:{:02}:", at / 60, at % 60)));
        content.push(image());
    }
    content.push(text(format!("\n\n{prompt}")));
    content
}

fn in_words(count: usize) -> String {
    const WORDS: [&str; 13] = [
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
        "eleven", "twelve",
    ];
    WORDS
        .get(count)
        .map_or_else(|| count.to_string(), |word| (*word).to_owned())
}
