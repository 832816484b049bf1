//! One model directory against the golden answers in it, which `models/parity` made with transformers.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use sightline_inference::RgbImage;
use sightline_inference::vlm::{View, Vlm, Window};

/// How far apart logits may be: transformers' own differ by as much from one machine to another.
const TOLERANCE: f32 = 2e-3;

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

/// An input, and what transformers made of it.
#[derive(Deserialize)]
pub struct Case {
    pub view: String,
    pub sizes: Vec<(usize, usize)>,
    pub seconds: f64,
    pub prompt: String,
    input_ids: Vec<u32>,
    pixels: String,
    /// The first 64 of the answer's first token.
    logits: Vec<f32>,
    argmax: usize,
    pub output_ids: Vec<u32>,
}

/// The cases of golden.json in `directory`.
pub fn cases(directory: &Path) -> Vec<Case> {
    let golden = fs::read(directory.join("golden.json")).expect("golden.json");
    serde_json::from_slice::<Golden>(&golden)
        .expect("golden.json of models/parity")
        .cases
}

impl Case {
    /// The frames, as `frame` of models/parity/common.py makes them.
    pub fn frames(&self) -> Vec<RgbImage> {
        let sizes = self.sizes.iter().enumerate();
        sizes
            .map(|(i, &(width, height))| frame(i, width, height))
            .collect()
    }

    /// How the frames are shown.
    pub fn view(&self) -> View {
        match self.view.as_str() {
            "video" => View::Video,
            "images" => View::Images,
            "tiles" => View::Tiles,
            other => panic!("no view {other}"),
        }
    }

    /// The window of this case in `model`.
    pub fn window<'a>(&self, model: &'a Vlm) -> Window<'a> {
        let window = model.window(&self.frames(), self.seconds, self.view());
        window.expect("a window")
    }

    /// What is different from transformers' answer; nothing if all is equal. `exact` models must give its tokens too.
    pub fn differences(&self, model: &Vlm, exact: bool) -> Vec<String> {
        let window = self.window(model);
        let mut different = Vec::new();
        if window.prompt_ids(&self.prompt).expect("tokens") != self.input_ids {
            different.push("token ids".to_owned());
        }
        if digest(&window) != self.pixels {
            different.push("pixels".to_owned());
        }
        let logits = window.first_logits(&self.prompt).expect("logits");
        let scale = self.logits.iter().fold(1.0_f32, |m, l| m.max(l.abs()));
        let apart = |(a, b): (&f32, &f32)| (a - b).abs() / scale;
        let most = logits
            .iter()
            .zip(&self.logits)
            .map(apart)
            .fold(0.0, f32::max);
        if !exact {
            return different;
        }
        if most > TOLERANCE {
            different.push(format!("logits by {most}"));
        }
        if logits.iter().any(|&l| l > logits[self.argmax]) {
            different.push("the likeliest token".to_owned());
        }
        let answer = window.describe_ids(&self.prompt, self.output_ids.len());
        if answer.expect("an answer") != self.output_ids {
            different.push("the answer".to_owned());
        }
        different
    }
}

fn digest(window: &Window<'_>) -> String {
    let mut hash = Sha256::new();
    for picture in window.pictures() {
        for channel in 0..3 {
            let plane = picture.pixels().iter().skip(channel).step_by(3);
            hash.update(plane.copied().collect::<Vec<u8>>());
        }
    }
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

fn frame(index: usize, width: usize, height: usize) -> RgbImage {
    let level = |i: usize| {
        let (x, y, c) = (i / 3 % width, i / 3 / width, i % 3);
        let wave = (x * (3 + c) + y * (5 - c) + index * 40) / 4;
        let block = (x / 24 + y / 17 + index) % 5 * 30;
        ((wave + block + c * 60 + x * y / 97) % 256) as u8
    };
    let pixels = (0..width * height * 3).map(level).collect();
    RgbImage::new(width, height, pixels).expect("a frame")
}
