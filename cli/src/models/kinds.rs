//! What a process is told of its models: which there are of each kind, where they are and how they are run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use sightline_inference::Device;
use sightline_inference::vlm::{Precision, View};

/// The models of this process. What is missing of them shows when they are loaded.
#[derive(Debug, Clone)]
pub struct Models {
    /// The models that describe, the default first; at least one.
    pub describe: Vec<Describe>,
    /// The model that transcribes.
    pub transcribe: Transcribe,
    /// The model that embeds.
    pub embed: Embed,
    pub(super) runtime: Option<PathBuf>,
}

/// A model that looks at windows.
#[derive(Debug, Clone)]
pub struct Describe {
    /// Its name, as indexes give it.
    pub name: String,
    /// Whether it answers about text alone.
    pub reads_text: bool,
    /// Where it is.
    pub source: Source,
}

/// A model that writes down speech.
#[derive(Debug, Clone)]
pub struct Transcribe {
    /// Its name, for people.
    pub name: String,
    /// Where it is.
    pub source: Source,
    pub(super) multilingual: Option<bool>,
}

/// A model that turns texts into vectors.
#[derive(Debug, Clone)]
pub struct Embed {
    /// Its name, for people.
    pub name: String,
    /// Where it is.
    pub source: Source,
    /// The length of its vectors, where it is on a server.
    pub dimension: usize,
}

/// Where a model is.
#[derive(Debug, Clone)]
pub enum Source {
    /// On this machine.
    Local(Local),
    /// On a server with OpenAI's interface.
    Remote(Remote),
}

/// A model on this machine, and how it is run.
#[derive(Debug, Clone)]
pub struct Local {
    /// Its directory or file.
    pub path: PathBuf,
    /// Which of its weights.
    pub precision: Precision,
    /// Threads of one computation; as [`Models::threads`] says if unset.
    pub threads: Option<usize>,
    /// Where it computes.
    pub device: Device,
    /// Most answers that are decoded together; the engine's default if unset.
    pub max_batch: Option<usize>,
    /// Tokens that its caches may hold; the engine's default if unset.
    pub cache_tokens: Option<usize>,
    /// How frames are shown to it.
    pub view: View,
}

/// A model on a server.
#[derive(Debug, Clone)]
pub struct Remote {
    /// The server's address up to the version.
    pub url: String,
    /// What the server calls the model.
    pub model: String,
    /// The file with the key.
    pub key_file: Option<PathBuf>,
    /// How many requests it gets side by side.
    pub concurrency: usize,
    /// How long it may take for an answer.
    pub timeout: Duration,
}

impl Local {
    /// A model run as usual.
    pub(super) fn at(path: PathBuf) -> Self {
        Self {
            path,
            precision: Precision::Fp32,
            threads: None,
            device: Device::default(),
            max_batch: None,
            cache_tokens: None,
            view: View::default(),
        }
    }
}

/// What a model is called that nobody gave a name: as its directory, or as its file without the ending.
pub(super) fn last_part(path: &Path) -> String {
    let name = path.file_name().map(|n| n.to_string_lossy().into_owned());
    let name = name.unwrap_or_default();
    name.strip_suffix(".bin")
        .map_or(name.clone(), str::to_owned)
}

/// Refuses names of describing models that can't be tokens of a subject.
pub(super) fn check_name(name: &str) -> Result<()> {
    let sound = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if !sound {
        bail!(
            "{name:?} cannot be the name of a model, which is letters, digits, - and _: give it another in the models file, or \
             rename its directory"
        );
    }
    Ok(())
}
