//! A vision-language model's directory, and its graph of pictures.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::json;

use self::chat::Chat;
use self::files::Directory;
use crate::{InferenceError, RgbImage};

#[path = "../../crates/inference/src/vlm/chat.rs"]
mod chat;
#[path = "../../crates/inference/src/vlm/family/mod.rs"]
mod family;
#[path = "../../crates/inference/src/vlm/files.rs"]
mod files;
#[path = "../../crates/inference/src/vlm/fuse/mod.rs"]
mod fuse;
#[path = "../../crates/inference/src/vlm/precision.rs"]
mod precision;

pub use family::View;
pub use precision::Precision;

/// What a graph is given; graphs themselves are ONNX Runtime's.
mod graph {
    pub(super) enum Input {
        F32(Vec<usize>, Vec<f32>),
        I64(Vec<usize>, Vec<i64>),
        Bool(Vec<usize>, Vec<bool>),
    }
}

/// What is read of a directory. The first byte chooses one, and the family by whose other files it is read; the last choice is the
/// graph of pictures. tokenizer.json is a library's own.
const FILES: [&str; 6] = [
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "generation_config.json",
    "chat_template.json",
    "tokenizer_config.json",
];
/// Pictures that take long to scale are not.
const LARGE: i64 = 256;

/// Directories of both families, written once a process: small in everything, so that many are read in a second.
fn directory(qwen: bool) -> &'static Path {
    static DIRECTORIES: OnceLock<[PathBuf; 2]> = OnceLock::new();
    let made = DIRECTORIES.get_or_init(|| {
        [false, true].map(|qwen| {
            let name = format!("sightline-fuzz-{}-{qwen}", std::process::id());
            let to = std::env::temp_dir().join(name);
            std::fs::create_dir_all(&to).expect("made");
            for name in FILES {
                restore(&to, name, qwen);
            }
            std::fs::write(to.join("tokenizer.json"), tokenizer()).expect("written");
            to
        })
    });
    &made[usize::from(qwen)]
}

fn restore(to: &Path, name: &str, qwen: bool) {
    let usual = match (name, qwen) {
        ("config.json", false) => {
            r#"{"model_type": "smolvlm", "text_config": {"max_position_embeddings": 2048}}"#
        }
        ("config.json", true) => r#"{"model_type": "qwen2_vl", "max_position_embeddings": 4096}"#,
        ("preprocessor_config.json", false) => {
            r#"{"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 16}, "do_image_splitting": true,
            "resample": 1, "rescale_factor": 0.0039, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}"#
        }
        ("preprocessor_config.json", true) => {
            r#"{"min_pixels": 1, "max_pixels": 1000, "resample": 3, "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5], "patch_size": 2, "temporal_patch_size": 2, "merge_size": 2}"#
        }
        ("processor_config.json", _) => r#"{"image_seq_len": 4}"#,
        ("generation_config.json", _) => r#"{"eos_token_id": [0, 1]}"#,
        ("chat_template.json", _) => r#"{"chat_template": null}"#,
        _ => r#"{"chat_template": "{% for m in messages %}{{ m.content[0].text }}{% endfor %}"}"#,
    };
    std::fs::write(to.join(name), usual).expect("written");
}

/// Words, and the tokens that both families want.
fn tokenizer() -> String {
    let tiles = (1..=6).flat_map(|row| (1..=6).map(move |column| (row, column)));
    let tiles = tiles.map(|(row, column)| format!("<row_{row}_col_{column}>"));
    let others = [
        "<image>",
        "<fake_token_around_image>",
        "<global-img>",
        "<|image_pad|>",
        "<|vision_start|>",
        "<|vision_end|>",
    ];
    let special = others.map(str::to_owned).into_iter().chain(tiles);
    let added: Vec<_> = special.enumerate().map(|(at, content)| json!({
        "id": at + 4, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true,
    })).collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "pre_tokenizer": {"type": "Whitespace"}, "decoder": null, "added_tokens": added,
        "model": {"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "Yes": 1, "No": 2, ".": 3}},
    })
    .to_string()
}

/// As far as a model can be loaded from its small files, frames and words become tokens or are refused.
pub fn model_files(data: &[u8]) {
    let Some((kind, content)) = data.split_first() else {
        return;
    };
    let Some(name) = FILES.get(usize::from(kind & 7)) else {
        return graph_of_pictures(content);
    };
    let qwen = kind & 8 != 0;
    let at = directory(qwen);
    std::fs::write(at.join(name), content).expect("written");
    // The others are small, and read whatever these hold.
    let talks = !name.contains("processor") && *name != "config.json";
    if let Err(error) = used(at, talks) {
        assert!(!error.to_string().is_empty());
    }
    restore(at, name, qwen);
}

fn used(at: &Path, talks: bool) -> Result<(), InferenceError> {
    let mut directory = Directory::new(at);
    let family = family::load(&mut directory)?;
    let tile = family.pixel_shape().get(4).copied().unwrap_or_default();
    if i64::from(family.frame_edge()).max(tile) > LARGE {
        return Ok(());
    }
    let frame = RgbImage::new(8, 6, vec![7; 8 * 6 * 3])?;
    let mut layouts = Vec::new();
    for view in [View::Video, View::Images, View::Tiles] {
        layouts.push(family.lay_out(std::slice::from_ref(&frame), 5.0, view)?);
    }
    if talks {
        let chat = Chat::new(&mut directory, family.as_ref())?;
        for layout in &layouts {
            chat.ids("What is there? <image>", layout)?;
            chat.prefix(layout)?;
        }
    }
    Ok(())
}

/// What is fused is a model still.
fn graph_of_pictures(content: &[u8]) {
    if let Some(model) = fuse::fused(content.to_vec().into()) {
        let _ = fuse::fused(model.into());
    }
}
