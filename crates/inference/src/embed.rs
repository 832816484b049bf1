//! Sentence embeddings through fastembed, from a directory of a sentence-transformers model: whatever of its families fastembed
//! knows, told by the directory's own files (`layout`).

mod layout;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use fastembed::{
    InitOptionsUserDefined, QuantizationMode, TextEmbedding, TokenizerFiles,
    UserDefinedEmbeddingModel,
};

use crate::onnx::{self, Memory};
use crate::revision::revision;
use crate::{Embedder, InferenceError, Placed, memory};

use layout::Layout;

/// Attention takes memory by batch times tokens squared: 8 x 12 heads x 256² floats are 25 MB.
const BATCH: usize = 8;

/// A sentence embedding model, such as all-MiniLM-L6-v2, BGE or E5.
pub struct TextEmbedder {
    model: Mutex<TextEmbedding>,
    layout: Layout,
    dimension: usize,
    revision: String,
}

impl TextEmbedder {
    /// Loads the weights (`model.onnx`, `onnx/model.onnx` or their quantised forms) and the tokenizer files of `directory`.
    pub fn load(directory: &Path, threads: usize) -> Result<Self, InferenceError> {
        Self::load_on(directory, Placed::Cpu, threads)
    }

    /// [`Self::load`] on a device: see [`crate::onnx::place`].
    pub fn load_on(
        directory: &Path,
        device: Placed,
        threads: usize,
    ) -> Result<Self, InferenceError> {
        let layout = Layout::read(directory)?;
        let tokenizer = ["tokenizer.json", "config.json", "special_tokens_map.json"]
            .map(|name| directory.join(name));
        let tokenizer_config = directory.join("tokenizer_config.json");
        let mut weights = layout.external.clone();
        weights.push(layout.weights.clone());
        memory::check(&weights, memory::available())?;
        let [tokenizer_file, config_file, special_tokens_map_file] = &tokenizer;
        let files = TokenizerFiles {
            tokenizer_file: read(tokenizer_file)?,
            config_file: read(config_file)?,
            special_tokens_map_file: read(special_tokens_map_file)?,
            tokenizer_config_file: read(&tokenizer_config)?,
        };
        let mut model = open(&layout, files, device, threads)?;
        let probe = model
            .embed(["dimension"], Some(1))
            .map_err(|e| InferenceError::load(&layout.weights, e))?;
        let files = tokenizer.iter().chain([&tokenizer_config, &layout.weights]);
        let files = files.chain(&layout.external).map(PathBuf::as_path);
        Ok(Self {
            model: Mutex::new(model),
            dimension: probe.first().map_or(0, Vec::len),
            revision: revision(&layout.label(), files)?,
            layout,
        })
    }

    fn embed_after(&self, prefix: &str, texts: &[String]) -> Result<Vec<Vec<f32>>, InferenceError> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        // One at a time where the others of a batch would change a text's vector.
        let batch = if self.layout.dynamic { 1 } else { BATCH };
        let mut model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of a length together: the shorter ones are filled up to the longest.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|at| texts[*at].len());
        let mut vectors = vec![Vec::new(); texts.len()];
        for some in order.chunks(batch) {
            let some_texts = some.iter().map(|at| format!("{prefix}{}", texts[*at]));
            let found = model.embed(some_texts.collect::<Vec<_>>(), None);
            let found = found.map_err(|e| InferenceError::run("embedding texts", e))?;
            for (at, vector) in some.iter().zip(found) {
                vectors[*at] = vector;
            }
        }
        Ok(vectors)
    }
}

fn open(
    layout: &Layout,
    files: TokenizerFiles,
    device: Placed,
    threads: usize,
) -> Result<TextEmbedding, InferenceError> {
    let mut model = UserDefinedEmbeddingModel::new(read(&layout.weights)?, files)
        .with_pooling(layout.pooling.clone());
    if layout.dynamic {
        model = model.with_quantization(QuantizationMode::Dynamic);
    }
    for file in &layout.external {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        model = model.with_external_initializer(name.into_owned(), read(file)?);
    }
    let options = InitOptionsUserDefined::new()
        .with_environment(onnx::environment()?)
        .with_execution_providers(onnx::providers(device, Memory::Returned))
        .with_intra_threads(threads.max(1))
        .with_max_length(layout.max_tokens)
        .with_session_config("session.intra_op.allow_spinning", "0");
    TextEmbedding::try_new_from_user_defined(model, options).map_err(|error| match error {
        // Its message names what is missing there.
        fastembed::Error::TokenizerConfig(problem) => {
            let file = layout.weights.with_file_name("tokenizer_config.json");
            InferenceError::unsupported(file, problem)
        }
        error => InferenceError::load(&layout.weights, error),
    })
}

impl Embedder for TextEmbedder {
    fn revision(&self) -> &str {
        &self.revision
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, InferenceError> {
        self.embed_after(&self.layout.passage, texts)
    }

    fn embed_queries(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, InferenceError> {
        self.embed_after(&self.layout.query, texts)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, InferenceError> {
    std::fs::read(path).map_err(|source| InferenceError::Read {
        path: path.to_owned(),
        source,
    })
}
