//! The models file: which models describe, transcribe and embed, in TOML.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use sightline_inference::Device;
use sightline_inference::vlm::{Precision, View};

use super::{Describe, Embed, Local, Models, Remote, Source, Transcribe};

/// How long a remote server may take for an answer unless the file says otherwise.
const TIMEOUT: u64 = 30;
/// How many requests a remote server gets side by side unless the file says otherwise.
const CONCURRENCY: usize = 8;
/// Vectors of the smallest and of the largest models.
const DIMENSIONS: std::ops::RangeInclusive<usize> = 1..=65_536;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    describe: Vec<Entry>,
    transcribe: Option<Entry>,
    embed: Option<Entry>,
}

/// An entry of any kind; what does not belong to its kind is refused by name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: Option<String>,
    path: Option<PathBuf>,
    precision: Option<String>,
    threads: Option<usize>,
    device: Option<String>,
    max_batch: Option<usize>,
    cache_tokens: Option<usize>,
    view: Option<String>,
    reads_text: Option<bool>,
    url: Option<String>,
    model: Option<String>,
    key_file: Option<PathBuf>,
    concurrency: Option<usize>,
    timeout_s: Option<u64>,
    multilingual: Option<bool>,
    dimension: Option<usize>,
}

/// Keys of entries with a path, and of entries with a url.
const LOCAL: &[&str] = &[
    "precision",
    "threads",
    "device",
    "max_batch",
    "cache_tokens",
    "view",
];
const REMOTE: &[&str] = &["model", "key_file", "concurrency", "timeout_s"];

/// Reads the models file; what it leaves out is as in `usual`.
///
/// # Errors
/// When it can't be read or used; the error names the entry, the key, and what is allowed.
pub fn read(file: &Path, usual: Models) -> Result<Models> {
    let text = std::fs::read_to_string(file)
        .with_context(|| format!("cannot read the models file {}", file.display()))?;
    let dir = file.parent().unwrap_or(Path::new(""));
    parse(&text, dir, usual)
        .with_context(|| format!("the models file {} cannot be used", file.display()))
}

pub(super) fn parse(text: &str, dir: &Path, usual: Models) -> Result<Models> {
    let file: File = toml::from_str(text)?;
    let mut models = usual;
    let mut describe = Vec::new();
    for (at, entry) in file.describe.into_iter().enumerate() {
        let called = entry.name.clone().unwrap_or_default();
        let what = format!("[[describe]] number {} ({called:?})", at + 1);
        describe.push(describing(entry, dir).context(what)?);
    }
    for (at, model) in describe.iter().enumerate() {
        let again = describe[..at]
            .iter()
            .any(|before: &Describe| before.name == model.name);
        ensure!(
            !again,
            "two [[describe]] are called {:?}: give each a name of its own",
            model.name
        );
    }
    if !describe.is_empty() {
        models.describe = describe;
    }
    if let Some(entry) = file.transcribe {
        models.transcribe = transcribing(entry, dir).context("[transcribe]")?;
    }
    if let Some(entry) = file.embed {
        models.embed = embedding(entry, dir).context("[embed]")?;
    }
    Ok(models)
}

fn describing(entry: Entry, dir: &Path) -> Result<Describe> {
    entry.refuse(&["multilingual", "dimension"])?;
    let name = entry.name.clone().or_else(|| entry.last_part());
    let name = name.context("it needs a name: indexes call it so")?;
    super::check_name(&name)?;
    let source = entry.source(dir)?;
    Ok(Describe {
        name,
        // Every chat model reads text; small ones for pictures were often never taught to.
        reads_text: entry
            .reads_text
            .unwrap_or(matches!(source, Source::Remote(_))),
        source,
    })
}

fn transcribing(entry: Entry, dir: &Path) -> Result<Transcribe> {
    entry.refuse(&[
        "reads_text",
        "dimension",
        "precision",
        "max_batch",
        "cache_tokens",
        "view",
    ])?;
    Ok(Transcribe {
        name: entry
            .name
            .clone()
            .or_else(|| entry.last_part())
            .unwrap_or_default(),
        multilingual: entry.multilingual,
        source: entry.source(dir)?,
    })
}

fn embedding(entry: Entry, dir: &Path) -> Result<Embed> {
    entry.refuse(&[
        "reads_text",
        "multilingual",
        "precision",
        "max_batch",
        "cache_tokens",
        "view",
    ])?;
    let source = entry.source(dir)?;
    let dimension = match (&source, entry.dimension) {
        (Source::Local(_), Some(_)) => {
            bail!("dimension goes with url: a model in a directory says it itself")
        }
        (Source::Local(_), None) => None,
        (Source::Remote(_), Some(size)) if DIMENSIONS.contains(&size) => Some(size),
        (Source::Remote(_), _) => bail!(
            "an embedder with a url needs its dimension, the length of its vectors: {} to {}",
            DIMENSIONS.start(),
            DIMENSIONS.end()
        ),
    };
    Ok(Embed {
        name: entry
            .name
            .clone()
            .or_else(|| entry.last_part())
            .unwrap_or_default(),
        dimension: dimension.unwrap_or_default(),
        source,
    })
}

impl Entry {
    /// What a model without a name is called: as its directory or file, or as its server calls it.
    fn last_part(&self) -> Option<String> {
        let named = self.path.as_deref().map(super::last_part);
        named.or_else(|| self.model.clone())
    }

    fn source(&self, dir: &Path) -> Result<Source> {
        match (&self.path, &self.url) {
            (Some(path), None) => {
                self.refuse_with(REMOTE, "goes with url, and this entry has a path")?;
                Ok(Source::Local(self.local(dir.join(path))?))
            }
            (None, Some(url)) => {
                self.refuse_with(LOCAL, "goes with path, and this entry has a url")?;
                Ok(Source::Remote(self.remote(url, dir)?))
            }
            _ => bail!(
                "it needs a path (a model on this machine) or a url (a model on a server), not both"
            ),
        }
    }

    fn local(&self, path: PathBuf) -> Result<Local> {
        let usual = Local::at(path);
        let precision = self
            .precision
            .as_deref()
            .map(str::parse::<Precision>)
            .transpose();
        let device = self.device.as_deref().map(str::parse::<Device>).transpose();
        Ok(Local {
            precision: precision.context("precision")?.unwrap_or(usual.precision),
            threads: at_least_one("threads", self.threads)?,
            device: device
                .map_err(anyhow::Error::msg)
                .context("device")?
                .unwrap_or(usual.device),
            max_batch: at_least_one("max_batch", self.max_batch)?,
            cache_tokens: at_least_one("cache_tokens", self.cache_tokens)?,
            view: match self.view.as_deref() {
                None => usual.view,
                Some("video") => View::Video,
                Some("images") => View::Images,
                Some("tiles") => View::Tiles,
                Some(other) => bail!("no view {other:?}; there are video, images and tiles"),
            },
            path: usual.path,
        })
    }

    fn remote(&self, url: &str, dir: &Path) -> Result<Remote> {
        let parsed = url::Url::parse(url).ok();
        let usable =
            parsed.is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        ensure!(
            usable,
            "url {url:?} cannot be used: write http://HOST:PORT/v1 or https://HOST/v1"
        );
        let model = self.model.clone();
        Ok(Remote {
            url: url.trim_end_matches('/').to_owned(),
            model: model
                .context("an entry with a url needs model, the name that the server knows it by")?,
            key_file: self.key_file.as_ref().map(|file| dir.join(file)),
            concurrency: at_least_one("concurrency", self.concurrency)?.unwrap_or(CONCURRENCY),
            timeout: Duration::from_secs(match self.timeout_s.unwrap_or(TIMEOUT) {
                seconds @ 1..=3600 => seconds,
                other => bail!("timeout_s is {other}: write 1 to 3600"),
            }),
        })
    }

    /// Refuses keys that entries of this kind do not have.
    fn refuse(&self, keys: &[&str]) -> Result<()> {
        self.refuse_with(keys, "is not for entries of this kind")
    }

    fn refuse_with(&self, keys: &[&str], why: &str) -> Result<()> {
        match self.given().find(|key| keys.contains(key)) {
            Some(key) => bail!("{key} {why}"),
            None => Ok(()),
        }
    }

    /// The keys that were given.
    fn given(&self) -> impl Iterator<Item = &'static str> {
        [
            ("precision", self.precision.is_some()),
            ("threads", self.threads.is_some()),
            ("device", self.device.is_some()),
            ("max_batch", self.max_batch.is_some()),
            ("cache_tokens", self.cache_tokens.is_some()),
            ("view", self.view.is_some()),
            ("reads_text", self.reads_text.is_some()),
            ("model", self.model.is_some()),
            ("key_file", self.key_file.is_some()),
            ("concurrency", self.concurrency.is_some()),
            ("timeout_s", self.timeout_s.is_some()),
            ("multilingual", self.multilingual.is_some()),
            ("dimension", self.dimension.is_some()),
        ]
        .into_iter()
        .filter_map(|(key, given)| given.then_some(key))
    }
}

fn at_least_one(key: &str, value: Option<usize>) -> Result<Option<usize>> {
    ensure!(value != Some(0), "{key} is 0: write 1 or more");
    Ok(value)
}
