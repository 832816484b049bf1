//! Models: which ones this process is told to use, and the commands about them.

mod commands;
mod file;
#[cfg(test)]
mod file_tests;
mod hub;
mod kinds;
mod listing;
mod loading;
mod pull;
#[cfg(test)]
mod pull_tests;
mod registry;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sightline_inference::vlm::engine::EngineOptions;

use crate::args::ModelArgs;
use crate::files;

pub use commands::{ModelsArgs, run};
pub use kinds::{Describe, Embed, Local, Models, Remote, Source, Transcribe};
use kinds::{check_name, last_part};
pub use loading::{describer, embedder, transcriber};

impl Local {
    fn engine(&self, reads_text: bool) -> EngineOptions {
        let usual = EngineOptions::default();
        EngineOptions {
            max_batch: self.max_batch.unwrap_or(usual.max_batch),
            cache_tokens: self.cache_tokens.unwrap_or(usual.cache_tokens),
            reads_text,
            view: self.view,
            ..usual
        }
    }
}

impl Models {
    /// What the models file and the command line name, and the demo models for what they do not.
    ///
    /// # Errors
    /// When the models file can't be used, or a name can't be a token of a subject; the error says what to do.
    pub fn locate(args: &ModelArgs) -> Result<Self> {
        let models = args
            .models_dir
            .clone()
            .unwrap_or_else(|| files::shipped("models"));
        let or = |named: &Option<PathBuf>, usual: &str| {
            named.clone().unwrap_or_else(|| models.join(usual))
        };
        let vlm = or(&args.vlm, "demo-vlm");
        let whisper = or(&args.whisper, "demo-whisper/ggml-demo.en-q5_1.bin");
        let embedder = or(&args.embedder, "all-minilm-l6-v2");
        let found = Self {
            describe: vec![Describe {
                name: last_part(&vlm),
                reads_text: false,
                source: Source::Local(Local::at(vlm)),
            }],
            transcribe: Transcribe {
                name: last_part(&whisper),
                multilingual: None,
                source: Source::Local(Local::at(whisper)),
            },
            embed: Embed {
                name: last_part(&embedder),
                source: Source::Local(Local::at(embedder)),
                dimension: 0,
            },
            runtime: args.onnxruntime.clone().or_else(files::installed_runtime),
        };
        let found = match &args.models_file {
            Some(file) => file::read(file, found)?,
            None => found,
        };
        check_name(&found.describe[0].name)?;
        Ok(found)
    }

    /// What a gateway alone is told: the models file of the workers, or no more than the names of their models.
    ///
    /// # Errors
    /// As [`Self::locate`].
    pub fn named(models_file: Option<&Path>, names: &[String]) -> Result<Self> {
        let args = ModelArgs {
            models_file: models_file.map(Path::to_owned),
            ..ModelArgs::default()
        };
        let mut models = Self::locate(&args)?;
        if models_file.is_none() {
            let usual = models.describe[0].clone();
            let called = |name: &String| Describe {
                name: name.clone(),
                ..usual.clone()
            };
            models.describe = names.iter().map(called).collect();
        }
        Ok(models)
    }

    /// These models with `name` alone to describe.
    ///
    /// # Errors
    /// When none is called so; the error lists those that are.
    pub fn only(mut self, name: &str) -> Result<Self> {
        let known: Vec<_> = self.describe.iter().map(|m| m.name.clone()).collect();
        self.describe.retain(|model| model.name == name);
        if self.describe.is_empty() {
            bail!(
                "no model is called {name:?}; there are {}",
                known.join(", ")
            );
        }
        Ok(self)
    }

    /// What the gateway is told of the models that describe.
    pub fn describing(&self) -> Vec<sightline_gateway::DescribingModel> {
        let told = |model: &Describe| sightline_gateway::DescribingModel {
            name: model.name.clone(),
            reads_text: model.reads_text,
        };
        self.describe.iter().map(told).collect()
    }

    /// ONNX Runtime's shared library.
    ///
    /// # Errors
    /// When none is named and none was installed.
    pub fn runtime(&self) -> Result<&Path> {
        self.runtime.as_deref().context(
            "ONNX Runtime was not found: run `make setup`, or name libonnxruntime.so (1.24 or newer) with --onnxruntime",
        )
    }

    /// Threads of a describing model that says nothing itself: those that compute here share `cores`, and more than 8 do not
    /// make a token come sooner.
    fn threads(&self, cores: usize) -> usize {
        let local = |model: &&Describe| matches!(model.source, Source::Local(_));
        let models = self.describe.iter().filter(local).count().max(1);
        (cores / models).clamp(1, 8)
    }
}

impl Transcribe {
    /// Whether it knows other languages than English: what the file says, else what the model's own says, else that a
    /// server's does and a model that is not on this machine does not.
    pub fn multilingual(&self) -> bool {
        let known = || match &self.source {
            Source::Remote(_) => true,
            Source::Local(local) => {
                vocabulary(&local.path).is_some_and(|size| size >= MULTILINGUAL)
            }
        };
        self.multilingual.unwrap_or_else(known)
    }
}

/// Tokens of Whisper's smallest multilingual vocabulary; the English one has one less.
const MULTILINGUAL: i32 = 51_865;

/// The size of the vocabulary, which a ggml file says right after its first four bytes.
fn vocabulary(file: &Path) -> Option<i32> {
    use std::io::Read;
    let mut head = [0; 8];
    std::fs::File::open(file).ok()?.read_exact(&mut head).ok()?;
    let size = head.strip_prefix(b"lmgg")?;
    Some(i32::from_le_bytes(size.try_into().ok()?))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn usual() -> Models {
        Models::locate(&ModelArgs::default()).expect("the demo models")
    }

    #[test]
    fn without_a_file_there_are_the_demo_models() {
        let models = usual();
        assert_eq!(models.describing()[0].name, "demo-vlm");
        assert_eq!(models.embed.name, "all-minilm-l6-v2");
        assert!(!models.transcribe.multilingual());
        assert_eq!(
            models
                .clone()
                .only("demo-vlm")
                .expect("known")
                .describe
                .len(),
            1
        );
        let unknown = models.only("other").expect_err("unknown").to_string();
        assert!(unknown.contains("there are demo-vlm"), "{unknown}");
    }

    #[test]
    fn names_are_tokens() {
        for (dir, sound) in [
            ("models/demo-vlm", true),
            ("SmolVLM2_500M", true),
            ("a.b", false),
            ("a b", false),
            ("/", false),
        ] {
            let args = ModelArgs {
                vlm: Some(dir.into()),
                ..ModelArgs::default()
            };
            assert_eq!(Models::locate(&args).is_ok(), sound, "{dir}");
        }
    }

    #[test]
    fn cores_are_shared_among_the_models_of_a_machine() {
        let mut models = usual();
        assert_eq!(models.threads(8), 8);
        models.describe = vec![models.describe[0].clone(); 3];
        assert_eq!([2, 8, 64].map(|cores| models.threads(cores)), [1, 2, 8]);
    }
}
