//! From a prompt in words to token ids and back, through the model's own chat template and tokenizer.

use minijinja::{Environment, context};
use tokenizers::Tokenizer;

use crate::InferenceError;
use crate::vlm::family::{Family, Layout, Part};
use crate::vlm::files::Directory;

const TEMPLATE: &str = "chat";
/// Instructions of a chat template, of which one message takes hundreds: a loop without end, in a file from elsewhere, ends.
const MOST_INSTRUCTIONS: u64 = 1_000_000;

/// What turns words into tokens.
pub(super) struct Chat {
    template: Environment<'static>,
    tokenizer: Tokenizer,
    /// Texts of the special tokens, which a user's words must not contain.
    reserved: Vec<String>,
    /// The token in the place of an image, as text and as id.
    image: (String, u32),
    image_end: u32,
    stop_ids: Vec<u32>,
    /// First tokens of an answer that begins with "Yes", and with "No".
    yes_ids: Vec<u32>,
    no_ids: Vec<u32>,
}

impl Chat {
    pub(super) fn new(
        directory: &mut Directory,
        family: &dyn Family,
    ) -> Result<Self, InferenceError> {
        let stop_ids = directory.stop_ids()?;
        let template = directory.chat_template()?;
        let tokenizer = directory.tokenizer()?;
        let id = |token: &str| {
            tokenizer.token_to_id(token).ok_or_else(|| {
                directory.unsupported("tokenizer.json", format!("there is no token {token}"))
            })
        };
        for token in family.tokens() {
            id(&token)?;
        }
        let answers = |word: &str| {
            let ids = answer_ids(&tokenizer, word);
            if ids.is_empty() {
                let problem = format!("no token stands for an answer that begins with {word}");
                return Err(directory.unsupported("tokenizer.json", problem));
            }
            Ok(ids)
        };
        let special = tokenizer
            .get_added_tokens_decoder()
            .into_values()
            .filter(|t| t.special);
        Ok(Self {
            template: compiled(template)
                .map_err(|e| directory.unsupported("chat_template.json", e.to_string()))?,
            reserved: special.map(|t| t.content).collect(),
            image: (family.image_token().to_owned(), id(family.image_token())?),
            image_end: id(family.image_end())?,
            stop_ids,
            yes_ids: answers("Yes")?,
            no_ids: answers("No")?,
            tokenizer,
        })
    }

    /// Token ids of `prompt` behind frames that are laid out as in `layout`.
    pub(super) fn ids(&self, prompt: &str, layout: &Layout) -> Result<Vec<u32>, InferenceError> {
        let words = format!("{}{}", layout.lead, self.without_reserved(prompt));
        let before = layout.before.iter().map(|part| match part {
            Part::Image => context! { type => "image" },
            Part::Text(words) => text(words),
        });
        let content: Vec<_> = before.chain([text(&words)]).collect();
        let message = context! { role => "user", content => content };
        let chat = self
            .template
            .get_template(TEMPLATE)
            .and_then(|t| {
                t.render(context! { messages => vec![message], add_generation_prompt => true })
            })
            .map_err(|e| InferenceError::run("rendering the chat template", e))?;
        let encoding = self
            .tokenizer
            .encode(self.with_images(&chat, layout), false)
            .map_err(|e| InferenceError::run("tokenising the prompt", e))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// What every prompt on the same frames begins with: up to and with the last image.
    pub(super) fn prefix(&self, layout: &Layout) -> Result<Vec<u32>, InferenceError> {
        let mut ids = self.ids("", layout)?;
        let last = ids.iter().rposition(|&id| id == self.image_end);
        ids.truncate(last.map_or(0, |last| last + 1));
        Ok(ids)
    }

    /// The tokens that a model must know whatever is said.
    pub(super) fn ids_used(&self) -> impl Iterator<Item = u32> {
        let images = [self.image.1, self.image_end];
        let answers = self.yes_ids.iter().chain(&self.no_ids);
        images
            .into_iter()
            .chain(answers.chain(&self.stop_ids).copied())
    }

    pub(super) fn is_image(&self, id: u32) -> bool {
        id == self.image.1
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

    /// Puts what stands for each image in the place of the template's image tokens.
    fn with_images(&self, chat: &str, layout: &Layout) -> String {
        let mut images = layout.images.iter();
        let mut pieces = chat.split(self.image.0.as_str());
        let mut text = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            text.push_str(images.next().map_or("", String::as_str));
            text.push_str(piece);
        }
        text
    }

    /// Words of a user that spell a special token would be read as one.
    pub(super) fn without_reserved(&self, prompt: &str) -> String {
        let mut prompt = prompt.to_owned();
        while let Some(token) = self.reserved.iter().find(|t| prompt.contains(t.as_str())) {
            prompt = prompt.replace(token.as_str(), "");
        }
        prompt
    }
}

fn compiled(template: String) -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    // As transformers compiles it.
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_fuel(Some(MOST_INSTRUCTIONS));
    environment.add_template_owned(TEMPLATE, template)?;
    Ok(environment)
}

/// First tokens that are `word` as a whole, with or without a space before it.
fn answer_ids(tokenizer: &Tokenizer, word: &str) -> Vec<u32> {
    let first = |answer: String| {
        let encoding = tokenizer.encode(answer, false).ok()?;
        encoding.get_ids().first().copied()
    };
    let mut ids: Vec<u32> = [format!("{word}."), format!(" {word}.")]
        .into_iter()
        .filter_map(first)
        .filter(|&id| {
            tokenizer
                .decode(&[id], false)
                .is_ok_and(|text| text.trim() == word)
        })
        .collect();
    ids.dedup();
    ids
}

fn text(text: &str) -> minijinja::Value {
    context! { type => "text", text => text }
}
