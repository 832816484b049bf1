//! Sentence embeddings through fastembed, from a directory of a sentence-transformers model.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use fastembed::{
    InitOptionsUserDefined, Pooling, TextEmbedding, TokenizerFiles, UserDefinedEmbeddingModel,
};

use crate::onnx::{self, Memory};
use crate::revision::revision;
use crate::{Embedder, InferenceError, Placed, memory};

/// As sentence-transformers uses MiniLM; longer texts are cut.
const MAX_TOKENS: usize = 256;
/// Attention takes memory by batch times tokens squared: 8 x 12 heads x 256² floats are 25 MB.
const BATCH: usize = 8;

/// A sentence embedding model with mean pooling, such as all-MiniLM-L6-v2.
pub struct TextEmbedder {
    model: Mutex<TextEmbedding>,
    dimension: usize,
    revision: String,
}

impl TextEmbedder {
    /// Loads `model.onnx` (or `onnx/model.onnx`) and the four tokenizer files of `directory`.
    pub fn load(directory: &Path, threads: usize) -> Result<Self, InferenceError> {
        Self::load_on(directory, Placed::Cpu, threads)
    }

    /// [`Self::load`] on a device: see [`crate::onnx::place`].
    pub fn load_on(
        directory: &Path,
        device: Placed,
        threads: usize,
    ) -> Result<Self, InferenceError> {
        let tokenizer = ["tokenizer.json", "config.json", "special_tokens_map.json"]
            .map(|name| directory.join(name));
        let tokenizer_config = directory.join("tokenizer_config.json");
        let weights = weights_file(directory);
        memory::check(std::slice::from_ref(&weights), memory::available())?;
        let [tokenizer_file, config_file, special_tokens_map_file] = &tokenizer;
        let files = TokenizerFiles {
            tokenizer_file: read(tokenizer_file)?,
            config_file: read(config_file)?,
            special_tokens_map_file: read(special_tokens_map_file)?,
            tokenizer_config_file: read(&tokenizer_config)?,
        };
        let model =
            UserDefinedEmbeddingModel::new(read(&weights)?, files).with_pooling(Pooling::Mean);
        let options = InitOptionsUserDefined::new()
            .with_environment(onnx::environment()?)
            .with_execution_providers(onnx::providers(device, Memory::Returned))
            .with_intra_threads(threads.max(1))
            .with_max_length(MAX_TOKENS)
            .with_session_config("session.intra_op.allow_spinning", "0");
        let mut model = TextEmbedding::try_new_from_user_defined(model, options)
            .map_err(|e| InferenceError::load(&weights, e))?;
        let probe = model
            .embed(["dimension"], Some(1))
            .map_err(|e| InferenceError::load(&weights, e))?;
        let files = tokenizer.iter().chain([&tokenizer_config, &weights]);
        Ok(Self {
            model: Mutex::new(model),
            dimension: probe.first().map_or(0, Vec::len),
            revision: revision("text-embedder mean", files.map(PathBuf::as_path))?,
        })
    }
}

impl Embedder for TextEmbedder {
    fn revision(&self) -> &str {
        &self.revision
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, InferenceError> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let mut model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        model
            .embed(texts, Some(BATCH))
            .map_err(|e| InferenceError::run("embedding texts", e))
    }
}

fn weights_file(directory: &Path) -> PathBuf {
    let nested = directory.join("onnx/model.onnx");
    if nested.exists() {
        nested
    } else {
        directory.join("model.onnx")
    }
}

fn read(path: &Path) -> Result<Vec<u8>, InferenceError> {
    std::fs::read(path).map_err(|source| InferenceError::Read {
        path: path.to_owned(),
        source,
    })
}
