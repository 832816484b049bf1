//! The JSON files of a model directory, with only the fields that matter here.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::InferenceError;

/// Everything in a model directory but the graphs.
pub(super) struct ModelFiles {
    pub(super) config: Config,
    pub(super) preprocessor: PreprocessorConfig,
    pub(super) processor: ProcessorConfig,
    pub(super) generation: GenerationConfig,
    pub(super) chat_template: String,
    pub(super) tokenizer: tokenizers::Tokenizer,
    directory: PathBuf,
    paths: Vec<PathBuf>,
}

#[derive(Deserialize)]
pub(super) struct Config {
    pub(super) model_type: String,
    pub(super) text_config: TextConfig,
}

#[derive(Deserialize)]
pub(super) struct TextConfig {
    pub(super) max_position_embeddings: usize,
}

#[derive(Deserialize)]
pub(super) struct PreprocessorConfig {
    pub(super) size: LongestEdge,
    pub(super) max_image_size: LongestEdge,
    pub(super) resample: u32,
    pub(super) rescale_factor: f64,
    pub(super) image_mean: [f64; 3],
    pub(super) image_std: [f64; 3],
}

#[derive(Deserialize)]
pub(super) struct LongestEdge {
    pub(super) longest_edge: u32,
}

#[derive(Deserialize)]
pub(super) struct ProcessorConfig {
    /// Tokens of one tile.
    pub(super) image_seq_len: usize,
}

#[derive(Deserialize)]
pub(super) struct GenerationConfig {
    pub(super) eos_token_id: OneOrMany,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(u32),
    Many(Vec<u32>),
}

#[derive(Deserialize)]
struct WithChatTemplate {
    chat_template: Option<String>,
}

/// Model types of the family. Both are Idefics3's architecture; SmolVLM2 adds a video prompt.
pub(super) const IDEFICS3: &str = "idefics3";
pub(super) const SMOLVLM: &str = "smolvlm";

impl ModelFiles {
    pub(super) fn read(directory: &Path) -> Result<Self, InferenceError> {
        let mut reader = Reader {
            directory,
            paths: Vec::new(),
        };
        let config_path = directory.join("config.json");
        let model_type: ModelType = reader.json("config.json")?;
        if ![IDEFICS3, SMOLVLM].contains(&model_type.model_type.as_str()) {
            return Err(InferenceError::unsupported(
                config_path,
                format!(
                    "its model_type is {:?}; give a model of the SmolVLM family ({IDEFICS3} or \
                     {SMOLVLM}) exported to ONNX",
                    model_type.model_type
                ),
            ));
        }
        reader.paths.clear();
        let config = reader.json("config.json")?;
        let preprocessor = reader.json("preprocessor_config.json")?;
        let processor = reader.json("processor_config.json")?;
        let generation = reader.json("generation_config.json")?;
        let chat_template = reader.chat_template()?;
        let tokenizer = tokenizers::Tokenizer::from_bytes(reader.bytes("tokenizer.json")?)
            .map_err(|e| InferenceError::load(directory.join("tokenizer.json"), e))?;
        let paths = reader.paths;
        let directory = directory.to_owned();
        Ok(Self {
            config,
            preprocessor,
            processor,
            generation,
            chat_template,
            tokenizer,
            directory,
            paths,
        })
    }

    /// The files read, in a fixed order.
    pub(super) fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    pub(super) fn unsupported(&self, name: &str, problem: impl Into<String>) -> InferenceError {
        InferenceError::unsupported(self.directory.join(name), problem)
    }
}

#[derive(Deserialize)]
struct ModelType {
    #[serde(default)]
    model_type: String,
}

struct Reader<'a> {
    directory: &'a Path,
    paths: Vec<PathBuf>,
}

impl Reader<'_> {
    fn bytes(&mut self, name: &str) -> Result<Vec<u8>, InferenceError> {
        let path = self.directory.join(name);
        match std::fs::read(&path) {
            Ok(bytes) => {
                self.paths.push(path);
                Ok(bytes)
            }
            Err(source) => Err(InferenceError::Read { path, source }),
        }
    }

    fn json<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, InferenceError> {
        let bytes = self.bytes(name)?;
        serde_json::from_slice(&bytes)
            .map_err(|e| InferenceError::unsupported(self.directory.join(name), e.to_string()))
    }

    /// transformers looks in this order: its own file, JSON, then the tokenizer's configuration.
    fn chat_template(&mut self) -> Result<String, InferenceError> {
        const JINJA: &str = "chat_template.jinja";
        if self.directory.join(JINJA).exists() {
            let bytes = self.bytes(JINJA)?;
            return Ok(String::from_utf8_lossy(&bytes).into_owned());
        }
        if self.directory.join("chat_template.json").exists()
            && let Some(template) = self
                .json::<WithChatTemplate>("chat_template.json")?
                .chat_template
        {
            return Ok(template);
        }
        let name = "tokenizer_config.json";
        self.json::<WithChatTemplate>(name)?
            .chat_template
            .ok_or_else(|| {
                let problem = "there is no chat_template in it, nor a file of that name beside it";
                InferenceError::unsupported(self.directory.join(name), problem)
            })
    }
}
