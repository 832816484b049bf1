//! The sentence embedding model against the vectors of its fp32 original (`golden.json`).

use serde::Deserialize;
use sightline_inference::Embedder;
use sightline_inference::embed::TextEmbedder;

use crate::support::{init_runtime, json, models};

#[derive(Deserialize)]
struct Golden {
    dimension: usize,
    sentences: Vec<String>,
    fp32: Vec<Vec<f32>>,
}

fn load() -> TextEmbedder {
    init_runtime();
    TextEmbedder::load(&models().join("all-minilm-l6-v2"), 1).unwrap()
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn vectors_equal_the_original_model() {
    let model = load();
    let golden: Golden = json(&models().join("all-minilm-l6-v2/golden.json"));
    assert_eq!(model.dimension(), golden.dimension);
    assert_eq!(model.revision().len(), 16);
    let vectors = model.embed(&golden.sentences).unwrap();
    assert_eq!(vectors.len(), golden.fp32.len());
    for (i, (found, expected)) in vectors.iter().zip(&golden.fp32).enumerate() {
        assert!((dot(found, found) - 1.0).abs() < 1e-4);
        let cosine = dot(found, expected) / dot(expected, expected).sqrt();
        assert!(cosine >= 0.9995, "{}: {cosine}", golden.sentences[i]);
    }
}

#[test]
fn a_text_has_one_vector_whatever_it_is_batched_with() {
    let model = load();
    assert_eq!(model.embed(&[]).unwrap(), Vec::<Vec<f32>>::new());
    let text = "a white car moving fast".to_owned();
    let alone = model.embed(std::slice::from_ref(&text)).unwrap().remove(0);
    let long = "traffic ".repeat(1000);
    let texts: Vec<String> = (0..5).flat_map(|_| [text.clone(), long.clone()]).collect();
    for vector in model.embed(&texts).unwrap().iter().step_by(2) {
        assert!(dot(vector, &alone) > 0.99999);
    }
}
