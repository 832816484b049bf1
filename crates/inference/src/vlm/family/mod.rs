//! What sets families of models apart: how frames become pixels and prompt, and how tokens are numbered.
//!
//! A family is one file beside this one and one line in [`FAMILIES`].

mod qwen2_vl;
mod smolvlm;

use super::files::Directory;
use super::graph::Input;
use crate::{InferenceError, RgbImage};

/// How frames are shown to a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum View {
    /// As moments of one video, in the words that the model has learned for it; as images if it has none.
    #[default]
    Video,
    /// One after another, each as a whole.
    Images,
    /// One after another, each cut into tiles of the vision encoder's size as the model's preprocessor says: a dozen
    /// times the cost, for small print. As [`View::Images`] if the preprocessor does not split.
    Tiles,
}

/// What a family does its own way.
pub(super) trait Family: Send + Sync {
    /// Longest edge in pixels that the model can make use of.
    fn frame_edge(&self) -> u32;

    /// Most tokens that a prompt and its answer may have together.
    fn max_positions(&self) -> usize;

    /// The token that the chat template puts in the place of an image, and whose embeddings images replace.
    fn image_token(&self) -> &str;

    /// The token after which nothing of an image follows.
    fn image_end(&self) -> &str;

    /// Further tokens that the tokenizer must know.
    fn tokens(&self) -> Vec<String>;

    /// Dimensions of the vision encoder's `pixel_values`; -1 where they may vary.
    fn pixel_shape(&self) -> Vec<i64>;

    /// Whether the vision encoder always gets pictures that fill what it takes, so that no mask has to be looked at.
    fn shows_whole_pictures(&self) -> bool {
        false
    }

    /// Scales and cuts frames, and says how they stand in a prompt. `seconds` is the length of their window.
    fn lay_out(
        &self,
        frames: &[RgbImage],
        seconds: f64,
        view: View,
    ) -> Result<Layout, InferenceError>;

    /// What the vision encoder takes for one picture.
    fn encoder_inputs(&self, picture: &Picture) -> Vec<(&'static str, Input)>;

    /// Positions of the tokens that all prompts on a window begin with; `is_image` tells image tokens.
    fn positions(&self, tokens: &[bool], _pictures: &[Picture]) -> Positions {
        Positions::counted(tokens.len())
    }
}

/// Frames as a family shows them.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layout {
    /// What the vision encoder gets, in order.
    pub(super) pictures: Vec<Picture>,
    /// The message before the user's words.
    pub(super) before: Vec<Part>,
    /// What stands for each [`Part::Image`] in the prompt.
    pub(super) images: Vec<String>,
    /// Stands directly before the user's words.
    pub(super) lead: String,
}

/// A piece of a chat message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    Image,
    Text(String),
}

/// An image of the size that the vision encoder takes, before normalisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) pixels: RgbImage,
    /// Tokens that it becomes, in rows and columns.
    pub(super) grid: (usize, usize),
}

impl Picture {
    /// Gives back the memory of an image that is encoded.
    pub(super) fn forget_pixels(&mut self) {
        self.pixels = RgbImage::new(1, 1, vec![0; 3]).expect("one pixel");
    }
}

/// Positions of tokens: one row for each axis on which the decoder counts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Positions {
    pub(super) axes: Vec<Vec<i64>>,
    /// Position of the token that follows, on all axes.
    pub(super) next: i64,
}

impl Positions {
    /// 0, 1, 2 and so on.
    pub(super) fn counted(tokens: usize) -> Self {
        Self {
            axes: vec![(0..tokens as i64).collect()],
            next: tokens as i64,
        }
    }
}

type Loader = fn(&mut Directory, model_type: &str) -> Result<Box<dyn Family>, InferenceError>;

/// `model_type` of config.json, and who reads such a directory.
const FAMILIES: &[(&str, Loader)] = &[
    (smolvlm::IDEFICS3, smolvlm::load),
    (smolvlm::SMOLVLM, smolvlm::load),
    (qwen2_vl::QWEN2_VL, qwen2_vl::load),
    (qwen2_vl::QWEN2_5_VL, qwen2_vl::load),
];

/// The family of the model in `directory`.
pub(super) fn load(directory: &mut Directory) -> Result<Box<dyn Family>, InferenceError> {
    let model_type = directory.model_type()?;
    let Some((_, loader)) = FAMILIES.iter().find(|(name, _)| *name == model_type) else {
        let known: Vec<&str> = FAMILIES.iter().map(|(name, _)| *name).collect();
        let problem = format!(
            "its model_type is {model_type:?}; give a model of the SmolVLM family or another of \
             those known here ({}), exported to ONNX",
            known.join(", ")
        );
        return Err(directory.unsupported("config.json", problem));
    };
    loader(directory, &model_type)
}

/// Pixel values of every grey level, per channel.
pub(super) type Levels = [[f32; 256]; 3];

/// `(level * scale - mean) / std`, in the double precision of transformers.
pub(super) fn levels(scale: f64, mean: [f64; 3], std: [f64; 3]) -> Levels {
    std::array::from_fn(|c| {
        std::array::from_fn(|level| ((level as f64 * scale - mean[c]) / std[c]) as f32)
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};
    use sightline_testkit::dice::Dice;

    use super::*;
    use crate::vlm::chat::Chat;

    const FILES: [&str; 7] = [
        "config.json",
        "preprocessor_config.json",
        "processor_config.json",
        "generation_config.json",
        "chat_template.json",
        "tokenizer_config.json",
        "tokenizer.json",
    ];

    /// The demo model's files, or those files as of another family.
    fn write(dir: &Path, as_qwen: bool) {
        let demo = sightline_testkit::repository().join("models/demo-vlm");
        for name in FILES {
            std::fs::copy(demo.join(name), dir.join(name)).expect("copied");
        }
        if as_qwen {
            let config = json!({"model_type": qwen2_vl::QWEN2_VL, "max_position_embeddings": 4096});
            let sizes = json!({
                "min_pixels": 3136, "max_pixels": 1_000_000, "resample": 3, "rescale_factor": 0.0039,
                "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
                "patch_size": 14, "temporal_patch_size": 2, "merge_size": 2,
            });
            for (name, text) in [(FILES[0], config), (FILES[1], sizes)] {
                std::fs::write(dir.join(name), text.to_string()).expect("written");
            }
        }
    }

    /// As far as a model can be loaded from these files, frames and words become tokens or are refused.
    fn used(dir: &Path) -> Result<(), InferenceError> {
        let mut directory = Directory::new(dir);
        let family = load(&mut directory)?;
        let frame = RgbImage::new(8, 6, vec![7; 8 * 6 * 3])?;
        let views = [View::Video, View::Images, View::Tiles];
        let layouts = views.map(|view| family.lay_out(std::slice::from_ref(&frame), 5.0, view));
        let chat = Chat::new(&mut directory, family.as_ref())?;
        for layout in layouts {
            chat.ids("What is there?", &layout?)?;
        }
        Ok(())
    }

    #[test]
    fn whatever_a_models_files_hold_it_is_loaded_or_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut dice = Dice::new(3);
        for as_qwen in [false, true] {
            write(dir.path(), as_qwen);
            assert_eq!(
                used(dir.path()).is_ok(),
                !as_qwen,
                "its tokens are another's"
            );
            let mut taken = 0;
            for _ in 0..400 {
                // The last is large, and the library's.
                let name = FILES[dice.below(FILES.len() * 4 - 3) / 4];
                let path = dir.path().join(name);
                let whole = std::fs::read(&path).expect("read");
                let value: Value = serde_json::from_slice(&whole).expect("JSON");
                let changed = match dice.below(3) {
                    0 => dice.bytes(&whole),
                    _ => dice.json(&value).to_string().into_bytes(),
                };
                std::fs::write(&path, changed).expect("written");
                taken += usize::from(used(dir.path()).is_ok());
                std::fs::write(&path, whole).expect("written");
            }
            assert!(
                as_qwen || (20..380).contains(&taken),
                "both happen: {taken}"
            );
        }
    }

    #[test]
    fn what_fuzzing_found_is_loaded_or_refused() {
        let corpus = sightline_testkit::repository().join("fuzz/corpus/model_files");
        let dir = tempfile::tempdir().expect("a directory");
        // As `fuzz/src/vlm.rs` tells them and the family from the first byte.
        let names = &FILES[..6];
        let (mut taken, mut refused) = (0, 0);
        for input in std::fs::read_dir(corpus).expect("a corpus") {
            let input = std::fs::read(input.expect("a file").path()).expect("read");
            let Some((kind, content)) = input.split_first() else {
                continue;
            };
            let Some(name) = names.get(usize::from(kind & 7)) else {
                crate::vlm::fuse::fused(content.to_vec().into());
                continue;
            };
            write(dir.path(), kind & 8 != 0);
            std::fs::write(dir.path().join(name), content).expect("written");
            match used(dir.path()) {
                Ok(()) => taken += 1,
                Err(_) => refused += 1,
            }
        }
        assert!(taken > 0 && refused > 0, "{taken} {refused}");
    }
}
