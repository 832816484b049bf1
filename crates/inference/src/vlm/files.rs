//! Reading a model directory: JSON files, chat template and tokenizer, all kept track of for the model's revision.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokenizers::Tokenizer;

use crate::InferenceError;

/// Larger than any such file of a published model (tokenizers of 256k words take 35 MB).
const MAX_BYTES: u64 = 256 << 20;

/// A model directory, and what was read of it.
pub(super) struct Directory {
    path: PathBuf,
    read: Vec<PathBuf>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

#[derive(Deserialize)]
struct GenerationConfig {
    eos_token_id: OneOrMany,
}

#[derive(Deserialize)]
struct WithChatTemplate {
    chat_template: Option<String>,
}

#[derive(Deserialize)]
struct ModelType {
    #[serde(default)]
    model_type: String,
}

impl Directory {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            read: Vec::new(),
        }
    }

    /// The files read, in a fixed order.
    pub(super) fn paths(&self) -> &[PathBuf] {
        &self.read
    }

    /// `model_type` of config.json, which says what family the model is of.
    pub(super) fn model_type(&self) -> Result<String, InferenceError> {
        let bytes = self.bytes("config.json")?;
        Ok(self.parsed::<ModelType>("config.json", &bytes)?.model_type)
    }

    /// The fields of `T` in the JSON file `name`.
    pub(super) fn json<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, InferenceError> {
        let bytes = self.kept(name)?;
        self.parsed(name, &bytes)
    }

    /// The tokens that end an answer.
    pub(super) fn stop_ids(&mut self) -> Result<Vec<u32>, InferenceError> {
        let generation: GenerationConfig = self.json("generation_config.json")?;
        Ok(match generation.eos_token_id {
            OneOrMany::One(id) => vec![id],
            OneOrMany::Many(ids) => ids,
        })
    }

    pub(super) fn tokenizer(&mut self) -> Result<Tokenizer, InferenceError> {
        const FILE: &str = "tokenizer.json";
        let mut tokenizer = Tokenizer::from_bytes(self.kept(FILE)?)
            .map_err(|e| InferenceError::load(self.path.join(FILE), e))?;
        tokenizer
            .with_padding(None)
            .with_truncation(None)
            .map_err(|e| self.unsupported(FILE, e.to_string()))?;
        Ok(tokenizer)
    }

    /// transformers looks in this order: its own file, JSON, then the tokenizer's configuration.
    pub(super) fn chat_template(&mut self) -> Result<String, InferenceError> {
        const JINJA: &str = "chat_template.jinja";
        const JSON: &str = "chat_template.json";
        if self.path.join(JINJA).exists() {
            return Ok(String::from_utf8_lossy(&self.kept(JINJA)?).into_owned());
        }
        if self.path.join(JSON).exists()
            && let Some(template) = self.json::<WithChatTemplate>(JSON)?.chat_template
        {
            return Ok(template);
        }
        let name = "tokenizer_config.json";
        self.json::<WithChatTemplate>(name)?
            .chat_template
            .ok_or_else(|| {
                let problem = "there is no chat_template in it, nor a file of that name beside it";
                self.unsupported(name, problem)
            })
    }

    pub(super) fn unsupported(&self, name: &str, problem: impl Into<String>) -> InferenceError {
        InferenceError::unsupported(self.path.join(name), problem)
    }

    fn parsed<T: DeserializeOwned>(&self, name: &str, bytes: &[u8]) -> Result<T, InferenceError> {
        serde_json::from_slice(bytes).map_err(|e| self.unsupported(name, e.to_string()))
    }

    fn kept(&mut self, name: &str) -> Result<Vec<u8>, InferenceError> {
        let bytes = self.bytes(name)?;
        self.read.push(self.path.join(name));
        Ok(bytes)
    }

    fn bytes(&self, name: &str) -> Result<Vec<u8>, InferenceError> {
        let path = self.path.join(name);
        let unreadable = |source| InferenceError::Read {
            path: path.clone(),
            source,
        };
        let size = std::fs::metadata(&path).map_err(unreadable)?.len();
        if size > MAX_BYTES {
            let problem = format!("it has {size} bytes, which is too much for such a file");
            return Err(self.unsupported(name, problem));
        }
        std::fs::read(&path).map_err(unreadable)
    }
}
