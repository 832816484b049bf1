//! The models that are known by name: `models/registry.toml`, which is part of the binary.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sightline_inference::vlm::Precision;

/// Beside the files of a model that was pulled: what they are.
pub const MANIFEST: &str = "sightline-model.json";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Registry {
    model: Vec<Model>,
}

/// A model that is known by name.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Its name, and its directory's.
    pub name: String,
    /// What it is for.
    pub kind: Kind,
    /// What people choose it by.
    pub about: String,
    /// Its licence, by its SPDX name.
    pub licence: String,
    /// The files of a model that comes with Sightline.
    #[serde(default)]
    pub shipped: Vec<Digest>,
    /// The repository on the hub of one that does not.
    #[serde(default)]
    pub repository: String,
    /// Which state of the repository.
    #[serde(default)]
    pub revision: String,
    /// Its files.
    #[serde(default)]
    files: Vec<String>,
    /// Files that some states of the repository have.
    #[serde(default)]
    pub optional: Vec<String>,
    /// ONNX graphs that come in several precisions.
    #[serde(default)]
    graphs: Vec<String>,
    /// The precision that is pulled unless another is asked for.
    #[serde(default)]
    pub precision: Option<String>,
    /// What of the directory the models file names; the directory if unset.
    #[serde(rename = "use", default)]
    entry: String,
}

/// What a model is for: the tables of the models file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Windows of pictures.
    Describe,
    /// Speech.
    Transcribe,
    /// Texts, into vectors.
    Embed,
}

/// A file, and what it has to be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Digest {
    /// Below the model's directory.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// SHA-256, in hexadecimal digits.
    pub sha256: String,
}

/// What was pulled.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Manifest {
    /// The repository.
    pub repository: String,
    /// The commit, or the name of the state where the server did not say it.
    pub revision: String,
    /// Which weights, where there are several.
    pub precision: Option<String>,
    /// Every file.
    pub files: Vec<Digest>,
}

impl Model {
    /// The files to pull: one in `precision` of each graph; the default precision if unset.
    ///
    /// # Errors
    /// When there is no such precision, or the model has just one.
    pub fn files(&self, precision: Option<&str>) -> Result<Vec<String>> {
        let mut files = self.files.clone();
        let Some(usual) = &self.precision else {
            if precision.is_some() {
                bail!(
                    "{} comes in one precision: leave --precision out",
                    self.name
                );
            }
            return Ok(files);
        };
        let suffix = match precision.unwrap_or(usual).parse::<Precision>()? {
            Precision::Fp32 => "",
            Precision::Fp16 => "_fp16",
            Precision::Int8 => "_quantized",
            Precision::Q4 => "_q4",
            Precision::Q4F16 => "_q4f16",
        };
        files.extend(
            self.graphs
                .iter()
                .map(|graph| format!("onnx/{graph}{suffix}.onnx")),
        );
        Ok(files)
    }

    /// Where the directory `at` has what the models file names.
    pub fn entry(&self, at: &Path) -> PathBuf {
        if self.entry.is_empty() {
            at.to_owned()
        } else {
            at.join(&self.entry)
        }
    }

    /// Whether it comes with Sightline.
    pub fn is_shipped(&self) -> bool {
        !self.shipped.is_empty()
    }
}

impl Manifest {
    /// What was pulled into a directory; None if nothing was.
    pub fn read(directory: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(directory.join(MANIFEST)).ok()?).ok()
    }
}

/// Every model, in the order of the registry.
pub fn all() -> Vec<Model> {
    let text = include_str!("../../../models/registry.toml");
    let registry: Registry = toml::from_str(text).expect("a test reads it");
    registry.model
}

/// The model called `name`.
///
/// # Errors
/// When there is none; the error lists those that there are.
pub fn find(name: &str) -> Result<Model> {
    let all = all();
    let known: Vec<_> = all.iter().map(|model| model.name.clone()).collect();
    let found = all.into_iter().find(|model| model.name == name);
    found.with_context(|| {
        format!(
            "no model is called {name:?}; there are {}",
            known.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_sound() {
        let all = all();
        let unique: std::collections::BTreeSet<_> = all.iter().map(|m| &m.name).collect();
        assert_eq!(unique.len(), all.len());
        for model in &all {
            crate::models::check_name(&model.name).expect("it may name a directory");
            let pulled = model.files(None).expect("its own precision is known");
            assert_ne!(model.is_shipped(), !pulled.is_empty(), "{}", model.name);
            assert_eq!(
                model.is_shipped(),
                model.repository.is_empty(),
                "{}",
                model.name
            );
            let mut paths = pulled.iter().chain(&model.optional);
            assert!(paths.all(|path| !path.starts_with('/') && !path.contains("..")));
        }
    }

    #[test]
    fn graphs_come_in_the_precision_that_is_asked_for() {
        let model = find("smolvlm-256m").expect("known");
        let has = |precision: Option<&str>, file: &str| {
            let files = model.files(precision).expect("known");
            assert!(files.iter().any(|f| f == file), "{files:?}");
        };
        has(None, "onnx/vision_encoder_quantized.onnx");
        has(Some("q4f16"), "onnx/decoder_model_merged_q4f16.onnx");
        has(Some("fp32"), "onnx/embed_tokens.onnx");
        assert!(model.files(Some("fp8")).is_err());
        let single = find("whisper-base").expect("known").files(Some("fp16"));
        assert!(
            single
                .expect_err("one")
                .to_string()
                .contains("one precision")
        );
        let unknown = find("gpt").expect_err("unknown").to_string();
        assert!(
            unknown.contains("demo-vlm") && unknown.contains("bge-small-en"),
            "{unknown}"
        );
    }
}
