//! What a directory of an embedding model says about it: how its vectors are pooled, how long texts may be, and what is put
//! before them. Exports for ONNX Runtime often leave out what sentence-transformers writes beside its models; then the
//! model's name tells, as fastembed knows it.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use fastembed::{Pooling, TextEmbedding};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::InferenceError;

/// Where weights may be, in order of preference.
const WEIGHTS: [&str; 6] = [
    "onnx/model.onnx",
    "model.onnx",
    "model_optimized.onnx",
    "onnx/model_quantized.onnx",
    "model_quantized.onnx",
    "onnx/model_int8.onnx",
];
/// What files of weights outside the graph are called, after the graph's name.
const EXTERNAL: [&str; 2] = ["_data", ".data"];
/// Tokens of a text where nothing says how many: more would cost memory by their square.
const MOST_TOKENS: u64 = 512;
/// The operator that quantises activations by the range of the whole batch.
const DYNAMIC: &[u8] = b"DynamicQuantizeLinear";

/// What models of these names want before texts that are looked for, and before those that are stored.
const PREFIXES: [(&str, &str, &str); 5] = [
    ("e5-", "query: ", "passage: "),
    ("nomic-embed-text", "search_query: ", "search_document: "),
    ("bge-", SEARCHING, ""),
    ("mxbai-embed", SEARCHING, ""),
    ("snowflake-arctic-embed", SEARCHING, ""),
];
const SEARCHING: &str = "Represent this sentence for searching relevant passages: ";

/// What is known of a model before it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// The graph.
    pub(super) weights: PathBuf,
    /// Files of weights beside it.
    pub(super) external: Vec<PathBuf>,
    pub(super) pooling: Pooling,
    /// Tokens of a text; longer ones are cut.
    pub(super) max_tokens: usize,
    /// What is put before a text that is looked for.
    pub(super) query: String,
    /// What is put before a text that is stored.
    pub(super) passage: String,
    /// Whether texts change each other's vectors when they are read together.
    pub(super) dynamic: bool,
}

#[derive(Default, Deserialize)]
struct Config {
    #[serde(default, rename = "_name_or_path")]
    name: String,
    max_position_embeddings: Option<u64>,
}

#[derive(Deserialize)]
struct SentenceConfig {
    max_seq_length: Option<u64>,
}

#[derive(Default, Deserialize)]
struct Prompts {
    #[serde(default)]
    prompts: std::collections::HashMap<String, String>,
}

impl Layout {
    /// Reads what `directory` says.
    ///
    /// # Errors
    /// When a file is missing or damaged, or wants pooling that is not known; the error names it.
    pub(super) fn read(directory: &Path) -> Result<Self, InferenceError> {
        let config: Config = required(&directory.join("config.json"))?;
        let name = known_name(directory, &config.name);
        let weights = weights(directory);
        let (query, passage) = prefixes(directory, &name)?;
        Ok(Self {
            pooling: pooling(directory, &name)?,
            max_tokens: max_tokens(directory, &config)?,
            dynamic: holds(&weights, DYNAMIC)?,
            external: external(&weights),
            query,
            passage,
            weights,
        })
    }

    /// What of it changes vectors, for the model's revision. Stores of older releases hold vectors of the first form.
    pub(super) fn label(&self) -> String {
        let pooling = match self.pooling {
            Pooling::Mean => "mean",
            Pooling::Cls => "cls",
        };
        let mut label = format!("text-embedder {pooling}");
        if self.max_tokens != 256 {
            label += &format!(" {}", self.max_tokens);
        }
        for prefix in [&self.query, &self.passage] {
            if !prefix.is_empty() {
                label += &format!(" {prefix:?}");
            }
        }
        label
    }
}

/// The model's name as people know it: the directory's, or what it was made from where fastembed knows that.
fn known_name(directory: &Path, config: &str) -> String {
    let last = |name: &str| {
        let name = name.rsplit('/').next().unwrap_or_default().to_lowercase();
        let name = name.trim_end_matches("-q").trim_end_matches("-onnx");
        name.to_owned()
    };
    let directory = last(&directory.to_string_lossy());
    let from = last(config);
    let known = TextEmbedding::list_supported_models();
    let is_known = |name: &String| known.iter().any(|info| last(&info.model_code) == *name);
    if is_known(&directory) || !is_known(&from) {
        directory
    } else {
        from
    }
}

fn pooling(directory: &Path, name: &str) -> Result<Pooling, InferenceError> {
    let file = directory.join("1_Pooling/config.json");
    if let Some(config) = optional::<Value>(&file)? {
        let wanted = |mode: &str| config[format!("pooling_mode_{mode}")] == Value::Bool(true);
        return match (wanted("mean_tokens"), wanted("cls_token")) {
            (true, false) => Ok(Pooling::Mean),
            (false, true) => Ok(Pooling::Cls),
            _ => Err(InferenceError::unsupported(
                &file,
                "it asks for another pooling than of the mean or of the first token alone",
            )),
        };
    }
    let known = TextEmbedding::list_supported_models();
    let mut known = known.iter().filter(|info| {
        let code = info.model_code.to_lowercase();
        let code = code.rsplit('/').next().unwrap_or_default();
        code.trim_end_matches("-q").trim_end_matches("-onnx") == name
    });
    let pooling = known.find_map(|info| TextEmbedding::get_default_pooling_method(&info.model));
    Ok(pooling.unwrap_or(Pooling::Mean))
}

fn max_tokens(directory: &Path, config: &Config) -> Result<usize, InferenceError> {
    let said: Option<SentenceConfig> = optional(&directory.join("sentence_bert_config.json"))?;
    let said = said.and_then(|said| said.max_seq_length);
    let tokens = said.unwrap_or_else(|| {
        let most = config.max_position_embeddings.unwrap_or(MOST_TOKENS);
        most.min(MOST_TOKENS)
    });
    Ok(usize::try_from(tokens).unwrap_or(usize::MAX).max(1))
}

/// What stands in the model's own list of prompts; without one, what is usual for its name.
fn prefixes(directory: &Path, name: &str) -> Result<(String, String), InferenceError> {
    let file = directory.join("config_sentence_transformers.json");
    let Prompts { mut prompts } = optional(&file)?.unwrap_or_default();
    if !prompts.is_empty() {
        let query = prompts.remove("query").unwrap_or_default();
        let passage = prompts.remove("document").or(prompts.remove("passage"));
        return Ok((query, passage.unwrap_or_default()));
    }
    let name = name.trim_start_matches("multilingual-");
    let mut usual = PREFIXES
        .iter()
        .filter(|(start, ..)| name.starts_with(start));
    // The Chinese and the multilingual models of that family want something else, or nothing.
    let english = !name.starts_with("bge-") || name.contains("-en");
    Ok(match usual.next() {
        Some((_, query, passage)) if english => ((*query).to_owned(), (*passage).to_owned()),
        _ => Default::default(),
    })
}

fn weights(directory: &Path) -> PathBuf {
    let mut candidates = WEIGHTS.iter().map(|name| directory.join(name));
    let found = candidates.find(|file| file.exists());
    found.unwrap_or_else(|| directory.join("model.onnx"))
}

fn external(weights: &Path) -> Vec<PathBuf> {
    let beside = EXTERNAL.iter().map(|end| {
        let mut name = weights.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name)
    });
    beside.filter(|file| file.exists()).collect()
}

/// Whether a file holds these bytes.
fn holds(file: &Path, wanted: &[u8]) -> Result<bool, InferenceError> {
    const PART: usize = 1 << 20;
    let failed = |source| InferenceError::Read {
        path: file.to_owned(),
        source,
    };
    let mut reading = File::open(file).map_err(failed)?;
    let mut part = Vec::new();
    loop {
        // The end of the part before, so that nothing is cut in two.
        let kept = part.len().saturating_sub(wanted.len());
        part.drain(..kept);
        let mut more = reading.by_ref().take(PART as u64);
        if more.read_to_end(&mut part).map_err(failed)? == 0 {
            return Ok(false);
        }
        let first = wanted[0];
        let found = part
            .iter()
            .enumerate()
            .any(|(at, byte)| *byte == first && part[at..].starts_with(wanted));
        if found {
            return Ok(true);
        }
    }
}

/// Reads a JSON file that has to be there.
fn required<T: DeserializeOwned>(path: &Path) -> Result<T, InferenceError> {
    let text = fs::read(path).map_err(|source| InferenceError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(path, &text)
}

fn optional<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, InferenceError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(InferenceError::Read {
                path: path.to_owned(),
                source,
            });
        }
    };
    parse(path, &text).map(Some)
}

fn parse<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T, InferenceError> {
    let value = serde_json::from_slice(text);
    value.map_err(|error| InferenceError::unsupported(path, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the order in which `fuzz/src/embed.rs` has them.
    const FILES: [&str; 5] = [
        "config.json",
        "sentence_bert_config.json",
        "config_sentence_transformers.json",
        "1_Pooling/config.json",
        "model.onnx",
    ];

    #[test]
    fn what_fuzzing_found_is_read_or_refused_by_its_name() {
        let corpus = sightline_testkit::repository().join("fuzz/corpus/embedding_models");
        let (mut read, mut refused) = (0, 0);
        for input in fs::read_dir(corpus).expect("a corpus") {
            let input = fs::read(input.expect("a file").path()).expect("read");
            let Some((kind, content)) = input.split_first() else {
                continue;
            };
            let dir = tempfile::tempdir().expect("a directory");
            fs::create_dir(dir.path().join("1_Pooling")).expect("made");
            let config = r#"{"_name_or_path": "intfloat/multilingual-e5-small"}"#;
            fs::write(dir.path().join(FILES[0]), config).expect("written");
            fs::write(dir.path().join(FILES[4]), "").expect("written");
            let name = FILES[usize::from(*kind) % FILES.len()];
            fs::write(dir.path().join(name), content).expect("written");
            match Layout::read(dir.path()) {
                Ok(layout) => {
                    assert!(layout.max_tokens > 0);
                    read += 1;
                }
                Err(error) => {
                    assert!(error.to_string().contains(name), "{error}");
                    refused += 1;
                }
            }
        }
        assert!(read > 0 && refused > 0, "{read} {refused}");
    }
}
