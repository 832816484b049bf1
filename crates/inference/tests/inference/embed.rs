//! The sentence embedding model against the vectors of its fp32 original (`golden.json`).

use std::fs;
use std::path::Path;

use serde::Deserialize;
use sightline_inference::Embedder;
use sightline_inference::embed::TextEmbedder;

use crate::support::{copy_of, init_runtime, json, models};

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

/// A directory's own files say how it is used: pooling, prefixes, length and the names of its weights.
#[test]
fn a_directory_says_how_its_model_is_used() {
    let mean = load();
    let texts = ["a white car".to_owned(), "a dog on the grass".to_owned()];
    let copy = |change: &dyn Fn(&Path)| {
        let copy = copy_of("all-minilm-l6-v2");
        change(copy.path());
        TextEmbedder::load(copy.path(), 1).map(|model| (model, copy))
    };
    let pooling = |mode: &'static str| {
        copy(&move |dir| {
            fs::create_dir(dir.join("1_Pooling")).unwrap();
            let config = format!("{{\"pooling_mode_{mode}\": true}}");
            fs::write(dir.join("1_Pooling/config.json"), config).unwrap();
        })
    };
    let (same, _dir) = pooling("mean_tokens").unwrap();
    assert_eq!(same.revision(), mean.revision());
    let (first, _dir) = pooling("cls_token").unwrap();
    assert_ne!(first.revision(), mean.revision());
    let (means, firsts) = (mean.embed(&texts).unwrap(), first.embed(&texts).unwrap());
    assert!((dot(&firsts[0], &firsts[0]) - 1.0).abs() < 1e-4);
    assert!(dot(&firsts[0], &means[0]) < 0.99);
    let refused = pooling("max_tokens").err().unwrap().to_string();
    assert!(refused.contains("1_Pooling/config.json"), "{refused}");

    let (prompted, _dir) = copy(&|dir| {
        let prompts = r#"{"prompts": {"query": "query: ", "document": "passage: "}}"#;
        fs::write(dir.join("config_sentence_transformers.json"), prompts).unwrap();
        fs::create_dir(dir.join("onnx")).unwrap();
        fs::rename(
            dir.join("model.onnx"),
            dir.join("onnx/model_quantized.onnx"),
        )
        .unwrap();
    })
    .unwrap();
    assert_ne!(prompted.revision(), mean.revision());
    let with = |prefix: &str| texts.clone().map(|text| format!("{prefix}{text}"));
    let passages = mean.embed(&with("passage: ")).unwrap();
    let queries = mean.embed(&with("query: ")).unwrap();
    assert_eq!(prompted.embed(&texts).unwrap(), passages);
    assert_eq!(prompted.embed_queries(&texts).unwrap(), queries);

    let (short, _dir) = copy(&|dir| {
        let config = r#"{"max_seq_length": 4}"#;
        fs::write(dir.join("sentence_bert_config.json"), config).unwrap();
    })
    .unwrap();
    let cut = short.embed(&["a white car".to_owned(), "a white dog".to_owned()]);
    let cut = cut.unwrap();
    assert!(dot(&cut[0], &cut[1]) > 0.9999);
}
