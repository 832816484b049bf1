//! Texts into vectors by a remote model.

use serde_json::json;
use tokio::runtime::Handle;

use super::client::{Client, Post};
use super::error::RemoteError;
use super::vectors::vectors;
use crate::{Embedder, InferenceError};

const PATH: &str = "/embeddings";
/// Texts of one request: what Text Embeddings Inference takes unless it is told otherwise.
const BATCH: usize = 32;
/// Longer texts are cut, as the local embedder does: many models take 512 tokens and refuse more.
const MAX_CHARS: usize = 1_500;
/// What is refused and no longer than this is not refused for its length.
const MIN_CHARS: usize = 50;

/// An embedding model behind `/embeddings`.
pub struct RemoteEmbedder {
    client: Client,
    dimension: usize,
    revision: String,
    handle: Handle,
}

impl RemoteEmbedder {
    /// Embeds a word, to see that vectors have `dimension` numbers. [`Embedder::embed`] waits for requests on `handle`.
    ///
    /// # Errors
    /// When the model gives no vectors, or vectors of another length.
    pub async fn connect(
        client: Client,
        dimension: usize,
        handle: Handle,
    ) -> Result<Self, InferenceError> {
        let embedder = Self {
            revision: client.revision("embed 1"),
            client,
            dimension,
            handle,
        };
        embedder.batch(&["dimension"]).await?;
        Ok(embedder)
    }

    /// A text that the model refuses must not cost the others their vectors, now and each time they come again: then every
    /// text is asked about by itself, and halved until it is taken.
    async fn all(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, RemoteError> {
        match self.batch(texts).await {
            Err(RemoteError::Refused { .. }) => {}
            answer => return answer,
        }
        let mut vectors = Vec::with_capacity(texts.len());
        for &text in texts {
            vectors.extend(self.shortened(text).await?);
        }
        Ok(vectors)
    }

    async fn shortened(&self, text: &str) -> Result<Vec<Vec<f32>>, RemoteError> {
        let mut chars = text.chars().count();
        loop {
            match self.batch(&[cut(text, chars)]).await {
                Err(RemoteError::Refused { .. }) if chars > MIN_CHARS => chars /= 2,
                answer => return answer,
            }
        }
    }

    async fn batch(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, RemoteError> {
        let request = json!({
            "model": self.client.model(),
            "input": texts,
            "encoding_format": "float",
        });
        let slot = self.client.slot().await;
        let answer = self.client.post(&Post::json(PATH, &request), &slot).await?;
        let url = self.client.url(PATH);
        vectors(&answer, texts.len(), self.dimension)
            .map_err(|problem| RemoteError::answer(&url, problem))
    }
}

impl Embedder for RemoteEmbedder {
    fn revision(&self) -> &str {
        &self.revision
    }

    fn dimension(&self) -> usize {
        self.dimension
    }

    fn embed(&self, texts: &[String]) -> Result<Vec<Vec<f32>>, InferenceError> {
        self.handle.block_on(async {
            let mut all = Vec::with_capacity(texts.len());
            for batch in texts.chunks(BATCH) {
                let batch: Vec<_> = batch.iter().map(|text| cut(text, MAX_CHARS)).collect();
                all.extend(self.all(&batch).await?);
            }
            Ok(all)
        })
    }
}

fn cut(text: &str, chars: usize) -> &str {
    match text.char_indices().nth(chars) {
        Some((end, _)) => &text[..end],
        // Some servers refuse an empty text.
        None if text.is_empty() => " ",
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut(&"ä".repeat(9), 4), "ääää");
        assert_eq!((cut("short", 5), cut("", 5)), ("short", " "));
    }
}
