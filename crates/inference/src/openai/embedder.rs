//! Texts into vectors by a remote model.

use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::client::{Client, Post};
use super::error::RemoteError;
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

/// The vectors of an answer in the order of the texts, each of length 1; Err: what is wrong with it.
fn vectors(answer: &Value, texts: usize, dimension: usize) -> Result<Vec<Vec<f32>>, String> {
    let data = answer["data"].as_array().ok_or("it has no field data")?;
    if data.len() != texts {
        return Err(format!("it has {} vectors for {texts} texts", data.len()));
    }
    let mut ordered = vec![Vec::new(); texts];
    for (position, item) in data.iter().enumerate() {
        let index = item["index"]
            .as_u64()
            .map_or(position, |index| index as usize);
        let vector = item["embedding"].as_array().ok_or("a vector is no list")?;
        if vector.len() != dimension {
            let found = vector.len();
            return Err(format!(
                "its vectors have {found} numbers and not {dimension}: set dimension to {found}, or name another model"
            ));
        }
        let place = ordered.get_mut(index).ok_or("an index is out of range")?;
        *place = unit(vector)?;
    }
    if ordered.iter().any(Vec::is_empty) {
        return Err("it has two vectors for one text".to_owned());
    }
    Ok(ordered)
}

fn unit(vector: &[Value]) -> Result<Vec<f32>, String> {
    let numbers: Option<Vec<f64>> = vector.iter().map(Value::as_f64).collect();
    let numbers = numbers.ok_or("a vector has something else than numbers")?;
    let length = numbers.iter().map(|n| n * n).sum::<f64>().sqrt();
    if !(length.is_finite() && length > 0.0) {
        return Err("a vector has no length".to_owned());
    }
    Ok(numbers.iter().map(|n| (n / length) as f32).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_come_in_the_order_of_the_texts_and_are_checked() {
        let check = |data: Value, expected: Result<Vec<Vec<f32>>, &str>| {
            let found = vectors(&json!({"data": data}), 2, 2);
            match expected {
                Ok(vectors) => assert_eq!(found, Ok(vectors)),
                Err(part) => assert!(found.as_ref().is_err_and(|e| e.contains(part)), "{found:?}"),
            }
        };
        let item = |index: usize, vector: Value| json!({"index": index, "embedding": vector});
        let both = json!([item(1, json!([0, 2])), item(0, json!([3, 4]))]);
        check(both, Ok(vec![vec![0.6, 0.8], vec![0.0, 1.0]]));
        check(json!(null), Err("no field data"));
        check(
            json!([item(0, json!([1, 0]))]),
            Err("1 vectors for 2 texts"),
        );
        let with = |second: Value| json!([item(0, json!([1, 0])), second]);
        check(with(item(1, json!([1, 0, 0]))), Err("set dimension to 3"));
        check(with(item(0, json!([1, 0]))), Err("two vectors"));
        check(with(item(2, json!([1, 0]))), Err("out of range"));
        check(with(item(1, json!([0, 0]))), Err("no length"));
        check(with(item(1, json!(["1", 0]))), Err("numbers"));
        check(with(item(1, json!("AAAA"))), Err("no list"));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut(&"ä".repeat(9), 4), "ääää");
        assert_eq!((cut("short", 5), cut("", 5)), ("short", " "));
    }
}
