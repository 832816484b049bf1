//! An embedding model's directory.

use std::path::PathBuf;
use std::sync::OnceLock;

use self::layout::Layout;

#[path = "../../crates/inference/src/embed/layout.rs"]
mod layout;

/// What is read of it; the first byte chooses which.
const FILES: [&str; 5] = [
    "config.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
    "model.onnx",
];
const USUAL: &str =
    r#"{"_name_or_path": "intfloat/multilingual-e5-small", "max_position_embeddings": 512}"#;

/// What a directory says of its model, with one of its files as given.
pub fn embedding_models(data: &[u8]) {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let at = DIRECTORY.get_or_init(|| {
        let name = format!("sightline-fuzz-{}-embed", std::process::id());
        let at = std::env::temp_dir().join(name);
        std::fs::create_dir_all(at.join("1_Pooling")).expect("made");
        std::fs::write(at.join(FILES[0]), USUAL).expect("written");
        std::fs::write(at.join(FILES[4]), "").expect("written");
        at
    });
    let Some((kind, content)) = data.split_first() else {
        return;
    };
    let name = FILES[usize::from(*kind) % FILES.len()];
    std::fs::write(at.join(name), content).expect("written");
    match Layout::read(at) {
        Ok(layout) => {
            assert!(layout.max_tokens > 0 && layout.label().starts_with("text-embedder "));
        }
        Err(error) => assert!(error.to_string().contains(name), "{error}"),
    }
    match name {
        "config.json" => std::fs::write(at.join(name), USUAL).expect("written"),
        "model.onnx" => std::fs::write(at.join(name), "").expect("written"),
        _ => std::fs::remove_file(at.join(name)).expect("removed"),
    }
}
