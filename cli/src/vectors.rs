//! Where vectors are kept: in the data directory, or on a Qdrant server.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use sightline_embeddings::Loader;
use sightline_inference::embed::TextEmbedder;
use sightline_inference::{Embedder, Placed, onnx};
use sightline_vectors::{EdgeStores, EmbeddingModel, Layout, QdrantConfig, QdrantStores, Stores};

use crate::files;
use crate::models::Source;

/// A Qdrant server, if vectors are kept on one.
#[derive(Debug, Clone, Default, Args)]
pub struct VectorArgs {
    /// A Qdrant server's gRPC address, for example http://127.0.0.1:6334; without it vectors are kept in the data directory.
    #[arg(long, value_name = "URL", env = "QDRANT_URL")]
    pub qdrant_url: Option<String>,
    /// A file with the server's API key.
    #[arg(long, value_name = "FILE", env = "QDRANT_API_KEY_FILE")]
    pub qdrant_key_file: Option<PathBuf>,
    /// What the names of its collections begin with: deployments that share a server need one each.
    #[arg(long, value_name = "NAME", default_value = "sightline")]
    pub qdrant_collection: Option<String>,
    #[command(flatten)]
    pub layout: LayoutArgs,
}

/// How collections are made on the server; `sightline reindex` brings one that is there into another form.
#[derive(Debug, Clone, Default, Args)]
pub struct LayoutArgs {
    /// Over how many shards a new collection is spread.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub qdrant_shards: Option<u32>,
    /// How many servers have each shard of a new collection.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub qdrant_replicas: Option<u32>,
    /// How many of them must have a write before it counts.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    pub qdrant_write_consistency: Option<u32>,
    /// Search a new collection's vectors in int8, which takes a quarter of the memory; the exact ones are kept on disk.
    #[arg(long)]
    pub qdrant_int8: bool,
    /// Keep a new collection's records on disk rather than in memory.
    #[arg(long)]
    pub qdrant_payload_on_disk: bool,
}

impl VectorArgs {
    /// The stores of this process: on the server, or in `dir`, which is then locked.
    ///
    /// # Errors
    /// When another process has the directory, or the key can't be read.
    pub fn stores(&self, dir: &Path) -> Result<Arc<dyn Stores>> {
        Ok(match self.server()? {
            Some(server) => Arc::new(server),
            None => Arc::new(EdgeStores::lock(dir)?),
        })
    }

    /// The stores on the server, if one is named.
    ///
    /// # Errors
    /// When its address is none, or the key can't be read.
    pub fn server(&self) -> Result<Option<QdrantStores>> {
        let Some(url) = &self.qdrant_url else {
            return Ok(None);
        };
        let config = QdrantConfig {
            url: url.clone(),
            api_key: self.qdrant_key_file.as_deref().map(read_key).transpose()?,
            collection: self
                .qdrant_collection
                .clone()
                .unwrap_or_else(|| "sightline".to_owned()),
            layout: Layout {
                shards: self.layout.qdrant_shards,
                replicas: self.layout.qdrant_replicas,
                write_consistency: self.layout.qdrant_write_consistency,
                quantized: self.layout.qdrant_int8,
                on_disk_payload: self.layout.qdrant_payload_on_disk,
            },
        };
        Ok(Some(QdrantStores::new(config)?))
    }
}

fn read_key(file: &Path) -> Result<String> {
    let key = fs::read_to_string(file);
    let key = key.with_context(|| format!("cannot read the key in {}", file.display()))?;
    let key = key.trim();
    if key.is_empty() {
        bail!("{} holds no key", file.display());
    }
    Ok(key.to_owned())
}

/// What a store remembers of where its model is.
pub fn source(source: &Source) -> String {
    match source {
        Source::Local(local) => {
            let absolute = local.path.canonicalize();
            let absolute = absolute.unwrap_or_else(|_| local.path.clone());
            absolute.display().to_string()
        }
        Source::Remote(remote) => format!("{} of {}", remote.model, remote.url),
    }
}

/// Loads the model of a store that another model is to replace: from where the store says that it was, or else the model that
/// comes with the product, which stores of older releases hold without saying so.
pub fn loader(runtime: Option<PathBuf>) -> Loader {
    let shipped = files::shipped("models").join("all-minilm-l6-v2");
    Arc::new(move |model: &EmbeddingModel| {
        if let Some(runtime) = &runtime {
            onnx::init(runtime).ok()?;
        }
        let named = (!model.source.is_empty()).then(|| PathBuf::from(&model.source));
        let candidates = named.into_iter().chain([shipped.clone()]);
        candidates
            .filter_map(|dir| TextEmbedder::load_on(&dir, Placed::Cpu, 1).ok())
            .find(|embedder| embedder.revision() == model.revision)
            .map(|embedder| Arc::new(embedder) as Arc<dyn Embedder>)
    })
}
